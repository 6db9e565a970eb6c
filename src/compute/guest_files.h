// Files of a machine's disks, read without mounting its file systems in this host's kernel:
// libguestfs runs a small virtual machine of its own (KVM, or emulated), which mounts them and
// answers.
//
// The disks are NBD exports on unix sockets, and are never written to: what a journal's recovery
// writes goes to a layer of libguestfs that ends with it. Nothing of a path is interpreted by a
// shell. libguestfs is loaded when it is first used: farshore runs without it.
//
// One thread. Blocking: the machine takes seconds to start, emulated half a minute. Errors:
// kDependencyMissing (no libguestfs, or no kernel for it), kGuestFailed (its machine does not
// start), kNotFound, kUnsupported (encrypted, or no file system that is known), kInvalidArgument,
// kCorrupt (a file system that does not mount), kNoSpace, kIo.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/types.h"

namespace farshore {

struct GuestFilesOptions {
    std::vector<std::string> disk_sockets;  // of the default export of each, in order
    bool emulate = false;                   // without KVM
};

struct GuestVolume {
    std::string device;  // "/dev/sda1", "/dev/vg/root"
    std::string type;    // "ext4", "xfs", "ntfs", "swap", "crypto_LUKS", "unknown"
    uint64_t size_bytes = 0;
    bool mountable() const;
};

enum class GuestFileKind : uint8_t { kFile, kDirectory, kLink, kOther };

struct GuestEntry {
    std::string name;  // bytes as they are on the disk
    GuestFileKind kind = GuestFileKind::kOther;
    uint32_t mode = 0;  // permission bits
    uint64_t size_bytes = 0;
    TimePoint modified;
    std::string link_target;
};

class GuestFiles {
  public:
    static Result<std::unique_ptr<GuestFiles>> start(const GuestFilesOptions& options);
    virtual ~GuestFiles() = default;

    // Partitions and logical volumes, and what is on them.
    virtual Result<std::vector<GuestVolume>> volumes() = 0;
    // One of them as "/". Empty: the only one with a file system, or those of the only operating
    // system that is found, each at its place. kInvalidArgument names them when there are several.
    virtual Status mount(const std::string& device) = 0;

    // Absolute paths of what is mounted; links are followed up to the last part of `path`.
    virtual Result<GuestEntry> entry(const std::string& path) = 0;
    // Where a path leads once its links are followed, within what is mounted.
    virtual Result<std::string> resolve(const std::string& path) = 0;
    // Sorted by name; kTooLarge with more than `limit`.
    virtual Result<std::vector<GuestEntry>> list(const std::string& directory, size_t limit) = 0;
    // The content of a file into a new local one, which must not be there.
    virtual Status download(const std::string& path, const std::string& local_path) = 0;
};

// "/dev/sda3" of the first disk's third partition (0: the whole disk), as libguestfs calls it.
std::string guest_partition_name(size_t disk, uint64_t partition);

}  // namespace farshore
