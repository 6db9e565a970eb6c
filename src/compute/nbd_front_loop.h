// The program farshore-nbd-front: what its configuration file says, and running it. NbdFront
// (nbd_front.h) writes the file and starts the program.
#pragma once

#include <memory>
#include <string>

#include "base/error.h"
#include "os/pki.h"
#include "os/process.h"
#include "os/tls_gate.h"

namespace farshore {

struct NbdFrontConfig {
    std::string run_directory;
    std::string listen_address;
    uint16_t first_port = 0, last_port = 0;
    std::string target_socket;
    Credentials server;
    std::string authority_pem;
    std::string client_name;
};

// JSON; holds the key.
Secret nbd_front_config_text(const NbdFrontConfig& config);
// kMalformed, kInvalidArgument.
Result<NbdFrontConfig> parse_nbd_front_config(ByteView text);
// kInvalidArgument, kWrongKey, kMalformed with what to mend.
Status check_nbd_front_config(const NbdFrontConfig& config);

// Where a front listens, and the process that said so: what front.port holds.
struct NbdFrontPort {
    uint16_t port = 0;
    int pid = 0;
    uint64_t start_ticks = 0;  // of the process, as in ProcessKey
    bool is_of(const ProcessKey& key) const {
        return pid == key.pid && start_ticks == key.start_ticks;
    }
};
// kNotFound, kMalformed.
Result<NbdFrontPort> read_nbd_front_port(const std::string& run_directory);

// Listens, notes it in front.port and serves until it is destroyed. The port that front.port names
// is taken again when it lies in the range, and no other: whoever was told of it knows no other.
// kLimitReached: no port is free; kUnavailable: another program has the port of before.
Result<std::unique_ptr<TlsGate>> serve_nbd_front(const NbdFrontConfig& config);

// The files of a run directory.
inline std::string nbd_front_file(const std::string& run_directory, const char* kind) {
    return run_directory + "/front." + kind;
}

}  // namespace farshore
