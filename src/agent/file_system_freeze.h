// The file systems on some of this machine's disks, or those of a machine with a guest agent,
// frozen by a process of their own (`farshore capture freeze`: ebpf/freezer.h,
// compute/guest_freezer.h) for as long as this lives, at most so long as it was told.
//
// Whatever becomes of this process, they are thawed: the helper sees its standard input end. Should
// the helper itself be killed, thaw_leftovers() does it: a note of what was frozen lies on a tmpfs.
// Blocking, bounded; one thread. Between begin() and end() nothing here touches a disk.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "agent/rest_limits.h"
#include "base/error.h"
#include "base/seams.h"
#include "os/process.h"

namespace farshore {

inline constexpr const char* kFreezeNoteSuffix = ".frozen";

struct FreezeTarget {
    std::vector<std::string> mounts;  // of this machine; or
    std::string guest_agent;          // the socket of another one's guest agent

    bool empty() const { return mounts.empty() && guest_agent.empty(); }
};

class FileSystemFreeze {
  public:
    // Returns when all are frozen; else none is, or none will be soon. `note` is a path on a tmpfs.
    static Result<FileSystemFreeze> begin(const std::string& note, const FreezeTarget& target,
                                          FileSystem& files, Clock& clock,
                                          const RestLimits& limits = {});
    FileSystemFreeze(FileSystemFreeze&&) = default;

    // Until then they are frozen, if end() says so: steady clock.
    int64_t until_us() const { return until_us_; }
    // Thaws. An error when they were not frozen until now, or may still be.
    Status end();
    // What an earlier process noted and did not end. Ok when there is no note.
    static Status thaw_leftovers(const std::string& note, FileSystem& files);
    // The same of all notes in a directory, as far as that goes: before an agent touches a disk.
    static void thaw_all_leftovers(const std::string& directory, FileSystem& files);

  private:
    FileSystemFreeze(Process helper, std::string note, FileSystem& files, int64_t until_us)
        : helper_(std::move(helper)),
          input_(helper_.take_input()),
          note_(std::move(note)),
          files_(&files),
          until_us_(until_us) {}
    Status wait_until_frozen(int64_t limit_us);

    Process helper_;
    UniqueFd input_, output_;
    std::string said_;
    std::string note_;
    FileSystem* files_;
    int64_t until_us_;
};

}  // namespace farshore
