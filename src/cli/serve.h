// The server's verbs: programs that run until SIGTERM or SIGINT. Each returns the exit code.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace farshore {

inline constexpr const char* kDefaultListen = "127.0.0.1:8443";
inline constexpr const char* kDefaultReplicationListen = "127.0.0.1:9443";

// What is written to standard error.
struct LogChoice {
    std::string level;   // debug, info, warn, error
    std::string format;  // text, json
};

// Bounds of what an agent keeps for one machine, in MiB, and where its rings are; and of how long
// it brings one to rest.
struct CaptureBounds {
    uint64_t ring_mib = 256;
    uint64_t spill_mib = 4096;
    uint64_t trace_ring_kib = 65'536;
    std::string shared_directory = "/dev/shm/farshore";  // on a tmpfs
    uint32_t freeze_limit_s = 10, script_limit_s = 30;   // agent/rest_limits.h
};
inline constexpr uint64_t kDefaultSpoolMib = 16'384;

// Empty texts: the default that stands beside them in docs/operations/cli.md.
struct UpOptions {
    std::string data;                // made when missing
    std::string listen;              // API
    std::string replication_listen;  // records from agents elsewhere
    std::string store;               // location (store/store_settings.h); DIR/store
    std::string store_settings;      // file; none
    std::string key_file;            // key-encryption key; DIR/vault/key
    std::string node_address;        // at which other vault nodes reach the API; `listen`
    std::string database;            // libpq connection string; DIR/vault/farshore.db
    std::string run_directory;       // for sockets of recovered machines; empty: DATA/vault/run
    std::string oidc;                // settings file of an OpenID provider; empty: none
    std::string key_source;          // keys/key_source.h; instead of key_file
    std::string scrub_bandwidth;     // of what scrubs read from the store; the vault's default
    std::string time_zone;           // of windows that name none; the machine's, or UTC
    std::string metrics_listen;      // of appliance and agent, on loopback; none
    LogChoice log;
    bool take_over = false;  // take the store back from a vault that replaced this one
    CaptureBounds capture;
    uint64_t spool_mib = kDefaultSpoolMib;
    std::string bandwidth;           // of the appliance; none
    std::vector<std::string> names;  // further DNS names and addresses for the certificate
};

struct VaultServeOptions {
    UpOptions common;  // without replication_listen
};

struct ApplianceServeOptions {
    std::string data;
    std::string vault;       // https://host:port
    std::string ca_file;     // of the vault's authority
    std::string token_file;  // enrolment token, for the first start
    std::string name;
    std::string store;           // location (store/store_settings.h)
    std::string store_settings;  // file; none
    std::string proxy;           // http://host:port; none
    std::string proxy_settings;  // file with its user and password; none
    std::string replication_listen;
    std::string advertise;  // host:port for agents; where it listens
    std::string site;
    uint64_t spool_mib = kDefaultSpoolMib;
    std::string bandwidth;  // of what it sends; none
    std::string time_zone;
    std::string metrics_listen;  // on loopback; none
    LogChoice log;
};

struct AgentServeOptions {
    std::string data;
    std::string appliance;  // host:port, of several with commas between
    std::string ca_file;
    std::string token_file;  // enrolment token, for the first start
    std::string name;
    CaptureBounds capture;
    std::string metrics_listen;  // on loopback; none
    LogChoice log;
};

struct FreezeOptions;  // ebpf/freezer.h

// Of the process that captures this machine's own disks.
struct CaptureServeOptions {
    std::string config_file;
    std::string ready_file;  // made when it captures
    std::string early_file = "/etc/farshore/early.json";
    std::string agent_data = "/var/lib/farshore-agent";
    std::string why;  // of a shutdown: reboot, halt, poweroff, kexec
    LogChoice log;
};

// serve_up.cc, serve_vault.cc, serve_appliance.cc, serve_agent.cc
int run_up(const UpOptions& options);
int run_vault(const VaultServeOptions& options);
int run_appliance(const ApplianceServeOptions& options);
int run_agent(const AgentServeOptions& options);
int run_capture(const CaptureServeOptions& options);
int run_capture_early(const CaptureServeOptions& options);
int run_capture_save(const CaptureServeOptions& options);
int run_capture_stop(const CaptureServeOptions& options);
// `guest_agent`: the socket of another machine's, instead of mounts of this one.
int run_capture_freeze(const FreezeOptions& options, const std::string& guest_agent);

}  // namespace farshore
