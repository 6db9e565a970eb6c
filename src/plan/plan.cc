#include "plan/plan.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace farshore {
namespace {

constexpr double kMicro = 1e-6;
// Beyond it a number of bytes is no number any more.
constexpr double kMostBytes = 4e18;
// When a segment is cut (replicate/limits.h): this many bytes, a quarter of a second once it is
// worth an object, a second in any case.
constexpr double kObjectMostBytes = 16 << 20, kObjectWorthBytes = 1 << 20;

double seconds(int64_t us) { return double(us) * kMicro; }
uint64_t bytes_of(double value) {
    constexpr double kMost = 9e18;
    return static_cast<uint64_t>(std::clamp(std::ceil(value - 1e-6), 0.0, kMost));
}

// The value that `share` of them are at or below.
template <typename T>
T quantile(std::vector<T> values, double share) {
    if (values.empty()) return {};
    std::ranges::sort(values);
    const double at = std::ceil(share * double(values.size()));
    return values[std::clamp<size_t>(static_cast<size_t>(at), 1, values.size()) - 1];
}

// A line of `rate` bytes a second that takes what is written in order. In a slot all is written
// evenly, so what waits is longest at one of its ends.
struct Queue {
    std::vector<double> delay_s;  // the longest of each slot
    double most_bytes = 0;
    double left_bytes = 0;
};
Queue run_queue(const ChurnSeries& churn, double ratio, double rate) {
    Queue queue;
    queue.delay_s.reserve(churn.bytes.size());
    const double room = rate * seconds(churn.interval_us);
    double waiting = 0;
    for (const uint64_t written : churn.bytes) {
        const double after = std::max(0.0, waiting + double(written) * ratio - room);
        const double most = std::max(waiting, after);
        queue.delay_s.push_back(most == 0 ? 0 : rate > 0 ? most / rate : 1e12);
        queue.most_bytes = std::max(queue.most_bytes, most);
        waiting = after;
    }
    queue.left_bytes = waiting;
    return queue;
}

double peak_rate(const ChurnSeries& churn, double ratio) {
    if (churn.bytes.empty()) return 0;
    return double(std::ranges::max(churn.bytes)) * ratio / seconds(churn.interval_us);
}

// How many objects a machine makes of what it writes in a month, by when segments are cut.
double objects_by_rate(const ChurnSeries& churn, double factor) {
    if (churn.seen_us() == 0) return 0;
    double objects = 0;
    const double slot_s = seconds(churn.interval_us);
    for (const uint64_t written : churn.bytes) {
        if (written == 0) continue;
        const double bytes = double(written) * factor, rate = bytes / slot_s;
        const double each = std::clamp(rate / 4, kObjectWorthBytes, kObjectMostBytes);
        // Below a MiB a second it is one each second.
        objects += rate < kObjectWorthBytes ? std::min(slot_s, std::max(1.0, bytes)) : bytes / each;
    }
    return objects * double(kPlanMonthUs) / double(churn.seen_us());
}

// Bytes that an item stores in a microsecond, by what was seen.
double stored_rate(const PlannedItem& item) {
    if (item.seen.written_us <= 0) return 0;
    return double(item.seen.written_bytes) / double(item.seen.written_us) *
           item.seen.stored_per_written;
}

// Of a month: what is sent, in objects of the size that each item's have; of items of which none
// was seen, by when segments are cut.
double objects_of(const PlanInput& input, const ChurnSeries& churn, const Plan& plan) {
    double all = 0, known = 0, known_objects = 0;
    for (const PlannedItem& item : input.items) {
        const double rate = stored_rate(item);
        all += rate;
        if (item.object_bytes == 0) continue;
        known += rate;
        known_objects += rate / double(item.object_bytes);
    }
    const double share = all > 0 ? known / all : 0;
    double objects = (1 - share) * objects_by_rate(churn, plan.factor);
    if (known > 0) objects += share * double(plan.upload_bytes) * known_objects / known;
    return objects;
}

std::string words(double bytes) {
    if (bytes < 1e6) return fmt::format("{:.1f} kB", bytes / 1e3);
    return bytes < 1e9 ? fmt::format("{:.1f} MB", bytes / 1e6)
                       : fmt::format("{:.2f} GB", bytes / 1e9);
}

Status check(const PlanInput& input, const PlanQuestion& question) {
    if (question.rpo_us <= kPipelineUs)
        return fail(Code::kInvalidArgument,
                    fmt::format("an RPO of {} s cannot be held", seconds(question.rpo_us)),
                    fmt::format("a write is stored {} s later on any line: ask for more than that",
                                seconds(kPipelineUs)));
    if (!(question.growth_percent > -100) || question.growth_percent > 100'000)
        return fail(Code::kInvalidArgument, "a growth is above -100 and at most 100000 percent");
    if (question.months < 0 || question.months > 240)
        return fail(Code::kInvalidArgument, "months are 0 to 240");
    if (question.outage_us < 0) return fail(Code::kInvalidArgument, "an outage is not below 0");
    if (input.churn.empty() || input.items.empty())
        return fail(Code::kInvalidArgument, "there is nothing to plan for",
                    "protect a machine, or measure one with `farshore plan measure`");
    for (const ChurnSeries& churn : input.churn)
        if (churn.interval_us <= 0 || churn.bytes.empty() || churn.bytes.size() > kMaxPlanSamples)
            return fail(Code::kInvalidArgument,
                        fmt::format("a series has 1 to {} slots", kMaxPlanSamples));
    return {};
}

PlanLink link_of(const std::vector<ChurnSeries>& churn, double ratio, double factor,
                 const PlanQuestion& question, double written_mean, uint64_t spool) {
    PlanLink link;
    link.bandwidth = question.bandwidth;
    const double rate = double(question.bandwidth),
                 allowed = seconds(question.rpo_us - kPipelineUs);
    const bool keeps_up = written_mean * ratio < rate;
    for (const ChurnSeries& one : churn) {
        Queue queue = run_queue(one, factor * ratio, rate);
        const auto within = std::ranges::count_if(
            queue.delay_s, [&](double delay) { return delay <= allowed * (1 + 1e-9); });
        link.within_rpo = std::min(link.within_rpo, double(within) / double(queue.delay_s.size()));
        const auto us = [](double s) { return static_cast<int64_t>(std::min(s, 1e12) * 1e6); };
        link.worst_delay_us =
            std::max(link.worst_delay_us, us(std::ranges::max(queue.delay_s)) + kPipelineUs);
        link.delay_us = std::max(link.delay_us,
                                 us(quantile(std::move(queue.delay_s), kPlanShare)) + kPipelineUs);
        link.backlog_bytes =
            std::max(link.backlog_bytes, bytes_of(ratio > 0 ? queue.most_bytes / ratio : 0));
    }
    if (keeps_up)
        link.catch_up_us =
            static_cast<int64_t>(double(spool) * ratio / (rate - written_mean * ratio) * 1e6);
    else
        link.worst_delay_us = INT64_MAX;
    return link;
}

void explain(Plan& plan, const PlanInput& input, const PlanQuestion& question) {
    auto& lines = plan.explain;
    for (const ChurnSeries& churn : input.churn)
        lines.push_back(fmt::format("seen: {} slots of {} s, {} written in them",
                                    churn.bytes.size(), seconds(churn.interval_us),
                                    words(double(churn.total()))));
    lines.push_back(fmt::format(
        "growth: (1 + {}/100)^({}/12) = {:.3f}, of what is written and of what there is",
        question.growth_percent, question.months, plan.factor));
    const bool measured = std::ranges::any_of(
        input.items, [](const PlannedItem& item) { return item.object_bytes != 0; });
    lines.push_back(fmt::format("stored for each byte written: {:.3f} ({})",
                                plan.stored_per_written,
                                measured ? "compressed and sealed, as the items' segments are"
                                         : "as given: nothing of it is stored yet"));
    lines.push_back(fmt::format(
        "written, grown: {}/s on average, {}/s in {:.0f} % of the slots at most, {}/s in the worst",
        words(plan.written_mean), words(plan.written_p95), kPlanShare * 100,
        words(plan.written_peak)));
    lines.push_back(fmt::format(
        "bandwidth: the least for which what waits for the line is sent within RPO {} s - {} s for "
        "cutting and storing a segment, slot by slot: {}/s in {:.0f} % of the slots, {}/s in all",
        seconds(question.rpo_us), seconds(kPipelineUs), words(double(plan.bandwidth_p95)),
        kPlanShare * 100, words(double(plan.bandwidth_peak))));
    if (question.outage_us > 0)
        lines.push_back(fmt::format(
            "spool: what is written in {} s on end, as it is written: {} in {:.0f} % of all such "
            "stretches at most, {} in the worst",
            seconds(question.outage_us), words(double(plan.spool_p95)), kPlanShare * 100,
            words(double(plan.spool_peak))));
    for (const Plan::Storage& one : plan.storage) {
        std::string steps;
        for (const RetentionCost::Step& step : one.cost.steps)
            steps += fmt::format(" + {} points of {} s apart {}", step.points,
                                 seconds(step.step.every_us), words(double(step.bytes)));
        lines.push_back(fmt::format("storage of {}: newest state {} + window {}{} = {}", one.item,
                                    words(double(one.cost.newest_bytes)),
                                    words(double(one.cost.window_bytes)), steps,
                                    words(double(one.cost.total_bytes))));
    }
    lines.push_back(fmt::format(
        "requests of a month (30 days): {} written x stored = {} in {} objects; of each one put, "
        "head, list and short read, and a list each {} s; compaction and checkpoints are not in it",
        words(plan.written_mean * seconds(kPlanMonthUs)), words(double(plan.upload_bytes)),
        plan.puts, seconds(kIdleListUs)));
}

}  // namespace

uint64_t ChurnSeries::total() const {
    return std::accumulate(bytes.begin(), bytes.end(), uint64_t{0});
}

uint64_t bandwidth_for(const ChurnSeries& churn, double ratio, int64_t delay_us, double share) {
    const double allowed = seconds(delay_us);
    const auto holds = [&](double rate) {
        const Queue queue = run_queue(churn, ratio, rate);
        return quantile(queue.delay_s, share) <= allowed * (1 + 1e-9);
    };
    if (churn.total() == 0) return 0;
    // A line below the mean falls behind for ever, though what was seen may be too short to show.
    double low = double(churn.total()) * ratio / seconds(churn.seen_us());
    if (holds(low)) return bytes_of(low);
    // At the rate of the worst slot nothing ever waits.
    double high = peak_rate(churn, ratio);
    for (int i = 0; i < 60 && high - low > 0.5; ++i) {
        const double middle = (low + high) / 2;
        (holds(middle) ? high : low) = middle;
    }
    return bytes_of(high);
}

uint64_t written_in(const ChurnSeries& churn, int64_t outage_us, double share) {
    if (outage_us <= 0 || churn.bytes.empty()) return 0;
    const double slots = double(outage_us) / double(churn.interval_us);
    const size_t whole = static_cast<size_t>(std::ceil(slots));
    // Longer than anything that was seen: as much as was, for as long.
    if (whole >= churn.bytes.size())
        return bytes_of(double(churn.total()) * slots / double(churn.bytes.size()));
    std::vector<uint64_t> sums;
    uint64_t sum = 0;
    for (size_t i = 0; i < churn.bytes.size(); ++i) {
        sum += churn.bytes[i];
        if (i >= whole) sum -= churn.bytes[i - whole];
        if (i + 1 >= whole) sums.push_back(sum);
    }
    return quantile(std::move(sums), share);
}

Result<Plan> make_plan(const PlanInput& input, const PlanQuestion& question) {
    FS_TRY(check(input, question));
    Plan plan;
    plan.factor = std::pow(1 + question.growth_percent / 100, double(question.months) / 12);
    double written = 0, stored = 0;
    for (const PlannedItem& item : input.items) {
        if (item.seen.written_us > 0)
            written += double(item.seen.written_bytes) / double(item.seen.written_us);
        stored += stored_rate(item);
    }
    plan.stored_per_written =
        written > 0 ? stored / written : input.items.front().seen.stored_per_written;
    const double ratio = plan.stored_per_written;

    const auto shortest = std::ranges::min_element(input.churn, {}, &ChurnSeries::interval_us);
    const auto longest = std::ranges::max_element(
        input.churn, {}, [](const ChurnSeries& one) { return one.seen_us(); });
    plan.interval_us = shortest->interval_us;
    plan.seen_us = longest->seen_us();
    plan.written_mean = double(longest->total()) * plan.factor / seconds(longest->seen_us());
    plan.written_p95 = double(quantile(shortest->bytes, kPlanShare)) * plan.factor /
                       seconds(shortest->interval_us);
    plan.written_peak = peak_rate(*shortest, plan.factor);
    for (const ChurnSeries& churn : input.churn) {
        const double sent = plan.factor * ratio;
        const int64_t delay_us = question.rpo_us - kPipelineUs;
        plan.bandwidth_p95 =
            std::max(plan.bandwidth_p95, bandwidth_for(churn, sent, delay_us, kPlanShare));
        plan.bandwidth_peak =
            std::max(plan.bandwidth_peak, bandwidth_for(churn, sent, delay_us, 1));
        const auto grown = [&](double share) {
            return bytes_of(double(written_in(churn, question.outage_us, share)) * plan.factor);
        };
        plan.spool_p95 = std::max(plan.spool_p95, grown(kPlanShare));
        plan.spool_peak = std::max(plan.spool_peak, grown(1));
    }
    if (question.bandwidth != 0)
        plan.link =
            link_of(input.churn, ratio, plan.factor, question, plan.written_mean, plan.spool_peak);

    const auto fits = [](double bytes) { return bytes < kMostBytes; };
    bool sums_fit = fits(plan.written_peak * seconds(kPlanMonthUs));
    for (const PlannedItem& item : input.items) {
        const double span_us = double(std::max<int64_t>(item.seen.written_us, 1));
        sums_fit = sums_fit && fits(double(item.seen.live_bytes) * plan.factor) &&
                   fits(double(item.seen.written_bytes) * plan.factor) &&
                   fits(double(item.seen.written_bytes) * plan.factor *
                        std::max(1.0, double(item.window_us) / span_us));
    }
    if (!sums_fit)
        return fail(Code::kInvalidArgument, "what that grows to is more than can be planned for",
                    "ask for less growth");
    for (const PlannedItem& item : input.items) {
        ChangeSeen grown = item.seen;
        const auto grow = [&](uint64_t& bytes) { bytes = bytes_of(double(bytes) * plan.factor); };
        grow(grown.live_bytes);
        grow(grown.map_bytes);
        grow(grown.written_bytes);
        for (ChangeSeen::Fresh& fresh : grown.fresh) grow(fresh.bytes);
        Plan::Storage storage{item.name, retention_cost(grown, item.window_us, item.keep)};
        plan.storage_bytes += storage.cost.total_bytes;
        plan.newest_bytes += storage.cost.newest_bytes;
        plan.storage.push_back(std::move(storage));
    }
    plan.upload_bytes = bytes_of(plan.written_mean * seconds(kPlanMonthUs) * ratio);
    plan.puts = bytes_of(objects_of(input, *shortest, plan));
    plan.range_gets = plan.heads = plan.puts;
    plan.lists = plan.puts + static_cast<uint64_t>(kPlanMonthUs / kIdleListUs);
    explain(plan, input, question);
    return plan;
}

PlanCost plan_cost(const Plan& plan, const PlanPrices& prices) {
    PlanCost cost;
    cost.storage = double(plan.storage_bytes) / 1e9 * prices.storage_gb_month;
    cost.requests =
        (double(plan.puts) * prices.put_1000 + double(plan.range_gets) * prices.get_1000 +
         double(plan.heads) * prices.head_1000 + double(plan.lists) * prices.list_1000) /
        1000;
    cost.month = cost.storage + cost.requests;
    cost.failover = double(plan.newest_bytes) / 1e9 * prices.egress_gb;
    return cost;
}

}  // namespace farshore
