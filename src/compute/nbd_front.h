// NBD over TLS before an NBD server that listens on a unix socket alone, as a process that outlives
// us: farshore-nbd-front. For machines whose QEMU runs on another host.
//
// A client must show a certificate of the authority with one common name, and speaks TLS 1.3. Each
// of its connections is handed on to a new one to the server's socket, so the server may end and
// come back under the front; a client comes again by itself. It may move anything that the server
// lets it: the front knows nothing of exports and commands.
//
// An NbdFront is a handle: letting go of it leaves the front running, adopt() finds it again. Its
// files are in a run directory, which the caller makes and owns and which may be that of the
// NbdServer: front.pid, front.json (0600: it holds the key), front.log (and front.log.1; bounded),
// front.port. One thread at a time. Blocking.
//
// The port stays the same until clean_up(), however often the front ends: whoever was told of it
// knows no other. While it does not run another program can take the port, most likely as the local
// port of an outgoing connection: choose a range outside net.ipv4.ip_local_port_range.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "base/error.h"
#include "os/pki.h"
#include "os/process.h"

namespace farshore {

struct NbdFrontOptions {
    std::string run_directory;
    std::string listen_address;  // an IP address (v6 without brackets) or host name of ours
    // The first free one is taken; the one that front.port names, when it is one of them.
    uint16_t first_port = 0, last_port = 0;
    std::string target_socket;  // of the NBD server; need not be there yet
    // The client checks the certificate's alternative names against how it reaches us. The front
    // does not renew it: a new one needs a new start.
    Credentials server;
    std::string authority_pem;
    std::string client_name;  // common name of the one certificate that is let in
    int start_timeout_ms = 10000;
};

class NbdFront {
  public:
    // A front that still runs in the directory is kAlreadyExists. kLimitReached: no port of the
    // range is free. kUnavailable: the port of before is taken by another program, the address is
    // not ours; with the log's last lines when it ends at once. kTimeout, kDependencyMissing,
    // kInvalidArgument, kMalformed (certificates, front.port), kWrongKey.
    static Result<NbdFront> start(const NbdFrontOptions& options);
    // The front that runs in that directory. kNotFound when it has ended; kInProgress when it does
    // not listen yet.
    static Result<NbdFront> adopt(const std::string& run_directory);
    // Ends whatever front runs in the directory and removes all its files. Ok when there is
    // nothing.
    static Status clean_up(const std::string& run_directory);

    bool alive() const { return process_.is_alive(); }
    // host:port; [v6]:port.
    const std::string& address() const { return address_; }
    uint16_t port() const { return port_; }
    const ProcessKey& process_key() const { return process_.key(); }
    // SIGKILL, the files stay: a start() after it has the same port.
    Status kill();

  private:
    NbdFront(Process process, std::string address, uint16_t port)
        : process_(std::move(process)), address_(std::move(address)), port_(port) {}

    Process process_;
    std::string address_;
    uint16_t port_;
};

// Where the program is: FARSHORE_NBD_FRONT, else beside this program, else in ../lib/farshore/ of
// its directory or in lib/farshore/bin/ under /usr. kDependencyMissing.
Result<std::string> find_nbd_front();

}  // namespace farshore
