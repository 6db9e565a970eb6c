// Copies what is on the todo maps into the log: the initial replication, what a gap left, what a
// crash of the host left. docs/design/capture.md, "Copying".
//
// step() does one piece of work and never waits; one thread calls it. In path it holds the range
// lock while it reads and appends, so that no write is in flight there; in mirror mode a read that
// an appended record overlaps is thrown away.
#pragma once

#include <memory>
#include <vector>

#include "base/seams.h"
#include "block/block_device.h"
#include "block/range_lock.h"
#include "capture/capture_log.h"

namespace farshore {

// What a copy must know of a source whose writes are told before they have reached it, as the
// kernel tells them when it hands them to the disk's driver (ebpf/block_capture.h). The copier asks
// it from its own thread.
class CopyBarrier {
  public:
    virtual ~CopyBarrier() = default;
    // No write to the range is under way. Asked after the range was claimed: what begins later is
    // in the log before settle() returns, and spoils the claim.
    virtual bool quiet(DiskIndex disk, ByteRange range) = 0;
    // Everything that had begun when this was called is in the log, or on todo in a gap. False:
    // some of it cannot be had yet; try again soon.
    virtual bool settle() = 0;
};

class Comparer;

class Copier {
  public:
    struct Source {
        BlockDevice* device = nullptr;  // borrowed
        RangeLock* lock = nullptr;      // borrowed; null in mirror mode
    };
    enum class Outcome {
        kWorked,
        kNothing,    // nothing on todo
        kNoSpace,    // the log is too full: live writes come first
        kThrottled,  // wait wait_us()
        kPaused,
        kFailed,    // the source could not be read; it stays on todo
        kAwaiting,  // for answers from the recovery site: the agent rings
    };

    // `random`, borrowed: what is on todo may be compared before it is copied (comparer.h). Null:
    // it is copied.
    Copier(CaptureProducer& producer, std::vector<Source> sources, const Clock& clock,
           Random* random = nullptr);
    ~Copier();

    // Borrowed; outlives the copier, or is taken back with null. Before the first step.
    void set_barrier(CopyBarrier* barrier);
    bool compares() const { return comparer_ != nullptr; }

    Outcome step();
    int64_t wait_us() const { return wait_us_; }

  private:
    struct Target {
        DiskIndex disk;
        ByteRange range;
    };
    std::optional<Target> find() const;
    std::optional<Target> find(bool joining) const;
    bool members_are_owed_an_end() const;
    bool copy_held() const;
    void let_join();
    std::optional<ByteRange> next_sure(DiskIndex disk, uint64_t from) const;
    void pay_for(uint64_t bytes);
    Outcome copy(Target target);
    Outcome nothing_to_copy();
    // Length of the zeroes at the start of the range, as far as the source knows; 0: it has data.
    uint64_t known_zeroes(const Target& target);
    Outcome copy_zeroes(const Target& target);
    Outcome copy_data(const Target& target);
    bool throttled();
    // The claim of a range in which a write is under way is given back.
    bool spoilt(const CaptureProducer::CopyClaim& claim);
    // The same when what began meanwhile is not known yet: it may spoil it.
    bool unsettled(const CaptureProducer::CopyClaim& claim);

    CaptureProducer& producer_;
    std::vector<Source> sources_;
    const Clock& clock_;
    std::unique_ptr<Comparer> comparer_;
    CopyBarrier* barrier_ = nullptr;
    const size_t chunk_bytes_;
    DiskIndex disk_ = 0;
    uint64_t offset_ = 0;
    // The source said that there is data up to here.
    DiskIndex data_disk_ = 0;
    ByteRange data_;
    int64_t wait_us_ = 0;
    int64_t next_allowed_us_ = 0;
    Bytes buffer_;
};

// Records that make [offset, offset + data.size()) what `data` is: ZERO for granules of zeroes,
// WRITE for the rest. Borrows `data`.
std::vector<AppendRequest> records_for(DiskIndex disk, uint64_t offset_bytes, ByteView data);

}  // namespace farshore
