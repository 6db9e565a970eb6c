// The spool: what an appliance has received of one item and not yet stored, on its own disk.
// Bytes: docs/format/spool.md. A directory of append-only files of encoded records; each file's
// name is the sequence of its first record.
//
// `append` puts records into the page cache, `sync` makes everything appended durable; only then
// may they be acknowledged as received. Opening cuts a torn tail at the last whole record. One
// thread at a time, except that read() may run beside append() and sync().
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/buggify.h"
#include "base/seams.h"
#include "base/types.h"

namespace farshore {

// Where a run of whole records lies in the spool.
struct SpoolRange {
    Sequence first, last;
    uint64_t file = 0;  // the file's name as a number
    uint64_t offset_bytes = 0;
    uint32_t length_bytes = 0;
    uint64_t payload_bytes = 0;
    uint32_t records = 0;
    bool only_idle = true;  // nothing but TIME and FLUSH records
    bool has_point = false;
    bool begins_with_gap = false;
    TimePoint last_time;
};

class Spool {
  public:
    // `directory` is made when missing. kCorrupt when a record before the tail is damaged: then
    // `repair` cuts there instead and says so in repaired(); what was behind must be sent again.
    static Result<std::unique_ptr<Spool>> open(FileSystem& fs, std::string directory, ItemId item,
                                               uint64_t file_bytes, bool repair,
                                               Buggify* buggify = nullptr);
    ~Spool();

    // What the directory held when it was opened, in order, in ranges of at most about 1 MiB.
    const std::vector<SpoolRange>& recovered() const { return recovered_; }
    // Words about damage that open() cut away; empty when there was none.
    const std::string& repaired() const { return repaired_; }

    // Appends whole records; the range's place is filled in. On an error nothing of it counts: the
    // file is cut back before the next append. kNoSpace, kIo.
    Status append(ByteView records, SpoolRange& range);
    // On an error nothing appended since the last good sync counts: it was cut away, and the caller
    // must not acknowledge it.
    Status sync();
    Result<Bytes> read(const SpoolRange& range);
    // Frees files whose every record is at or below `stored`; the newest one too when nothing more
    // can be written to it.
    Status trim(Sequence stored);
    // Drops everything, durable: the vault is elsewhere and this content no longer follows it.
    Status clear();
    // Bytes on disk.
    uint64_t bytes() const;

  private:
    struct SpoolFile {
        uint64_t name = 0;
        uint64_t size_bytes = 0;    // appended
        uint64_t synced_bytes = 0;  // durable
        Sequence last;
        Sequence synced_last;
        std::shared_ptr<File> file;
    };

    Spool(FileSystem& fs, std::string directory, ItemId item, uint64_t file_bytes, Buggify* buggify)
        : fs_(fs),
          directory_(std::move(directory)),
          item_(item),
          file_bytes_(file_bytes),
          buggify_(buggify) {}
    std::string path(uint64_t name) const;
    Status scan(bool repair);
    Status scan_file(SpoolFile& file, uint64_t next_name, Sequence& previous, bool& begins_anew);
    Status settle_tail(SpoolFile& tail);
    Status write_tail(SpoolFile& tail, File& to);
    Status settle_switch();
    Status begin_file(Sequence first);
    void roll_back();

    FileSystem& fs_;
    const std::string directory_;
    const ItemId item_;
    const uint64_t file_bytes_;
    Buggify* const buggify_;
    mutable std::mutex mutex_;  // guards files_ between read() and the writer
    std::deque<SpoolFile> files_;
    bool directory_dirty_ = false;
    bool file_full_ = false;  // the newest file failed: begin another
    bool freed_ = false;      // a removal may not be durable
    std::vector<SpoolRange> recovered_;
    std::string repaired_;
};

}  // namespace farshore
