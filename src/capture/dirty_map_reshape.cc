// A dirty map that was made for other disks, made to fit those that there are now.
#include <fmt/core.h>

#include <algorithm>

#include "capture/dirty_map.h"

namespace farshore {

Status check_disk_change(const std::vector<uint64_t>& from, const std::vector<uint64_t>& to) {
    if (to.size() < from.size())
        return fail(
            Code::kDiskChanged,
            fmt::format("there were {} disks, and places for {} are left", from.size(), to.size()),
            "a disk that is gone keeps its place, with 0 bytes");
    for (size_t i = 0; i < from.size(); ++i) {
        if (to[i] == from[i] || to[i] == 0) continue;
        if (from[i] == 0)
            return fail(Code::kDiskChanged, fmt::format("disk {} was removed before", i),
                        "a disk that comes back is a new one, with an index of its own");
        if (to[i] < from[i])
            return fail(Code::kDiskChanged,
                        fmt::format("disk {} had {} bytes when it was protected, now {}: nobody "
                                    "can know what the machine does with the rest",
                                    i, from[i], to[i]),
                        "give it its old size again; or remove it from the protection "
                        "(`farshore disk remove`) and add it as a new one");
    }
    return {};
}

namespace {

void mark_range(DirtyMapFile::Words& bits, const DirtyMapFile::Disk& disk, ByteRange range) {
    if (range.length_bytes == 0) return;
    const uint64_t last = std::min((range.end() - 1) / disk.region_bytes, disk.regions() - 1);
    for (uint64_t region = range.offset_bytes / disk.region_bytes; region <= last; ++region)
        bits[region / 64] |= 1ull << (region % 64);
}

}  // namespace

Status DirtyMap::reshape(FileSystem& files, const std::string& path, const ItemId& item,
                         const std::vector<uint64_t>& disk_bytes) {
    const auto was = DirtyMapFile::stored_disks(files, path);
    if (!was) {
        const Code code = was.error().code();
        // Whoever opens it makes it anew: everything counts as different then.
        if (code == Code::kNotFound || code == Code::kCorrupt || code == Code::kMalformed ||
            code == Code::kTruncated)
            return {};
        return fail(was.error());
    }
    if (*was == disk_bytes) return {};
    FS_TRY(check_disk_change(*was, disk_bytes));
    DirtyMapFile old(files, path, item, *was);
    Status settled;
    FS_ASSIGN(const DirtyMapFile::Content content, old.open(settled));
    FS_TRY(settled);
    DirtyMapFile fresh(files, path, item, disk_bytes);
    DirtyMapFile::Content next;
    next.header = content.header;
    for (size_t i = 0; i < disk_bytes.size(); ++i) {
        const DirtyMapFile::Disk& disk = fresh.disks()[i];
        next.bits.emplace_back(disk.units * kDirtyWordsPerUnit);
        if (disk_bytes[i] == 0) continue;
        uint64_t before = 0;
        if (i < was->size()) {
            // Regions may be larger now.
            const DirtyMapFile::Disk& known = old.disks()[i];
            before = known.size_bytes;
            for (uint64_t region = 0; region < known.regions(); ++region)
                if ((content.bits[i][region / 64] >> (region % 64) & 1) != 0)
                    mark_range(
                        next.bits[i], disk,
                        {region * known.region_bytes,
                         std::min(known.region_bytes, before - region * known.region_bytes)});
        }
        mark_range(next.bits[i], disk, {before, disk_bytes[i] - before});
    }
    return fresh.renew(next);
}

}  // namespace farshore
