// nbdkit with one plugin, as a process that outlives us: taps and replicas at a point.
//
// An NbdServer is a handle: letting go of it leaves the server running, adopt() finds it again
// after our restart. All of a server's files are in its run directory, which the caller makes and
// owns: nbd.sock, nbd.pid, nbd.json (0600: it holds keys), nbd.log. One thread at a time. Blocking.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "os/process.h"

namespace farshore {

struct NbdServerOptions {
    std::string run_directory;
    // Path of a plugin, or the name of one of nbdkit's own ("file", "memory").
    std::string plugin;
    // Written to nbd.json, and given to the plugin as config=PATH, when not empty.
    std::string config_json;
    // key=value for the plugin, after config.
    std::vector<std::pair<std::string, std::string>> parameters;
    std::vector<std::string> filters;
    bool read_only = false;
    uint32_t threads = 16;
    // Instead of RUN_DIRECTORY/nbd.sock.
    std::string socket_path;
    int start_timeout_ms = 30000;  // until it greets: opening a point may take a while
};

class NbdServer {
  public:
    // A leftover socket file is removed first; a server that still runs in the directory is
    // kAlreadyExists. kUnavailable with the log's last lines when nbdkit ends at once, kTimeout,
    // kDependencyMissing.
    static Result<NbdServer> start(const NbdServerOptions& options);
    // The server that runs in that directory. kNotFound when it has ended.
    static Result<NbdServer> adopt(const std::string& run_directory,
                                   const std::string& socket_path = {});
    // Ends whatever server runs in the directory and removes its files. Ok when there is nothing.
    static Status clean_up(const std::string& run_directory, const std::string& socket_path = {});

    bool alive() const { return process_.is_alive(); }
    const std::string& socket_path() const { return socket_path_; }
    std::string log_path() const { return run_directory_ + "/nbd.log"; }
    const ProcessKey& process_key() const { return process_.key(); }
    // SIGTERM lets nbdkit finish requests in flight and the plugin flush; SIGKILL after `grace_ms`.
    // Removes socket, pid and config files; the log stays.
    Status stop(int grace_ms = 5000);
    // SIGKILL at once, files stay: for watchdogs.
    Status kill();

  private:
    NbdServer(Process process, std::string run_directory, std::string socket_path)
        : process_(std::move(process)),
          run_directory_(std::move(run_directory)),
          socket_path_(std::move(socket_path)) {}

    Process process_;
    std::string run_directory_;
    std::string socket_path_;
};

// Whether an NBD server greets at the socket. More than accepting: the kernel accepts for nbdkit as
// soon as the socket is there, while the plugin may still open its disks, or fail to. kUnavailable,
// kMalformed.
Status nbd_server_greets(const std::string& socket_path, int timeout_ms);

// Where our plugin is: FARSHORE_PLUGIN, else ../lib/nbdkit-farshore-plugin.so beside the program's
// directory, else lib/farshore/ under /usr. kDependencyMissing.
Result<std::string> find_plugin();

}  // namespace farshore
