// A libvirt host on which recovery machines can run, as people set it: how the vault reaches its
// libvirt, and how its QEMU reaches the vault's disks. (docs/operations/compute-hosts.md)
//
// Plain values; any thread. Checking and decoding refuse by the member's name (kMalformed: another
// type, missing or unknown; kTooLarge; kInvalidArgument: not a value that it can have); no retry
// cures that.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/error.h"

namespace farshore {

inline constexpr size_t kMaxComputeTextBytes = 256;  // of each text of the settings

// kAuto: KVM when the host offers it.
enum class HostAccelerator : uint8_t { kAuto, kKvm, kTcg };
std::string_view host_accelerator_name(HostAccelerator accelerator);  // "auto", "kvm", "tcg"
Result<HostAccelerator> host_accelerator_from_name(std::string_view name);

// How the host's QEMU reaches the disks: unix sockets of this machine, or TCP with TLS.
enum class DisksOver : uint8_t { kUnix, kTls };
std::string_view disks_over_name(DisksOver disks);  // "unix", "tls"
Result<DisksOver> disks_over_from_name(std::string_view name);

struct ComputeHostSettings {
    std::string uri;  // libvirt's, of those that compute_host_uri() takes
    HostAccelerator accelerator = HostAccelerator::kAuto;
    DisksOver disks = DisksOver::kUnix;
    // kUnix: the group whose members may open the sockets; empty: disks_group_of().
    std::string disks_group;
    // kTls: where the host reaches this vault, an IP address or a name; required.
    std::string disks_address;
    uint16_t first_port = 10'810, last_port = 11'809;  // kTls; both are among them
    // All three optional, absolute. Of qemu+tls: a directory with cacert.pem, clientcert.pem and
    // clientkey.pem. Of qemu+ssh: the private key, and what the host's key is checked against.
    std::string pki_directory, ssh_key_file, known_hosts_file;
    friend bool operator==(const ComputeHostSettings&, const ComputeHostSettings&) = default;
};

enum class ComputeTransport : uint8_t { kLocal, kTls, kSsh };

// A URI, taken apart:
//   qemu:///system, qemu:///session
//   qemu+unix:///system?socket=/PATH (and session)
//   qemu+tls://HOST[:PORT]/system
//   qemu+ssh://[USER@]HOST[:PORT]/system (and session)
// Nothing else: other transports are not encrypted, other parameters run programs (command, netcat)
// or switch checks off (no_verify).
struct ComputeHostUri {
    ComputeTransport transport = ComputeTransport::kLocal;
    bool session = false;
    std::string user;    // empty: not said
    std::string host;    // IPv6 without its brackets; empty: this machine
    uint16_t port = 0;   // 0: not said
    std::string socket;  // empty: libvirt's usual one
    bool remote() const { return transport != ComputeTransport::kLocal; }
};
Result<ComputeHostUri> compute_host_uri(std::string_view uri);

// The settings, if they are good.
Result<ComputeHostSettings> check_compute_host(ComputeHostSettings settings);
// Of good settings with disks over unix sockets: libvirt-qemu, the user of a system daemon's
// machines, when no group is set; empty: the vault's own user only, whose session's machines are.
std::string disks_group_of(const ComputeHostSettings& settings);
// What libvirt is given, of good settings: the URI with pkipath, keyfile, known_hosts and what
// keeps it from asking a terminal. ssh has no parameter for a file of known hosts and libvirt would
// leave it out silently: with one, it speaks SSH by libssh instead.
std::string connection_uri(const ComputeHostSettings& settings);

// Members: uri, accelerator, disks, disks_group, disks_address, disks_ports ("10810-11809"),
// pki_directory, ssh_key_file, known_hosts_file. Those that say nothing are left out.
nlohmann::json compute_host_json(const ComputeHostSettings& settings);
// Checked. `path` leads to `json`, for errors. Without `disks`: kUnix at a local URI, kTls at a
// remote one. Unknown members are ignored.
Result<ComputeHostSettings> compute_host_from_json(const nlohmann::json& json,
                                                   std::string_view path);

}  // namespace farshore
