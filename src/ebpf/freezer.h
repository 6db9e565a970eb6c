// File systems brought to rest for a moment (FIFREEZE), so that what the disks hold needs no replay
// of a journal: which ones lie on some disks, and the program that freezes them.
// docs/design/ebpf.md, "Points that file systems agree with".
//
// Blocking; one thread. The program is a process of its own (`farshore capture freeze`), because
// whoever freezes must need nothing from a frozen disk: neither pages of itself nor a log.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "ebpf/local_disks.h"

namespace farshore {

// A line of /proc/self/mountinfo (proc(5)).
struct Mount {
    uint64_t id = 0;
    uint32_t major = 0, minor = 0;
    std::string path;  // of the mount point
    std::string kind;
    std::string source;
    bool writable = false;  // the file system, not only this mount of it
};
// Lines that are none are left out.
std::vector<Mount> parse_mounts(std::string_view mountinfo);

// Where to freeze each file system that can be written and lies on one of the disks, in the order
// to do it: what was mounted later comes first, since it may lie in a file of an earlier one.
// kUnsupported when there is none, or one that this process cannot reach (a mount namespace).
Result<std::vector<std::string>> find_mounts_to_freeze(const std::vector<LocalDisk>& disks);

struct FreezeOptions {
    std::vector<std::string> mounts;
    int64_t timeout_ms = 10'000;
    bool thaw_only = false;  // what an earlier one may have left
};
// The program. Freezes in order, says "frozen\n" to `output`, waits for the end of `input`, and
// thaws in reverse order; file systems that cannot be frozen are left out. Whatever happens,
// nothing is frozen when it returns. kTimeout: the time was over before the end of `input`;
// kWrongState: somebody else froze or thawed one; kUnsupported: none can be frozen.
Status freeze_until_told(const FreezeOptions& options, int input, int output);

}  // namespace farshore
