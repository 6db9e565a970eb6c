#include "capture/dirty_map.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "codec/crc32c.h"
#include "record/record.h"

namespace farshore {

// docs/format/dirty-map.md fixes these.
namespace {

constexpr char kBrokenSuffix[] = ".broken";
constexpr uint8_t kMagic[8] = {'F', 'S', 'D', 'I', 'R', 'T', 'Y', 'M'};
constexpr uint32_t kVersion = 1;
constexpr size_t kHeaderPages = 2;
constexpr size_t kCrcAt = 12;
constexpr size_t kPageHeaderBytes = 32;
constexpr size_t kWordsPerPage = (kPageBytes - kPageHeaderBytes) / 8;
constexpr uint64_t kFlagAllDirty = 1;

uint64_t words_for(uint64_t regions) { return (regions + 63) / 64; }

bool get_bit(const std::vector<uint64_t>& bits, uint64_t i) { return bits[i / 64] >> (i % 64) & 1; }
void set_bit(std::vector<uint64_t>& bits, uint64_t i) { bits[i / 64] |= 1ull << (i % 64); }

void everything(std::vector<uint64_t>& bits, uint64_t regions) {
    std::fill(bits.begin(), bits.end(), 0);
    for (uint64_t r = 0; r < regions; ++r) set_bit(bits, r);
}

void seal(Bytes& page) {
    page.resize(kPageBytes);
    store_u32(page.data() + kCrcAt, 0);
    store_u32(page.data() + kCrcAt, crc32c(page));
}
bool sealed(ByteView page) {
    uint8_t copy[kPageBytes];
    std::memcpy(copy, page.data(), kPageBytes);
    store_u32(copy + kCrcAt, 0);
    return load_u32(page.data() + kCrcAt) == crc32c(copy);
}
}  // namespace

std::string DirtyMap::directory_of(const std::string& path) {
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos) return ".";
    return slash == 0 ? "/" : path.substr(0, slash);
}

uint64_t dirty_region_bytes(uint64_t disk_bytes) {
    const uint64_t least = (disk_bytes + kMaxRegionsPerDisk - 1) / kMaxRegionsPerDisk;
    return std::bit_ceil(std::max(kMinRegionBytes, least));
}

void DirtyMap::Mark::reset() {
    if (map_ == nullptr) return;
    std::lock_guard lock(map_->mutex_);
    --map_->in_use_[parity_];
    map_ = nullptr;
}

DirtyMap::DirtyMap(FileSystem& files, std::string path, const ItemId& item,
                   const std::vector<uint64_t>& disk_bytes)
    : files_(files), path_(std::move(path)), item_(item) {
    uint64_t page = 0;
    for (uint64_t bytes : disk_bytes) {
        Disk disk;
        disk.size_bytes = bytes;
        disk.region_bytes = dirty_region_bytes(bytes);
        const uint64_t regions = (bytes + disk.region_bytes - 1) / disk.region_bytes;
        disk.pages = (words_for(regions) + kWordsPerPage - 1) / kWordsPerPage;
        disk.first_page = page;
        page += disk.pages;
        // Whole pages in memory: a page is encoded without looking where the disk ends.
        disk.current.resize(disk.pages * kWordsPerPage);
        disk.old.resize(disk.current.size());
        disk.durable.resize(disk.current.size());
        disk.copied.resize(disk.current.size());
        disk.uncopied.resize(disk.current.size());
        everything(disk.uncopied, disk.regions());
        disks_.push_back(std::move(disk));
    }
}

Bytes DirtyMap::encode_header_locked() const {
    Bytes page;
    ByteWriter out(page);
    out.bytes(kMagic);
    out.u32(kVersion);
    out.u32(0);
    out.u64(header_generation_);
    out.bytes(item_.view());
    out.u64(reserved_until_);
    out.u64(all_dirty_ ? kFlagAllDirty : 0);
    out.u64(disks_.size());
    for (const Disk& disk : disks_) {
        out.u64(disk.size_bytes);
        out.u64(disk.region_bytes);
        out.u64(disk.first_page);
    }
    seal(page);
    return page;
}

Status DirtyMap::decode_header(ByteView page) {
    if (page.size() < kPageBytes) return fail(Code::kTruncated, "dirty map: header cut short");
    if (std::memcmp(page.data(), kMagic, sizeof kMagic) != 0)
        return fail(Code::kMalformed, fmt::format("'{}' is not a dirty map", path_));
    ByteReader in(page, "dirty map");
    FS_TRY(in.bytes(sizeof kMagic));
    // Every version has its checksum there: a torn page is no newer version.
    if (!sealed(page.first(kPageBytes)))
        return fail(Code::kCorrupt, fmt::format("header of dirty map '{}' is damaged", path_),
                    "remove it; everything is copied again");
    FS_ASSIGN(const uint32_t version, in.u32());
    if (version != kVersion)
        return fail(Code::kNewerVersion,
                    fmt::format("dirty map '{}' of version {}", path_, version),
                    "a newer version wrote it; upgrade, or remove it and copy everything");
    FS_TRY(in.u32());
    FS_ASSIGN(const uint64_t generation, in.u64());
    FS_ASSIGN(const ByteView item, in.bytes(16));
    FS_ASSIGN(const uint64_t reserved, in.u64());
    FS_ASSIGN(const uint64_t flags, in.u64());
    FS_ASSIGN(const uint64_t disks, in.u64());
    if (!std::equal(item.begin(), item.end(), item_.raw.begin()))
        return fail(Code::kForeignStore, fmt::format("dirty map '{}' is another item's", path_));
    if (disks != disks_.size())
        return fail(Code::kDiskChanged, fmt::format("dirty map '{}' is of {} disks, there are {}",
                                                    path_, disks, disks_.size()));
    for (size_t i = 0; i < disks; ++i) {
        FS_ASSIGN(const uint64_t size, in.u64());
        FS_ASSIGN(const uint64_t region, in.u64());
        FS_ASSIGN(const uint64_t first_page, in.u64());
        if (size != disks_[i].size_bytes)
            return fail(Code::kDiskChanged,
                        fmt::format("disk {} had {} bytes when it was protected, now {}", i, size,
                                    disks_[i].size_bytes),
                        "give it its old size again, or unprotect the machine and protect it anew");
        if (region != disks_[i].region_bytes || first_page != disks_[i].first_page)
            return fail(Code::kMalformed, fmt::format("dirty map '{}' has another layout", path_));
    }
    if (reserved == 0)
        return fail(Code::kMalformed, fmt::format("dirty map '{}' reserves nothing", path_));
    if (generation >= header_generation_) {
        header_generation_ = generation;
        reserved_until_ = reserved;
        all_dirty_ = (flags & kFlagAllDirty) != 0;
    }
    return {};
}

Result<std::vector<uint64_t>> DirtyMap::stored_disks(FileSystem& files, const std::string& path) {
    FS_ASSIGN(const auto file, files.open(path, OpenMode::kRead));
    Bytes page(kPageBytes);
    std::optional<std::vector<uint64_t>> newest;
    uint64_t newest_generation = 0;
    for (size_t slot = 0; slot < kHeaderPages; ++slot) {
        FS_ASSIGN(const size_t got, file->read_at(slot * kPageBytes, page));
        if (got < kPageBytes || std::memcmp(page.data(), kMagic, sizeof kMagic) != 0 ||
            !sealed(page))
            continue;
        ByteReader in(page, "dirty map");
        FS_TRY(in.bytes(sizeof kMagic));
        FS_ASSIGN(const uint32_t version, in.u32());
        if (version != kVersion)
            return fail(Code::kNewerVersion,
                        fmt::format("dirty map '{}' of version {}", path, version));
        FS_TRY(in.u32());
        FS_ASSIGN(const uint64_t generation, in.u64());
        FS_TRY(in.bytes(16 + 8 + 8));
        FS_ASSIGN(const uint64_t count, in.u64());
        std::vector<uint64_t> sizes;
        for (uint64_t i = 0; i < std::min<uint64_t>(count, kMaxDisks); ++i) {
            FS_ASSIGN(const uint64_t size, in.u64());
            FS_TRY(in.bytes(16));
            sizes.push_back(size);
        }
        if (newest && generation < newest_generation) continue;
        newest = std::move(sizes);
        newest_generation = generation;
    }
    if (!newest) return fail(Code::kCorrupt, fmt::format("'{}' has no header", path));
    return *newest;
}

Bytes DirtyMap::encode_page(const Disk& disk, uint64_t page,
                            const std::vector<uint64_t>& bits) const {
    Bytes out(kPageBytes);
    store_u64(out.data(), disk.first_page + page);
    std::memcpy(out.data() + kPageHeaderBytes, bits.data() + page * kWordsPerPage,
                kWordsPerPage * 8);
    seal(out);
    return out;
}

Status DirtyMap::write_all_new() {
    FS_ASSIGN(file_, files_.open(path_, OpenMode::kCreate));
    // The old header first: a crash in between leaves no map, that is "everything differs".
    FS_TRY(file_->truncate(0));
    for (const Disk& disk : disks_)
        for (uint64_t page = 0; page < disk.pages; ++page)
            FS_TRY(file_->write_at((kHeaderPages + disk.first_page + page) * kPageBytes,
                                   encode_page(disk, page, disk.durable)));
    FS_TRY(file_->sync());
    header_generation_ = 1;
    // Both header pages, so that neither is ever taken for damage.
    for (size_t slot = 0; slot < kHeaderPages; ++slot) {
        FS_TRY(file_->write_at(slot * kPageBytes, encode_header_locked()));
    }
    FS_TRY(file_->sync());
    return files_.sync_directory(directory_of(path_));
}

Status DirtyMap::load() {
    FS_ASSIGN(file_, files_.open(path_, OpenMode::kReadWrite));
    Bytes page(kPageBytes);
    bool found = false;
    Error error(Code::kTruncated, fmt::format("dirty map '{}' is empty", path_));
    for (size_t slot = 0; slot < kHeaderPages; ++slot) {
        FS_ASSIGN(const size_t got, file_->read_at(slot * kPageBytes, page));
        if (auto decoded = decode_header(ByteView(page).first(got)); decoded)
            found = true;
        else if (slot == 0 || error.code() == Code::kTruncated || error.code() == Code::kMalformed)
            error = decoded.error();
    }
    if (!found) return fail(error);
    for (Disk& disk : disks_) {
        for (uint64_t i = 0; i < disk.pages; ++i) {
            FS_ASSIGN(const size_t got,
                      file_->read_at((kHeaderPages + disk.first_page + i) * kPageBytes, page));
            auto bits = disk.durable.begin() + static_cast<ptrdiff_t>(i * kWordsPerPage);
            if (got < kPageBytes || !sealed(page) || load_u64(page.data()) != disk.first_page + i) {
                std::fill_n(bits, kWordsPerPage, ~0ull);
                continue;
            }
            for (size_t w = 0; w < kWordsPerPage; ++w)
                bits[static_cast<ptrdiff_t>(w)] = load_u64(page.data() + kPageHeaderBytes + w * 8);
        }
        // Writes of an earlier tap all have their numbers, or get them before this one serves.
        if (all_dirty_)
            everything(disk.uncopied, disk.regions());
        else
            disk.uncopied = disk.durable;
    }
    return {};
}

Result<std::unique_ptr<DirtyMap>> DirtyMap::create(FileSystem& files, const std::string& path,
                                                   const ItemId& item,
                                                   const std::vector<uint64_t>& disk_bytes) {
    auto map = std::unique_ptr<DirtyMap>(new DirtyMap(files, path, item, disk_bytes));
    FS_TRY(map->write_all_new());
    return map;
}

Result<std::unique_ptr<DirtyMap>> DirtyMap::open(FileSystem& files, const std::string& path,
                                                 const ItemId& item,
                                                 const std::vector<uint64_t>& disk_bytes) {
    auto map = std::unique_ptr<DirtyMap>(new DirtyMap(files, path, item, disk_bytes));
    FS_TRY(map->load());
    map->settle();
    return map;
}

// A tap that was killed between write and sync, or after a failed sync, leaves marks that can be
// read and are not on the disk; whoever trusted them would not wait for its own. A sync of pages
// that count as clean does nothing, so they are written anew.
void DirtyMap::settle() {
    const std::lock_guard lock(mutex_);
    Status written;
    for (const Disk& disk : disks_)
        for (uint64_t page = 0; page < disk.pages; ++page) {
            const auto bits = disk.durable.begin() + static_cast<ptrdiff_t>(page * kWordsPerPage);
            const bool any = std::any_of(bits, bits + static_cast<ptrdiff_t>(kWordsPerPage),
                                         [](uint64_t word) { return word != 0; });
            if (any && written)
                written = file_->write_at((kHeaderPages + disk.first_page + page) * kPageBytes,
                                          encode_page(disk, page, disk.durable));
        }
    // In its own place: the other one may be the only header that is on the disk.
    if (written)
        written =
            file_->write_at(header_generation_ % kHeaderPages * kPageBytes, encode_header_locked());
    if (written) written = file_->sync();
    if (written) written = files_.sync_directory(directory_of(path_));
    if (!written) break_locked();
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
    const auto pages = std::exchange(pending_pages_, {});
    std::vector<std::pair<uint64_t, Bytes>> writes;
    std::vector<std::vector<uint64_t>> written;
    for (const auto& [index, page] : pages) {
        const Disk& disk = disks_[index];
        std::vector<uint64_t> bits(kWordsPerPage);
        for (size_t w = 0; w < kWordsPerPage; ++w) bits[w] = disk.word(page * kWordsPerPage + w);
        Bytes encoded(kPageBytes);
        store_u64(encoded.data(), disk.first_page + page);
        std::memcpy(encoded.data() + kPageHeaderBytes, bits.data(), kWordsPerPage * 8);
        seal(encoded);
        writes.emplace_back((kHeaderPages + disk.first_page + page) * kPageBytes,
                            std::move(encoded));
        written.push_back(std::move(bits));
    }
    lock.unlock();
    Status status;
    for (const auto& [at, bytes] : writes)
        if (status) status = file_->write_at(at, bytes);
    if (status) status = file_->sync();
    lock.lock();
    io_busy_ = false;
    if (!status) {
        break_locked();
        return;
    }
    size_t i = 0;
    for (const auto& [index, page] : pages) {
        for (size_t w = 0; w < kWordsPerPage; ++w)
            disks_[index].durable[page * kWordsPerPage + w] |= written[i][w];
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
        pending_pages_.insert({index, r / 64 / kWordsPerPage});
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
    std::vector<std::pair<uint64_t, Bytes>> writes;
    for (Disk& disk : disks_) {
        for (uint64_t page = 0; page < disk.pages; ++page) {
            bool changes = false;
            for (size_t w = page * kWordsPerPage; w < (page + 1) * kWordsPerPage; ++w) {
                // What is marked only in `current` and not yet committed stays for its own commit:
                // its writer waits for `durable`.
                const uint64_t kept = disk.durable[w] & disk.word(w);
                changes |= kept != disk.durable[w];
                disk.durable[w] = kept;
            }
            if (changes)
                writes.emplace_back((kHeaderPages + disk.first_page + page) * kPageBytes,
                                    encode_page(disk, page, disk.durable));
        }
    }
    if (writes.empty() || broken_) return;
    io_busy_ = true;
    lock.unlock();
    // Without a sync: until the next one the file may say too much, never too little.
    Status status;
    for (const auto& [at, bytes] : writes)
        if (status) status = file_->write_at(at, bytes);
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
            if (all_dirty_ && !broken_) {
                all_dirty_ = false;
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
    if (!all_dirty_) {
        forget(lock);
        return;
    }
    // From the flag to regions: all of them durable before the flag goes.
    while (io_busy_) changed_.wait(lock);
    if (broken_) return;
    std::vector<std::pair<uint64_t, Bytes>> writes;
    std::vector<std::vector<uint64_t>> written;
    for (const Disk& disk : disks_) {
        std::vector<uint64_t> bits(disk.current.size());
        for (size_t w = 0; w < bits.size(); ++w) bits[w] = disk.word(w);
        for (uint64_t page = 0; page < disk.pages; ++page)
            writes.emplace_back((kHeaderPages + disk.first_page + page) * kPageBytes,
                                encode_page(disk, page, bits));
        written.push_back(std::move(bits));
    }
    io_busy_ = true;
    lock.unlock();
    Status status;
    for (const auto& [at, bytes] : writes)
        if (status) status = file_->write_at(at, bytes);
    if (status) status = file_->sync();
    lock.lock();
    io_busy_ = false;
    if (!status) {
        break_locked();
        return;
    }
    for (size_t i = 0; i < disks_.size(); ++i) disks_[i].durable = std::move(written[i]);
    changed_.notify_all();
    all_dirty_ = false;
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
    ++header_generation_;
    const Bytes page = encode_header_locked();
    const uint64_t slot = header_generation_ % kHeaderPages;
    io_busy_ = true;
    lock.unlock();
    Status status = file_->write_at(slot * kPageBytes, page);
    if (status) status = file_->sync();
    lock.lock();
    io_busy_ = false;
    if (!status) break_locked();
    changed_.notify_all();
    return status;
}

bool DirtyMap::all_dirty() const {
    std::lock_guard lock(mutex_);
    return all_dirty_;
}

Status DirtyMap::set_all_dirty() {
    std::unique_lock lock(mutex_);
    // A rotation under way would clear the flag for a number from before.
    if (rotation_ == Rotation::kAwaitStored) rotation_ = Rotation::kDraining;
    copy_round_ = CopyRound::kIdle;
    all_dirty_ = true;
    for (Disk& disk : disks_) everything(disk.uncopied, disk.regions());
    return write_header(lock);
}

uint64_t DirtyMap::reserved_until() const {
    std::lock_guard lock(mutex_);
    return reserved_until_;
}

Status DirtyMap::reserve(uint64_t until) {
    std::unique_lock lock(mutex_);
    if (until <= reserved_until_) return {};
    const uint64_t before = std::exchange(reserved_until_, until);
    auto written = write_header(lock);
    if (!written) reserved_until_ = before;
    return written;
}

void DirtyMap::for_each_dirty(const std::function<void(DiskIndex, ByteRange)>& visit) const {
    std::lock_guard lock(mutex_);
    for (size_t index = 0; index < disks_.size(); ++index) {
        const Disk& disk = disks_[index];
        if (all_dirty_) {
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

}  // namespace farshore
