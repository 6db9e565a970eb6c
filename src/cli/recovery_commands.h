// The part of the command line about failovers and the way home.
#pragma once

#include <CLI/CLI.hpp>

#include "cli/access_commands.h"
#include "cli/client_verbs.h"
#include "cli/recovery_verbs.h"

namespace farshore {

// Of options that other verbs have, too.
inline constexpr const char* kCopyHelp = "read from the copy in this store (the vault's own store)";
inline constexpr const char* kPointHelp =
    "latest, latest-processed, latest-app, latest-multi-vm, latest-multi-vm-app, shared:ID, a "
    "sequence, an RFC 3339 time, or a label";

inline constexpr const char* kNetworkHelp =
    "what every network card is plugged into: isolated, user, none, segment:NAME (closed), "
    "bridge:INTERFACE, network:NAME";
inline constexpr const char* kComputeHelp =
    "the compute host that runs it, `local` for the vault's machine; without it, the item's own "
    "(`item compute`)";

struct RecoveryArguments {
    FailoverArguments failover;
    ReturnArguments way_home;
    NicArguments nic;
    std::string name, point, copy, note, id, network, compute;
    uint64_t throttle_bytes_per_s = 0;   // of hydrate; 0: no limit
    std::string into, format = "qcow2";  // of hydrate
    bool all = false, cancel = false, no_wait = false;
};

// `item network`, beneath the verb `item`. `arguments` outlives the parser.
void add_item_network(CLI::App& item, RecoveryArguments& arguments, const AddRecoveryVerb& verb);
// `arguments` outlives the parser. `duration` makes seconds of "1d".
void add_recovery_commands(CLI::App& app, RecoveryArguments& arguments, const AddClientVerb& verb,
                           const AddRecoveryVerb& recovery_verb, const CLI::Validator& duration);

}  // namespace farshore
