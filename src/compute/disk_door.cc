#include "compute/disk_door.h"

#include "compute/nbd_front.h"
#include "os/share_socket.h"

namespace farshore {
namespace {

std::string socket_in(const std::string& run_directory) { return run_directory + "/nbd.sock"; }

}  // namespace

DiskDoor::DiskDoor(std::string group, std::optional<DisksOverTls> tls)
    : group_(std::move(group)), tls_(std::move(tls)) {}

Result<DomainDisk> DiskDoor::open(const std::string& run_directory) const {
    DomainDisk disk;
    if (!tls_) {
        if (!group_.empty()) FS_TRY(share_socket(socket_in(run_directory), group_));
        disk.socket_path = socket_in(run_directory);
        return disk;
    }
    auto front = NbdFront::adopt(run_directory);
    if (!front)
        front = NbdFront::start({.run_directory = run_directory,
                                 .listen_address = tls_->address,
                                 .first_port = tls_->first_port,
                                 .last_port = tls_->last_port,
                                 .target_socket = socket_in(run_directory),
                                 .server = tls_->server,
                                 .authority_pem = tls_->authority_pem,
                                 .client_name = tls_->client_name});
    if (!front) return fail(front.error());
    disk.address = tls_->address;
    disk.port = front->port();
    return disk;
}

Status DiskDoor::close(const std::string& run_directory) const {
    // Also one that was opened when the host was set otherwise.
    return NbdFront::clean_up(run_directory);
}

}  // namespace farshore
