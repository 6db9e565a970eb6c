// The seam between the kernel's trace of a machine's writes and what is made of it: events in the
// order of issue, a count that changes when something is only marked, the marks, and which requests
// are in flight. block_trace.h has the kernel's; tests have one that they fill themselves.
//
// One thread at a time (BlockCapture holds its lock).
#pragma once

#include <functional>
#include <optional>

#include "base/bytes.h"
#include "base/types.h"
#include "capture/todo_map.h"
#include "ebpf/block_trace_abi.h"

namespace farshore {

struct TraceEvent {
    fs_event head{};
    ByteView payload;       // good until the event is released
    uint64_t position = 0;  // of its end; grows from event to event, also over a new trace
};

class TraceSource {
  public:
    virtual ~TraceSource() = default;
    // The next event; nullopt when there is none now.
    virtual std::optional<TraceEvent> next() = 0;
    // Up to which position there are events, and up to which next() has come. A CPU takes its place
    // before it fills it, and next() does not pass one that is not filled.
    virtual uint64_t reserved() = 0;
    virtual uint64_t passed() = 0;
    // The ring's space up to `position` may be used again. What is not released is delivered again
    // to the next process.
    virtual void release(uint64_t position) = 0;
    // fs_trace_state::drops, and anything else that makes harvest() worth a call.
    virtual uint64_t drops() = 0;
    // Whether harvest() would hand over anything.
    virtual bool marked() = 0;
    // Hands over what is marked (a range may be a whole disk), and forgets each range when the call
    // for it has returned: a process that dies in between leaves it marked.
    virtual void harvest(const std::function<void(DiskIndex, ByteRange)>& marked) = 0;
    // Whether the kernel still waits for the end of the request.
    virtual bool in_flight(uint64_t request) = 0;
    // Key of the sums over pages.
    virtual uint64_t sum_key() = 0;
};

}  // namespace farshore
