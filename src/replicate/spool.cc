#include "replicate/spool.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "codec/crc32c.h"
#include "record/record.h"
#include "replicate/limits.h"

namespace farshore {
namespace {

// docs/format/spool.md §2.
constexpr std::array<uint8_t, 8> kMagic{'F', 'S', 'P', 'O', 'O', 'L', '0', '1'};
constexpr size_t kHeaderBytes = 64;
constexpr uint16_t kVersion = 1;
constexpr std::string_view kSuffix = ".spool";

Bytes file_header(const ItemId& item, uint64_t name) {
    Bytes out;
    ByteWriter writer(out);
    writer.bytes(kMagic);
    writer.u16(kVersion);
    writer.u16(0);
    writer.bytes(item.raw);
    writer.u64(name);
    out.resize(kHeaderBytes - 4);
    writer.u32(crc32c(out));
    return out;
}

Status check_header(ByteView header, const ItemId& item, uint64_t name, const std::string& path) {
    if (header.size() < kHeaderBytes)
        return fail(Code::kTruncated,
                    fmt::format("{}: header ends after {} bytes", path, header.size()));
    if (!std::equal(kMagic.begin(), kMagic.end(), header.begin()))
        return fail(Code::kCorrupt, fmt::format("{} is not a spool file", path));
    if (load_u32(header.data() + kHeaderBytes - 4) != crc32c(header.first(kHeaderBytes - 4)))
        return fail(Code::kCorrupt, fmt::format("{}: header does not match its checksum", path));
    if (load_u16(header.data() + 8) != kVersion)
        return fail(Code::kNewerVersion,
                    fmt::format("{} has version {}", path, load_u16(header.data() + 8)),
                    "a newer version wrote it; start that one");
    if (!std::equal(item.raw.begin(), item.raw.end(), header.begin() + 12) ||
        load_u64(header.data() + 28) != name)
        return fail(Code::kCorrupt, fmt::format("{} belongs to another item or place", path),
                    "spool directories must not be copied over one another");
    return {};
}

void extend(SpoolRange& range, const RecordHeader& header) {
    if (range.records == 0) {
        range.first = header.sequence;
        range.begins_with_gap = header.kind == RecordKind::kGap;
    }
    if (header.kind == RecordKind::kPoint) range.has_point = true;
    range.last = header.sequence;
    range.last_time = std::max(range.last_time, header.time);
    range.records += 1;
    range.length_bytes += static_cast<uint32_t>(header.encoded_bytes());
    range.payload_bytes += header.payload_bytes();
    if (header.kind != RecordKind::kTime && header.kind != RecordKind::kFlush)
        range.only_idle = false;
}

}  // namespace

Spool::~Spool() = default;

std::string Spool::path(uint64_t name) const {
    return fmt::format("{}/{:016x}{}", directory_, name, kSuffix);
}

Result<std::unique_ptr<Spool>> Spool::open(FileSystem& fs, std::string directory, ItemId item,
                                           uint64_t file_bytes, bool repair, Buggify* buggify) {
    FS_TRY(fs.make_directories(directory));
    std::unique_ptr<Spool> spool(new Spool(fs, std::move(directory), item, file_bytes, buggify));
    FS_TRY(spool->scan(repair));
    return spool;
}

Status Spool::scan(bool repair) {
    FS_ASSIGN(std::vector<std::string> names, fs_.list(directory_));
    for (const std::string& name : names) {
        if (name.size() != 16 + kSuffix.size() || !name.ends_with(kSuffix)) continue;
        SpoolFile file;
        const auto parsed = std::from_chars(name.data(), name.data() + 16, file.name, 16);
        if (parsed.ptr != name.data() + 16) continue;
        files_.push_back(std::move(file));
    }
    Sequence previous;
    for (size_t i = 0; i < files_.size(); ++i) {
        FS_ASSIGN(std::unique_ptr<File> opened,
                  fs_.open(path(files_[i].name), OpenMode::kReadWrite));
        files_[i].file = std::move(opened);
        const uint64_t next_name = i + 1 < files_.size() ? files_[i + 1].name : 0;
        bool begins_anew = false;
        Status scanned = scan_file(files_[i], next_name, previous, begins_anew);
        if (begins_anew) {
            for (size_t j = 0; j < i; ++j) FS_TRY(fs_.remove(path(files_[j].name)));
            files_.erase(files_.begin(), files_.begin() + static_cast<ptrdiff_t>(i));
            i = 0;
        }
        if (scanned) continue;
        if (!repair || scanned.error().code() == Code::kNewerVersion) return scanned;
        // Everything from the damage on is dropped: it would otherwise be a hole in the order.
        repaired_ = scanned.error().what();
        size_t keep = files_[i].size_bytes > kHeaderBytes ? i + 1 : i;
        // The newest first, each for good: a crash in between must not leave a hole, which would
        // look as if what is before it were stored.
        while (files_.size() > keep) {
            FS_TRY(fs_.remove(path(files_.back().name)));
            FS_TRY(fs_.sync_directory(directory_));
            files_.pop_back();
        }
        break;
    }
    if (!files_.empty()) {
        SpoolFile& tail = files_.back();
        if (tail.last.v == 0) {
            // Made, but nothing in it was ever acknowledged.
            FS_TRY(fs_.remove(path(tail.name)));
            files_.pop_back();
        } else {
            FS_TRY(settle_tail(tail));
        }
    }
    // What is found is acknowledged again from here on, so all of it must be durable now, whatever
    // the process that wrote it had got to.
    for (SpoolFile& file : files_) FS_TRY(file.file->sync());
    return fs_.sync_directory(directory_);
}

// Writes the tail file anew. If a sync of it ever failed, what is read back may be in memory only,
// and a sync of the same pages would not write them again: only written ones can be trusted.
Status Spool::settle_tail(SpoolFile& tail) {
    const std::string fresh = path(tail.name) + ".new";
    const auto copied = [&]() -> Status {
        FS_ASSIGN(std::unique_ptr<File> copy, fs_.open(fresh, OpenMode::kCreate));
        FS_TRY(copy->truncate(0));
        FS_TRY(write_tail(tail, *copy));
        FS_TRY(fs_.rename(fresh, path(tail.name)));
        tail.file = std::move(copy);
        return {};
    }();
    if (copied || copied.error().code() != Code::kNoSpace) return copied;
    // A full disk must not keep us from what frees it: over itself. A cut meanwhile leaves of each
    // sector what the disk had or the same bytes.
    (void)fs_.remove(fresh);
    FS_TRY(tail.file->truncate(tail.size_bytes));
    return write_tail(tail, *tail.file);
}

Status Spool::write_tail(SpoolFile& tail, File& to) {
    Bytes buffer;
    for (uint64_t at = 0; at < tail.size_bytes; at += buffer.size()) {
        buffer.resize(std::min<uint64_t>(tail.size_bytes - at, 4u << 20));
        FS_ASSIGN(size_t got, tail.file->read_at(at, buffer));
        if (got != buffer.size())
            return fail(Code::kTruncated, fmt::format("{} became shorter", path(tail.name)));
        FS_TRY(to.write_at(at, buffer));
    }
    return to.sync();
}

// `next_name` is where the next file begins, 0 for the last file. A file whose tail could not be
// cut after a failed write may reach beyond that: the next file's records are the ones that count.
// `begins_anew`: a file is missing before this one. Files go from the oldest on, when they are
// stored; power loss may bring back an older one of those and not a newer. So what is before is
// stored.
Status Spool::scan_file(SpoolFile& file, uint64_t next_name, Sequence& previous,
                        bool& begins_anew) {
    const bool last_file = next_name == 0;
    const std::string where = path(file.name);
    FS_ASSIGN(uint64_t size, file.file->size());
    Bytes buffer(kHeaderBytes);
    FS_ASSIGN(size_t header_bytes, file.file->read_at(0, buffer));
    buffer.resize(header_bytes);
    if (Status header = check_header(buffer, item_, file.name, where); !header) {
        // A last file whose header never became durable holds nothing that was acknowledged. Should
        // it have been durable once, the sender finds out that its records are missing.
        if (last_file && header.error().code() != Code::kNewerVersion) return {};
        return header;
    }
    uint64_t at = kHeaderBytes;
    file.size_bytes = file.synced_bytes = at;
    SpoolRange range;
    const auto close_range = [&] {
        if (range.records != 0) recovered_.push_back(range);
        range = SpoolRange{};
    };
    Bytes window;
    while (at < size) {
        window.resize(std::min<uint64_t>(size - at, 4u << 20));
        FS_ASSIGN(size_t got, file.file->read_at(at, window));
        window.resize(got);
        RecordCursor cursor(window, true);
        size_t used = 0;
        Status stopped;
        while (!cursor.done()) {
            auto record = cursor.next();
            if (!record) {
                stopped = tl::unexpected(record.error());
                break;
            }
            const RecordHeader& header = record->header;
            if (!last_file && header.sequence.v >= next_name) {
                close_range();
                return {};
            }
            if (at == kHeaderBytes && used == 0 && previous.v != 0 &&
                header.sequence > previous.next() && header.kind != RecordKind::kGap) {
                begins_anew = true;
                recovered_.clear();
                previous = {};
            }
            const bool follows = previous.v == 0 || header.sequence == previous.next() ||
                                 (header.kind == RecordKind::kGap && header.sequence > previous);
            if (!follows) {
                stopped = fail(Code::kCorrupt, fmt::format("{}: record {} follows record {}", where,
                                                           header.sequence.v, previous.v));
                break;
            }
            if (range.records != 0 && range.length_bytes + header.encoded_bytes() > kDataFrameBytes)
                close_range();
            if (range.records == 0) {
                range.file = file.name;
                range.offset_bytes = at + used;
            }
            extend(range, header);
            previous = header.sequence;
            file.last = file.synced_last = header.sequence;
            used = window.size() - cursor.remaining();
            file.size_bytes = file.synced_bytes = at + used;
        }
        at += used;
        if (stopped) continue;
        const bool torn = stopped.error().code() == Code::kTruncated;
        // A record that only straddles the read window is whole on disk: read again from it.
        if (torn && used > 0 && at + window.size() - used < size) continue;
        close_range();
        // In the last file an unreadable record begins the part that was never acknowledged, unless
        // whole records follow it; those would be lost, so that is damage.
        if (last_file) return {};
        // The next file goes on exactly here: this is what was cut off after a failed write or
        // sync, and came back because the cut itself never became durable.
        if (previous.next().v == next_name) return {};
        return fail(Code::kCorrupt,
                    fmt::format("{} is damaged at byte {}: {}", where, at, stopped.error().what()),
                    "the disk lost data that was acknowledged; what followed is sent again");
    }
    close_range();
    return {};
}

// Before a file gets a name, the one before it is durable, name and end, and what was removed is
// gone: a power cut that left the new one alone would look as if files between had been freed. What
// was appended still counts with the next sync() only.
Status Spool::settle_switch() {
    if (!files_.empty() && files_.back().synced_bytes != files_.back().size_bytes)
        FS_TRY(files_.back().file->sync());
    if (directory_dirty_ || freed_) FS_TRY(fs_.sync_directory(directory_));
    freed_ = false;
    return {};
}

Status Spool::begin_file(Sequence first) {
    SpoolFile file;
    file.name = first.v;
    directory_dirty_ = true;
    const auto make = [&]() -> Status {
        FS_ASSIGN(file.file, fs_.open_stream(path(file.name), OpenMode::kCreate));
        FS_TRY(file.file->truncate(0));
        return file.file->write_at(0, file_header(item_, file.name));
    };
    if (Status made = make(); !made) {
        // Its name would cut what the next file holds of the same sequences.
        (void)fs_.remove(path(file.name));
        return made;
    }
    file.size_bytes = kHeaderBytes;
    file_full_ = false;
    std::lock_guard lock(mutex_);
    files_.push_back(std::move(file));
    return {};
}

Status Spool::append(ByteView records, SpoolRange& range) {
    range = SpoolRange{};
    RecordCursor cursor(records, false);
    while (!cursor.done()) {
        FS_ASSIGN(RecordView record, cursor.next());
        extend(range, record.header);
    }
    if (range.records == 0) return {};
    if (files_.empty() || file_full_ || files_.back().size_bytes >= file_bytes_ ||
        (files_.back().size_bytes > kHeaderBytes && buggify(buggify_, "spool.new_file"))) {
        Status begun = settle_switch();
        if (begun) begun = begin_file(range.first);
        if (!begun) {
            roll_back();
            return begun;
        }
    }
    SpoolFile& tail = files_.back();
    range.file = tail.name;
    range.offset_bytes = tail.size_bytes;
    if (Status written = tail.file->write_at(tail.size_bytes, records); !written) {
        tail.size_bytes += records.size();  // any part of it may be there
        roll_back();
        return written;
    }
    tail.size_bytes += records.size();
    tail.last = range.last;
    return {};
}

Status Spool::sync() {
    // Several files may have been begun since the last sync; all of them count.
    Status result;
    for (SpoolFile& file : files_)
        if (result && file.synced_bytes != file.size_bytes) result = file.file->sync();
    if (result && directory_dirty_) result = fs_.sync_directory(directory_);
    if (!result) {
        roll_back();
        return result;
    }
    directory_dirty_ = false;
    for (SpoolFile& file : files_) {
        file.synced_bytes = file.size_bytes;
        file.synced_last = file.last;
    }
    return {};
}

void Spool::roll_back() {
    std::lock_guard lock(mutex_);
    while (!files_.empty() && files_.back().synced_bytes == 0) {
        // Its removal may fail; a leftover is cut or overwritten when its name comes up again. The
        // newest goes first for good, so that no hole is left.
        (void)fs_.remove(path(files_.back().name));
        (void)fs_.sync_directory(directory_);
        freed_ = true;
        files_.pop_back();
        file_full_ = true;  // the one before was, or this would not have been begun
    }
    if (files_.empty()) return;
    SpoolFile& tail = files_.back();
    if (tail.size_bytes == tail.synced_bytes) return;
    // After a failed write or sync the file is not trusted with more: the next append begins a new
    // one. Its durable part stays readable, and the cut is durable before another file follows. If
    // cutting fails too, the leftover is found at the next open: whole records that follow the
    // durable part are as good as received.
    tail.size_bytes = tail.synced_bytes;
    tail.last = tail.synced_last;
    if (tail.file->truncate(tail.synced_bytes)) (void)tail.file->sync();
    file_full_ = true;
}

Result<Bytes> Spool::read(const SpoolRange& range) {
    std::shared_ptr<File> file;
    {
        std::lock_guard lock(mutex_);
        for (const SpoolFile& candidate : files_)
            if (candidate.name == range.file) file = candidate.file;
    }
    if (!file) return fail(Code::kNotFound, fmt::format("spool file {} is gone", path(range.file)));
    Bytes out(range.length_bytes);
    FS_ASSIGN(size_t got, file->read_at(range.offset_bytes, out));
    if (got != out.size())
        return fail(Code::kTruncated, fmt::format("{} ends before byte {}", path(range.file),
                                                  range.offset_bytes + range.length_bytes));
    return out;
}

Status Spool::trim(Sequence stored) {
    while (!files_.empty()) {
        SpoolFile& head = files_.front();
        // The newest file stays while it may grow, so that a trickle of writes does not make a file
        // for each of them. Where numbering goes on is known to the vault.
        const bool may_grow = files_.size() == 1 && head.size_bytes < file_bytes_ && !file_full_;
        if (head.last > stored || may_grow) return {};
        // In order for good: a power cut brings back the newest of those that went, at most.
        if (freed_) FS_TRY(fs_.sync_directory(directory_));
        FS_TRY(fs_.remove(path(head.name)));
        freed_ = true;
        std::lock_guard lock(mutex_);
        files_.pop_front();
    }
    return {};
}

Status Spool::clear() {
    // From the newest on, so that a crash in between leaves a prefix.
    while (!files_.empty()) {
        FS_TRY(fs_.remove(path(files_.back().name)));
        std::lock_guard lock(mutex_);
        files_.pop_back();
    }
    return fs_.sync_directory(directory_);
}

uint64_t Spool::bytes() const {
    std::lock_guard lock(mutex_);
    uint64_t total = 0;
    for (const SpoolFile& file : files_) total += file.size_bytes;
    return total;
}

}  // namespace farshore
