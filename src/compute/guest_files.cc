#include "compute/guest_files.h"

#include <dlfcn.h>
#include <fmt/core.h>
#include <guestfs.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <map>

namespace farshore {
namespace {

constexpr const char* kLibrary = "libguestfs.so.0";
constexpr const char* kInstall =
    "install libguestfs0 (and libguestfs-xfs for xfs), and a kernel for it (linux-image-amd64, or "
    "SUPERMIN_KERNEL and SUPERMIN_MODULES)";
constexpr size_t kStatBatch = 500;  // names in one question: messages of libguestfs have 4 MiB

// What we use of the library, found in it by name.
struct Library {
// clang-format off
#define FARSHORE_GUESTFS(X)                                                                    \
    X(create_flags) X(close) X(set_error_handler) X(last_error) X(last_errno) X(set_backend)   \
    X(set_backend_settings) X(add_drive_opts_argv) X(launch) X(list_filesystems)               \
    X(blockdev_getsize64) X(inspect_os) X(inspect_get_mountpoints) X(mount_ro) X(lstatns)      \
    X(lstatnslist) X(free_statns) X(free_statns_list) X(ls) X(readlink) X(realpath) X(download) \
    X(vfs_type)
// clang-format on
#define FARSHORE_MEMBER(name) decltype(&guestfs_##name) name = nullptr;
    FARSHORE_GUESTFS(FARSHORE_MEMBER)
#undef FARSHORE_MEMBER
    void* handle = nullptr;

    static Result<const Library*> load() {
        static const Result<Library> library = open();
        if (!library) return fail(library.error());
        return &*library;
    }

  private:
    static Result<Library> open() {
        Library library;
        library.handle = ::dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
        if (library.handle == nullptr)
            return fail(Code::kDependencyMissing, "libguestfs is not installed here", kInstall);
        bool complete = true;
#define FARSHORE_FIND(name)                                                                  \
    library.name =                                                                           \
        reinterpret_cast<decltype(library.name)>(::dlsym(library.handle, "guestfs_" #name)); \
    complete = complete && library.name != nullptr;
        FARSHORE_GUESTFS(FARSHORE_FIND)
#undef FARSHORE_FIND
#undef FARSHORE_GUESTFS
        if (!complete)
            return fail(Code::kDependencyMissing, "this libguestfs is too old", kInstall);
        return library;
    }
};

struct Free {
    void operator()(char* text) const { std::free(text); }
};
using Text = std::unique_ptr<char, Free>;

// A list of the library as ours; it is freed.
std::vector<std::string> take_list(char** list) {
    std::vector<std::string> out;
    for (char** at = list; *at != nullptr; ++at) {
        out.emplace_back(*at);
        std::free(*at);
    }
    std::free(list);
    return out;
}

std::string join(const std::string& directory, const std::string& name) {
    return directory.ends_with('/') ? directory + name : directory + "/" + name;
}

std::string last_part(const std::string& path) {
    const size_t end = path.find_last_not_of('/');
    if (end == path.npos) return "/";
    const size_t begin = path.rfind('/', end);
    return path.substr(begin == path.npos ? 0 : begin + 1, end - (begin == path.npos ? -1 : begin));
}

GuestEntry entry_of(const struct guestfs_statns& stat) {
    GuestEntry entry;
    const auto mode = static_cast<uint32_t>(stat.st_mode);
    switch (mode & 0170000u) {
        case 0100000u:
            entry.kind = GuestFileKind::kFile;
            break;
        case 0040000u:
            entry.kind = GuestFileKind::kDirectory;
            break;
        case 0120000u:
            entry.kind = GuestFileKind::kLink;
            break;
        default:
            break;
    }
    entry.mode = mode & 07777u;
    entry.size_bytes = static_cast<uint64_t>(std::max<int64_t>(stat.st_size, 0));
    entry.modified.us = stat.st_mtime_sec * 1'000'000 + stat.st_mtime_nsec / 1000;
    return entry;
}

class Session final : public GuestFiles {
  public:
    explicit Session(const Library& library) : lib_(library) {}
    ~Session() override {
        if (guest_ != nullptr) lib_.close(guest_);
    }

    Status begin(const GuestFilesOptions& options) {
        // Its own way to QEMU: libvirt, which it takes else, need not run here.
        guest_ = lib_.create_flags(0);
        if (guest_ == nullptr)
            return fail(Code::kDependencyMissing, "libguestfs cannot be used here", kInstall);
        lib_.set_error_handler(guest_, nullptr, nullptr);
        if (lib_.set_backend(guest_, "direct") != 0) return failed("choosing its backend");
        char force_tcg[] = "force_tcg";
        char* settings[] = {force_tcg, nullptr};
        if (options.emulate && lib_.set_backend_settings(guest_, settings) != 0)
            return failed("choosing emulation");
        for (const std::string& socket : options.disk_sockets) {
            std::string server = "unix:" + socket;
            char* servers[] = {server.data(), nullptr};
            struct guestfs_add_drive_opts_argv how {};
            how.bitmask =
                GUESTFS_ADD_DRIVE_OPTS_READONLY_BITMASK | GUESTFS_ADD_DRIVE_OPTS_FORMAT_BITMASK |
                GUESTFS_ADD_DRIVE_OPTS_PROTOCOL_BITMASK | GUESTFS_ADD_DRIVE_OPTS_SERVER_BITMASK;
            how.readonly = 1;
            how.format = "raw";
            how.protocol = "nbd";
            how.server = servers;
            if (lib_.add_drive_opts_argv(guest_, "", &how) != 0) return failed("adding a disk");
        }
        if (lib_.launch(guest_) == 0) return {};
        const char* words = lib_.last_error(guest_);
        const std::string text = words == nullptr ? "" : words;
        if (text.find("supermin") != text.npos)
            return fail(Code::kDependencyMissing, "libguestfs cannot make its machine: " + text,
                        kInstall);
        return fail(Code::kGuestFailed, "libguestfs's machine does not start: " + text,
                    "try with emulation (--emulate); `libguestfs-test-tool` says more");
    }

    Result<std::vector<GuestVolume>> volumes() override {
        char** list = lib_.list_filesystems(guest_);
        if (list == nullptr) return failed("looking for file systems");
        const auto pairs = take_list(list);
        std::vector<GuestVolume> found;
        for (size_t i = 0; i + 1 < pairs.size(); i += 2) {
            GuestVolume volume{pairs[i], pairs[i + 1], 0};
            const int64_t bytes = lib_.blockdev_getsize64(guest_, volume.device.c_str());
            if (bytes > 0) volume.size_bytes = static_cast<uint64_t>(bytes);
            found.push_back(std::move(volume));
        }
        return found;
    }

    Status mount(const std::string& device) override {
        FS_ASSIGN(const auto all, volumes());
        if (!device.empty()) {
            for (const GuestVolume& volume : all) {
                if (volume.device != device) continue;
                FS_TRY(check_mountable(volume));
                return mount_at(device, "/");
            }
            // The list leaves out what is encrypted, and members of groups.
            if (const Text type{lib_.vfs_type(guest_, device.c_str())})
                FS_TRY(check_mountable({device, type.get(), 0}));
            return fail(Code::kNotFound, fmt::format("there is no volume {}", device),
                        "there are: " + names_of(all));
        }
        std::vector<GuestVolume> good;
        for (const GuestVolume& volume : all)
            if (volume.mountable()) good.push_back(volume);
        if (good.size() == 1) return mount_at(good.front().device, "/");
        if (good.empty()) {
            for (const GuestVolume& volume : all) FS_TRY(check_mountable(volume));
            return fail(Code::kUnsupported, "there is no file system on these disks");
        }
        // Several: where they belong is what an operating system among them says.
        if (char** list = lib_.inspect_os(guest_)) {
            const auto roots = take_list(list);
            if (roots.size() == 1) return mount_system(roots.front());
        }
        return fail(Code::kInvalidArgument, "there are several file systems: " + names_of(all),
                    "choose one with --volume, or with --disk and --partition");
    }

    Result<GuestEntry> entry(const std::string& path) override {
        struct guestfs_statns* stat = lib_.lstatns(guest_, path.c_str());
        if (stat == nullptr) return failed(path);
        GuestEntry found = entry_of(*stat);
        lib_.free_statns(stat);
        found.name = last_part(path);
        return found;
    }

    Result<std::string> resolve(const std::string& path) override {
        const Text real(lib_.realpath(guest_, path.c_str()));
        if (!real) return failed(path);
        return std::string(real.get());
    }

    Result<std::vector<GuestEntry>> list(const std::string& directory, size_t limit) override {
        char** names_list = lib_.ls(guest_, directory.c_str());
        if (names_list == nullptr) return failed(directory);
        auto names = take_list(names_list);
        if (names.size() > limit)
            return fail(Code::kTooLarge, fmt::format("a directory has {} entries, at most {} are "
                                                     "looked at",
                                                     names.size(), limit));
        std::vector<GuestEntry> found;
        for (size_t from = 0; from < names.size(); from += kStatBatch) {
            std::vector<char*> batch;
            for (size_t i = from; i < std::min(names.size(), from + kStatBatch); ++i)
                batch.push_back(names[i].data());
            batch.push_back(nullptr);
            struct guestfs_statns_list* stats =
                lib_.lstatnslist(guest_, directory.c_str(), batch.data());
            if (stats == nullptr) return failed(directory);
            for (size_t i = 0; i < stats->len && from + i < names.size(); ++i) {
                GuestEntry entry;
                // An inode of -1: it could not be examined.
                if (stats->val[i].st_ino != -1) entry = entry_of(stats->val[i]);
                entry.name = names[from + i];
                if (entry.kind == GuestFileKind::kLink)
                    if (const Text target{
                            lib_.readlink(guest_, join(directory, entry.name).c_str())})
                        entry.link_target = target.get();
                found.push_back(std::move(entry));
            }
            lib_.free_statns_list(stats);
        }
        return found;
    }

    Status download(const std::string& path, const std::string& local_path) override {
        if (lib_.download(guest_, path.c_str(), local_path.c_str()) == 0) return {};
        return failed(path);
    }

  private:
    static std::string names_of(const std::vector<GuestVolume>& volumes) {
        std::string names;
        for (const GuestVolume& volume : volumes)
            names +=
                fmt::format("{}{} ({})", names.empty() ? "" : ", ", volume.device, volume.type);
        return names.empty() ? "none" : names;
    }

    static Status check_mountable(const GuestVolume& volume) {
        if (volume.mountable()) return {};
        if (volume.type.find("crypto") != std::string::npos || volume.type == "BitLocker")
            return fail(Code::kUnsupported,
                        fmt::format("{} is encrypted ({})", volume.device, volume.type),
                        "its files can be read where its key is: in a test failover");
        return fail(Code::kUnsupported, fmt::format("{} holds no file system that is known ({})",
                                                    volume.device, volume.type));
    }

    Status mount_at(const std::string& device, const std::string& place) {
        if (lib_.mount_ro(guest_, device.c_str(), place.c_str()) == 0) return {};
        const char* words = lib_.last_error(guest_);
        return fail(Code::kCorrupt,
                    fmt::format("{} does not mount: {}", device, words == nullptr ? "" : words),
                    "another point, or one with frozen file systems, may");
    }

    Status mount_system(const std::string& root) {
        char** list = lib_.inspect_get_mountpoints(guest_, root.c_str());
        if (list == nullptr) return mount_at(root, "/");
        const auto pairs = take_list(list);
        std::map<std::string, std::string> places;  // "/" comes first
        for (size_t i = 0; i + 1 < pairs.size(); i += 2) places[pairs[i]] = pairs[i + 1];
        FS_TRY(mount_at(root, "/"));
        // What the machine would have mounted, too; a place that is not there is left out.
        for (const auto& [place, device] : places)
            if (place != "/") (void)lib_.mount_ro(guest_, device.c_str(), place.c_str());
        return {};
    }

    tl::unexpected<Error> failed(const std::string& what) {
        const char* words = lib_.last_error(guest_);
        const std::string text = fmt::format("{}: {}", what, words == nullptr ? "" : words);
        switch (lib_.last_errno(guest_)) {
            case ENOENT:
                return fail(Code::kNotFound, text);
            case ENOTDIR:
            case EINVAL:
            case ELOOP:
            case ENAMETOOLONG:
                return fail(Code::kInvalidArgument, text);
            case ENOSPC:
                return fail(Code::kNoSpace, text);
            default:
                return fail(Code::kIo, text);
        }
    }

    const Library& lib_;
    guestfs_h* guest_ = nullptr;
};

}  // namespace

bool GuestVolume::mountable() const {
    return !type.empty() && type != "unknown" && type != "swap" && type != "BitLocker" &&
           type.find("crypto") == std::string::npos && type.find("_member") == std::string::npos;
}

Result<std::unique_ptr<GuestFiles>> GuestFiles::start(const GuestFilesOptions& options) {
    FS_ASSIGN(const Library* library, Library::load());
    auto session = std::make_unique<Session>(*library);
    FS_TRY(session->begin(options));
    return session;
}

std::string guest_partition_name(size_t disk, uint64_t partition) {
    std::string letters;
    for (size_t number = disk + 1; number > 0; number = (number - 1) / 26)
        letters.insert(letters.begin(), static_cast<char>('a' + (number - 1) % 26));
    return "/dev/sd" + letters + (partition == 0 ? "" : std::to_string(partition));
}

}  // namespace farshore
