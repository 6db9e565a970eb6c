// Disks of failed-over machines that become their own: the recovery desk's job.
#include <fmt/core.h>

#include <algorithm>

#include "meta/items.h"
#include "meta/jobs.h"
#include "meta/json_fields.h"
#include "os/log.h"
#include "recovery/hydration.h"
#include "vault/log_about.h"
#include "vault/recovery_desk.h"

namespace farshore {
namespace {

constexpr const char* kJobKind = "hydrate";
constexpr size_t kMaxInputBytes = 4096;
// A rate is told when it has lasted a little.
constexpr int64_t kRateUs = 3'000'000;
constexpr int64_t kFilesLookUs = 200'000;

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
        FS_ASSIGN(const std::string directory, fields.text("directory", 1024));
        if (!directory.empty()) {
            FS_ASSIGN(const std::string format, fields.required_text("format", 16));
            FS_ASSIGN(const DiskFormat known, disk_format_from_name(format));
            return make_files(run, id, {directory, known, options.bytes_per_s, true});
        }
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

// A copy that cannot go on just now is waited for as long as it may well; one that ended is begun
// anew, some times. One that has no future is given up, and with it the room that it took.
Result<std::string> RecoveryDesk::make_files(JobRun& run, const std::string& id,
                                             Recoveries::OwnFilesOrder order) {
    constexpr int64_t kPatienceUs = 120'000'000, kAgainUs = 2'000'000;
    constexpr int kMostEnded = 3;
    const int64_t begun_us = clock_.steady_us();
    int64_t moved_us = begun_us, longest_us = 0;
    int ended = 0;
    uint64_t best = 0, total = 0, copied = 0;
    const auto work = [&]() -> Status {
        while (true) {
            const auto step = recoveries_->make_own_files(id, order);
            const int64_t now_us = clock_.steady_us();
            order.go_on = !step;
            std::string words = fmt::format("copying the machine's disks to {}", order.directory);
            if (step) {
                longest_us = std::max(longest_us, step->held_us);
                total = step->total_bytes;
                if (step->copied_bytes != copied || step->held_us >= 0) moved_us = now_us;
                copied = step->copied_bytes;
                best = std::max(best, step->done_bytes);
                if (step->done) return {};
            } else {
                const Error& error = step.error();
                ended += error.code() == Code::kIo ? 1 : 0;
                const bool may_pass = error.code() == Code::kIo || error.retry() == Retry::kSoon;
                if (!may_pass || ended > kMostEnded || now_us - moved_us > kPatienceUs)
                    return fail(error);
                words = error.what();
            }
            const double fraction =
                static_cast<double>(best) / static_cast<double>(std::max<uint64_t>(total, 1));
            FS_TRY(run.report(fraction, words));
            FS_TRY(run.pause(step ? kFilesLookUs : kAgainUs));
        }
    };
    if (const Status done = work(); !done) {
        if (run.vault_ends()) return fail(done.error());
        if (const Status stopped = recoveries_->stop_own_files(id); !stopped)
            log::warn("vault", about(stopped.error()), "what a copy of {} left: {}", id,
                      stopped.error().to_string());
        return fail(done.error());
    }
    FS_ASSIGN(const RecoveryState state, recoveries_->get(id));
    FS_ASSIGN(const ItemRecord item, get_item(vault_.database(), state.item));
    vault_.event(Severity::kInformation, "stands-alone", &item,
                 fmt::format("the machine's disks are files in {} at its host: it needs neither "
                             "the store nor the vault any more",
                             state.own_directory));
    Json result{{"recovery", id},
                {"disk_bytes", total},
                {"longest_hold_ms", static_cast<double>(longest_us) / 1000},
                {"took_s", static_cast<double>(clock_.steady_us() - begun_us) / 1e6}};
    for (const auto& [index, disk] : state.own) result["files"].push_back(disk.path);
    return dump_json(result);
}

// Machines on files of their own whose item is gone.
void RecoveryDesk::let_orphans_go() {
    constexpr int64_t kAgainUs = 10'000'000;
    const int64_t now_us = clock_.steady_us();
    if (now_us < orphans_us_) return;
    orphans_us_ = now_us + kAgainUs;
    for (const RecoveryState& state : recoveries_->list()) {
        if (!stands_alone(state) || state.stage == RecoveryStage::kCleaning) continue;
        const auto item = get_item(vault_.database(), state.item);
        const bool is_gone = item ? item->state == ItemState::kDisabling
                                  : item.error().code() == Code::kItemNotFound;
        if (!is_gone) continue;
        if (const Status let = recoveries_->let_go(state.id); !let)
            log::warn("vault", about(let.error()), "letting go of the machine of '{}': {}",
                      state.item_name, let.error().to_string());
        else
            vault_.event(Severity::kInformation, "machine-let-go", nullptr,
                         fmt::format("the machine of '{}', which is not protected any more, goes "
                                     "on by itself; its disks are in {}",
                                     state.item_name, state.own_directory));
    }
}

Result<JobRecord> RecoveryDesk::hydrate(const std::string& name, const HydrationChoice& choice) {
    FS_ASSIGN(const ItemRecord item, find_item(vault_.database(), name));
    FS_TRY(check_action(item.state, ItemAction::kHydrate));
    FS_ASSIGN(const RecoveryState running, failover_of(item));
    const std::string& id = running.id;
    FS_ASSIGN(const auto disks, recoveries_->disks_to_fill(id));
    if (!choice.directory.empty() && !choice.directory.starts_with('/'))
        return fail(Code::kInvalidArgument,
                    fmt::format("directory: '{}' is not absolute", choice.directory));
    if (!choice.directory.empty() && item.state != ItemState::kCommitted)
        return fail(Code::kWrongState,
                    fmt::format("'{}' is on its way home: its disks are captured", item.name),
                    "`farshore reprotect cancel` first");
    if (choice.directory.empty() ? disks.empty() : stands_alone(running))
        return fail(Code::kWrongState,
                    fmt::format("the disks of '{}' are its own already", item.name));
    const std::lock_guard hold(start_mutex_);
    FS_ASSIGN(const auto jobs, open_jobs(vault_.database()));
    for (const JobRecord& job : jobs)
        if (job.item == item.id && job.kind == kJobKind)
            return fail(Code::kWrongState, fmt::format("job {} does the same", job.id),
                        "wait for its end, or cancel it: what it has copied is kept");
    Json json{{"id", id}, {"item", item.id.to_string()}, {"throttle", choice.bytes_per_s}};
    if (!choice.directory.empty()) {
        json["directory"] = choice.directory;
        json["format"] = std::string(disk_format_name(choice.format));
    }
    const std::string input = dump_json(json);
    return vault_.start_job(kJobKind, item, true, input, hydrate_work(input));
}

}  // namespace farshore
