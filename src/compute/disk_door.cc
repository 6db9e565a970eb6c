#include "compute/disk_door.h"

#include <fmt/core.h>

#include <charconv>

#include "compute/child_files.h"
#include "compute/nbd_front.h"
#include "os/real.h"
#include "os/share_socket.h"

namespace farshore {
namespace {

std::string socket_in(const std::string& run_directory) { return run_directory + "/nbd.sock"; }

std::string port_file(const MachinePlace& place) { return place.state_directory + "/disks.port"; }

Result<std::optional<uint16_t>> noted_port(const MachinePlace& place) {
    if (place.state_directory.empty()) return std::optional<uint16_t>();
    PosixFileSystem files;
    const auto text = read_whole_file(files, port_file(place), 16);
    if (!text && text.error().code() == Code::kNotFound) return std::optional<uint16_t>();
    if (!text) return fail(text.error());
    const std::string_view digits = as_text(*text);
    uint16_t port = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    if (error != std::errc() || end != digits.data() + digits.size() || port == 0)
        return fail(Code::kMalformed, fmt::format("{} names no port", port_file(place)));
    return port;
}

Status note_port(const MachinePlace& place, uint16_t port) {
    if (place.state_directory.empty()) return {};
    PosixFileSystem files;
    return write_file_durably(files, port_file(place), as_bytes(std::to_string(port)));
}

}  // namespace

DiskDoor::DiskDoor(std::string group, std::optional<DisksOverTls> tls)
    : group_(std::move(group)), tls_(std::move(tls)) {}

Status DiskDoor::check(const std::string& run_root) const {
    if (tls_) {
        FS_TRY(find_nbd_front());
        return {};
    }
    return group_.empty() ? Status() : can_share(run_root, group_);
}

Result<DomainDisk> DiskDoor::open(const MachinePlace& place, const std::string& server_name) const {
    const std::string& run = place.run_directory;
    DomainDisk disk;
    if (!tls_) {
        if (!group_.empty()) FS_TRY(share_socket(socket_in(run), group_));
        disk.socket_path = socket_in(run);
        return disk;
    }
    auto front = NbdFront::adopt(run);
    if (!front) {
        NbdFrontOptions options{.run_directory = run,
                                .listen_address = tls_->address,
                                .first_port = tls_->first_port,
                                .last_port = tls_->last_port,
                                .target_socket = socket_in(run),
                                .authority_pem = tls_->authority_pem,
                                .client_name = tls_->client_name};
        // The machine knows no other, whatever the range is now.
        FS_ASSIGN(const std::optional<uint16_t> noted, noted_port(place));
        if (noted) options.first_port = options.last_port = *noted;
        FS_ASSIGN(options.server, tls_->issue(server_name));
        front = NbdFront::start(options);
        if (front && !noted) {
            if (const Status kept = note_port(place, front->port()); !kept) {
                (void)NbdFront::clean_up(run);
                return fail(kept.error());
            }
        }
    }
    if (!front) return fail(front.error());
    disk.address = tls_->address;
    disk.port = front->port();
    disk.server_name = server_name;
    return disk;
}

Status DiskDoor::close(const MachinePlace& place) const {
    // Also one that was opened when the host was set otherwise.
    FS_TRY(NbdFront::clean_up(place.run_directory));
    return place.state_directory.empty() ? Status() : remove_if_there(port_file(place));
}

}  // namespace farshore
