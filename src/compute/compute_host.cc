#include "compute/compute_host.h"

#include <arpa/inet.h>
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>

namespace farshore {
namespace {

using nlohmann::json;

constexpr std::array<std::string_view, 3> kAccelerators{"auto", "kvm", "tcg"};
constexpr std::array<std::string_view, 2> kDisks{"unix", "tls"};
constexpr size_t kMaxShownBytes = 80;
constexpr size_t kMaxUserBytes = 32;
constexpr size_t kMaxLabelBytes = 63;
constexpr uint16_t kLeastPort = 1024;  // those below are root's
constexpr std::string_view kSystemGroup = "libvirt-qemu";
constexpr const char* kUris =
    "qemu:///system, qemu:///session, qemu+unix:///system?socket=/PATH, "
    "qemu+tls://HOST[:PORT]/system or qemu+ssh://[USER@]HOST[:PORT]/system";

constexpr bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
constexpr bool is_alnum(char c) { return is_lower(c) || is_digit(c) || (c >= 'A' && c <= 'Z'); }

std::string shown(std::string_view text) {
    std::string out;
    for (const char c : text.substr(0, kMaxShownBytes))
        out.push_back(c >= ' ' && c < 0x7f ? c : '?');
    return out;
}

tl::unexpected<Error> wrong(std::string_view member, std::string what, std::string remedy = {}) {
    return fail(Code::kInvalidArgument, fmt::format("{}: {}", member, what), std::move(remedy));
}

bool is_ipv4(const std::string& text) {
    in_addr parsed;
    return ::inet_pton(AF_INET, text.c_str(), &parsed) == 1;
}
bool is_ipv6(const std::string& text) {
    in6_addr parsed;
    return ::inet_pton(AF_INET6, text.c_str(), &parsed) == 1;
}

// Labels of letters, digits and inner hyphens: nothing that a program could take for an option.
bool is_name(std::string_view text) {
    if (text.empty() || text.size() > 253) return false;
    std::string_view last;
    while (true) {
        last = text.substr(0, text.find('.'));
        if (last.empty() || last.size() > kMaxLabelBytes || last.front() == '-' ||
            last.back() == '-' ||
            !std::ranges::all_of(last, [](char c) { return is_alnum(c) || c == '-'; }))
            return false;
        if (last.size() == text.size()) break;
        text.remove_prefix(last.size() + 1);
    }
    // Else it is an address, and a wrong one.
    return !std::ranges::all_of(last, is_digit);
}
bool is_host(const std::string& text) { return is_ipv4(text) || is_name(text); }

bool is_path(std::string_view text) {
    return text.size() > 1 && text.size() <= kMaxComputeTextBytes && text.front() == '/' &&
           text.find("..") == text.npos && std::ranges::all_of(text, [](char c) {
               return is_alnum(c) || c == '_' || c == '.' || c == '/' || c == '-';
           });
}

bool is_user(std::string_view text) {
    return !text.empty() && text.size() <= kMaxUserBytes && text.front() != '-' &&
           std::ranges::all_of(text, [](char c) {
               return is_lower(c) || is_digit(c) || c == '_' || c == '.' || c == '-';
           });
}

std::optional<uint16_t> port_of(std::string_view text) {
    uint16_t port = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
    if (error != std::errc() || end != text.data() + text.size() || port == 0 ||
        text.front() == '0')
        return {};
    return port;
}

bool take(std::string_view& text, std::string_view prefix) {
    if (!text.starts_with(prefix)) return false;
    text.remove_prefix(prefix.size());
    return true;
}

// [USER@]HOST[:PORT]
Status take_authority(std::string_view text, ComputeHostUri& into) {
    if (const size_t at = text.find('@'); at != text.npos) {
        into.user = text.substr(0, at);
        if (into.transport != ComputeTransport::kSsh)
            return wrong("uri", "a user goes with qemu+ssh only");
        if (!is_user(into.user))
            return wrong("uri", fmt::format("'{}' cannot be a user's name", shown(into.user)),
                         "1 to 32 of a-z, 0-9, _, . and -, not beginning with -");
        text.remove_prefix(at + 1);
    }
    std::string_view port;
    bool good = false;
    if (take(text, "[")) {
        const size_t end = std::min(text.find(']'), text.size());
        into.host = text.substr(0, end);
        port = text.substr(std::min(end + 1, text.size()));
        good = end != text.size() && is_ipv6(into.host);
    } else {
        const size_t colon = std::min(text.find(':'), text.size());
        into.host = text.substr(0, colon);
        port = text.substr(colon);
        good = is_host(into.host);
    }
    if (!good)
        return wrong("uri", fmt::format("'{}' is no host", shown(into.host)),
                     "a DNS name, an IPv4 address, or an IPv6 address in brackets");
    if (port.empty()) return {};
    const auto number = take(port, ":") ? port_of(port) : std::nullopt;
    if (!number)
        return wrong("uri", fmt::format("'{}' is no port", shown(port)),
                     "a number from 1 to 65535");
    into.port = *number;
    return {};
}

template <typename Names>
std::optional<size_t> place_of(const Names& names, std::string_view name) {
    const auto at = std::ranges::find(names, name);
    if (at == names.end()) return {};
    return static_cast<size_t>(at - names.begin());
}

struct Member {
    const char* name;
    std::string ComputeHostSettings::*text;
};
constexpr std::array kTexts{
    Member{"uri", &ComputeHostSettings::uri},
    Member{"disks_group", &ComputeHostSettings::disks_group},
    Member{"disks_address", &ComputeHostSettings::disks_address},
    Member{"pki_directory", &ComputeHostSettings::pki_directory},
    Member{"ssh_key_file", &ComputeHostSettings::ssh_key_file},
    Member{"known_hosts_file", &ComputeHostSettings::known_hosts_file},
};

// Empty: missing.
Result<std::string> text_member(const json& object, const char* name, std::string_view path) {
    const auto at = object.find(name);
    if (at == object.end() || at->is_null()) return std::string();
    if (!at->is_string())
        return fail(Code::kMalformed, fmt::format("{}.{} must be text", path, name));
    const auto& text = at->get_ref<const std::string&>();
    if (text.size() > kMaxComputeTextBytes)
        return fail(Code::kTooLarge, fmt::format("{}.{} has {} bytes, at most {} are allowed", path,
                                                 name, text.size(), kMaxComputeTextBytes));
    return text;
}

Status read_ports(const std::string& text, ComputeHostSettings& into) {
    const std::string_view view = text;
    const size_t dash = view.find('-');
    const auto first = dash == view.npos ? std::nullopt : port_of(view.substr(0, dash));
    const auto last = dash == view.npos ? std::nullopt : port_of(view.substr(dash + 1));
    if (!first || !last)
        return wrong("disks_ports", fmt::format("'{}' is no range of ports", shown(text)),
                     "FIRST-LAST, as 10810-11809");
    into.first_port = *first;
    into.last_port = *last;
    return {};
}

Status check_disks(const ComputeHostSettings& settings, bool remote) {
    if (settings.disks == DisksOver::kUnix) {
        if (remote)
            return wrong("disks", "a remote host does not reach unix sockets of this machine",
                         "use tls");
        if (!settings.disks_address.empty())
            return wrong("disks_address", "goes with disks over tls");
        if (!settings.disks_group.empty() && !is_user(settings.disks_group))
            return wrong("disks_group",
                         fmt::format("'{}' cannot be a group's name", shown(settings.disks_group)),
                         "1 to 32 of a-z, 0-9, _, . and -, not beginning with -");
        return {};
    }
    if (!settings.disks_group.empty()) return wrong("disks_group", "goes with disks over unix");
    if (settings.disks_address.empty())
        return wrong("disks_address", "is missing",
                     "the IP address or name under which the host reaches this vault");
    if (!is_host(settings.disks_address) && !is_ipv6(settings.disks_address))
        return wrong("disks_address", fmt::format("'{}' is no host", shown(settings.disks_address)),
                     "an IP address or a DNS name, without a port");
    if (settings.first_port < kLeastPort || settings.first_port > settings.last_port)
        return wrong(
            "disks_ports",
            fmt::format("{}-{} is no range of ports", settings.first_port, settings.last_port),
            fmt::format("FIRST-LAST, from {} to 65535", kLeastPort));
    return {};
}

}  // namespace

std::string_view host_accelerator_name(HostAccelerator accelerator) {
    return kAccelerators.at(static_cast<size_t>(accelerator));
}

Result<HostAccelerator> host_accelerator_from_name(std::string_view name) {
    if (const auto at = place_of(kAccelerators, name)) return static_cast<HostAccelerator>(*at);
    return wrong("accelerator", fmt::format("'{}' is none", shown(name)), "auto, kvm or tcg");
}

std::string_view disks_over_name(DisksOver disks) { return kDisks.at(static_cast<size_t>(disks)); }

Result<DisksOver> disks_over_from_name(std::string_view name) {
    if (const auto at = place_of(kDisks, name)) return static_cast<DisksOver>(*at);
    return wrong("disks", fmt::format("'{}' is no way to them", shown(name)), "unix or tls");
}

Result<ComputeHostUri> compute_host_uri(std::string_view uri) {
    const auto refused = [&](std::string what = {}) {
        if (what.empty()) what = fmt::format("'{}' is no URI of a compute host", shown(uri));
        return wrong("uri", std::move(what), kUris);
    };
    if (uri.size() > kMaxComputeTextBytes)
        return refused(
            fmt::format("has {} bytes, at most {} are allowed", uri.size(), kMaxComputeTextBytes));
    ComputeHostUri parsed;
    std::string_view rest = uri;
    bool has_socket = false;
    if (take(rest, "qemu+tcp:"))
        return refused("qemu+tcp is not encrypted: whoever is between could command the host");
    if (take(rest, "qemu+unix://")) {
        has_socket = true;
    } else if (take(rest, "qemu+tls://")) {
        parsed.transport = ComputeTransport::kTls;
    } else if (take(rest, "qemu+ssh://")) {
        parsed.transport = ComputeTransport::kSsh;
    } else if (!take(rest, "qemu://")) {
        return refused();
    }
    if (const size_t question = rest.find('?'); question != rest.npos) {
        std::string_view parameter = rest.substr(question + 1);
        rest = rest.substr(0, question);
        if (!has_socket || !take(parameter, "socket="))
            return refused(
                "the only parameter that a URI may have is socket, with qemu+unix: others of "
                "libvirt's run programs or switch checks off");
        parsed.socket = parameter;
        if (!is_path(parsed.socket))
            return refused(fmt::format("'{}' is no path of a socket", shown(parsed.socket)));
    }
    if (has_socket && parsed.socket.empty()) return refused();
    const size_t slash = std::min(rest.find('/'), rest.size());
    const std::string_view authority = rest.substr(0, slash);
    const std::string_view path = rest.substr(slash);
    parsed.session = path == "/session";
    if (path != "/system" && !parsed.session) return refused();
    if (parsed.session && parsed.transport == ComputeTransport::kTls)
        return refused("libvirt has no sessions over TLS");
    if (parsed.remote()) {
        FS_TRY(take_authority(authority, parsed));
    } else if (!authority.empty()) {
        return refused();
    }
    return parsed;
}

Result<ComputeHostSettings> check_compute_host(ComputeHostSettings settings) {
    for (const Member& member : kTexts)
        if ((settings.*member.text).size() > kMaxComputeTextBytes)
            return fail(Code::kTooLarge, fmt::format("{} has more than {} bytes", member.name,
                                                     kMaxComputeTextBytes));
    FS_ASSIGN(const ComputeHostUri uri, compute_host_uri(settings.uri));
    FS_TRY(check_disks(settings, uri.remote()));
    for (const auto& [name, text, needs, goes_with] :
         {std::tuple("pki_directory", &settings.pki_directory, ComputeTransport::kTls, "qemu+tls"),
          std::tuple("ssh_key_file", &settings.ssh_key_file, ComputeTransport::kSsh, "qemu+ssh"),
          std::tuple("known_hosts_file", &settings.known_hosts_file, ComputeTransport::kSsh,
                     "qemu+ssh")}) {
        if (text->empty()) continue;
        if (uri.transport != needs)
            return wrong(name, fmt::format("goes with a URI of {}", goes_with));
        if (!is_path(*text))
            return wrong(name, fmt::format("'{}' is no path", shown(*text)),
                         "an absolute path on the vault's machine, of A-Z, a-z, 0-9, _, ., - and "
                         "/, without ..");
    }
    return settings;
}

std::string disks_group_of(const ComputeHostSettings& settings) {
    if (!settings.disks_group.empty()) return settings.disks_group;
    const auto uri = compute_host_uri(settings.uri);
    return uri && uri->session ? std::string() : std::string(kSystemGroup);
}

std::string connection_uri(const ComputeHostSettings& settings) {
    constexpr std::string_view kSsh = "qemu+ssh://";
    std::string uri = settings.uri;
    char next = uri.find('?') == std::string::npos ? '?' : '&';
    const auto add = [&](std::string_view name, const std::string& value) {
        if (value.empty()) return;
        uri += fmt::format("{}{}={}", next, name, value);
        next = '&';
    };
    if (uri.starts_with(kSsh)) {
        if (settings.known_hosts_file.empty()) {
            add("no_tty", "1");
        } else {
            uri.replace(0, kSsh.size(), "qemu+libssh://");
            add("known_hosts", settings.known_hosts_file);
            add("known_hosts_verify", "normal");
            // No passwords: nobody is there to give one.
            add("sshauth", "agent,privkey");
        }
    }
    add("keyfile", settings.ssh_key_file);
    add("pkipath", settings.pki_directory);
    return uri;
}

json compute_host_json(const ComputeHostSettings& settings) {
    json object{{"accelerator", std::string(host_accelerator_name(settings.accelerator))},
                {"disks", std::string(disks_over_name(settings.disks))}};
    for (const Member& member : kTexts)
        if (!(settings.*member.text).empty()) object[member.name] = settings.*member.text;
    if (settings.disks == DisksOver::kTls)
        object["disks_ports"] = fmt::format("{}-{}", settings.first_port, settings.last_port);
    return object;
}

Result<ComputeHostSettings> compute_host_from_json(const json& object, std::string_view path) {
    if (!object.is_object())
        return fail(Code::kMalformed, fmt::format("{} must be an object", path));
    ComputeHostSettings settings;
    for (const Member& member : kTexts) {
        FS_ASSIGN(settings.*member.text, text_member(object, member.name, path));
    }
    FS_ASSIGN(const std::string accelerator, text_member(object, "accelerator", path));
    FS_ASSIGN(const std::string disks, text_member(object, "disks", path));
    FS_ASSIGN(const std::string ports, text_member(object, "disks_ports", path));
    if (settings.uri.empty()) return fail(Code::kMalformed, fmt::format("{}.uri is missing", path));
    if (!accelerator.empty()) {
        FS_ASSIGN(settings.accelerator, host_accelerator_from_name(accelerator));
    }
    if (!disks.empty()) {
        FS_ASSIGN(settings.disks, disks_over_from_name(disks));
    } else if (const auto uri = compute_host_uri(settings.uri); uri && uri->remote()) {
        settings.disks = DisksOver::kTls;
    }
    if (!ports.empty()) {
        FS_TRY(read_ports(ports, settings));
        if (settings.disks == DisksOver::kUnix)
            return wrong("disks_ports", "goes with disks over tls");
    }
    return check_compute_host(std::move(settings));
}

}  // namespace farshore
