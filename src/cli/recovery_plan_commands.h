// The part of the command line about recovery plans.
#pragma once

#include <CLI/CLI.hpp>

#include "cli/recovery_verbs.h"

namespace farshore {

// `arguments` outlives the parser.
void add_recovery_plan_commands(CLI::App& app, RecoveryPlanArguments& arguments,
                                const AddRecoveryVerb& verb);

}  // namespace farshore
