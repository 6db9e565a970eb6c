// The part of the command line about replication groups.
#pragma once

#include <CLI/CLI.hpp>

#include "cli/access_commands.h"
#include "cli/client_verbs.h"

namespace farshore {

// `arguments` outlives the parser.
void add_group_commands(CLI::App& app, GroupArguments& arguments, const AddClientVerb& verb,
                        const CLI::Validator& duration);

}  // namespace farshore
