#include "compute/network_choice.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>

#include "codec/hash.h"

namespace farshore {
namespace {

constexpr std::string_view kWords[] = {"isolated", "user",    "none",
                                       "segment:", "bridge:", "network:"};
constexpr size_t kNamedFrom = static_cast<size_t>(NetworkKind::kSegment);

bool good_segment(std::string_view name) {
    return !name.empty() && name.size() <= kMaxSegmentNameBytes &&
           name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == name.npos;
}

// As the kernel's dev_valid_name(), of printable ASCII only.
bool good_interface(std::string_view name) {
    return !name.empty() && name.size() <= kMaxInterfaceNameBytes && name != "." && name != ".." &&
           std::ranges::all_of(name,
                               [](char c) { return c > ' ' && c < 0x7f && c != '/' && c != ':'; });
}

// What libvirt takes, of printable ASCII without anything that means something to a shell or XML.
bool good_network(std::string_view name) {
    return !name.empty() && name.size() <= kMaxLibvirtNetworkBytes && name.front() != '.' &&
           std::ranges::all_of(name, [](unsigned char c) {
               return std::isalnum(c) || c == '.' || c == '_' || c == '-';
           });
}

Digest digest_of(std::string_view what, std::string_view first, std::string_view second) {
    Sha256 hash;
    for (const std::string_view part : {what, first, second}) {
        hash.update(as_bytes(part));
        hash.update(as_bytes(std::string_view("\0", 1)));
    }
    return hash.finish();
}

}  // namespace

std::string network_word(const NetworkChoice& network) {
    return std::string(kWords[static_cast<size_t>(network.kind)]) + network.name;
}

Result<NetworkChoice> network_from_word(std::string_view word) {
    for (size_t i = 0; i < kNamedFrom; ++i)
        if (kWords[i] == word) return NetworkChoice{static_cast<NetworkKind>(i)};
    const size_t colon = std::min(word.find(':'), word.size());
    const std::string_view name = word.substr(std::min(colon + 1, word.size()));
    if (word.substr(0, colon + 1) == "segment:" && good_segment(name))
        return NetworkChoice{NetworkKind::kSegment, std::string(name)};
    if (word.substr(0, colon + 1) == "bridge:" && good_interface(name))
        return NetworkChoice{NetworkKind::kBridge, std::string(name)};
    if (word.substr(0, colon + 1) == "network:" && good_network(name))
        return NetworkChoice{NetworkKind::kLibvirt, std::string(name)};
    std::string shown;
    for (const char c : word.substr(0, kMaxNetworkWordBytes))
        shown.push_back(c >= ' ' && c < 0x7f ? c : '?');
    return fail(Code::kInvalidArgument, fmt::format("'{}' is no network", shown),
                fmt::format("it is isolated, user, none, segment:NAME (1 to {} of a-z, 0-9 and -), "
                            "bridge:INTERFACE (1 to {} characters) or network:NAME (of libvirt)",
                            kMaxSegmentNameBytes, kMaxInterfaceNameBytes));
}

SegmentAddress segment_address(std::string_view scope, std::string_view segment) {
    const Digest digest = digest_of("farshore segment", scope, segment);
    constexpr uint16_t kFirstPort = 10'000, kPorts = 20'000;
    const auto byte = [&](size_t i) { return static_cast<unsigned>(digest[i]); };
    // The last number is no 0 and no 255, which some take for a network or everybody.
    return {fmt::format("239.{}.{}.{}", byte(0), byte(1), 1 + byte(2) % 254),
            static_cast<uint16_t>(kFirstPort + (byte(3) << 8 | byte(4)) % kPorts)};
}

std::string mac_from(std::string_view text) {
    const Digest digest = digest_of("farshore mac", text, "");
    return fmt::format("52:54:00:{:02x}:{:02x}:{:02x}", digest[0], digest[1], digest[2]);
}

Result<std::string> check_mac(std::string_view mac) {
    std::string low;
    for (const char c : mac.substr(0, 32))
        low.push_back(c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c);
    bool good = mac.size() == 17 && low != "00:00:00:00:00:00";
    for (size_t i = 0; good && i < low.size(); ++i) {
        const bool digit = (low[i] >= '0' && low[i] <= '9') || (low[i] >= 'a' && low[i] <= 'f');
        good = i % 3 == 2 ? low[i] == ':' : digit;
    }
    // The lowest bit of the first byte: a group's.
    if (good && std::string_view("02468ace").find(low[1]) != std::string_view::npos) return low;
    for (char& c : low)
        if (c < ' ' || c >= 0x7f) c = '?';
    return fail(Code::kInvalidArgument, fmt::format("'{}' is no MAC address of one card", low),
                "six bytes in hexadecimal, as 52:54:00:12:34:56; the first of them is even");
}

}  // namespace farshore
