// Scripts that steps of recovery plans want run by appliances (docs/design/plans.md): what is
// wanted, whether the appliance has said that it has it, and how it ended. One row for an attempt
// of a step, as long as the step wants to know of it.
//
// Any thread may call; errors of the database as in database.h.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/error.h"

namespace farshore {

class Database;

struct ApplianceScriptRecord {
    std::string handle;
    std::string appliance;
    std::string document;  // of the caller: what is wanted
    bool taken = false;    // so it may have begun
    bool ending = false;   // it is not wanted any more
    std::string outcome;   // of the caller; empty: none yet
};

// Ok when there is one of that handle already, which stays as it is.
Status add_appliance_script(Database& database, const ApplianceScriptRecord& script);
// kNotFound.
Result<ApplianceScriptRecord> get_appliance_script(Database& database, const std::string& handle);
// Those that are taken first, by handle, so many at most: which of them are given does not change
// while they are there.
Result<std::vector<ApplianceScriptRecord>> scripts_of_appliance(Database& database,
                                                                const std::string& appliance,
                                                                size_t most);
// Reads it, lets `change` edit taken, ending and outcome, keeps it; in one transaction. kNotFound,
// errors of `change`.
Result<ApplianceScriptRecord> change_appliance_script(
    Database& database, const std::string& handle,
    const std::function<Status(ApplianceScriptRecord&)>& change);
// Of all appliances.
Result<std::vector<std::string>> appliance_script_handles(Database& database);
// Ok also when there is none.
Status drop_appliance_script(Database& database, const std::string& handle);

}  // namespace farshore
