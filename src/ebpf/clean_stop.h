// What lets a machine that captures its own disks be restarted without comparing them: at the very
// end of a shutdown the set of what is not yet at the recovery site is written into blocks that
// were set aside for it; at the very beginning of the next start, before anything is written, it is
// taken out of them and the blocks are made invalid. docs/design/ebpf.md, "Over a restart"; bytes:
// docs/format/clean-stop.md.
//
// Blocking. Called by short-lived programs, one at a time.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/types.h"
#include "capture/todo_map.h"
#include "ebpf/local_disks.h"

namespace farshore {

inline constexpr uint64_t kCleanStopBytes = 1u << 20;  // of the blocks
inline constexpr const char* kEarlyDirectory = "/run/farshore-early";

// Ranges of one machine's disks that may differ from what the appliance has.
struct CleanStop {
    ItemId item;
    std::vector<uint64_t> disk_bytes;
    struct Range {
        DiskIndex disk = 0;
        ByteRange range;
    };
    std::vector<Range> ranges;
};

// At most kCleanStopBytes: where there are too many ranges, neighbours become one.
Bytes encode_clean_stop(CleanStop stop);
// kNotFound: there is none (blocks that were never written, or were made invalid). kCorrupt,
// kMalformed, kNewerVersion.
Result<CleanStop> decode_clean_stop(ByteView bytes);

// Blocks of a disk, in order.
struct DiskBlocks {
    size_t disk = 0;  // index in the item's disks
    std::vector<ByteRange> extents;
    uint64_t bytes() const;
};

// What the program in the initramfs must know of one item.
struct EarlyItem {
    ItemId item;
    std::string config_path;  // of its capture process
    std::string pin_directory;
    uint64_t trace_ring_bytes = 0;
    std::vector<LocalDisk> disks;
    DiskBlocks blocks;
};
std::string encode_early(const std::vector<EarlyItem>& items);
Result<std::vector<EarlyItem>> decode_early(std::string_view json);

// Makes the file (or finds it) and says which blocks of `disks` it lies in. kUnsupported: its file
// system is none whose blocks stay where they are (ext4 and xfs are), or not directly on a
// partition or a whole one of the disks.
Result<DiskBlocks> set_aside_blocks(const std::string& path, const std::vector<LocalDisk>& disks);
// Whether that would be so for a file in the directory, which exists. Makes nothing.
Status check_set_aside(const std::string& directory, const std::vector<LocalDisk>& disks);
Result<Bytes> read_blocks(const std::string& device, const DiskBlocks& blocks);
// Durable when it returns. At most blocks.bytes().
Status write_blocks(const std::string& device, const DiskBlocks& blocks, ByteView bytes);

// Attaches the trace of each item before anything has been written, and hands over what the last
// shutdown saved (kEarlyDirectory). In the initramfs.
Status capture_early(const std::string& early_path);
// Saves each item's state. In the shutdown, when all file systems are read-only.
Status capture_save(const std::string& early_path);
// What capture_early handed over, once: it is gone when this returns. kNotFound.
Result<CleanStop> take_handed_over(const ItemId& item);

}  // namespace farshore
