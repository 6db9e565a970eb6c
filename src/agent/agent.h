// The agent: protects the machines of its host as the vault wants it, through its appliances.
//
// start() returns at once; everything else happens on its own threads. stop() and the destructor
// end it; taps and mirrors stay as they are, and the next agent adopts them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "agent/item_supervisor.h"
#include "base/error.h"
#include "os/tls_connection.h"

namespace farshore {

struct AgentOptions {
    std::string name;       // common name of its certificate
    std::string directory;  // its own; made when missing
    std::string shared_directory = "/dev/shm/farshore";
    // host:port each; those that the vault tells of are known beside them.
    std::vector<std::string> appliances;
    std::string appliance_name;  // that its certificate must prove; empty: any of the authority
    uint64_t ring_bytes = 256ull << 20;
    uint64_t spill_bytes = 4ull << 30;
    // What the initramfs must know is written there; empty, or a directory that is missing:
    // nowhere.
    std::string early_path;
    uint64_t trace_ring_bytes = 64ull << 20;  // in the kernel, a power of two
    int64_t sync_interval_us = 200'000;
    RestLimits rest_limits;
    // SupervisorOptions::recovery_disks: the vault's own agent.
    std::function<Result<RecoveryDisks>(const ItemId&)> recovery_disks;
};

// What is shown of it to monitoring (agent/agent_metrics.h).
struct AgentNumbers {
    std::string name;
    TimePoint started;
    bool connected = false;    // the conversation with the vault, by way of the appliance
    uint64_t connections = 0;  // that it made for that, since the start
    std::optional<int64_t> clock_ahead_us;
    std::vector<AgentItemNumbers> items;
};

class Agent {
  public:
    // kDuplicateIdentity when an agent runs on that directory.
    static Result<std::unique_ptr<Agent>> start(const AgentOptions& options,
                                                std::shared_ptr<TlsContext> tls);
    ~Agent();

    // host:port of the one that it speaks to the vault through.
    std::string appliance() const;
    // Any thread; waits for the agent's own.
    AgentNumbers numbers() const;

    // Asks an appliance for a certificate with a one-time token: a new key is made, and credentials
    // are kept in `credentials_path`.crt/.key. `authority_pem` is what the appliance must prove.
    static Status enrol(const std::string& appliance, const std::string& token,
                        const std::string& name, const std::string& authority_pem,
                        FileSystem& files, const std::string& credentials_path);
    // A new certificate, for a new key, with the one that `tls` shows; kept, and not in use yet. As
    // enrol(); kUnauthenticated: it was removed, kUnsupported: the vault is older.
    static Result<Credentials> renew(const std::string& appliance, const std::string& name,
                                     const std::shared_ptr<TlsContext>& tls, FileSystem& files,
                                     const std::string& credentials_path);

  private:
    struct Impl;
    explicit Agent(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace farshore
