#include "plan/plan_view.h"

#include <cmath>
#include <nlohmann/json.hpp>

namespace farshore {
namespace {

using Json = nlohmann::json;

double seconds(int64_t us) { return double(us) / 1e6; }
uint64_t whole(double bytes) { return static_cast<uint64_t>(std::ceil(bytes)); }

}  // namespace

Json plan_view(const Plan& plan, const PlanInput& input, const PlanQuestion& question) {
    Json items = Json::array();
    for (const Plan::Storage& one : plan.storage) {
        Json steps = Json::array();
        for (const RetentionCost::Step& step : one.cost.steps)
            steps.push_back({{"every_s", step.step.every_us / 1'000'000},
                             {"until_s", step.step.until_us / 1'000'000},
                             {"points", step.points},
                             {"bytes", step.bytes}});
        const PlannedItem& item = input.items[static_cast<size_t>(&one - plan.storage.data())];
        items.push_back({{"item", one.item},
                         {"window_s", item.window_us / 1'000'000},
                         {"keep", item.keep.text()},
                         {"newest_bytes", one.cost.newest_bytes},
                         {"window_bytes", one.cost.window_bytes},
                         {"steps", std::move(steps)},
                         {"total_bytes", one.cost.total_bytes}});
    }
    Json json{{"rpo_s", seconds(question.rpo_us)},
              {"growth_percent", question.growth_percent},
              {"months", question.months},
              {"outage_s", seconds(question.outage_us)},
              {"factor", plan.factor},
              {"seen_s", seconds(plan.seen_us)},
              {"interval_s", seconds(plan.interval_us)},
              {"stored_per_written", plan.stored_per_written},
              {"written_per_s",
               {{"mean", whole(plan.written_mean)},
                {"p95", whole(plan.written_p95)},
                {"peak", whole(plan.written_peak)}}},
              {"bandwidth", {{"p95", plan.bandwidth_p95}, {"peak", plan.bandwidth_peak}}},
              {"spool", {{"p95", plan.spool_p95}, {"peak", plan.spool_peak}}},
              {"storage",
               {{"total_bytes", plan.storage_bytes},
                {"newest_bytes", plan.newest_bytes},
                {"items", std::move(items)}}},
              {"month",
               {{"upload_bytes", plan.upload_bytes},
                {"put", plan.puts},
                {"get_range", plan.range_gets},
                {"head", plan.heads},
                {"list", plan.lists}}},
              {"explain", plan.explain}};
    if (plan.link) {
        Json link{{"bandwidth", plan.link->bandwidth},
                  {"within_rpo", plan.link->within_rpo},
                  {"rpo_p95_s", seconds(plan.link->delay_us)},
                  {"backlog_bytes", plan.link->backlog_bytes}};
        if (plan.link->worst_delay_us != INT64_MAX)
            link["rpo_worst_s"] = seconds(plan.link->worst_delay_us);
        if (plan.link->catch_up_us) link["catch_up_s"] = seconds(*plan.link->catch_up_us);
        json["link"] = std::move(link);
    }
    return json;
}

Plan plan_of_view(const Json& view) {
    const auto number = [&](const char* part, const char* name) -> uint64_t {
        const auto at = view.find(part);
        if (at == view.end() || !at->is_object()) return 0;
        const auto value = at->find(name);
        return value == at->end() || !value->is_number_unsigned() ? 0 : value->get<uint64_t>();
    };
    Plan plan;
    plan.storage_bytes = number("storage", "total_bytes");
    plan.newest_bytes = number("storage", "newest_bytes");
    plan.upload_bytes = number("month", "upload_bytes");
    plan.puts = number("month", "put");
    plan.range_gets = number("month", "get_range");
    plan.heads = number("month", "head");
    plan.lists = number("month", "list");
    return plan;
}

}  // namespace farshore
