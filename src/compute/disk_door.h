// How the QEMU of a libvirt host gets at a machine's disks, which an NBD server has on a unix
// socket in the machine's run directory: through that socket, when the host is this one, or over
// TLS.
//
// Any thread; one machine's door one thread at a time. Blocking, for moments.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/error.h"
#include "compute/domain_xml.h"
#include "os/pki.h"

namespace farshore {

struct DisksOverTls {
    std::string address;  // an IP address or name of ours, as the host reaches us
    // Of a machine that has no port yet; it keeps the first it got.
    uint16_t first_port = 0, last_port = 0;
    // For what serves one machine's disks, with that one alternative name: the machine's QEMU takes
    // nobody else's disks for its own, whoever has the port.
    std::function<Result<Credentials>(const std::string& server_name)> issue;
    std::string authority_pem;
    std::string client_name;  // common name in the certificate of the host's QEMU
};

class DiskDoor {
  public:
    // `group`: whose members may open the socket; empty: nobody but us. Without meaning with `tls`.
    DiskDoor(std::string group, std::optional<DisksOverTls> tls);

    // Whether it can be opened, in a run directory in `run_root`: kNotFound, kForbidden,
    // kDependencyMissing. Changes nothing.
    Status check(const std::string& run_root) const;
    // Ok when it is open already; opens it anew when the server has a new socket, or what listens
    // for it has ended. Where QEMU finds the disks, without the export's name. kNotFound (the
    // group), kForbidden (we are not in it; a directory above lets nobody through), errors of
    // NbdFront::start().
    // `server_name`: a host name that is this machine's alone.
    Result<DomainDisk> open(const MachinePlace& place, const std::string& server_name) const;
    // Ok when there is nothing.
    Status close(const MachinePlace& place) const;

  private:
    const std::string group_;
    const std::optional<DisksOverTls> tls_;
};

}  // namespace farshore
