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

}  // namespace farshore
