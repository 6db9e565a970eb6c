#include "ebpf/clean_stop.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "codec/crc32c.h"
#include "os/fd.h"
#include "os/real.h"
#include "record/record.h"

namespace farshore {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

// docs/format/clean-stop.md fixes these places.
constexpr uint8_t kMagic[8] = {'F', 'S', 'C', 'L', 'E', 'A', 'N', '\0'};
constexpr uint32_t kVersion = 1;
constexpr size_t kVersionAt = 8, kCrcAt = 12, kItemAt = 16, kDisksAt = 32, kRangesAt = 36,
                 kHeaderBytes = 40;
constexpr size_t kDiskEntryBytes = 8, kRangeBytes = 18;
constexpr uint64_t kBlockBytes = 4096;
constexpr uint64_t kXfsMagic = 0x58465342;

struct Free {
    void operator()(uint8_t* at) const { std::free(at); }
};
using AlignedBytes = std::unique_ptr<uint8_t, Free>;
AlignedBytes aligned(size_t bytes) {
    AlignedBytes room(static_cast<uint8_t*>(std::aligned_alloc(kBlockBytes, bytes)));
    if (room) std::memset(room.get(), 0, bytes);
    return room;
}

// Ranges that touch or lie less than `gap_bytes` apart become one.
void merge(std::vector<CleanStop::Range>& ranges, uint64_t gap_bytes) {
    std::sort(ranges.begin(), ranges.end(), [](const auto& a, const auto& b) {
        return std::pair(a.disk, a.range.offset_bytes) < std::pair(b.disk, b.range.offset_bytes);
    });
    std::vector<CleanStop::Range> merged;
    for (const CleanStop::Range& one : ranges) {
        if (!merged.empty() && merged.back().disk == one.disk &&
            one.range.offset_bytes <= merged.back().range.end() + gap_bytes) {
            ByteRange& last = merged.back().range;
            last.length_bytes = std::max(last.end(), one.range.end()) - last.offset_bytes;
        } else {
            merged.push_back(one);
        }
    }
    ranges = std::move(merged);
}

uint32_t checksum(ByteView bytes) {
    Bytes copy = to_bytes(bytes);
    std::memset(copy.data() + kCrcAt, 0, 4);
    return crc32c(copy);
}

}  // namespace

uint64_t DiskBlocks::bytes() const {
    uint64_t sum = 0;
    for (const ByteRange& extent : extents) sum += extent.length_bytes;
    return sum;
}

// ---- bytes --------------------------------------------------------------------------------------

Bytes encode_clean_stop(CleanStop stop) {
    const size_t most =
        (kCleanStopBytes - kHeaderBytes - stop.disk_bytes.size() * kDiskEntryBytes) / kRangeBytes;
    merge(stop.ranges, 0);
    for (uint64_t gap = kTodoGranuleBytes; stop.ranges.size() > most; gap *= 4)
        merge(stop.ranges, gap);
    Bytes bytes(kHeaderBytes + stop.disk_bytes.size() * kDiskEntryBytes +
                stop.ranges.size() * kRangeBytes);
    std::memcpy(bytes.data(), kMagic, sizeof kMagic);
    store_u32(bytes.data() + kVersionAt, kVersion);
    std::memcpy(bytes.data() + kItemAt, stop.item.raw.data(), stop.item.raw.size());
    store_u32(bytes.data() + kDisksAt, static_cast<uint32_t>(stop.disk_bytes.size()));
    store_u32(bytes.data() + kRangesAt, static_cast<uint32_t>(stop.ranges.size()));
    uint8_t* at = bytes.data() + kHeaderBytes;
    for (const uint64_t size : stop.disk_bytes) {
        store_u64(at, size);
        at += kDiskEntryBytes;
    }
    for (const CleanStop::Range& one : stop.ranges) {
        store_u16(at, one.disk);
        store_u64(at + 2, one.range.offset_bytes);
        store_u64(at + 10, one.range.length_bytes);
        at += kRangeBytes;
    }
    store_u32(bytes.data() + kCrcAt, checksum(bytes));
    return bytes;
}

Result<CleanStop> decode_clean_stop(ByteView bytes) {
    if (bytes.size() < kHeaderBytes || std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0)
        return fail(Code::kNotFound, "no clean stop was saved");
    if (load_u32(bytes.data() + kVersionAt) != kVersion)
        return fail(Code::kNewerVersion,
                    fmt::format("a clean stop of version {}, known is {}",
                                load_u32(bytes.data() + kVersionAt), kVersion));
    const uint64_t disks = load_u32(bytes.data() + kDisksAt);
    const uint64_t ranges = load_u32(bytes.data() + kRangesAt);
    if (disks == 0 || disks > kMaxDisks || ranges > kCleanStopBytes / kRangeBytes)
        return fail(Code::kMalformed, "a clean stop with counts out of range");
    const uint64_t length = kHeaderBytes + disks * kDiskEntryBytes + ranges * kRangeBytes;
    if (length > bytes.size()) return fail(Code::kMalformed, "a clean stop that is cut short");
    bytes = bytes.first(length);
    if (load_u32(bytes.data() + kCrcAt) != checksum(bytes))
        return fail(Code::kCorrupt, "a clean stop does not match its checksum");
    CleanStop stop;
    std::memcpy(stop.item.raw.data(), bytes.data() + kItemAt, stop.item.raw.size());
    const uint8_t* at = bytes.data() + kHeaderBytes;
    for (uint64_t i = 0; i < disks; ++i, at += kDiskEntryBytes)
        stop.disk_bytes.push_back(load_u64(at));
    for (uint64_t i = 0; i < ranges; ++i, at += kRangeBytes) {
        CleanStop::Range one{load_u16(at), {load_u64(at + 2), load_u64(at + 10)}};
        if (one.disk >= disks || one.range.offset_bytes > stop.disk_bytes[one.disk] ||
            one.range.length_bytes > stop.disk_bytes[one.disk] - one.range.offset_bytes)
            return fail(Code::kMalformed, "a clean stop with a range outside its disk");
        stop.ranges.push_back(one);
    }
    return stop;
}

std::string encode_early(const std::vector<EarlyItem>& items) {
    Json list = Json::array();
    for (const EarlyItem& item : items) {
        Json extents = Json::array();
        for (const ByteRange& extent : item.blocks.extents)
            extents.push_back({extent.offset_bytes, extent.length_bytes});
        list.push_back({{"item", item.item.to_string()},
                        {"config", item.config_path},
                        {"pin_directory", item.pin_directory},
                        {"trace_ring_bytes", item.trace_ring_bytes},
                        {"disks", Json::parse(encode_devices(item.disks))["devices"]},
                        {"blocks", {{"disk", item.blocks.disk}, {"extents", std::move(extents)}}}});
    }
    return Json{{"items", std::move(list)}}.dump(2) + "\n";
}

Result<std::vector<EarlyItem>> decode_early(std::string_view json) {
    const auto bad = [](std::string_view what) {
        return fail(Code::kMalformed, fmt::format("early.json: {}", what),
                    "the agent writes it anew when it starts");
    };
    const Json root = Json::parse(json, nullptr, false);
    if (!root.is_object() || !root.contains("items") || !root["items"].is_array())
        return bad("not a list of items");
    std::vector<EarlyItem> items;
    for (const Json& one : root["items"]) {
        const auto text = [&](const char* key) {
            return one.is_object() && one.contains(key) && one[key].is_string()
                       ? one[key].get<std::string>()
                       : std::string();
        };
        EarlyItem item;
        const auto id = ItemId::parse(text("item"));
        if (!id) return bad("an item without its id");
        item.item = *id;
        item.config_path = text("config");
        item.pin_directory = text("pin_directory");
        if (item.config_path.empty() || item.pin_directory.empty()) return bad("a path is missing");
        if (!one.contains("trace_ring_bytes") || !one["trace_ring_bytes"].is_number_unsigned() ||
            !one.contains("disks") || !one.contains("blocks") || !one["blocks"].is_object())
            return bad("a field is missing");
        item.trace_ring_bytes = one["trace_ring_bytes"];
        FS_ASSIGN(item.disks, decode_devices(Json{{"devices", one["disks"]}}.dump()));
        const Json& blocks = one["blocks"];
        if (!blocks.contains("disk") || !blocks["disk"].is_number_unsigned() ||
            !blocks.contains("extents") || !blocks["extents"].is_array())
            return bad("blocks without a place");
        item.blocks.disk = blocks["disk"];
        for (const Json& extent : blocks["extents"]) {
            if (!extent.is_array() || extent.size() != 2 || !extent[0].is_number_unsigned() ||
                !extent[1].is_number_unsigned())
                return bad("an extent is no pair of numbers");
            item.blocks.extents.push_back({extent[0], extent[1]});
        }
        if (item.disks.empty() || item.blocks.disk >= item.disks.size())
            return bad("blocks on no disk of the item");
        const uint64_t size = item.disks[item.blocks.disk].size_bytes;
        for (const ByteRange& extent : item.blocks.extents)
            if (extent.offset_bytes > size || extent.length_bytes > size - extent.offset_bytes ||
                extent.offset_bytes % kBlockBytes != 0 || extent.length_bytes % kBlockBytes != 0)
                return bad("an extent outside its disk");
        items.push_back(std::move(item));
    }
    return items;
}

// ---- blocks -------------------------------------------------------------------------------------

namespace {

// Where a file system's device lies.
struct Place {
    size_t disk = 0;  // index in the disks
    uint64_t start_bytes = 0;
};

Status check_blocks_stay(uint64_t type) {
    if (type == EXT4_SUPER_MAGIC || type == kXfsMagic) return {};
    return fail(Code::kUnsupported,
                "blocks can be set aside on ext4 and xfs only: after each restart the disks are "
                "read again");
}

Result<Place> find_place(const std::string& path, dev_t device,
                         const std::vector<LocalDisk>& disks) {
    std::error_code error;
    const fs::path node =
        fs::canonical(fmt::format("/sys/dev/block/{}:{}", major(device), minor(device)), error);
    if (error) return fail(Code::kUnsupported, fmt::format("'{}' is on no disk of its own", path));
    Place place;
    std::string disk_name = node.filename();
    PosixFileSystem files;
    if (auto start = read_whole_file(files, node.string() + "/start")) {
        place.start_bytes = std::strtoull(std::string(as_text(*start)).c_str(), nullptr, 10) * 512;
        disk_name = node.parent_path().filename();
    }
    const auto disk = std::find_if(disks.begin(), disks.end(),
                                   [&](const LocalDisk& one) { return one.name == disk_name; });
    if (disk == disks.end())
        return fail(
            Code::kUnsupported,
            fmt::format("'{}' is not on a partition of a protected disk: after each restart "
                        "the disks are read again",
                        path));
    place.disk = static_cast<size_t>(disk - disks.begin());
    return place;
}

}  // namespace

Status check_set_aside(const std::string& directory, const std::vector<LocalDisk>& disks) {
    struct stat info {};
    struct statfs kind {};
    if (::stat(directory.c_str(), &info) != 0 || ::statfs(directory.c_str(), &kind) != 0)
        return fail_errno(errno, fmt::format("examine '{}'", directory));
    FS_TRY(check_blocks_stay(static_cast<uint64_t>(kind.f_type)));
    FS_TRY(find_place(directory, info.st_dev, disks));
    return {};
}

Result<DiskBlocks> set_aside_blocks(const std::string& path, const std::vector<LocalDisk>& disks) {
    FS_TRY(check_set_aside(fs::path(path).parent_path(), disks));
    const UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!fd) return fail_errno(errno, fmt::format("open '{}'", path));
    struct stat info {};
    if (::fstat(fd.get(), &info) != 0) return fail_errno(errno, fmt::format("examine '{}'", path));
    if (static_cast<uint64_t>(info.st_size) != kCleanStopBytes) {
        const Bytes zeroes(kCleanStopBytes);
        if (::pwrite(fd.get(), zeroes.data(), zeroes.size(), 0) !=
                static_cast<ssize_t>(zeroes.size()) ||
            ::fsync(fd.get()) != 0)
            return fail_errno(errno, fmt::format("write '{}'", path));
    }
    FS_ASSIGN(const Place place, find_place(path, info.st_dev, disks));
    const uint64_t start_bytes = place.start_bytes;
    DiskBlocks blocks;
    blocks.disk = place.disk;
    constexpr size_t kMostExtents = 256;
    std::vector<uint64_t> room((sizeof(fiemap) + kMostExtents * sizeof(fiemap_extent)) / 8 + 1);
    auto* map = reinterpret_cast<fiemap*>(room.data());
    map->fm_length = kCleanStopBytes;
    map->fm_flags = FIEMAP_FLAG_SYNC;
    map->fm_extent_count = kMostExtents;
    if (::ioctl(fd.get(), FS_IOC_FIEMAP, map) != 0)
        return fail_errno(errno, fmt::format("ask where '{}' lies", path));
    uint64_t expected = 0;
    for (uint32_t i = 0; i < map->fm_mapped_extents; ++i) {
        const fiemap_extent& extent = map->fm_extents[i];
        constexpr uint32_t kUnusable = FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC |
                                       FIEMAP_EXTENT_ENCODED | FIEMAP_EXTENT_NOT_ALIGNED |
                                       FIEMAP_EXTENT_UNWRITTEN | FIEMAP_EXTENT_DATA_INLINE |
                                       FIEMAP_EXTENT_SHARED;
        if (extent.fe_logical != expected || (extent.fe_flags & kUnusable) != 0) break;
        blocks.extents.push_back({start_bytes + extent.fe_physical, extent.fe_length});
        expected += extent.fe_length;
    }
    if (expected < kCleanStopBytes)
        return fail(Code::kUnsupported, fmt::format("the blocks of '{}' cannot be told", path));
    return blocks;
}

Result<Bytes> read_blocks(const std::string& device, const DiskBlocks& blocks) {
    Bytes bytes;
    const UniqueFd fd(::open(device.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
    if (!fd) return fail_errno(errno, fmt::format("open '{}'", device));
    for (const ByteRange& extent : blocks.extents) {
        const AlignedBytes room = aligned(extent.length_bytes);
        if (!room || ::pread(fd.get(), room.get(), extent.length_bytes,
                             static_cast<off_t>(extent.offset_bytes)) !=
                         static_cast<ssize_t>(extent.length_bytes))
            return fail_errno(errno, fmt::format("read '{}'", device));
        bytes.insert(bytes.end(), room.get(), room.get() + extent.length_bytes);
    }
    return bytes;
}

Status write_blocks(const std::string& device, const DiskBlocks& blocks, ByteView bytes) {
    if (bytes.size() > blocks.bytes())
        return fail(Code::kTooLarge, "more than was set aside for it");
    // The first block has the header: it is written last, when the rest is durable.
    struct Piece {
        uint64_t offset;
        ByteView data;
    };
    std::vector<Piece> pieces;
    for (const ByteRange& extent : blocks.extents) {
        for (uint64_t at = 0; at < extent.length_bytes && !bytes.empty(); at += kBlockBytes) {
            const size_t n = std::min<size_t>(kBlockBytes, bytes.size());
            pieces.push_back({extent.offset_bytes + at, bytes.first(n)});
            bytes = bytes.subspan(n);
        }
    }
    const UniqueFd fd(::open(device.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC));
    if (!fd) return fail_errno(errno, fmt::format("open '{}'", device));
    const AlignedBytes room = aligned(kBlockBytes);
    for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece) {
        if (piece + 1 == pieces.rend() && ::fsync(fd.get()) != 0)
            return fail_errno(errno, fmt::format("flush '{}'", device));
        std::memset(room.get(), 0, kBlockBytes);
        std::memcpy(room.get(), piece->data.data(), piece->data.size());
        if (::pwrite(fd.get(), room.get(), kBlockBytes, static_cast<off_t>(piece->offset)) !=
            static_cast<ssize_t>(kBlockBytes))
            return fail_errno(errno, fmt::format("write '{}'", device));
    }
    if (::fsync(fd.get()) != 0) return fail_errno(errno, fmt::format("flush '{}'", device));
    return {};
}

}  // namespace farshore
