// The part of the command line about compute hosts, and its verbs: as client_verbs.h.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "cli/client_verbs.h"

namespace farshore {

// Of `compute add` and `change`: what is not named stays, or is the vault's to say; none takes
// away.
struct ComputeHostArguments {
    std::string name;
    std::optional<std::string> uri, accelerator, disks, disks_group, disks_address, disks_ports;
    std::optional<std::string> pki_directory, ssh_key_file, known_hosts_file;
    std::string out;  // directory of `credentials`
    bool force = false;
    std::string item;
    std::optional<std::string> host;  // of `item compute`
};

class ComputeVerbs {
  public:
    ComputeVerbs(CliEnvironment& environment, const LocationOptions& location, bool json);
    ~ComputeVerbs();

    int hosts();
    int host(const std::string& name);
    int add_host(const ComputeHostArguments& arguments);
    int change_host(const ComputeHostArguments& arguments);
    int check(const std::string& name);
    int remove_host(const std::string& name, bool force);
    // What a machine can be plugged into; empty: on the vault's machine.
    int networks(const std::string& host);
    // Writes ca-cert.pem, client-cert.pem and client-key.pem (0600); the directory is made (0700).
    int credentials(const ComputeHostArguments& arguments);
    // Where the item's machine is to run: shows it, or sets it; `local`: not any more.
    int item_compute(const ComputeHostArguments& arguments);

  private:
    int show_host(const Result<nlohmann::json>& answer);
    std::unique_ptr<ClientVerbs::Impl> impl_;
};

using ComputeVerb = std::function<int(ComputeVerbs&)>;
// As AddClientVerb (access_commands.h).
using AddComputeVerb =
    std::function<CLI::App*(CLI::App&, const std::string&, const std::string&, const ComputeVerb&)>;

// `arguments` outlives the parser.
void add_compute_commands(CLI::App& app, ComputeHostArguments& arguments,
                          const AddComputeVerb& verb);
// `item compute`, beneath the verb `item`.
void add_item_compute(CLI::App& item, ComputeHostArguments& arguments, const AddComputeVerb& verb);

}  // namespace farshore
