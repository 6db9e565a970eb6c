// The simulated disk of a host, and the file systems that its processes see on it.
//
// Every file has a cached and a durable state, page by page, with a dirty bit for each 512-byte
// sector; every directory has cached and durable entries and a list of changes between them. Calls
// see the cached state. sync() makes a file's data and size durable, not its directory entry;
// sync_directory() makes the entries of that one directory durable, not those of its parents: POSIX
// promises no more. (make_directories() syncs what it makes, as the one of src/os does.) At power
// loss what is not durable is kept, dropped or torn as drawn (docs/design/simulation.md §4). Pages
// are shared between the two states until written.
//
// Errors come from scripts (fail_next), or from the fault sites "disk.*" when allow_errors(true).
// One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/seams.h"
#include "sim/power_loss.h"
#include "sim/rng.h"

namespace farshore {

class SimHost;
class SimProcess;

enum class DiskOp : uint8_t {
    kOpen,
    kRead,
    kWrite,
    kSync,
    kTruncate,
    kSize,
    kPunch,
    kRemove,
    kRename,
    kLink,
    kMakeDirectories,
    kSyncDirectory,
    kList,
    kExists,
    kFree,
};
inline constexpr size_t kDiskOps = 15;

struct DiskLatency {
    int64_t read_us = 20;
    int64_t write_us = 15;
    int64_t sync_us = 1'500;  // each drawn between half and twice of it
    int64_t other_us = 10;
};

struct DiskCounters {
    uint64_t operations[kDiskOps] = {};
    uint64_t read_bytes = 0;
    uint64_t written_bytes = 0;
    uint64_t synced_bytes = 0;
    uint64_t of(DiskOp op) const { return operations[static_cast<size_t>(op)]; }
};

class SimDisk {
  public:
    SimDisk(SimHost& host, Rng rng);
    ~SimDisk();
    SimDisk(const SimDisk&) = delete;
    SimDisk& operator=(const SimDisk&) = delete;

    // The disk as a process sees it: its operations count as that process's, relative paths begin
    // at the root.
    std::unique_ptr<FileSystem> view(SimProcess& process);

    // --- what a test sets
    void set_capacity_bytes(uint64_t bytes);  // ENOSPC beyond; unlimited by default
    void set_latency(const DiskLatency& latency);
    void set_power_loss_policy(const PowerLossPolicy& policy);
    // Whether the fault sites disk.{read,write,sync,entry}_error and disk.no_space may fire.
    void allow_errors(bool allow);
    // The next `count` operations of this kind on paths that contain `path_part`, after `skip` more
    // of them, fail with this errno.
    void fail_next(DiskOp op, std::string path_part, int error_number, uint64_t count = 1,
                   uint64_t skip = 0);
    void on_operation(std::function<void(SimProcess&, DiskOp, const std::string& path)> hook);

    // --- what a test looks at, or breaks
    const DiskCounters& counters() const;
    uint64_t used_bytes() const;
    // Whole content as processes would read it; kNotFound.
    Result<Bytes> peek(const std::string& path) const;
    // What would be there if all that is not durable were dropped; kNotFound also when the entry or
    // one above it is not durable.
    Result<Bytes> peek_durable(const std::string& path) const;
    // Damage at rest, in both states.
    Status flip_bit(const std::string& path, uint64_t bit);
    // Every regular file below the directory, sorted, as paths.
    std::vector<std::string> files_below(const std::string& path) const;

    // For SimHost. Handles that are open belong to dead processes by then.
    void lose_power();

  private:
    friend class SimFile;
    friend class SimFileSystem;
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace farshore
