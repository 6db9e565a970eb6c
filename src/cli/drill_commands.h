// The part of the command line about drills.
#pragma once

#include <CLI/CLI.hpp>

#include "cli/recovery_verbs.h"

namespace farshore {

// `arguments` outlives the parser. `duration` makes seconds of "1d".
void add_drill_commands(CLI::App& app, DrillArguments& arguments, const AddRecoveryVerb& verb,
                        const CLI::Validator& duration);

}  // namespace farshore
