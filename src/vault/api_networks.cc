// The resource of networks: what a recovery machine can be plugged into, here or at a compute host.
#include <fmt/core.h>

#include <set>

#include "compute/network_choice.h"
#include "meta/compute_hosts.h"
#include "meta/item_nics.h"
#include "meta/json_fields.h"
#include "meta/recovery_plans.h"
#include "os/bridge_port.h"
#include "recovery/nic_settings.h"
#include "recovery/recovery_plan.h"
#include "vault/api.h"
#include "vault/api_call.h"
#include "vault/recovery_desk.h"

namespace farshore {
namespace {

constexpr size_t kMaxPlansLookedAt = 1000;

Json network_view(const NetworkChoice& network, const Status& usable = {}) {
    Json json{{"network", network_word(network)}, {"usable", usable.has_value()}};
    if (!usable) json["why_not"] = usable.error().what();
    return json;
}

// Segments are there when somebody names them.
Result<std::set<std::string>> named_segments(Database& database) {
    std::set<std::string> names;
    const auto note = [&](const std::optional<NetworkChoice>& network) {
        if (network && network->kind == NetworkKind::kSegment) names.insert(network->name);
    };
    FS_ASSIGN(const auto documents, all_item_nics(database));
    for (const std::string& document : documents) {
        const auto json = parse_json(document, "a network card", kMaxNicSettingsBytes);
        const auto settings = json ? nic_settings_from_json(*json)
                                   : Result<NicSettings>(tl::unexpected(json.error()));
        if (!settings) continue;  // whoever recovers that item is told
        note(settings->failover);
        note(settings->test);
    }
    FS_ASSIGN(const auto plans, list_plans(database, {}, kMaxPlansLookedAt));
    for (const PlanRecord& record : plans) {
        const auto json = parse_json(record.document, "a recovery plan", kMaxPlanBytes);
        const auto plan =
            json ? plan_from_json(*json) : Result<RecoveryPlan>(tl::unexpected(json.error()));
        if (!plan) continue;
        note(plan->network);
        note(plan->test_network);
    }
    return names;
}

}  // namespace

// /v1/networks?host=HOST
Result<HttpResponse> Api::networks(const Call& call) {
    if (call.parts.size() != 1 || !call.is("GET")) return no_such_resource(call.request);
    const std::string asked = call.query("host");
    const std::string host = asked.empty() ? std::string(kLocalHost) : asked;
    Json list = Json::array();
    for (const NetworkKind kind : {NetworkKind::kIsolated, NetworkKind::kUser, NetworkKind::kNone})
        list.push_back(network_view({.kind = kind}));
    FS_ASSIGN(const auto segments, named_segments(vault_.database()));
    for (const std::string& name : segments)
        list.push_back(network_view({.kind = NetworkKind::kSegment, .name = name}));
    if (host == kLocalHost) {
        FS_ASSIGN(const auto bridges, list_bridges());
        for (const std::string& name : bridges)
            list.push_back(
                network_view({.kind = NetworkKind::kBridge, .name = name}, check_bridge(name)));
    } else {
        FS_ASSIGN(RecoveryDesk * recovery, desk());
        FS_ASSIGN(const auto there, recovery->compute_hosts().named(host));
        FS_ASSIGN(const LibvirtReport report, there->report());
        for (const std::string& name : report.networks)
            if (const auto network = network_from_word("network:" + name))
                list.push_back(network_view(*network));
    }
    return answer({{"host", host}, {"networks", std::move(list)}});
}

}  // namespace farshore
