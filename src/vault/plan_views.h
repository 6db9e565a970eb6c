// Recovery plans and their runs as the documents of api/openapi.yaml, and the report of a run for
// people. For .cc files only: it pulls in the JSON library.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "meta/recovery_plans.h"
#include "recovery/plan_run.h"
#include "vault/plan_desk.h"

namespace farshore {

// kCorrupt, kNewerVersion: the database holds what is no plan of ours.
Result<nlohmann::json> plan_view(const PlanRecord& plan);
nlohmann::json finding_view(const PlanFinding& finding);
// Without its steps, for lists.
nlohmann::json plan_run_brief(const PlanRun& run);
nlohmann::json plan_run_view(const PlanRun& run);
// One HTML page that needs nothing else: what was done when, and how it ended.
std::string plan_run_html(const PlanRun& run);

}  // namespace farshore
