#include "capture/dirty_map.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>

namespace farshore {

namespace {

constexpr char kBrokenSuffix[] = ".broken";

bool get_bit(const std::vector<uint64_t>& bits, uint64_t i) { return bits[i / 64] >> (i % 64) & 1; }
void set_bit(std::vector<uint64_t>& bits, uint64_t i) { bits[i / 64] |= 1ull << (i % 64); }

void everything(std::vector<uint64_t>& bits, uint64_t regions) {
    std::fill(bits.begin(), bits.end(), 0);
    for (uint64_t r = 0; r < regions; ++r) set_bit(bits, r);
}

std::string directory_of(const std::string& path) {
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos) return ".";
    return slash == 0 ? "/" : path.substr(0, slash);
}
}  // namespace

void DirtyMap::Mark::reset() {
    if (map_ == nullptr) return;
    std::lock_guard lock(map_->mutex_);
    --map_->in_use_[parity_];
    map_ = nullptr;
}

DirtyMap::DirtyMap(FileSystem& files, const std::string& path, const ItemId& item,
                   const std::vector<uint64_t>& disk_bytes)
    : files_(files), path_(path), file_(files, path, item, disk_bytes) {
    for (const DirtyMapFile::Disk& layout : file_.disks()) {
        Disk disk;
        disk.size_bytes = layout.size_bytes;
        disk.region_bytes = layout.region_bytes;
        disk.units = layout.units;
        // Whole units in memory: one is encoded without looking where the disk ends.
        disk.current.resize(disk.units * kDirtyWordsPerUnit);
        disk.old.resize(disk.current.size());
        disk.durable.resize(disk.current.size());
        disk.copied.resize(disk.current.size());
        disk.uncopied.resize(disk.current.size());
        everything(disk.uncopied, disk.regions());
        disks_.push_back(std::move(disk));
    }
}

Result<std::unique_ptr<DirtyMap>> DirtyMap::create(FileSystem& files, const std::string& path,
                                                   const ItemId& item,
                                                   const std::vector<uint64_t>& disk_bytes) {
    auto map = std::unique_ptr<DirtyMap>(new DirtyMap(files, path, item, disk_bytes));
    map->header_.generation = 1;
    FS_TRY(map->file_.create(map->header_));
    return map;
}

Result<std::unique_ptr<DirtyMap>> DirtyMap::open(FileSystem& files, const std::string& path,
                                                 const ItemId& item,
                                                 const std::vector<uint64_t>& disk_bytes) {
    auto map = std::unique_ptr<DirtyMap>(new DirtyMap(files, path, item, disk_bytes));
    Status settled;
    FS_ASSIGN(DirtyMapFile::Content content, map->file_.open(settled));
    map->header_ = content.header;
    map->damage_ = content.damage;
    for (size_t i = 0; i < map->disks_.size(); ++i) {
        Disk& disk = map->disks_[i];
        disk.durable = std::move(content.bits[i]);
        // Writes of an earlier tap all have their numbers, or get them before this one serves.
        if (!content.header.all_dirty) disk.uncopied = disk.durable;
    }
    const std::lock_guard lock(map->mutex_);
    if (!settled) map->break_locked();
    return map;
}

Result<std::unique_ptr<DirtyMap>> DirtyMap::open_or_create(
    FileSystem& files, const std::string& path, const ItemId& item,
    const std::vector<uint64_t>& disk_bytes) {
    auto map = open(files, path, item, disk_bytes);
    if (!map) {
        const Code code = map.error().code();
        if (code == Code::kCorrupt || code == Code::kMalformed || code == Code::kTruncated) {
            // Before the damaged map is replaced: the new one knows of no number.
            FS_TRY(files.open(path + kBrokenSuffix, OpenMode::kCreate));
            FS_TRY(files.sync_directory(directory_of(path)));
        } else if (code != Code::kNotFound) {
            return map;
        }
        map = create(files, path, item, disk_bytes);
        if (!map) return map;
    }
    if ((*map)->reserved_until() <= 1) {
        FS_ASSIGN((*map)->numbers_lost_, files.exists(path + kBrokenSuffix));
    }
    return map;
}

void DirtyMap::break_locked() {
    broken_ = true;
    // Best effort: without the file, a host crash makes everything count as different. When not
    // even this works, the tap's counter tells the agent. The other file says that there was one,
    // whose numbers must not be used again.
    (void)files_.open(path_ + kBrokenSuffix, OpenMode::kCreate);
    // A crash must not find both gone.
    (void)files_.sync_directory(directory_of(path_));
    (void)files_.remove(path_);
    (void)files_.sync_directory(directory_of(path_));
    changed_.notify_all();
}

void DirtyMap::lead_commit(std::unique_lock<std::mutex>& lock) {
    io_busy_ = true;
    const uint64_t ticket = requested_;
    const auto pending = std::exchange(pending_units_, {});
    std::vector<DirtyMapFile::Unit> units;
    std::vector<std::vector<uint64_t>> written;
    for (const auto& [index, unit] : pending) {
        const Disk& disk = disks_[index];
        std::vector<uint64_t> bits(kDirtyWordsPerUnit);
        for (size_t w = 0; w < bits.size(); ++w) bits[w] = disk.word(unit * kDirtyWordsPerUnit + w);
        units.push_back(file_.unit(index, unit, bits));
        written.push_back(std::move(bits));
    }
    lock.unlock();
    const Status status = file_.put_synced(units);
    lock.lock();
    io_busy_ = false;
    if (!status) {
        break_locked();
        return;
    }
    size_t i = 0;
    for (const auto& [index, unit] : pending) {
        for (size_t w = 0; w < kDirtyWordsPerUnit; ++w)
            disks_[index].durable[unit * kDirtyWordsPerUnit + w] |= written[i][w];
        ++i;
    }
    committed_ = ticket;
    changed_.notify_all();
}

DirtyMap::Mark DirtyMap::mark(DiskIndex index, uint64_t offset_bytes, uint64_t length_bytes) {
    std::unique_lock lock(mutex_);
    Disk& disk = disks_[index];
    ++in_use_[parity_];
    Mark mark(this, parity_);
    if (length_bytes == 0) return mark;
    const uint64_t regions = disk.regions();
    const uint64_t first = offset_bytes / disk.region_bytes;
    uint64_t last = std::min(regions - 1, (offset_bytes + length_bytes - 1) / disk.region_bytes);
    bool wait = false;
    for (uint64_t r = first; r <= last; ++r) {
        if (get_bit(disk.durable, r)) {
            set_bit(disk.current, r);
            continue;
        }
        // A writer that comes from the region before will be in the next ones soon: one wait for
        // eight of them.
        if (!wait && r > 0 && get_bit(disk.current, r - 1))
            last = std::max(last, std::min(regions - 1, r + 7));
        wait = true;
        set_bit(disk.current, r);
        pending_units_.insert({index, r / 64 / kDirtyWordsPerUnit});
    }
    if (!wait) return mark;
    const uint64_t ticket = ++requested_;
    while (committed_ < ticket && !broken_) {
        if (!io_busy_)
            lead_commit(lock);
        else
            changed_.wait(lock);
    }
    // `mark` releases its place with the mutex: not while we hold it.
    lock.unlock();
    return mark;
}

// Takes from the file what is in no set any more.
void DirtyMap::forget(std::unique_lock<std::mutex>& lock) {
    while (io_busy_) changed_.wait(lock);
    std::vector<DirtyMapFile::Unit> units;
    for (size_t index = 0; index < disks_.size(); ++index) {
        Disk& disk = disks_[index];
        for (uint64_t unit = 0; unit < disk.units; ++unit) {
            bool changes = false;
            for (size_t w = unit * kDirtyWordsPerUnit; w < (unit + 1) * kDirtyWordsPerUnit; ++w) {
                // What is marked only in `current` and not yet committed stays for its own commit:
                // its writer waits for `durable`.
                const uint64_t kept = disk.durable[w] & disk.word(w);
                changes |= kept != disk.durable[w];
                disk.durable[w] = kept;
            }
            if (changes)
                units.push_back(
                    file_.unit(index, unit, DirtyMapFile::words_of(disk.durable, unit)));
        }
    }
    if (units.empty() || broken_) return;
    io_busy_ = true;
    lock.unlock();
    // Without a sync: until the next one the file may say too much, never too little.
    const Status status = file_.put(units);
    lock.lock();
    io_busy_ = false;
    if (!status) break_locked();
    changed_.notify_all();
}

void DirtyMap::rotate(bool begin, bool settled, Sequence last, Sequence stored,
                      const std::function<Result<bool>()>& durable) {
    std::unique_lock lock(mutex_);
    if (broken_ || disks_unsafe_) return;
    switch (rotation_) {
        case Rotation::kIdle:
            if (!begin) return;
            for (Disk& disk : disks_) {
                disk.old = disk.current;
                std::fill(disk.current.begin(), disk.current.end(), 0);
            }
            parity_ ^= 1;
            rotation_ = Rotation::kDraining;
            [[fallthrough]];
        case Rotation::kDraining:
            // Writes that marked before the rotation may get their numbers after it: only when they
            // are done is there a number that covers them all, and the caller's was read before.
            if (in_use_[parity_ ^ 1] == 0) rotation_ = Rotation::kDrained;
            return;
        case Rotation::kDrained:
            // What a gap dropped has a number and is not in the log: only without a gap does the
            // number say anything.
            if (!settled) return;
            // The record is stored, the region clean, the host crashes and its disk never had the
            // write: then the source would differ from the replica and nobody know where.
            if (durable) {
                lock.unlock();
                const Result<bool> flushed = durable();
                lock.lock();
                // A second flush would succeed and mean nothing.
                if (!flushed) disks_unsafe_ = true;
                if (!flushed || !*flushed) return;
                if (broken_ || rotation_ != Rotation::kDrained) return;
            }
            rotation_sequence_ = last;
            rotation_ = Rotation::kAwaitStored;
            return;
        case Rotation::kAwaitStored:
            if (stored < rotation_sequence_) return;
            for (Disk& disk : disks_) {
                std::fill(disk.old.begin(), disk.old.end(), 0);
                std::fill(disk.uncopied.begin(), disk.uncopied.end(), 0);
            }
            rotation_ = Rotation::kIdle;
            copy_round_ = CopyRound::kIdle;
            forget(lock);
            if (header_.all_dirty && !broken_) {
                header_.all_dirty = false;
                (void)write_header(lock);
            }
            return;
    }
}

// Without the mutex: `copied` may take a while, and nobody else changes `uncopied`.
bool DirtyMap::find_copied(const std::function<bool(DiskIndex, ByteRange)>& copied) {
    bool any = false;
    for (size_t index = 0; index < disks_.size(); ++index) {
        Disk& disk = disks_[index];
        const auto is_copied = [&](uint64_t first, uint64_t end) {
            const uint64_t from = first * disk.region_bytes;
            const uint64_t to = std::min(end * disk.region_bytes, disk.size_bytes);
            return copied(static_cast<DiskIndex>(index), {from, to - from});
        };
        for (size_t w = 0; w < disk.uncopied.size(); ++w) {
            disk.copied[w] = 0;
            const uint64_t bits = disk.uncopied[w];
            if (bits == 0) continue;
            if (is_copied(w * 64, std::min<uint64_t>(w * 64 + 64, disk.regions()))) {
                disk.copied[w] = bits;
            } else {
                for (uint64_t r = w * 64; r < std::min<uint64_t>(w * 64 + 64, disk.regions()); ++r)
                    if (get_bit(disk.uncopied, r) && is_copied(r, r + 1)) set_bit(disk.copied, r);
            }
            any |= disk.copied[w] != 0;
        }
    }
    return any;
}

void DirtyMap::settle_copies(bool begin, const std::function<bool(DiskIndex, ByteRange)>& copied,
                             const std::function<Sequence()>& last, Sequence stored,
                             const std::function<Result<bool>()>& durable) {
    {
        std::lock_guard lock(mutex_);
        if (broken_ || disks_unsafe_) return;
    }
    if (copy_round_ == CopyRound::kIdle) {
        if (!begin || !find_copied(copied)) return;
        copy_sequence_ = last();
        copy_round_ = CopyRound::kAwaitDurable;
    }
    if (copy_round_ == CopyRound::kAwaitDurable) {
        // What was copied may have been read from a cache that the crash takes.
        const Result<bool> flushed = durable ? durable() : Result<bool>(true);
        if (!flushed) {
            std::lock_guard lock(mutex_);
            disks_unsafe_ = true;
        }
        if (!flushed || !*flushed) return;
        copy_round_ = CopyRound::kAwaitStored;
    }
    if (stored < copy_sequence_) return;
    copy_round_ = CopyRound::kIdle;
    std::unique_lock lock(mutex_);
    drop_copied(lock);
}

void DirtyMap::drop_copied(std::unique_lock<std::mutex>& lock) {
    for (Disk& disk : disks_)
        for (size_t w = 0; w < disk.uncopied.size(); ++w) disk.uncopied[w] &= ~disk.copied[w];
    if (!header_.all_dirty) {
        forget(lock);
        return;
    }
    // From the flag to regions: all of them durable before the flag goes.
    while (io_busy_) changed_.wait(lock);
    if (broken_) return;
    std::vector<DirtyMapFile::Unit> units;
    std::vector<std::vector<uint64_t>> written;
    for (size_t index = 0; index < disks_.size(); ++index) {
        const Disk& disk = disks_[index];
        std::vector<uint64_t> bits(disk.current.size());
        for (size_t w = 0; w < bits.size(); ++w) bits[w] = disk.word(w);
        for (uint64_t unit = 0; unit < disk.units; ++unit)
            units.push_back(file_.unit(index, unit, DirtyMapFile::words_of(bits, unit)));
        written.push_back(std::move(bits));
    }
    io_busy_ = true;
    lock.unlock();
    const Status status = file_.put_synced(units);
    lock.lock();
    io_busy_ = false;
    if (!status) {
        break_locked();
        return;
    }
    for (size_t i = 0; i < disks_.size(); ++i) disks_[i].durable = std::move(written[i]);
    changed_.notify_all();
    header_.all_dirty = false;
    (void)write_header(lock);
}

void DirtyMap::log_was_dropped() {
    std::lock_guard lock(mutex_);
    if (rotation_ == Rotation::kAwaitStored) rotation_ = Rotation::kDrained;
    copy_round_ = CopyRound::kIdle;
}

Status DirtyMap::write_header(std::unique_lock<std::mutex>& lock) {
    while (io_busy_) changed_.wait(lock);
    if (broken_) return fail(Code::kIo, fmt::format("dirty map '{}' could not be written", path_));
    ++header_.generation;
    const DirtyMapFile::Header header = header_;
    io_busy_ = true;
    lock.unlock();
    const Status status = file_.write_header(header);
    lock.lock();
    io_busy_ = false;
    if (!status) break_locked();
    changed_.notify_all();
    return status;
}

bool DirtyMap::all_dirty() const {
    std::lock_guard lock(mutex_);
    return header_.all_dirty;
}

Status DirtyMap::set_all_dirty() {
    std::unique_lock lock(mutex_);
    // A rotation under way would clear the flag for a number from before.
    if (rotation_ == Rotation::kAwaitStored) rotation_ = Rotation::kDraining;
    copy_round_ = CopyRound::kIdle;
    header_.all_dirty = true;
    for (Disk& disk : disks_) everything(disk.uncopied, disk.regions());
    return write_header(lock);
}

uint64_t DirtyMap::reserved_until() const {
    std::lock_guard lock(mutex_);
    return header_.reserved_until;
}

Status DirtyMap::reserve(uint64_t until) {
    std::unique_lock lock(mutex_);
    if (until <= header_.reserved_until) return {};
    const uint64_t before = std::exchange(header_.reserved_until, until);
    auto written = write_header(lock);
    if (!written) header_.reserved_until = before;
    return written;
}

void DirtyMap::for_each_dirty(const std::function<void(DiskIndex, ByteRange)>& visit) const {
    std::lock_guard lock(mutex_);
    for (size_t index = 0; index < disks_.size(); ++index) {
        const Disk& disk = disks_[index];
        if (header_.all_dirty) {
            visit(static_cast<DiskIndex>(index), {0, disk.size_bytes});
            continue;
        }
        for (uint64_t r = 0; r < disk.regions(); ++r) {
            if ((disk.word(r / 64) >> (r % 64) & 1) == 0) continue;
            const uint64_t from = r * disk.region_bytes;
            visit(static_cast<DiskIndex>(index),
                  {from, std::min(disk.region_bytes, disk.size_bytes - from)});
        }
    }
}

uint64_t DirtyMap::dirty_regions() const {
    std::lock_guard lock(mutex_);
    uint64_t sum = 0;
    for (const Disk& disk : disks_)
        for (size_t w = 0; w < disk.current.size(); ++w)
            sum += static_cast<uint64_t>(std::popcount(disk.word(w)));
    return sum;
}

bool DirtyMap::broken() const {
    std::lock_guard lock(mutex_);
    return broken_;
}

uint64_t DirtyMap::syncs() const {
    std::unique_lock lock(mutex_);
    while (io_busy_) changed_.wait(lock);
    return file_.syncs();
}

}  // namespace farshore
