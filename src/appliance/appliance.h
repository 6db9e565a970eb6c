// The replication appliance: listens for agents, keeps what they send in its spool, and stores it.
//
// start() returns when it listens; everything else happens on its own threads. Store and link are
// borrowed and outlive it; their calls come from several threads.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "os/tls_connection.h"
#include "replicate/process_server.h"

namespace farshore {

struct ApplianceOptions {
    std::string name;
    std::string directory;  // its own; made when missing
    std::string listen = "127.0.0.1:9443";
    // host:port at which agents reach it; empty: where it listens, unless that is every address.
    std::string advertise;
    std::string site = "default";
    uint64_t spool_bytes = kSpoolBytes;
    uint64_t window_bytes = kWindowBytes;
    uint64_t build_queue_bytes = kBuildQueueBytes;
    // Of what it sends to the store for all items (base/bandwidth_limit.h); a file `bandwidth` in
    // its directory counts instead, when it is there, and is read again each second.
    std::string bandwidth;
    std::string time_zone = "UTC";  // of windows that name none
};

// What is shown of it to monitoring (appliance/appliance_metrics.h).
struct ApplianceNumbers {
    std::string name;
    TimePoint started;
    TimePoint vault_answered;  // when the vault answered last; 0: not yet
    uint64_t agents = 0;       // whose connections there are
    uint64_t connections = 0;  // that were taken, since the start
    uint64_t spool_limit_bytes = 0;
    std::vector<IntakeStatus> items;
};

class Appliance {
  public:
    // kDuplicateIdentity when one runs on that directory; kInvalidArgument: a bandwidth limit that
    // is none.
    static Result<std::unique_ptr<Appliance>> start(const ApplianceOptions& options,
                                                    std::shared_ptr<TlsContext> tls,
                                                    ObjectStore& store, VaultLink& vault);
    ~Appliance();

    // host:port with the real port.
    const std::string& address() const;
    std::vector<IntakeStatus> status() const;
    // Any thread; waits for the appliance's own.
    ApplianceNumbers numbers() const;
    // Forgets what it holds of an item that is no longer protected.
    void remove(const ItemId& item);

  private:
    struct Impl;
    explicit Appliance(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace farshore
