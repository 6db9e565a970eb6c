// The part of the command line about planning.
#pragma once

#include "cli/access_commands.h"

namespace farshore {

struct PlanCommandArguments {
    PlanArguments plan;
    MeasureArguments measure;
};

void add_plan_commands(CLI::App& app, PlanCommandArguments& arguments, const AddClientVerb& add,
                       const CLI::Validator& duration, const CLI::Validator& bandwidth);

}  // namespace farshore
