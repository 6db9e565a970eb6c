// The part of the command line about policies that items follow.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

#include "cli/access_commands.h"
#include "cli/client_verbs.h"

namespace farshore {

// `arguments` outlives the parser. `add_values` adds the options that a policy's values have.
void add_policy_commands(CLI::App& app, NamedPolicyArguments& arguments, const AddClientVerb& verb,
                         const std::function<void(CLI::App*, PolicyArguments&)>& add_values);

}  // namespace farshore
