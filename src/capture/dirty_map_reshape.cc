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

void DirtyMap::mark_in_memory(DiskIndex disk, ByteRange range) {
    Disk& d = disks_[disk];
    if (range.length_bytes == 0) return;
    const uint64_t first = range.offset_bytes / d.region_bytes;
    const uint64_t last = std::min((range.end() - 1) / d.region_bytes, d.regions() - 1);
    for (uint64_t region = first; region <= last; ++region) {
        d.durable[region / 64] |= 1ull << (region % 64);
        d.uncopied[region / 64] |= 1ull << (region % 64);
    }
}

Status DirtyMap::reshape(FileSystem& files, const std::string& path, const ItemId& item,
                         const std::vector<uint64_t>& disk_bytes) {
    const auto was = stored_disks(files, path);
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
    FS_ASSIGN(const auto old, open(files, path, item, *was));
    const std::string fresh = path + ".new";
    DirtyMap map(files, fresh, item, disk_bytes);
    for (Disk& disk : map.disks_) std::fill(disk.uncopied.begin(), disk.uncopied.end(), 0);
    map.all_dirty_ = old->all_dirty_;
    map.reserved_until_ = old->reserved_until_;
    old->for_each_dirty([&](DiskIndex disk, ByteRange range) {
        if (disk_bytes[disk] != 0) map.mark_in_memory(disk, range);
    });
    for (size_t i = 0; i < disk_bytes.size(); ++i) {
        const uint64_t from = i < was->size() ? (*was)[i] : 0;
        if (disk_bytes[i] > from)
            map.mark_in_memory(static_cast<DiskIndex>(i), {from, disk_bytes[i] - from});
    }
    FS_TRY(map.write_all_new());
    FS_TRY(files.rename(fresh, path));
    return files.sync_directory(directory_of(path));
}

}  // namespace farshore
