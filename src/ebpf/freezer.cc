#include "ebpf/freezer.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/fs.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "base/bytes.h"
#include "os/fd.h"
#include "os/real.h"
#include "os/waiting.h"

namespace farshore {
namespace {

constexpr size_t kMaxMountBytes = 4u << 20;
constexpr int kPollMs = 5;
constexpr int kThawTries = 50, kThawPauseMs = 100;

// Spaces and the like are written as \ooo there.
std::string unescaped(std::string_view text) {
    std::string plain;
    for (size_t i = 0; i < text.size(); ++i) {
        const auto digit = [&](size_t at) { return text[at] >= '0' && text[at] <= '7'; };
        if (text[i] == '\\' && i + 3 < text.size() && digit(i + 1) && digit(i + 2) &&
            digit(i + 3)) {
            plain += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                                       (text[i + 3] - '0'));
            i += 3;
        } else {
            plain += text[i];
        }
    }
    return plain;
}

std::vector<std::string_view> words_of(std::string_view line) {
    std::vector<std::string_view> words;
    while (!line.empty()) {
        const size_t end = std::min(line.find(' '), line.size());
        if (end > 0) words.push_back(line.substr(0, end));
        line.remove_prefix(std::min(end + 1, line.size()));
    }
    return words;
}

std::optional<Mount> parse_mount(std::string_view line) {
    const std::vector<std::string_view> words = words_of(line);
    const auto dash = std::find(words.begin(), words.end(), "-");
    if (words.size() < 6 || words.end() - dash < 4) return std::nullopt;
    Mount mount;
    mount.id = std::strtoull(std::string(words[0]).c_str(), nullptr, 10);
    if (std::sscanf(std::string(words[2]).c_str(), "%u:%u", &mount.major, &mount.minor) != 2)
        return std::nullopt;
    mount.path = unescaped(words[4]);
    mount.kind = std::string(dash[1]);
    mount.source = unescaped(dash[2]);
    mount.writable = dash[3] == "rw" || dash[3].starts_with("rw,");
    return mount;
}

bool lies_on(const Mount& mount, const std::vector<LocalDisk>& disks) {
    if (mount.major != 0) return device_lies_on_disks(mount.major, mount.minor, disks);
    // File systems over several devices (btrfs) have no device number; they name one of them.
    struct stat info {};
    return mount.source.starts_with("/dev/") && ::stat(mount.source.c_str(), &info) == 0 &&
           S_ISBLK(info.st_mode) &&
           device_lies_on_disks(major(info.st_rdev), minor(info.st_rdev), disks);
}

// Whether its path leads to it, and not to something mounted over it.
bool reachable(const Mount& mount) {
    struct statx info {};
    return ::statx(AT_FDCWD, mount.path.c_str(), AT_NO_AUTOMOUNT | AT_SYMLINK_NOFOLLOW,
                   STATX_MNT_ID, &info) == 0 &&
           (info.stx_mask & STATX_MNT_ID) != 0 && info.stx_mnt_id == mount.id;
}

struct Place {
    std::string path;
    UniqueFd fd;
};

Status thaw(const Place& place) {
    for (int tried = 0;; ++tried) {
        if (::ioctl(place.fd.get(), FITHAW, 0) == 0) return {};
        if (errno == EINVAL)
            return fail(Code::kWrongState,
                        fmt::format("'{}' was thawed by somebody else", place.path));
        if (tried == kThawTries) return fail_errno(errno, fmt::format("thaw '{}'", place.path));
        pause_ms(kThawPauseMs);
    }
}

// Freezes on a thread of its own, because a disk may take any time to take what is dirty.
class Freezer {
  public:
    // `left`: set when one that froze behind the end cannot be thawed.
    Freezer(const std::vector<Place>& places, std::atomic<bool>& left)
        : places_(places), left_(left), thread_([this] { run(); }) {}
    ~Freezer() { thread_.join(); }

    bool done() {
        const std::lock_guard hold(mutex_);
        return done_;
    }
    Status result() {
        const std::lock_guard hold(mutex_);
        if (!result_) return result_;
        if (frozen_.empty())
            return fail(Code::kUnsupported, "none of the file systems can be frozen",
                        "make the point without --consistent");
        return {};
    }
    // One that is being frozen just now is thawed by the thread.
    Status thaw_all() {
        std::vector<const Place*> frozen;
        {
            const std::lock_guard hold(mutex_);
            ended_ = true;
            frozen = std::exchange(frozen_, {});
        }
        Status all;
        for (auto place = frozen.rbegin(); place != frozen.rend(); ++place)
            if (Status one = thaw(**place); !one) all = one;
        return all;
    }

  private:
    void run() {
        Status result;
        for (const Place& place : places_) {
            {
                const std::lock_guard hold(mutex_);
                if (ended_) break;
            }
            if (::ioctl(place.fd.get(), FIFREEZE, 0) != 0) {
                const int error = errno;
                if (error == EOPNOTSUPP || error == ENOTTY) {
                    (void)::syncfs(place.fd.get());
                    continue;
                }
                result =
                    error == EBUSY
                        ? fail(Code::kWrongState, fmt::format("'{}' is frozen already", place.path),
                               "wait until whoever froze it thaws it (fsfreeze --unfreeze)")
                        : fail_errno(error, fmt::format("freeze '{}'", place.path));
                break;
            }
            std::unique_lock hold(mutex_);
            if (ended_) {
                hold.unlock();
                if (!thaw(place)) left_ = true;
                break;
            }
            frozen_.push_back(&place);
        }
        const std::lock_guard hold(mutex_);
        result_ = std::move(result);
        done_ = true;
    }

    const std::vector<Place>& places_;
    std::atomic<bool>& left_;
    std::mutex mutex_;
    std::vector<const Place*> frozen_;  // in the order of freezing
    bool ended_ = false, done_ = false;
    Status result_;
    std::thread thread_;
};

// Nothing is ever written to it: readable means ended.
bool has_ended(int input) {
    pollfd question{input, POLLIN, 0};
    char byte = 0;
    return ::poll(&question, 1, kPollMs) > 0 && ::read(input, &byte, 1) <= 0;
}

Status need_nothing_from_disks() {
    PosixFileSystem files;
    // Best effort: what the kernel kills for want of memory cannot thaw.
    if (const UniqueFd score(::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC)); score)
        (void)!::write(score.get(), "-1000", 5);
    if (::mlockall(MCL_CURRENT | MCL_FUTURE) != 0)
        return fail_errno(errno, "lock the freezing program in memory");
    return {};
}

}  // namespace

std::vector<Mount> parse_mounts(std::string_view mountinfo) {
    std::vector<Mount> mounts;
    while (!mountinfo.empty()) {
        const size_t end = std::min(mountinfo.find('\n'), mountinfo.size());
        if (auto mount = parse_mount(mountinfo.substr(0, end))) mounts.push_back(std::move(*mount));
        mountinfo.remove_prefix(std::min(end + 1, mountinfo.size()));
    }
    return mounts;
}

Result<std::vector<std::string>> find_mounts_to_freeze(const std::vector<LocalDisk>& disks) {
    PosixFileSystem files;
    FS_ASSIGN(const Bytes text, read_whole_file(files, "/proc/self/mountinfo", kMaxMountBytes));
    const std::vector<Mount> mounts = parse_mounts(as_text(text));
    std::vector<std::string> paths;
    std::set<std::pair<uint32_t, uint32_t>> have;
    for (auto mount = mounts.rbegin(); mount != mounts.rend(); ++mount) {
        const std::pair number(mount->major, mount->minor);
        if (!mount->writable || have.contains(number) || !lies_on(*mount, disks)) continue;
        const auto way = std::find_if(mounts.rbegin(), mounts.rend(), [&](const Mount& other) {
            return std::pair(other.major, other.minor) == number && reachable(other);
        });
        if (way == mounts.rend())
            return fail(Code::kUnsupported,
                        fmt::format("the file system of {} cannot be reached at '{}'",
                                    mount->source, mount->path),
                        "let the agent see it (ProtectHome= of its unit), or make the point "
                        "without --consistent");
        have.insert(number);
        paths.push_back(way->path);
    }
    if (paths.empty())
        return fail(Code::kUnsupported, "no file system on the protected disks can be written",
                    "make the point without --consistent");
    return paths;
}

namespace {

Result<std::vector<Place>> open_places(const FreezeOptions& options) {
    std::vector<Place> places;
    for (const std::string& path : options.mounts) {
        Place place{path, UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK))};
        if (!place.fd && options.thaw_only && errno == ENOENT) continue;  // not mounted any more
        if (!place.fd) return fail_errno(errno, fmt::format("open '{}'", path));
        places.push_back(std::move(place));
    }
    FS_TRY(need_nothing_from_disks());
    return places;
}

Status thaw_leftovers(const std::vector<Place>& places) {
    for (auto place = places.rbegin(); place != places.rend(); ++place)
        if (auto thawed = thaw(*place); !thawed && thawed.error().code() != Code::kWrongState)
            return thawed;
    return {};
}

// `left`: something that we froze may be frozen still.
Status freeze_and_thaw(const FreezeOptions& options, const std::vector<Place>& places, int input,
                       int output, std::atomic<bool>& left) {
    RealClock clock;
    const int64_t until_us = clock.steady_us() + options.timeout_ms * 1000;
    Freezer freezer(places, left);
    bool told = false, ended = false;
    const auto in_time = [&] { return clock.steady_us() < until_us; };
    while (!ended && in_time() && !freezer.done()) ended = has_ended(input);
    Status result = freezer.done() ? freezer.result() : Status{};
    if (result && freezer.done()) {
        told = ::write(output, "frozen\n", 7) == 7;
        while (told && !ended && in_time()) ended = has_ended(input);
    }
    const bool late = result && !ended;
    const Status thawed = freezer.thaw_all();
    if (!thawed && thawed.error().code() != Code::kWrongState) left = true;
    FS_TRY(result);
    FS_TRY(thawed);
    if (late)
        return fail(Code::kTimeout,
                    fmt::format("thawed after {} ms, before it was told", options.timeout_ms),
                    "look for what keeps the disks or the capture process busy");
    return {};
}

}  // namespace

Status freeze_until_told(const FreezeOptions& options, int input, int output) {
    std::atomic<bool> left{false};
    const auto run = [&]() -> Status {
        FS_ASSIGN(const std::vector<Place> places, open_places(options));
        if (options.thaw_only) return thaw_leftovers(places);
        return freeze_and_thaw(options, places, input, output, left);
    };
    Status status = run();
    if (!options.thaw_only && !left) (void)!::write(output, "thawed\n", 7);
    return status;
}

}  // namespace farshore
