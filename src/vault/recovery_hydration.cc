// Disks of failed-over machines that become their own: the recovery desk's job.
#include <fmt/core.h>

#include <algorithm>

#include "meta/items.h"
#include "meta/jobs.h"
#include "meta/json_fields.h"
#include "recovery/hydration.h"
#include "vault/recovery_desk.h"

namespace farshore {
namespace {

constexpr const char* kJobKind = "hydrate";
constexpr size_t kMaxInputBytes = 4096;
// A rate is told when it has lasted a little.
constexpr int64_t kRateUs = 3'000'000;

}  // namespace

JobWork RecoveryDesk::hydrate_work(const std::string& input) {
    return [this, input](JobRun& run) -> Result<std::string> {
        FS_ASSIGN(const Json json, parse_json(input, "the job's input", kMaxInputBytes));
        FS_ASSIGN(const JsonFields fields, JsonFields::of(json, "input"));
        FS_ASSIGN(const std::string id, fields.required_text("id", 64));
        FS_ASSIGN(const std::string item_text, fields.required_text("item", 32));
        FS_ASSIGN(const ItemId item_id, ItemId::parse(item_text));
        HydrationOptions options;
        FS_ASSIGN(options.bytes_per_s, fields.u64("throttle"));
        options.files = &files_;
        options.clock = &clock_;
        const int64_t begun_us = clock_.steady_us();
        // What an earlier run did is passed over at once and is no rate.
        int64_t from_us = 0;
        uint64_t from = 0;
        options.report = [&](uint64_t done, uint64_t total) -> Status {
            const int64_t now_us = clock_.steady_us();
            if (from_us == 0) {
                from_us = now_us;
                from = done;
            }
            int64_t eta_s = -1;
            if (now_us - from_us > kRateUs && done > from)
                eta_s = static_cast<int64_t>(static_cast<double>(now_us - from_us) / 1e6 *
                                             static_cast<double>(total - std::min(done, total)) /
                                             static_cast<double>(done - from));
            return run.report(
                static_cast<double>(done) / static_cast<double>(std::max<uint64_t>(total, 1)),
                "copying the machine's disks behind it", eta_s);
        };
        FS_ASSIGN(const HydrationReport report, farshore::hydrate(*recoveries_, id, options));
        FS_ASSIGN(const ItemRecord item, get_item(vault_.database(), item_id));
        vault_.event(Severity::kInformation, "hydrated", &item,
                     "the machine's disks at the recovery site are its own: it reads nothing from "
                     "the store any more");
        return dump_json({{"recovery", id},
                          {"disk_bytes", report.disk_bytes},
                          {"copied_bytes", report.copied_bytes},
                          {"took_s", static_cast<double>(clock_.steady_us() - begun_us) / 1e6}});
    };
}

Result<JobRecord> RecoveryDesk::hydrate(const std::string& name, uint64_t bytes_per_s) {
    FS_ASSIGN(const ItemRecord item, find_item(vault_.database(), name));
    FS_TRY(check_action(item.state, ItemAction::kHydrate));
    FS_ASSIGN(const RecoveryState running, failover_of(item));
    const std::string& id = running.id;
    FS_ASSIGN(const auto disks, recoveries_->disks_to_fill(id));
    if (disks.empty())
        return fail(Code::kWrongState,
                    fmt::format("the disks of '{}' are its own already", item.name));
    const std::lock_guard hold(start_mutex_);
    FS_ASSIGN(const auto jobs, open_jobs(vault_.database()));
    for (const JobRecord& job : jobs)
        if (job.item == item.id && job.kind == kJobKind)
            return fail(Code::kWrongState, fmt::format("job {} does the same", job.id),
                        "wait for its end, or cancel it: what it has copied is kept");
    const std::string input =
        dump_json({{"id", id}, {"item", item.id.to_string()}, {"throttle", bytes_per_s}});
    return vault_.start_job(kJobKind, item, true, input, hydrate_work(input));
}

}  // namespace farshore
