#include "ebpf/local_disks.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "base/bytes.h"
#include "os/fd.h"
#include "os/real.h"

namespace farshore {
namespace {

namespace fs = std::filesystem;

// An attribute of sysfs without the white space around it; empty when there is none.
std::string attribute(const std::string& path) {
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    char text[4096];
    const ssize_t n = fd ? ::read(fd.get(), text, sizeof text) : 0;
    std::string value(text, n > 0 ? static_cast<size_t>(n) : 0);
    const auto blank = [](char c) { return c == ' ' || c == '\n' || c == '\0'; };
    while (!value.empty() && blank(value.back())) value.pop_back();
    while (!value.empty() && blank(value.front())) value.erase(0, 1);
    return value;
}

bool there(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

std::vector<std::string> names_in(const std::string& directory) {
    std::vector<std::string> names;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(directory, error))
        names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
}

std::string block_directory(const std::string& name) { return "/sys/block/" + name; }

// The disk's own id in its GUID partition table (UEFI specification 2.10, §5.3.2), as written
// there.
std::string partition_table_id(const std::string& device) {
    const UniqueFd fd(::open(device.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
    int block = 0;
    if (!fd || ::ioctl(fd.get(), BLKSSZGET, &block) != 0 || block < 512 || block > 4096) return {};
    struct Free {
        void operator()(uint8_t* at) const { std::free(at); }
    };
    const std::unique_ptr<uint8_t, Free> sector(
        static_cast<uint8_t*>(std::aligned_alloc(4096, 4096)));
    if (!sector || ::pread(fd.get(), sector.get(), static_cast<size_t>(block), block) != block)
        return {};
    constexpr size_t kIdAt = 56, kIdBytes = 16;
    if (as_text({sector.get(), 8}) != "EFI PART") return {};
    return to_hex({sector.get() + kIdAt, kIdBytes});
}

std::string identity_of(const std::string& name, const std::string& device) {
    const std::string block = block_directory(name);
    // A loop device is what its file is.
    if (const std::string file = attribute(block + "/loop/backing_file"); !file.empty())
        return "loop:" + file;
    for (const char* at : {"/wwid", "/device/wwid"})
        if (const std::string id = attribute(block + at); !id.empty()) return "wwid:" + id;
    for (const char* at : {"/serial", "/device/serial"})
        if (const std::string id = attribute(block + at); !id.empty()) return "serial:" + id;
    if (const std::string id = partition_table_id(device); !id.empty()) return "gpt:" + id;
    return "name:" + name;
}

// Whole disks under a device: itself, its disk, or those that it is made of.
void add_disks_under(uint32_t major_number, uint32_t minor_number, int depth,
                     std::vector<std::pair<uint32_t, uint32_t>>& found) {
    constexpr int kMaxDepth = 16;
    if (depth > kMaxDepth) return;
    std::error_code error;
    const fs::path node =
        fs::canonical(fmt::format("/sys/dev/block/{}:{}", major_number, minor_number), error);
    if (error) return;
    const auto numbers = [](const fs::path& at, uint32_t& high, uint32_t& low) {
        const std::string text = attribute(at.string() + "/dev");
        return std::sscanf(text.c_str(), "%u:%u", &high, &low) == 2;
    };
    uint32_t high = 0, low = 0;
    if (there(node.string() + "/partition")) {
        if (numbers(node.parent_path(), high, low)) add_disks_under(high, low, depth + 1, found);
        return;
    }
    const auto slaves = names_in(node.string() + "/slaves");
    for (const std::string& slave : slaves)
        if (numbers("/sys/class/block/" + slave, high, low))
            add_disks_under(high, low, depth + 1, found);
    if (slaves.empty()) found.emplace_back(major_number, minor_number);
}

using DeviceNumbers = std::vector<std::pair<uint32_t, uint32_t>>;

DeviceNumbers disks_under(uint32_t major_number, uint32_t minor_number) {
    DeviceNumbers under;
    add_disks_under(major_number, minor_number, 0, under);
    return under;
}

// The disks under a stacked device, through all that is stacked there, as a list for a person.
std::string leaves_of(uint32_t major_number, uint32_t minor_number) {
    std::set<std::string> names;
    for (const auto& [high, low] : disks_under(major_number, minor_number)) {
        std::error_code error;
        const fs::path node = fs::canonical(fmt::format("/sys/dev/block/{}:{}", high, low), error);
        if (!error && std::pair(high, low) != std::pair(major_number, minor_number))
            names.insert("/dev/" + node.filename().string());
    }
    std::string leaves;
    for (const std::string& one : names) leaves += (leaves.empty() ? "" : ", ") + one;
    return leaves;
}

// `path` is the name that somebody gave it.
Status check_capturable(const LocalDisk& disk, const std::string& path) {
    const std::string block = block_directory(disk.name);
    if (!there(block + "/mq")) {
        const std::string leaves = leaves_of(disk.major, disk.minor);
        return fail(Code::kUnsupported,
                    fmt::format("{} is a stacked device: its writes cannot be seen in order", path),
                    leaves.empty() ? "protect the disks that hold its data"
                                   : fmt::format("protect the disks that it lies on: {}", leaves));
    }
    if (attribute(block + "/queue/dax") == "1")
        return fail(Code::kUnsupported,
                    fmt::format("{} is memory (DAX): programs write it without the kernel", path),
                    "mount it without DAX on a disk in sector mode, or protect the machine from "
                    "its hypervisor");
    if (const std::string zoned = attribute(block + "/queue/zoned");
        !zoned.empty() && zoned != "none")
        return fail(Code::kUnsupported, fmt::format("{} is a zoned disk", path),
                    "keep what must be protected on a disk without zones");
    return {};
}

bool any_of_disks(const DeviceNumbers& devices, const std::vector<LocalDisk>& disks) {
    return std::any_of(devices.begin(), devices.end(), [&](const auto& numbers) {
        return std::any_of(disks.begin(), disks.end(), [&](const LocalDisk& disk) {
            return disk.major == numbers.first && disk.minor == numbers.second;
        });
    });
}

}  // namespace

Result<LocalDisk> inspect_disk(const std::string& path) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0)
        return fail_errno(errno, fmt::format("examine '{}'", path));
    if (!S_ISBLK(info.st_mode))
        return fail(Code::kInvalidArgument, fmt::format("'{}' is no block device", path),
                    "name a disk, e.g. /dev/vda");
    LocalDisk disk;
    disk.major = major(info.st_rdev);
    disk.minor = minor(info.st_rdev);
    std::error_code error;
    const fs::path node =
        fs::canonical(fmt::format("/sys/dev/block/{}:{}", disk.major, disk.minor), error);
    if (error) return fail(Code::kNotFound, fmt::format("the kernel has no disk '{}'", path));
    if (there(node.string() + "/partition"))
        return fail(
            Code::kInvalidArgument, fmt::format("'{}' is a partition", path),
            fmt::format("protect its whole disk, /dev/{}", node.parent_path().filename().string()));
    disk.name = node.filename();
    disk.device = "/dev/" + disk.name;
    disk.size_bytes = std::strtoull(attribute(node.string() + "/size").c_str(), nullptr, 10) * 512;
    FS_TRY(check_capturable(disk, path));
    if (disk.size_bytes == 0)
        return fail(Code::kInvalidArgument, fmt::format("'{}' has no medium", path));
    disk.identity = identity_of(disk.name, disk.device);
    return disk;
}

std::vector<LocalDisk> list_disks() {
    std::vector<LocalDisk> disks;
    for (const std::string& name : names_in("/sys/block"))
        if (auto disk = inspect_disk("/dev/" + name)) disks.push_back(std::move(*disk));
    return disks;
}

Result<LocalDisk> find_disk(const std::string& identity, const std::string& path) {
    auto at_its_place = inspect_disk(path);
    if (at_its_place && at_its_place->identity == identity) return at_its_place;
    for (LocalDisk& disk : list_disks())
        if (disk.identity == identity) return disk;
    if (!at_its_place) return at_its_place;
    return fail(Code::kNotFound,
                fmt::format("'{}' is another disk than was protected ({}, now {})", path, identity,
                            at_its_place->identity),
                "attach the disk again, or unprotect the machine and protect it anew");
}

std::string encode_devices(const std::vector<LocalDisk>& disks) {
    nlohmann::json list = nlohmann::json::array();
    for (const LocalDisk& disk : disks)
        list.push_back({{"identity", disk.identity},
                        {"device", disk.device},
                        {"size_bytes", disk.size_bytes}});
    return nlohmann::json{{"devices", std::move(list)}}.dump(2) + "\n";
}

Result<std::vector<LocalDisk>> decode_devices(std::string_view json) {
    const auto bad = [] {
        return fail(Code::kMalformed, "the list of protected devices is damaged");
    };
    const auto root = nlohmann::json::parse(json, nullptr, false);
    if (!root.is_object() || !root.contains("devices") || !root["devices"].is_array()) return bad();
    std::vector<LocalDisk> disks;
    for (const auto& one : root["devices"]) {
        if (!one.is_object()) return bad();
        const auto identity = one.find("identity"), device = one.find("device"),
                   size = one.find("size_bytes");
        if (identity == one.end() || !identity->is_string() || device == one.end() ||
            !device->is_string() || size == one.end() || !size->is_number_unsigned())
            return bad();
        LocalDisk disk;
        disk.identity = *identity;
        disk.device = *device;
        disk.size_bytes = *size;
        disks.push_back(std::move(disk));
    }
    return disks;
}

bool lies_on_disks(const std::string& path, const std::vector<LocalDisk>& disks) {
    struct stat info {};
    struct statfs kind {};
    if (::stat(path.c_str(), &info) != 0 || ::statfs(path.c_str(), &kind) != 0) return true;
    if (static_cast<uint64_t>(kind.f_type) == TMPFS_MAGIC) return false;
    const auto under = disks_under(major(info.st_dev), minor(info.st_dev));
    return under.empty() || any_of_disks(under, disks);
}

bool device_lies_on_disks(uint32_t major_number, uint32_t minor_number,
                          const std::vector<LocalDisk>& disks) {
    return any_of_disks(disks_under(major_number, minor_number), disks);
}

}  // namespace farshore
