// The way home of an item, and the table of its states.
#include "meta/json_fields.h"
#include "vault/api.h"
#include "vault/api_call.h"
#include "vault/recovery_desk.h"
#include "vault/views.h"

namespace farshore {
// POST /v1/items/ITEM/return
Result<HttpResponse> Api::way_home(const Call& call) {
    if (call.parts.size() != 3 || !call.is("POST")) return no_such_resource(call.request);
    FS_ASSIGN(RecoveryDesk * recovery, desk());
    ReturnDesk& returns = recovery->returns();
    const std::string& name = call.part(1);
    FS_ASSIGN(const JsonFields fields, call.fields({"action", "agent", "disks", "appliance",
                                                    "accept", "power_off", "timeout_s"}));
    FS_ASSIGN(const std::string action, fields.required_text("action", 64));
    FS_ASSIGN(const ReturnRequest request, read_return_request(fields));
    FS_ASSIGN(const FailbackRequest failback, read_failback(fields));
    const auto job = [&]() -> Result<JobRecord> {
        if (action == "reprotect") return returns.reprotect(name, request);
        if (action == "cancel-reprotect") return returns.cancel_reprotect(name);
        if (action == "failback") return returns.failback(name, failback);
        if (action == "cancel-failback") return returns.cancel_failback(name);
        if (action == "commit") return returns.commit(name);
        return fail(Code::kInvalidArgument,
                    fmt::format("the action '{}' is no part of a way home", action.substr(0, 64)),
                    "use reprotect, cancel-reprotect, failback, cancel-failback or commit");
    };
    FS_ASSIGN(const JobRecord begun, job());
    return answer(job_view(begun), 202);
}

// GET /v1/items/ITEM/states
Result<HttpResponse> Api::states(const Call& call) {
    if (call.parts.size() != 3 || !call.is("GET")) return no_such_resource(call.request);
    FS_ASSIGN(const ItemRecord item, find_item(vault_.database(), call.part(1)));
    Json table = Json::array();
    for (int i = 0; i < kItemStates; ++i) table.push_back(states_view(static_cast<ItemState>(i)));
    return answer({{"item", item.name},
                   {"state", std::string(item_state_name(item.state))},
                   {"states", std::move(table)}});
}

}  // namespace farshore
