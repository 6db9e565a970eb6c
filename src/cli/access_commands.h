// The part of the command line about who may use the vault.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "cli/client_verbs.h"

namespace farshore {

// What the verbs of access_commands.cc can be told; outlives the parser.
struct AccessCommandArguments {
    AccessArguments access;
    AuditArguments audit;
    bool all = false;
};

using ClientVerb = std::function<int(ClientVerbs&)>;
// Adds a verb with the options that all have: parent, name, help, what it does.
using AddClientVerb =
    std::function<CLI::App*(CLI::App&, const std::string&, const std::string&, const ClientVerb&)>;

void add_access_commands(CLI::App& app, AccessCommandArguments& arguments, const AddClientVerb& add,
                         const CLI::Validator& duration);

}  // namespace farshore
