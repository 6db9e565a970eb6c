// An image of a disk that is being written: a file in one of a few formats, under another name
// until it is whole. What is behind it is a BlockDevice, whatever the format.
//
// raw and vhd (fixed) are written as they are. qcow2 and vhd-dynamic are served by a qemu-nbd of
// our own, which ends with us: QEMU's code knows these formats best, and NBD is what we speak
// anyway.
//
// One thread at a time, but for device(). Blocking.
#pragma once

#include <memory>
#include <string>

#include "base/seams.h"
#include "block/block_device.h"

namespace farshore {

enum class ImageFormat : uint8_t { kRaw, kQcow2, kVhd, kVhdDynamic, kAzurePageBlob };

struct ImageTarget {
    ImageFormat format = ImageFormat::kRaw;
    std::string path;  // absolute; of a page blob its URL
    // "raw:PATH", "qcow2:PATH", "vhd:PATH", "vhd-dynamic:PATH", "azure-page-blob:URL";
    // kInvalidArgument.
    static Result<ImageTarget> parse(std::string_view text);
};

struct DiskImageOptions {
    ImageTarget target;
    uint64_t disk_bytes = 0;
    bool replace_existing = false;
    std::string settings_file;    // of a page blob: keys, as a store's (docs/operations/store.md)
    std::string socket;           // for qemu-nbd; removed at the end
    FileSystem* files = nullptr;  // borrowed
    Clock* clock = nullptr;
    Random* random = nullptr;
};

class DiskImage {
  public:
    // Whether the target can be: kAlreadyExists (a file that is there, without replace_existing; a
    // block device needs it, too), kNotFound (its directory), kTooLarge (a block device that is
    // smaller than the disk, a disk that the format does not hold), kForbidden, kDependencyMissing.
    static Status check(const DiskImageOptions& options);
    // With `resume` one that was begun and not finished; kNotFound when there is none, or none like
    // that. Otherwise a new one in the place of any such.
    static Result<std::unique_ptr<DiskImage>> open(const DiskImageOptions& options, bool resume);
    // Removes what an unfinished one left.
    static Status discard(const DiskImageOptions& options);
    // Whether finish() was done of one that was to be finished when its program was killed.
    static Result<bool> is_finished(const DiskImageOptions& options);

    virtual ~DiskImage() = default;
    // At least disk_bytes long. Ends with finish() and reopen().
    virtual BlockDevice& device() = 0;
    // Whether what nothing was written to reads as zeroes.
    virtual bool blank() const = 0;
    // All that was written is on its disk and out of the page cache, and is read anew from now on.
    virtual Status reopen() = 0;
    // It gets its name, durably. kAlreadyExists: another file has come there since open(), and is
    // not to be replaced. Can be repeated.
    virtual Status finish() = 0;

    // What a file is called until then. Block devices and blobs are written in their place.
    static std::string partial_path(const ImageTarget& target) { return target.path + ".partial"; }
};

}  // namespace farshore
