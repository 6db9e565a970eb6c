// The content of one regular file on a simulated disk: what its readers see and what is durable.
//
// Pages of 4 KiB are shared between the two states until written; a bit for each 512-byte sector
// says whether it waits to be written. Owned by its inode (disk.cc); one thread.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "sim/power_loss.h"
#include "sim/rng.h"

namespace farshore::sim {  // names as common as these must not meet others

inline constexpr uint64_t kPageBytes = 4096;
inline constexpr uint64_t kSectorBytes = 512;
inline constexpr uint64_t kSectorsPerPage = kPageBytes / kSectorBytes;
static_assert(kSectorsPerPage == 8, "the dirty sectors of a page are the bits of one byte");
inline constexpr uint64_t kPagesPerChunk = 64;

struct PageData {
    uint32_t references = 1;
    uint8_t bytes[kPageBytes];
};

// A shared page; empty means a hole. Counted without atomics: a world is one thread.
class Page {
  public:
    Page() = default;
    Page(const Page& other) : data_(other.data_) {
        if (data_ != nullptr) ++data_->references;
    }
    Page(Page&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
    Page& operator=(Page other) noexcept {
        std::swap(data_, other.data_);
        return *this;
    }
    ~Page() {
        if (data_ != nullptr && --data_->references == 0) delete data_;
    }
    bool hole() const { return data_ == nullptr; }
    bool same(const Page& other) const { return data_ == other.data_; }
    const uint8_t* read() const { return data_->bytes; }
    // Copies when shared, zeroes when a hole.
    uint8_t* write() {
        if (data_ == nullptr) {
            data_ = new PageData;
            std::memset(data_->bytes, 0, kPageBytes);
        } else if (data_->references > 1) {
            auto* copy = new PageData;
            std::memcpy(copy->bytes, data_->bytes, kPageBytes);
            --data_->references;
            data_ = copy;
        }
        return data_->bytes;
    }

  private:
    PageData* data_ = nullptr;
};

struct PageSlot {
    Page cached;
    Page durable;
    uint8_t dirty = 0;  // a bit a sector: cached differs from durable and will be written
};
using Chunk = std::array<PageSlot, kPagesPerChunk>;

class FileData {
  public:
    uint64_t size() const { return size_; }
    uint64_t durable_size() const { return durable_size_; }
    uint64_t pages() const { return pages_; }

    size_t read(uint64_t offset, MutableByteView out, bool durable) const;

    // Pages that a write of this range would allocate.
    uint64_t new_pages(uint64_t offset, uint64_t length) const;

    void write(uint64_t offset, ByteView data);

    // Within the size; frees whole pages.
    void punch(uint64_t offset, uint64_t length);

    void truncate(uint64_t to);

    void sync();

    // A part of what is dirty reaches the disk by itself.
    void write_back_some(Rng& rng);

    // fsync() failed: some pages got out, the others are clean now and will never be written; of
    // those, some are evicted at once, so that reads show the old content again.
    void sync_failed(Rng& rng);

    void lose_power(const PowerLossPolicy& policy, Rng& rng);

    void flip_bit(uint64_t bit);

    uint64_t dirty_bytes() const { return dirty_.size() * kPageBytes; }

  private:
    PageSlot* find(uint64_t page) const;
    PageSlot& make(uint64_t page);
    void mark(uint64_t page, PageSlot& slot, uint8_t mask);
    // Copies the first `bytes` of a sector from the cached to the durable page.
    static void keep_sector(PageSlot& slot, unsigned sector, uint64_t bytes);
    template <typename Visit>
    void for_each_from(uint64_t page, Visit visit) {
        for (auto chunk = chunks_.lower_bound(page / kPagesPerChunk); chunk != chunks_.end();
             ++chunk)
            for (uint64_t i = 0; i < kPagesPerChunk; ++i) {
                const uint64_t p = chunk->first * kPagesPerChunk + i;
                if (p >= page) visit(p, (*chunk->second)[i]);
            }
    }
    // Zeroes everything from `size` on, in the cached or the durable state.
    void cut(uint64_t size, bool durable);

    std::map<uint64_t, std::unique_ptr<Chunk>> chunks_;
    std::vector<uint64_t> dirty_;  // pages; one may be listed twice, or have become clean
    uint64_t size_ = 0;
    uint64_t durable_size_ = 0;
    uint64_t least_size_ = 0;  // since the last sync: a truncation below durable_size_ is pending
    uint64_t pages_ = 0;       // cached ones that are no holes
    bool lost_ = false;        // cached and durable differ although nothing is dirty
};

}  // namespace farshore::sim
