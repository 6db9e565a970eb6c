#include "compute/guest_address.h"

#include <arpa/inet.h>
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "base/text.h"
#include "compute/guest_agent.h"
#include "os/real.h"
#include "os/waiting.h"

namespace farshore {
namespace {

constexpr int kPollMs = 100;
constexpr size_t kMaxWordsBytes = 500;

// $1: MAC address, $2: address/prefix, $3: gateway or nothing, $4: resolv.conf, then name servers.
// No more than what busybox has.
constexpr const char* kScript = R"sh(
mac=$1 address=$2 gateway=$3 resolv=$4
shift 4
card=
for one in /sys/class/net/*; do
    [ "$(cat "$one/address" 2>/dev/null)" = "$mac" ] || continue
    # A bond or a bridge has the address of its card, and is what carries the IP addresses.
    [ -e "$one/master" ] && continue
    # And so has a VLAN on it.
    if [ -e "$one/device" ] || [ -z "$card" ]; then card=${one##*/}; fi
done
[ -n "$card" ] || { echo "no network card has the address $mac"; exit 3; }
case $address in *:*) family=-6 ;; *) family=-4 ;; esac
set -e
exec 2>&1
ip link set "$card" up
ip $family addr flush dev "$card" scope global
ip $family addr add "$address" dev "$card"
[ -z "$gateway" ] || ip $family route replace default via "$gateway" dev "$card"
[ $# -gt 0 ] || exit 0
if [ "$resolv" = /etc/resolv.conf ] && command -v resolvectl >/dev/null &&
    resolvectl dns "$card" "$@" 2>/dev/null; then exit 0; fi
for server; do echo "nameserver $server"; done >"$resolv"
)sh";

int family_of(const std::string& address) {
    in6_addr parsed;
    if (::inet_pton(AF_INET, address.c_str(), &parsed) == 1) return AF_INET;
    if (::inet_pton(AF_INET6, address.c_str(), &parsed) == 1) return AF_INET6;
    return AF_UNSPEC;
}

constexpr std::array<std::string_view, 3> kByNames{"agent", "dhcp", "cloud-init"};

}  // namespace

std::string_view address_by_name(AddressBy by) { return kByNames.at(static_cast<size_t>(by)); }

Result<AddressBy> address_by_from_name(std::string_view name) {
    const auto found = std::ranges::find(kByNames, name);
    if (found == kByNames.end())
        return fail(Code::kInvalidArgument,
                    fmt::format("nobody called '{}' gives an address",
                                plain_text(std::string(name.substr(0, 32)))),
                    "agent, dhcp or cloud-init");
    return static_cast<AddressBy>(found - kByNames.begin());
}

Status check_guest_address(const GuestAddress& address) {
    const std::string& text = address.address;
    const size_t slash = std::min(text.find('/'), text.size());
    const int family = family_of(text.substr(0, slash));
    unsigned prefix = 0;
    const char* const from = text.data() + std::min(slash + 1, text.size());
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(from, end, prefix);
    if (family == AF_UNSPEC || error != std::errc() || stop != end || prefix == 0 ||
        prefix > (family == AF_INET ? 32u : 128u))
        return fail(
            Code::kInvalidArgument,
            fmt::format("'{}' is no address with its prefix", plain_text(text.substr(0, 64))),
            "as 10.1.2.3/24 or 2001:db8::3/64");
    if (!address.gateway.empty() && family_of(address.gateway) != family)
        return fail(Code::kInvalidArgument,
                    fmt::format("'{}' is no gateway of {}",
                                plain_text(address.gateway.substr(0, 64)), text),
                    "an address of the same family, without a prefix");
    if (address.name_servers.size() > kMaxNameServers)
        return fail(Code::kInvalidArgument,
                    fmt::format("{} name servers, a guest asks {}", address.name_servers.size(),
                                kMaxNameServers));
    for (const std::string& server : address.name_servers)
        if (family_of(server) == AF_UNSPEC)
            return fail(Code::kInvalidArgument, fmt::format("'{}' is no address of a name server",
                                                            plain_text(server.substr(0, 64))));
    return {};
}

std::vector<std::string> guest_address_arguments(const std::string& mac,
                                                 const GuestAddress& address,
                                                 const std::string& resolv_conf) {
    std::vector<std::string> arguments{
        "-c", kScript, "farshore", mac, address.address, address.gateway, resolv_conf};
    arguments.insert(arguments.end(), address.name_servers.begin(), address.name_servers.end());
    return arguments;
}

Status set_guest_address(GuestAgent& agent, const std::string& mac, const GuestAddress& address,
                         int timeout_ms) {
    FS_TRY(check_guest_address(address));
    FS_ASSIGN(
        const int64_t pid,
        agent.start_program("/bin/sh", guest_address_arguments(mac, address), {}, timeout_ms));
    std::optional<GuestExit> exit;
    Status asked;
    const bool ended = wait_until(timeout_ms, kPollMs, [&] {
        auto now = agent.program_exit(pid, kMaxWordsBytes, timeout_ms);
        if (now)
            exit = std::move(*now);
        else
            asked = tl::unexpected(now.error());
        return !now || exit.has_value();
    });
    FS_TRY(asked);
    if (!ended)
        return fail(Code::kTimeout,
                    fmt::format("the guest did not set its address within {} ms", timeout_ms));
    if (exit->code == 0) return {};
    std::string words = plain_text(exit->output);
    while (!words.empty() && (words.back() == '\n' || words.back() == ' ')) words.pop_back();
    return fail(Code::kGuestFailed,
                fmt::format("the guest did not take the address {}: {}", address.address,
                            words.empty() ? std::string("it said nothing") : words),
                "the guest must be Linux, with `ip` and a card with that MAC address");
}

}  // namespace farshore
