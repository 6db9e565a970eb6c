// farshore plan, plan measure: what machines will need.
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/bandwidth_limit.h"
#include "cli/api_documents.h"
#include "cli/client_verbs_impl.h"
#include "cli/format.h"
#include "cli/plan_prices.h"
#include "cli/serve_common.h"
#include "os/real.h"
#include "plan/measured.h"
#include "plan/plan_view.h"

namespace farshore {
namespace {

constexpr uint64_t kDefaultWindowS = 7200;

// A rate that is the same at every time.
Result<uint64_t> one_rate(const std::string& text) {
    if (text.empty()) return 0;
    FS_ASSIGN(const BandwidthLimit limit, BandwidthLimit::parse(text, "UTC"));
    const uint64_t rate = limit.at({});
    if (limit.next_change({}) || rate == kUnlimited || rate == 0)
        return fail(Code::kInvalidArgument,
                    fmt::format("'{}' is not one rate for all times", text.substr(0, 100)),
                    "write a rate without windows, such as 50MB/s");
    return rate;
}

Result<Json> plan_measured(const PlanArguments& a) {
    PosixFileSystem files;
    FS_ASSIGN(const Bytes text, read_whole_file(files, a.measured_file, kMaxMeasuredBytes));
    FS_ASSIGN(const Measured measured, parse_measured(as_text(text)));
    FS_ASSIGN(RetentionGrid keep, RetentionGrid::parse(a.keep.value_or("")));
    PlanQuestion question;
    if (a.rpo_s) question.rpo_us = static_cast<int64_t>(*a.rpo_s) * 1'000'000;
    if (a.outage_s) question.outage_us = static_cast<int64_t>(*a.outage_s) * 1'000'000;
    question.growth_percent = static_cast<double>(a.growth_percent);
    question.months = static_cast<int64_t>(a.months);
    FS_ASSIGN(question.bandwidth, one_rate(a.bandwidth));
    const auto window_us = static_cast<int64_t>(a.window_s.value_or(kDefaultWindowS)) * 1'000'000;
    const PlanInput input = plan_input(measured, a.stored_per_written, window_us, std::move(keep));
    FS_ASSIGN(const Plan plan, make_plan(input, question));
    return plan_view(plan, input, question);
}

Result<std::string> plan_target(const PlanArguments& a) {
    std::string query;
    const auto put = [&](const char* name, const std::string& value) {
        query += fmt::format("{}{}={}", query.empty() ? '?' : '&', name, url_encode(value));
    };
    const auto put_number = [&](const char* name, const std::optional<uint64_t>& value) {
        if (value) put(name, std::to_string(*value));
    };
    if (!a.items.empty()) put("items", fmt::format("{}", fmt::join(a.items, ",")));
    put_number("rpo_s", a.rpo_s);
    put_number("outage_s", a.outage_s);
    put_number("window_s", a.window_s);
    put_number("growth_percent", a.growth_percent);
    put_number("months", a.months);
    FS_ASSIGN(const uint64_t bandwidth, one_rate(a.bandwidth));
    if (bandwidth != 0) put("bandwidth", std::to_string(bandwidth));
    if (a.keep) put("keep", *a.keep);
    return "/v1/plan" + query;
}

std::string rate_of(const Json& json, const char* key) { return rate_text(count_of(json, key)); }

void show_link(Table& table, const Json& link) {
    const double share = number_of(link, "within_rpo").value_or(0);
    std::string worst = "never: it is slower than what is written";
    if (const auto seconds = number_of(link, "rpo_worst_s"))
        worst = human_seconds(*seconds) + " at the worst";
    table.add({"With " + rate_of(link, "bandwidth"),
               fmt::format("RPO held in {:.1f} % of the time", share * 100), worst});
    table.add({"  waiting at most", "", human_bytes(count_of(link, "backlog_bytes"))});
    const auto catch_up = number_of(link, "catch_up_s");
    table.add({"  after the outage", "",
               catch_up ? "caught up in " + human_seconds(*catch_up) : "never caught up"});
}

std::string money(double value, const std::string& currency) {
    return fmt::format("{:.2f}{}{}", value, currency.empty() ? "" : " ", printable(currency));
}

}  // namespace

int ClientVerbs::plan(const PlanArguments& a) {
    std::optional<PlanPrices> prices;
    if (!a.prices_file.empty()) {
        auto text = impl_->environment.read_file(a.prices_file);
        if (!text) return impl_->failed(text.error());
        auto parsed = parse_prices(*text, a.prices_file);
        if (!parsed) return impl_->failed(parsed.error());
        prices = *parsed;
    }
    if (!a.measured_file.empty() && !a.items.empty())
        return impl_->failed(Error(Code::kInvalidArgument,
                                   "--measured is for a machine that is no item yet",
                                   "name either items or a file"));
    auto answer = [&]() -> Result<Json> {
        if (!a.measured_file.empty()) return plan_measured(a);
        FS_ASSIGN(const std::string target, plan_target(a));
        return impl_->call("GET", target);
    }();
    if (!answer) return impl_->failed(answer.error());
    Json& plan = *answer;
    std::optional<PlanCost> cost;
    if (prices) {
        cost = plan_cost(plan_of_view(plan), *prices);
        plan["cost"] = {{"currency", prices->currency},
                        {"storage", cost->storage},
                        {"requests", cost->requests},
                        {"month", cost->month},
                        {"failover", cost->failover}};
    }
    if (impl_->json) {
        impl_->print(plan);
        return 0;
    }
    const auto seconds = [&](const char* key) {
        return human_seconds(number_of(plan, key).value_or(0));
    };
    const Json& written = member(plan, "written_per_s");
    const Json& bandwidth = member(plan, "bandwidth");
    const Json& spool = member(plan, "spool");
    const Json& storage = member(plan, "storage");
    const Json& month = member(plan, "month");
    Table table({{"NEED"}, {"95 % OF THE TIME", Align::kRight}, {"ALWAYS", Align::kRight}});
    table.add({"Written", rate_of(written, "p95"), rate_of(written, "peak")});
    table.add({"Line to the store for an RPO of " + seconds("rpo_s"), rate_of(bandwidth, "p95"),
               rate_of(bandwidth, "peak")});
    table.add({"Spool for an outage of " + seconds("outage_s"), human_bytes(count_of(spool, "p95")),
               human_bytes(count_of(spool, "peak"))});
    table.add(
        {"Store when the retention is full", "", human_bytes(count_of(storage, "total_bytes"))});
    for (const Json& item : member(storage, "items"))
        table.add({"  " + printable(text_of(item, "item")), "",
                   human_bytes(count_of(item, "total_bytes"))});
    table.add({"Sent in a month", "", human_bytes(count_of(month, "upload_bytes"))});
    for (const auto& [key, words] :
         {std::pair{"put", "Puts in a month"}, std::pair{"get_range", "Short reads in a month"},
          std::pair{"head", "Heads in a month"}, std::pair{"list", "Lists in a month"}})
        table.add({words, "", human_count(count_of(month, key))});
    if (const Json& link = member(plan, "link"); link.is_object()) show_link(table, link);
    if (cost) {
        table.add({"Cost in a month", "", money(cost->month, prices->currency)});
        table.add({"  storage", "", money(cost->storage, prices->currency)});
        table.add({"  requests", "", money(cost->requests, prices->currency)});
        table.add({"A failover that reads all", "", money(cost->failover, prices->currency)});
    }
    impl_->say(table.to_string());
    if (a.explain) {
        impl_->say("\n");
        for (const Json& line : member(plan, "explain"))
            if (line.is_string()) impl_->say(printable(line.get<std::string>()) + "\n");
    }
    for (const Json& name : member(plan, "left_out"))
        if (name.is_string())
            impl_->note("Without " + printable(name.get<std::string>()) +
                        ", which cannot be read now.\n");
    impl_->note(fmt::format("\nFrom {} that were seen, in slots of {}, grown by {:.3f}.\n",
                            seconds("seen_s"), seconds("interval_s"),
                            number_of(plan, "factor").value_or(1)));
    return 0;
}

int ClientVerbs::measure(const MeasureArguments& a) {
    CliEnvironment& environment = impl_->environment;
    Measured measured;
    std::vector<std::string> directories;
    for (const std::string& disk : a.disks) {
        const std::string name = disk.starts_with("/dev/") ? disk.substr(5) : disk;
        if (name.empty() || name.find('/') != std::string::npos || name[0] == '.')
            return impl_->failed(Error(Code::kInvalidArgument,
                                       fmt::format("'{}' is no disk", disk.substr(0, 100)),
                                       "name it as the kernel does: /dev/NAME, see lsblk"));
        directories.push_back("/sys/class/block/" + name);
        auto size = environment.read_file(directories.back() + "/size")
                        .and_then([](const std::string& text) { return parse_disk_size(text); });
        if (!size) return impl_->failed(size.error().with_context(disk));
        measured.disks.push_back({"/dev/" + name, *size});
    }
    const auto read = [&]() -> Result<uint64_t> {
        uint64_t sum = 0;
        for (const std::string& directory : directories) {
            FS_ASSIGN(const std::string text, environment.read_file(directory + "/stat"));
            FS_ASSIGN(const uint64_t written, parse_written(text));
            sum += written;
        }
        return sum;
    };
    const uint64_t slots = a.interval_s == 0 ? 0 : a.for_s / a.interval_s;
    if (slots == 0 || slots > kMaxPlanSamples)
        return impl_->failed(Error(Code::kInvalidArgument,
                                   fmt::format("{} s in slots of {} s are not 1 to {} slots",
                                               a.for_s, a.interval_s, kMaxPlanSamples),
                                   "choose another --for or --interval"));
    const RealClock clock;
    measured.host = party_name({});
    measured.started = clock.now();
    measured.churn.interval_us = static_cast<int64_t>(a.interval_s) * 1'000'000;
    auto before = read();
    if (!before) return impl_->failed(before.error());
    const int64_t begun_us = clock.steady_us();
    auto& bytes = measured.churn.bytes;
    bool stopped = false;
    while (bytes.size() < slots && !stopped) {
        const int64_t due_us =
            begun_us + static_cast<int64_t>(bytes.size() + 1) * measured.churn.interval_us;
        stopped = environment.pause(std::max<int64_t>((due_us - clock.steady_us()) / 1000, 1));
        if (stopped) break;  // a slot that is not over would count as a quiet one
        const auto now = read();
        if (!now) return impl_->failed(now.error());
        // One that comes late has several slots to fill.
        const auto over =
            std::clamp<int64_t>((clock.steady_us() - begun_us) / measured.churn.interval_us -
                                    static_cast<int64_t>(bytes.size()),
                                1, static_cast<int64_t>(slots - bytes.size()));
        const uint64_t written = std::min(*now - std::min(*now, *before), kMaxSlotBytes);
        bytes.insert(bytes.end(), static_cast<size_t>(over), written / static_cast<uint64_t>(over));
        before = now;
        impl_->draw_progress(double(bytes.size()) / double(slots),
                             static_cast<int64_t>((slots - bytes.size()) * a.interval_s),
                             human_bytes(written) + " written");
    }
    impl_->clear_progress();
    if (bytes.empty()) return impl_->failed(Error(Code::kCancelled, "not one slot was measured"));
    const std::string text = format_measured(measured);
    if (a.output.empty()) {
        impl_->say(text);
        return 0;
    }
    const std::string file = impl_->absolute(a.output);
    if (auto kept = environment.keep_secret(file, text); !kept) return impl_->failed(kept.error());
    if (impl_->json)
        impl_->print(
            {{"file", file}, {"slots", bytes.size()}, {"written_bytes", measured.churn.total()}});
    else
        impl_->say(fmt::format("{}: {} in {} slots\n", file, human_bytes(measured.churn.total()),
                               bytes.size()));
    return 0;
}

}  // namespace farshore
