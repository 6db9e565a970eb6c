// The kernel's trace of some disks' writes: loads the program (block_trace.bpf.c), or takes over
// one that an earlier process left pinned, and reads its ring. docs/design/ebpf.md.
//
// With a pin directory on a bpffs the program, its ring and its marks outlive the process: nothing
// is missed while an agent is updated or killed. One process at a time. As TraceSource: one thread
// at a time; wait() may be called beside it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "ebpf/page_bases.h"
#include "ebpf/trace_source.h"

namespace farshore {

// One that was removed has no bytes, and keeps its place.
struct TracedDisk {
    std::string device;  // path of its node
    uint32_t major = 0, minor = 0;
    uint64_t size_bytes = 0;
};

struct BlockTraceOptions {
    std::string pin_directory;  // on a bpffs; empty: the trace ends with the process
    std::vector<TracedDisk> disks;
    uint64_t ring_bytes = 64ull << 20;  // a power of two, at least 64 KiB; kernel memory
    // Positions of a new trace begin above this.
    uint64_t first_position = 0;
};

class BlockTrace final : public TraceSource {
  public:
    // A trace that runs already goes on with disks that were added behind the others, removed, or
    // have grown. kForbidden (rights, lockdown), kUnsupported (kernel), with libbpf's words.
    static Result<std::unique_ptr<BlockTrace>> open(const BlockTraceOptions& options);
    ~BlockTrace() override;

    // It was running before, and was primed; else what was written until now is unknown. Whoever
    // has put that on todo says so: a process that is killed in between leaves it unprimed.
    bool primed() const;
    void set_primed();
    // Requests that were seen, pages that could not be read.
    uint64_t requests() const;
    uint64_t unreadable() const;
    uint64_t kernel_bytes() const;
    uint64_t ring_bytes() const;

    // Sleeps until there is an event or the time is over.
    void wait(int64_t timeout_us);

    std::optional<TraceEvent> next() override;
    uint64_t reserved() override;
    uint64_t passed() override;
    void release(uint64_t position) override;
    uint64_t drops() override;
    bool marked() override;
    void harvest(const std::function<void(DiskIndex, ByteRange)>& marked) override;
    bool in_flight(uint64_t request) override;
    uint64_t sum_key() override;

    // Detaches and forgets the trace that is pinned there. Ok when there is none.
    static Status remove(const std::string& pin_directory);
    // Whether one is pinned there.
    static bool exists(const std::string& pin_directory);

  private:
    struct Impl;
    explicit BlockTrace(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

// Where traces are pinned; the bpffs is mounted when it is not. kForbidden without CAP_SYS_ADMIN.
inline constexpr const char* kBpfDirectory = "/sys/fs/bpf";
inline constexpr const char* kPinPrefix = "farshore-";  // of an item's directory there
Status mount_bpf_directory();

}  // namespace farshore
