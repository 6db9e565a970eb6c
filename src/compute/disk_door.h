// How the QEMU of a libvirt host gets at a machine's disks, which an NBD server has on a unix
// socket in the machine's run directory: through that socket, when the host is this one, or over
// TLS.
//
// Any thread; one machine's door one thread at a time. Blocking, for moments.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/error.h"
#include "compute/domain_xml.h"
#include "os/pki.h"

namespace farshore {

struct DisksOverTls {
    std::string address;  // an IP address or name of ours, as the host reaches us
    uint16_t first_port = 0, last_port = 0;
    // With the address among its alternative names.
    Credentials server;
    std::string authority_pem;
    std::string client_name;  // common name in the certificate of the host's QEMU
};

class DiskDoor {
  public:
    // `group`: whose members may open the socket; empty: nobody but us. Without meaning with `tls`.
    DiskDoor(std::string group, std::optional<DisksOverTls> tls);

    // Ok when it is open already; opens it anew when the server has a new socket, or what listens
    // for it has ended. Where QEMU finds the disks, without the export's name. kNotFound (the
    // group), kForbidden (we are not in it; a directory above lets nobody through), errors of
    // NbdFront::start().
    Result<DomainDisk> open(const std::string& run_directory) const;
    // Ok when there is nothing.
    Status close(const std::string& run_directory) const;

  private:
    const std::string group_;
    const std::optional<DisksOverTls> tls_;
};

}  // namespace farshore
