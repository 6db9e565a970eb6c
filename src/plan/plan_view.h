// A plan as the document of api/openapi.yaml (`Plan`). For .cc files only: it pulls in the JSON
// library.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "plan/plan.h"

namespace farshore {

nlohmann::json plan_view(const Plan& plan, const PlanInput& input, const PlanQuestion& question);
// What plan_cost() needs of such a document; what is missing is 0.
Plan plan_of_view(const nlohmann::json& view);

}  // namespace farshore
