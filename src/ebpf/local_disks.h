// The disks of the machine that this process runs on: which of them can be captured here, and which
// is which after a restart has given them other names.
//
// Blocking (reads /sys, and one sector of the disk for its partition table's id). Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace farshore {

struct LocalDisk {
    std::string name;    // "vda"
    std::string device;  // "/dev/vda"
    std::string identity;  // the same at each start: "wwid:…", "serial:…", "gpt:…", or "name:vda"
    uint32_t major = 0, minor = 0;
    uint64_t size_bytes = 0;
};

// A whole disk by its path or a link to it (/dev/disk/by-id/…). kNotFound; kInvalidArgument: a
// partition, or no block device. kUnsupported, with the alternative, for what cannot be captured:
// a stacked device (its leaves can), DAX, a zoned disk.
Result<LocalDisk> inspect_disk(const std::string& path);
// The disk with that identity, wherever it is now; `path` is where it was. kNotFound.
Result<LocalDisk> find_disk(const std::string& identity, const std::string& path);
// All whole disks that have a size and can be captured.
std::vector<LocalDisk> list_disks();
// JSON, for the agent's own keeping. kMalformed.
std::string encode_devices(const std::vector<LocalDisk>& disks);
Result<std::vector<LocalDisk>> decode_devices(std::string_view json);

// Whether the file system that holds `path` is, as far as can be seen, on one of the disks. What
// cannot be told (a file system without a disk of its own to name) counts as yes; a tmpfs does not.
bool lies_on_disks(const std::string& path, const std::vector<LocalDisk>& disks);
// The same of a block device: a partition, or a volume over several disks. False when unknown.
bool device_lies_on_disks(uint32_t major_number, uint32_t minor_number,
                          const std::vector<LocalDisk>& disks);

}  // namespace farshore
