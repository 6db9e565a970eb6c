// The resource of plans: what protected machines will need.
#include "meta/database.h"
#include "meta/items.h"
#include "plan/churn.h"
#include "plan/plan_view.h"
#include "vault/api.h"
#include "vault/api_call.h"

namespace farshore {
namespace {

constexpr size_t kRows = 500;
constexpr uint64_t kMaxGrowth = 100'000, kMaxMonths = 240;
constexpr uint64_t kMaxPlanS = 366ull * 86'400, kMaxBandwidth = uint64_t{1} << 50;

std::vector<std::string> names_of(const std::string& text) {
    std::vector<std::string> names;
    for (size_t from = 0; from <= text.size() && !text.empty();) {
        const size_t end = std::min(text.find(',', from), text.size());
        names.push_back(text.substr(from, end - from));
        from = end + 1;
    }
    return names;
}

}  // namespace

// GET /v1/plan
Result<HttpResponse> Api::plan(const Call& call) {
    if (call.parts.size() != 1 || !call.is("GET")) return no_such_resource(call.request);
    PlanQuestion question;
    FS_ASSIGN(const uint64_t growth, call.number("growth_percent", 0, kMaxGrowth));
    FS_ASSIGN(const uint64_t months, call.number("months", 12, kMaxMonths));
    FS_ASSIGN(const uint64_t outage_s, call.number("outage_s", 14'400, kMaxPlanS));
    FS_ASSIGN(const uint64_t rpo_s, call.number("rpo_s", 0, kMaxPlanS));
    FS_ASSIGN(const uint64_t window_s, call.number("window_s", 0, kMaxPlanS));
    FS_ASSIGN(question.bandwidth, call.number("bandwidth", 0, kMaxBandwidth));
    question.growth_percent = static_cast<double>(growth);
    question.months = static_cast<int64_t>(months);
    question.outage_us = static_cast<int64_t>(outage_s) * 1'000'000;
    question.rpo_us = static_cast<int64_t>(rpo_s) * 1'000'000;

    std::vector<ItemRecord> records;
    const auto names = names_of(call.query("items"));
    if (!names.empty()) {
        if (names.size() > kRows)
            return fail(Code::kTooLarge, fmt::format("at most {} items are named at once", kRows));
        for (const std::string& name : names) {
            FS_TRY(check_item(call, name));
            FS_ASSIGN(ItemRecord record, find_item(vault_.database(), name));
            records.push_back(std::move(record));
        }
    } else {
        std::string after;
        while (true) {
            FS_ASSIGN(const auto rows, list_items(vault_.database(), after, kRows));
            for (const ItemRecord& row : rows) {
                after = row.name;
                if (call.sees(row.id, row.name)) records.push_back(row);
            }
            if (rows.size() < kRows) break;
        }
    }
    PlanInput input;
    ChurnOf churn;
    TimePoint now;
    Json left_out = Json::array();
    for (const ItemRecord& record : records) {
        const auto found = vault_.replica(record.id);
        // One that was set aside is no reason to say nothing of the others.
        if (!found && names.empty()) {
            left_out.push_back(record.name);
            continue;
        }
        if (!found) return fail(found.error());
        const auto& replica = *found;
        FS_ASSIGN(const auto rows, replica->changes());
        FS_ASSIGN(const ReplicaStatus status, replica->status());
        PlannedItem item;
        item.name = record.name;
        FS_ASSIGN(item.seen, replica->changes_seen());
        if (item.seen.objects != 0) item.object_bytes = item.seen.object_bytes / item.seen.objects;
        const std::string keep =
            call.request.query.contains("keep") ? call.query("keep") : record.policy.keep;
        FS_ASSIGN(item.keep, RetentionGrid::parse(keep));
        item.window_us =
            static_cast<int64_t>(window_s != 0 ? window_s : record.policy.window_s) * 1'000'000;
        const int64_t policy_us = int64_t{record.policy.rpo_threshold_s} * 1'000'000;
        if (rpo_s == 0 && (question.rpo_us == 0 || policy_us < question.rpo_us))
            question.rpo_us = policy_us;
        // The machine's clock, as the rows have it.
        now = std::max({now, status.stored_time, status.current_until});
        churn.add(rows, record.created);
        input.items.push_back(std::move(item));
    }
    input.churn = churn.series(now);
    FS_ASSIGN(const Plan plan, make_plan(input, question));
    Json document = plan_view(plan, input, question);
    if (!left_out.empty()) document["left_out"] = std::move(left_out);
    return answer(document);
}

}  // namespace farshore
