// Recovery plans and their runs, as documents whose inside is src/recovery's; and what people and
// programs have answered to steps that wait for them. Any thread may call; errors of the database
// as in database.h.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "meta/records.h"

namespace farshore {

class Database;

inline constexpr size_t kMaxPlans = 1000;
// Of each plan; older ones that are over are forgotten.
inline constexpr size_t kMaxKeptPlanRuns = 200;
inline constexpr size_t kMaxOpenPlanRuns = 100;  // of all plans

struct PlanRecord {
    std::string name;
    uint64_t version = 1;  // one more with each change
    std::string document;  // plan_json()
    TimePoint created, updated;
};

// kAlreadyExists, kLimitReached.
Result<PlanRecord> add_plan(Database& database, const PlanRecord& plan);
// kNotFound.
Result<PlanRecord> get_plan(Database& database, const std::string& name);
// By name, those behind `after`.
Result<std::vector<PlanRecord>> list_plans(Database& database, const std::string& after,
                                           size_t limit);
Result<PlanRecord> change_plan(Database& database, const std::string& name,
                               const std::string& document);
// Its runs stay. kWrongState: one of them is not over.
Status remove_plan(Database& database, const std::string& name);

struct PlanRunRecord {
    uint64_t id = 0;
    std::string plan;
    std::string mode;      // plan_mode_name()
    std::string state;     // plan_run_state_name()
    bool over = false;     // it will not go on
    std::string document;  // encode_plan_run()
    std::string wish;      // what its job should do next, as JSON; empty: nothing
    TimePoint created;
};

// `id` and `created` are set; `fill` makes the document once they are known. kWrongState: `alone`,
// and another run of the plan that is no test is not over; kLimitReached.
Result<PlanRunRecord> add_plan_run(Database& database, PlanRunRecord run, bool alone,
                                   const std::function<void(PlanRunRecord&)>& fill);
// kNotFound.
Result<PlanRunRecord> get_plan_run(Database& database, uint64_t id);
// Newest first, with an id below `before` (0: from the newest); of one plan, or of all.
Result<std::vector<PlanRunRecord>> list_plan_runs(Database& database, uint64_t before, size_t limit,
                                                  const std::string& plan = {});
// Those that are not over, oldest first.
Result<std::vector<PlanRunRecord>> open_plan_runs(Database& database);
// In one transaction; what `change` says no to stays as it is.
Result<PlanRunRecord> change_plan_run(Database& database, uint64_t id,
                                      const std::function<Status(PlanRunRecord&)>& change);

// An answer to one attempt of a step, for good.
struct StepAnswer {
    std::string handle;
    uint64_t run = 0;
    bool good = false;
    std::string note, who;
    TimePoint time;
};
// kAlreadyExists: it was answered before.
Status add_step_answer(Database& database, const StepAnswer& answer);
// None: nobody has answered.
Result<std::optional<StepAnswer>> get_step_answer(Database& database, const std::string& handle);

}  // namespace farshore
