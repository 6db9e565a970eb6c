// A writable disk over a base that is never written: what is written goes to a local sparse file,
// and a map beside it says which 4 KiB blocks are there. Formats and order of writes:
// docs/format/overlay.md.
//
// After its process was killed, everything acknowledged is there. After a crash of the host, every
// block is as some write up to the crash left it, and everything flushed is there; a block is never
// taken from the overlay before its data is durable.
// Any thread; overlapping changes are serialised.
#pragma once

#include <memory>
#include <string>

#include "base/seams.h"
#include "block/block_device.h"

namespace farshore {

inline constexpr uint64_t kOverlayBlockBytes = 4096;

// cache() copies what the base has into the overlay; once that is done and flushed for the whole
// disk, the data file alone is the disk, a raw image.
class OverlayDevice : public BlockDevice {
  public:
    // Bytes of the disk that are in the overlay, in whole blocks.
    virtual uint64_t written_bytes() const = 0;
    // Which ranges differ from the base, in order. For the way home.
    virtual std::vector<BlockExtent> written() const = 0;
};

struct OverlayParts {
    std::unique_ptr<BlockDevice> base;
    std::unique_ptr<BlockDevice> data;  // as large as the base; zero where never written
    std::unique_ptr<File> map;          // empty for a new overlay
    // Changes with every start of the host.
    Id<struct BootIdTag> boot;
};

// kDiskChanged (base of another size than the map's), kCorrupt, kMalformed, kNewerVersion.
Result<std::unique_ptr<OverlayDevice>> open_overlay(OverlayParts parts);

// Files `path` and `path`.map, made when missing.
Result<std::unique_ptr<OverlayDevice>> open_overlay_files(std::unique_ptr<BlockDevice> base,
                                                          const std::string& path,
                                                          FileSystem& files);

// What a map said when it was read, to somebody who does not serve the disk. Bits are only ever
// set, so what it has is there still, and what it has not may be there by now.
class OverlayMap {
  public:
    // Of the overlay `path`, in use or not. kNotFound; kMalformed, kCorrupt, kNewerVersion,
    // kTruncated, kDiskChanged (it is one of another size).
    static Result<OverlayMap> read(FileSystem& files, const std::string& path, uint64_t size_bytes);
    // Where the first block from `offset_bytes` on lies that is not in the overlay; the disk's size
    // when all are. And the first from there that is.
    uint64_t next_absent(uint64_t offset_bytes) const;
    uint64_t next_present(uint64_t offset_bytes) const;
    // All of the disk is in the overlay's file, on stable storage.
    bool whole_and_durable() const;

  private:
    OverlayMap(uint64_t size_bytes, Bytes durable, Bytes written)
        : size_bytes_(size_bytes), durable_(std::move(durable)), written_(std::move(written)) {}
    uint64_t next(uint64_t offset_bytes, bool present) const;

    uint64_t size_bytes_;
    Bytes durable_, written_;
};

}  // namespace farshore
