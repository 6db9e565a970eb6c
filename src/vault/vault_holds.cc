#include "vault/vault_holds.h"

#include <fmt/core.h>

#include "meta/items.h"
#include "vault/views.h"

namespace farshore {
namespace {

using Json = nlohmann::json;

Json hold_view(const Hold& hold) {
    return {{"id", hold.id},
            {"point", point_view(hold.sequence, hold.time)},
            {"since", to_rfc3339(hold.since)},
            {"reason", hold.reason}};
}

}  // namespace

Result<Json> place_hold(Vault& vault, const std::string& item, const std::string& point,
                        const std::string& reason) {
    FS_ASSIGN(const ItemRecord record, find_item(vault.database(), item));
    FS_ASSIGN(const auto replica, vault.replica(record.id));
    FS_ASSIGN(const ResolvedPoint resolved, replica->resolve(PointSpec::parse(point)));
    FS_ASSIGN(const Hold hold, replica->hold(resolved, reason));
    vault.event(Severity::kInformation, "hold-placed", &record,
                fmt::format("the point {} of {} stays until hold {} is released: {}",
                            hold.sequence.v, to_rfc3339(hold.time), hold.id, hold.reason));
    return hold_view(hold);
}

Result<Json> list_holds(Vault& vault, const std::string& item) {
    FS_ASSIGN(const ItemRecord record, find_item(vault.database(), item));
    FS_ASSIGN(const auto replica, vault.replica(record.id));
    FS_ASSIGN(const auto holds, replica->holds());
    Json list = Json::array();
    for (const Hold& hold : holds) list.push_back(hold_view(hold));
    return Json{{"holds", std::move(list)}};
}

Status release_hold(Vault& vault, const std::string& item, const std::string& id) {
    FS_ASSIGN(const ItemRecord record, find_item(vault.database(), item));
    FS_ASSIGN(const auto replica, vault.replica(record.id));
    FS_TRY(replica->release_hold(id));
    vault.event(Severity::kInformation, "hold-released", &record,
                fmt::format("hold {} is released: its point goes when the policy says", id));
    return {};
}

Result<Json> cost_of(Vault& vault, const std::string& item, uint32_t window_s,
                     const std::string& keep) {
    FS_ASSIGN(const RetentionGrid grid, RetentionGrid::parse(keep));
    FS_ASSIGN(const ItemRecord record, find_item(vault.database(), item));
    FS_ASSIGN(const auto replica, vault.replica(record.id));
    FS_ASSIGN(const ReplicaStatus status, replica->status());
    FS_ASSIGN(const RetentionCost cost, replica->cost(int64_t{window_s} * 1'000'000, grid));
    Json steps = Json::array();
    for (const RetentionCost::Step& step : cost.steps)
        steps.push_back({{"every_s", step.step.every_us / 1'000'000},
                         {"until_s", step.step.until_us / 1'000'000},
                         {"points", step.points},
                         {"bytes", step.bytes}});
    return Json{{"window_s", window_s},
                {"keep", grid.text()},
                {"newest_bytes", cost.newest_bytes},
                {"window_bytes", cost.window_bytes},
                {"steps", std::move(steps)},
                {"total_bytes", cost.total_bytes},
                {"stored_bytes", status.stored_bytes},
                {"seen_s", cost.seen_us / 1'000'000},
                {"written_per_s", static_cast<uint64_t>(cost.written_per_s)}};
}

}  // namespace farshore
