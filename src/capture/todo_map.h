// Which granules (64 KiB) of one disk must still be copied: one bit each, in shared memory, so that
// it survives the tap. Setting and clearing are atomic on the words; in front of the bits stand two
// summary levels of this process alone, rebuilt at attach, that make the search quick on a sparse
// 64 TiB disk: one bit for each 64 granules, one bit for each 4096.
//
// Any thread of the tap may call any function; only the tap process changes the words.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "capture/log_memory.h"

namespace farshore {

struct ByteRange {
    uint64_t offset_bytes = 0;
    uint64_t length_bytes = 0;
    uint64_t end() const { return offset_bytes + length_bytes; }
    friend bool operator==(const ByteRange&, const ByteRange&) = default;
};

// Where the search for the next run goes on: a disk's last granule may be short.
inline uint64_t behind(const ByteRange& run) {
    return (run.end() + kTodoGranuleBytes - 1) / kTodoGranuleBytes * kTodoGranuleBytes;
}

class TodoMap {
  public:
    TodoMap(std::span<uint64_t> words, uint64_t disk_bytes);
    TodoMap(TodoMap&&) = default;

    uint64_t disk_bytes() const { return disk_bytes_; }
    // Every granule that the range touches. The range is cut at the disk's end.
    void set(uint64_t offset_bytes, uint64_t length_bytes);
    void set_all() { set(0, disk_bytes_); }
    // From now on what is set here falls in `unsure` (borrowed): whether it differs is no question
    // any more.
    void set_unsure(TodoMap* unsure) { unsure_ = unsure; }
    // Every granule that the range touches.
    void clear_touched(uint64_t offset_bytes, uint64_t length_bytes);
    // Only granules that lie wholly in the range (the disk's last one ends at the disk's end).
    void clear(uint64_t offset_bytes, uint64_t length_bytes);
    // The first run of set granules at or after `offset_bytes`, at most `limit_bytes` long (a
    // multiple of the granule) and within the disk.
    std::optional<ByteRange> next(uint64_t offset_bytes, uint64_t limit_bytes) const;
    uint64_t count() const { return count_->load(std::memory_order_relaxed); }
    bool test(uint64_t offset_bytes) const;

  private:
    void touch(uint64_t offset_bytes, uint64_t length_bytes, bool set);
    void change(uint64_t first, uint64_t end, bool set);
    void summarise(uint64_t word);
    // The first word at or after `word` with a set bit, by the summaries; words_.size() when none.
    uint64_t next_word(uint64_t word) const;

    std::span<uint64_t> words_;
    uint64_t disk_bytes_;
    uint64_t granules_;
    std::vector<uint64_t> level1_;  // bit w: words_[w] has a bit
    std::vector<uint64_t> level2_;  // bit v: level1_[v] has a bit
    std::unique_ptr<std::atomic<uint64_t>> count_;
    TodoMap* unsure_ = nullptr;
};

}  // namespace farshore
