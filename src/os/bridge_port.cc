#include "os/bridge_port.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "os/real.h"

// linux/sockios.h; that header and net/if.h do not go together everywhere.
#ifndef SIOCBRADDIF
#define SIOCBRADDIF 0x89a2
#endif

namespace farshore {
namespace {

constexpr const char* kTunDevice = "/dev/net/tun";
constexpr const char* kNoRight =
    "`systemctl edit farshore-vault`, and under [Service]: CapabilityBoundingSet=CAP_NET_ADMIN, "
    "AmbientCapabilities=CAP_NET_ADMIN and DeviceAllow=/dev/net/tun rw, a line each";

Error no_right(const std::string& bridge) {
    return Error(Code::kForbidden,
                 fmt::format("this user may not plug machines into the bridge '{}'", bridge),
                 kNoRight);
}

constexpr int kCapNetAdmin = 12;  // capabilities(7)

bool may_administer_networks() {
    PosixFileSystem files;
    const auto status = read_whole_file(files, "/proc/self/status", 1u << 16);
    if (!status) return false;
    const std::string_view text = as_text(*status);
    constexpr std::string_view kLine = "\nCapEff:\t";
    const size_t at = text.find(kLine);
    if (at == text.npos) return false;
    uint64_t mask = 0;
    const char* from = text.data() + at + kLine.size();
    std::from_chars(from, text.data() + text.size(), mask, 16);
    return (mask >> kCapNetAdmin & 1) != 0;
}

ifreq request_for(const std::string& interface) {
    ifreq request{};
    std::strncpy(request.ifr_name, interface.c_str(), IFNAMSIZ - 1);
    return request;
}

}  // namespace

Result<std::vector<std::string>> list_bridges() {
    PosixFileSystem files;
    std::vector<std::string> bridges;
    FS_ASSIGN(const auto names, files.list("/sys/class/net"));
    for (std::string name : names) {
        if (name.ends_with('/')) name.pop_back();
        const auto is_bridge = files.exists("/sys/class/net/" + name + "/bridge/forward_delay");
        if (is_bridge && *is_bridge) bridges.push_back(std::move(name));
    }
    std::ranges::sort(bridges);
    return bridges;
}

Status check_bridge(const std::string& bridge) {
    if (bridge.empty() || bridge.size() >= IFNAMSIZ || bridge.find('/') != bridge.npos ||
        bridge.front() == '.')
        return fail(Code::kInvalidArgument,
                    fmt::format("'{}' is not the name of a bridge", bridge.substr(0, 32)));
    if (::if_nametoindex(bridge.c_str()) == 0)
        return fail(Code::kDependencyMissing,
                    fmt::format("this host has no network interface '{}'", bridge),
                    "`ip -brief link show type bridge` shows the bridges that there are");
    PosixFileSystem files;
    const auto is_bridge = files.exists("/sys/class/net/" + bridge + "/bridge/forward_delay");
    if (is_bridge && !*is_bridge)
        return fail(Code::kDependencyMissing,
                    fmt::format("the network interface '{}' is no bridge", bridge),
                    "`ip -brief link show type bridge` shows the bridges that there are");
    const auto has_taps = files.exists(kTunDevice);
    if (has_taps && !*has_taps)
        return fail(Code::kDependencyMissing, fmt::format("this host has no {}", kTunDevice),
                    "load the kernel's module: `modprobe tun`");
    if (!may_administer_networks()) return fail(no_right(bridge));
    return {};
}

WithoutNetworkRight::WithoutNetworkRight() {
    had_ = ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, kCapNetAdmin, 0, 0) == 1 &&
           ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER, kCapNetAdmin, 0, 0) == 0;
}

WithoutNetworkRight::~WithoutNetworkRight() {
    if (had_) (void)::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, kCapNetAdmin, 0, 0);
}

Result<UniqueFd> open_bridge_port(const std::string& bridge) {
    FS_TRY(check_bridge(bridge));
    const auto failed = [&](const char* what) -> tl::unexpected<Error> {
        const int error_number = errno;
        if (error_number == EPERM || error_number == EACCES) return fail(no_right(bridge));
        return fail_errno(error_number,
                          fmt::format("{} for a machine on the bridge '{}'", what, bridge));
    };
    UniqueFd tap(::open(kTunDevice, O_RDWR | O_CLOEXEC | O_NONBLOCK));
    if (!tap) return failed("open /dev/net/tun");
    ifreq made = request_for("farshore%d");
    made.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    if (::ioctl(tap.get(), TUNSETIFF, &made) != 0) return failed("make a tap device");
    const std::string name = made.ifr_name;
    const UniqueFd control(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!control) return failed("open a socket");
    ifreq port = request_for(bridge);
    port.ifr_ifindex = static_cast<int>(::if_nametoindex(name.c_str()));
    if (::ioctl(control.get(), SIOCBRADDIF, &port) != 0) return failed("make a port");
    ifreq up = request_for(name);
    if (::ioctl(control.get(), SIOCGIFFLAGS, &up) != 0) return failed("look at the port");
    up.ifr_flags = static_cast<short>(up.ifr_flags | IFF_UP);
    if (::ioctl(control.get(), SIOCSIFFLAGS, &up) != 0) return failed("set the port up");
    return tap;
}

}  // namespace farshore
