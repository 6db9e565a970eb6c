// What the kernel traced of a machine's disks, put into the capture log: the core of the in-guest
// capture, without a kernel. docs/design/ebpf.md has the rules.
//
// Writes come when they are *issued*, so the log may have a write before its disk does. The table
// of what is in flight tells the copier where not to read (CopyBarrier), finds writes that overlap
// in flight, and what ended badly or changed on the way: such ranges are read again, in a gap.
//
// Any thread may call; one lock. drain() does all the work and never waits.
#pragma once

#include <map>
#include <mutex>
#include <vector>

#include "capture/capture_log.h"
#include "capture/copier.h"
#include "ebpf/trace_source.h"

namespace farshore {

class BlockCapture final : public CopyBarrier {
  public:
    struct Counters {
        uint64_t requests = 0;  // writes, zeroes, discards that were taken in
        uint64_t overlaps = 0;  // ... that overlapped another one in flight
        uint64_t failed = 0;    // the device reported an error
        uint64_t changed = 0;   // pages that changed while they were written
        uint64_t unknown = 0;   // ends of requests whose beginning nobody saw
        uint64_t drops = 0;     // times that something was only marked
    };

    // Both are borrowed and outlive it. What was written before the trace began is for the caller
    // to put on todo.
    BlockCapture(CaptureProducer& producer, TraceSource& source);

    // Takes in everything that is there, `max_events` at most. Returns the number of events.
    size_t drain(size_t max_events = SIZE_MAX);
    Counters counters() const;
    size_t in_flight() const;

    bool quiet(DiskIndex disk, ByteRange range) override;
    bool settle() override;

  private:
    struct Request {
        DiskIndex disk = 0;
        std::vector<ByteRange> ranges;
        bool overlapped = false;
        bool has_sum = false;
        fs_sum sum{};
    };

    size_t drain_locked(size_t max_events = SIZE_MAX);
    void take(const TraceEvent& event);
    void begin(const TraceEvent& event);
    void end(const TraceEvent& event);
    void add_payload(const TraceEvent& event);
    void flush_pending();
    void append(RecordKind kind, const fs_event& event, uint64_t position);
    void note_drops(uint64_t drops);
    void copy_again(DiskIndex disk, const std::vector<ByteRange>& ranges);
    bool overlaps_others(DiskIndex disk, const ByteRange& range, uint64_t request);
    bool within(const fs_event& event);

    CaptureProducer& producer_;
    TraceSource& source_;
    mutable std::mutex mutex_;
    const uint64_t taken_before_;  // events up to here are in the log already
    std::map<uint64_t, Request> requests_;
    std::optional<uint64_t> drops_seen_;
    Counters counters_;

    // Pieces of one write that follow each other, on their way to one record.
    // Views into the trace: its space is given back when the record is in the log.
    std::vector<ByteView> pending_;
    uint32_t pending_bytes_ = 0;
    uint32_t pending_crc_ = 0;
    fs_event pending_head_{};
    uint64_t pending_position_ = 0;
    uint64_t releasable_ = 0;
};

}  // namespace farshore
