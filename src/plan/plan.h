// What machines will need, from how they were seen to write: the line for an RPO, the spool for an
// outage, the store for a policy, its requests, and what all of that costs.
//
// Pure; any thread. The sums are docs/operations/planner.md, and explain() writes them out with
// their numbers. Bytes are bytes, rates bytes a second, times microseconds.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/retention_grid.h"
#include "replica/retention_cost.h"

namespace farshore {

inline constexpr int64_t kPlanMonthUs = int64_t{30} * 86'400 * 1'000'000;
// Between a write and its being stored on a line that nothing waits for: what a segment waits to be
// cut at most (replicate/limits.h), and as long again for its way.
inline constexpr int64_t kPipelineUs = 2'000'000;
// A vault lists its store so often whether anything is written or not (docs/operations/cost.md).
inline constexpr int64_t kIdleListUs = 10'000'000;
inline constexpr size_t kMaxPlanSamples = 500'000;
inline constexpr double kPlanShare = 0.95;  // "p95": of the time

// Bytes written in slots of equal length that follow each other.
struct ChurnSeries {
    int64_t interval_us = 0;
    std::vector<uint64_t> bytes;

    int64_t seen_us() const { return interval_us * static_cast<int64_t>(bytes.size()); }
    uint64_t total() const;
};

// One machine, and what is to be kept of it.
struct PlannedItem {
    std::string name;
    ChangeSeen seen;
    // Of a segment in the store, on average; 0: not known, it follows from the rate.
    uint64_t object_bytes = 0;
    int64_t window_us = 0;
    RetentionGrid keep;
};

struct PlanInput {
    // Of all items together; several when there are some of other lengths (two days of minutes, two
    // months of hours): each need is the largest that one of them has.
    std::vector<ChurnSeries> churn;
    std::vector<PlannedItem> items;
};

struct PlanQuestion {
    int64_t rpo_us = 60'000'000;  // more than kPipelineUs
    double growth_percent = 0;    // a year, of writes and of data; above -100
    int64_t months = 12;          // from now
    int64_t outage_us = 14'400'000'000;
    uint64_t bandwidth = 0;  // of the line to the store; 0: only what is needed
};

struct PlanLink {
    uint64_t bandwidth = 0;
    double within_rpo = 1;       // share of the time
    int64_t delay_us = 0;        // kPlanShare of the time, at most
    int64_t worst_delay_us = 0;  // INT64_MAX: the line is slower than the mean, it never catches up
    uint64_t backlog_bytes = 0;  // at most, as written, waiting in spool, spill and ring
    std::optional<int64_t> catch_up_us;  // after the outage; none: never
};

struct Plan {
    double factor = 1;                     // that writes and data have grown by
    int64_t seen_us = 0, interval_us = 0;  // the longest series, the shortest slot
    double stored_per_written = 1;         // of all items, by what each writes
    double written_mean = 0, written_p95 = 0, written_peak = 0;  // grown; of the shortest slots
    uint64_t bandwidth_p95 = 0, bandwidth_peak = 0;  // for the RPO, kPlanShare and all of the time
    std::optional<PlanLink> link;                    // when a bandwidth was named
    uint64_t spool_p95 = 0, spool_peak = 0;  // for outages that begin at any time, at the worst
    struct Storage {
        std::string item;
        RetentionCost cost;
    };
    std::vector<Storage> storage;
    uint64_t storage_bytes = 0;  // when the retention is full
    uint64_t newest_bytes = 0;   // of it, what a failover reads at most
    // Of a month. Compaction and checkpoints are not in them.
    uint64_t upload_bytes = 0, puts = 0, range_gets = 0, heads = 0, lists = 0;
    std::vector<std::string> explain;  // the sums, a line each
};

// What a provider charges, in the currency of whoever asks; all of it zero unless it is set.
struct PlanPrices {
    std::string currency;
    double storage_gb_month = 0;  // 10^9 bytes
    double put_1000 = 0, get_1000 = 0, head_1000 = 0, list_1000 = 0;
    double egress_gb = 0;
};

struct PlanCost {
    double storage = 0, requests = 0, month = 0;
    double failover = 0;  // one that reads all of the newest state
};

// kInvalidArgument: an RPO that no line can hold, a growth or time out of range, no samples.
Result<Plan> make_plan(const PlanInput& input, const PlanQuestion& question);
PlanCost plan_cost(const Plan& plan, const PlanPrices& prices);

// The smallest bandwidth for which what waits is stored within `delay_us`, in `share` of the slots
// of `churn` whose bytes are multiplied by `ratio`; never below what is written on average.
uint64_t bandwidth_for(const ChurnSeries& churn, double ratio, int64_t delay_us, double share);
// Of all stretches of `outage_us`, what is written in `share` of them at most.
uint64_t written_in(const ChurnSeries& churn, int64_t outage_us, double share);

}  // namespace farshore
