// The connection to one libvirt daemon, here or on another machine, made anew when it is lost:
// https://libvirt.org/html/libvirt-libvirt-host.html (libvirt 9.0).
//
// A daemon that is silent is one that is lost: keep-alives go both ways, so no call waits for it
// for more than about 20 s, and none waits for a connection longer than it says. A daemon that
// answers, but waits itself for a QEMU that hangs, is waited for: such calls have no limit. Any
// thread.
#pragma once

#include <libvirt/libvirt.h>

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "base/error.h"

namespace farshore {

template <auto Free>
struct LibvirtFree {
    template <typename T>
    void operator()(T* object) const {
        (void)Free(object);
    }
};
using LibvirtConnection = std::unique_ptr<virConnect, LibvirtFree<virConnectClose>>;
using LibvirtDomain = std::unique_ptr<virDomain, LibvirtFree<virDomainFree>>;
using LibvirtNetwork = std::unique_ptr<virNetwork, LibvirtFree<virNetworkFree>>;
using LibvirtStream = std::unique_ptr<virStream, LibvirtFree<virStreamFree>>;

// A text that libvirt has made for its caller, who has it from now on; null is empty.
inline std::string taken(char* text) {
    std::string copy(text == nullptr ? "" : text);
    std::free(text);
    return copy;
}

class LibvirtHost {
  public:
    // `name`: the compute host's, for words. `uri`: as virConnectOpen takes it.
    LibvirtHost(std::string name, std::string uri);
    ~LibvirtHost();
    LibvirtHost(const LibvirtHost&) = delete;
    LibvirtHost& operator=(const LibvirtHost&) = delete;

    const std::string& name() const { return name_; }
    // A reference on the connection, which may be lost at any time. Waits at most `patience_ms`
    // for one that has to be made. kUnavailable, kUnauthenticated.
    Result<LibvirtConnection> connect(int patience_ms);
    // kNotFound: it knows no such domain. Else as connect().
    Result<LibvirtDomain> domain(const std::string& domain, int patience_ms);

    // What went wrong last in this thread, in libvirt's words: kNotFound, kUnavailable (the daemon
    // is gone), kUnauthenticated, kForbidden, kUnsupported, kAlreadyExists, kLimitReached (memory),
    // kTimeout (an agent that is silent), kGuestFailed (all else).
    Error error(const std::string& context) const;

  private:
    struct Shared;
    const std::string name_;
    std::shared_ptr<Shared> shared_;
};

// A domain's first serial port: what it says is appended to a file from now on, and said to whoever
// is connected to a unix socket that is made (one at a time), whose words it hears. By libvirt's
// own thread. Ends by itself when the domain does, the connection is lost, or somebody at the host
// takes the port (`virsh console --force`).
class SerialPort {
  public:
    // kGuestFailed (somebody at the host has it), errors of the host.
    static Result<std::unique_ptr<SerialPort>> open(const LibvirtHost& host, virDomain* domain,
                                                    const std::string& log_path,
                                                    const std::string& socket_path);
    // Removes the socket.
    ~SerialPort();
    SerialPort(const SerialPort&) = delete;
    SerialPort& operator=(const SerialPort&) = delete;

    bool is_open() const;

  private:
    struct Line;
    SerialPort() = default;
    std::shared_ptr<Line> line_;
};

}  // namespace farshore
