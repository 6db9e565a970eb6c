#include "vault/return_desk.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "meta/database.h"
#include "meta/items.h"
#include "meta/jobs.h"
#include "meta/json_fields.h"
#include "meta/nodes.h"
#include "vault/job_limits.h"
#include "vault/log_about.h"
#include "vault/views.h"

namespace farshore {
namespace {

constexpr size_t kMaxInputBytes = 512u << 10, kMaxName = 256;
constexpr int64_t kLookUs = 200'000;
constexpr int64_t kPointPatienceUs = 60'000'000;
constexpr int64_t kJobPatienceUs = 60'000'000;
constexpr const char* kReprotect = "reprotect";
constexpr const char* kCancelReprotect = "cancel-reprotect";
constexpr const char* kFailback = "failback";
constexpr const char* kCancelFailback = "cancel-failback";
constexpr const char* kCommitFailback = "commit-failback";

// What the home says of this way; null: nothing yet.
const ReturnStatus* home_of(const ItemReport& report) {
    if (!report.way_home || !report.way_home->home) return nullptr;
    const ReturnStatus& status = report.way_home->home->way_home;
    return status.id == report.way_home->record.id ? &status : nullptr;
}

// Of ReturnDesk::open_job(): there is none, which is not that the database did not say.
bool is_none(const Result<JobRecord>& job) { return !job && job.error().code() == Code::kNotFound; }

// Somebody has gone on from the state that this step begins in: it touches nothing any more.
tl::unexpected<Error> is_over(const ItemRecord& item) {
    return fail(Code::kWrongState, fmt::format("this step of the way home is over: '{}' is {}",
                                               item.name, item_state_name(item.state)));
}

}  // namespace

Result<ReturnRequest> read_return_request(const JsonFields& fields) {
    ReturnRequest request;
    FS_ASSIGN(request.agent, fields.text("agent", kMaxName));
    FS_ASSIGN(request.appliance, fields.text("appliance", kMaxName));
    FS_ASSIGN(request.accept, fields.boolean("accept"));
    FS_ASSIGN(const Json* disks, fields.array("disks", kMaxDisks));
    for (size_t i = 0; disks != nullptr && i < disks->size(); ++i) {
        if (!(*disks)[i].is_string()) return fields.wrong("disks", "must be a list of paths");
        request.disks.push_back((*disks)[i].get<std::string>());
    }
    return request;
}

Result<FailbackRequest> read_failback(const JsonFields& fields) {
    FailbackRequest request;
    FS_ASSIGN(request.power_off, fields.boolean("power_off"));
    FS_ASSIGN(const uint64_t timeout,
              fields.u64("timeout_s", kShutDownPatienceS, kMaxShutDownPatienceS));
    request.timeout_s = static_cast<uint32_t>(timeout);
    return request;
}

struct ReturnDesk::Input {
    ItemId item;
    std::string recovery;
    ReturnRequest request;
    FailbackRequest failback;
};

std::string ReturnDesk::encode(const Input& input) {
    return dump_json({{"item", input.item.to_string()},
                      {"recovery", input.recovery},
                      {"agent", input.request.agent},
                      {"disks", input.request.disks},
                      {"appliance", input.request.appliance},
                      {"accept", input.request.accept},
                      {"timeout_s", input.failback.timeout_s},
                      {"power_off", input.failback.power_off}});
}

Result<ReturnDesk::Input> ReturnDesk::decode(const std::string& text) {
    FS_ASSIGN(const Json json, parse_json(text, "the job's input", kMaxInputBytes));
    FS_ASSIGN(const JsonFields fields, JsonFields::of(json, "input"));
    Input input;
    FS_ASSIGN(const std::string item, fields.required_text("item", 64));
    FS_ASSIGN(input.item, ItemId::parse(item));
    FS_ASSIGN(input.recovery, fields.required_text("recovery", 64));
    FS_ASSIGN(input.request, read_return_request(fields));
    FS_ASSIGN(input.failback, read_failback(fields));
    return input;
}

ReturnDesk::ReturnDesk(Vault& vault, Recoveries& recoveries)
    : vault_(vault), recoveries_(recoveries), site_(vault, recoveries) {
    for (const char* kind :
         {kReprotect, kCancelReprotect, kFailback, kCancelFailback, kCommitFailback})
        vault_.set_resumer(kind, [this, kind = std::string(kind)](const JobRecord& job) {
            return work_of(kind, job.input);
        });
}

Status ReturnDesk::resume() { return site_.resume(); }

JobWork ReturnDesk::work_of(const std::string& kind, const std::string& input) {
    return [this, kind, input](JobRun& run) -> Result<std::string> {
        if (kind == kReprotect) return run_reprotect(run, input);
        if (kind == kCancelReprotect) return run_cancel_reprotect(run, input);
        if (kind == kFailback) return run_failback(run, input);
        if (kind == kCancelFailback) return run_cancel_failback(run, input);
        return run_commit(run, input);
    };
}

Result<JobRecord> ReturnDesk::start(const std::string& kind, const ItemRecord& item,
                                    bool cancellable, const std::string& input) {
    return vault_.start_job(kind, item, cancellable, input, work_of(kind, input));
}

Result<ReturnDesk::Input> ReturnDesk::input_for(const ItemId& item) {
    Input input;
    input.item = item;
    for (const RecoveryState& state : recoveries_.list())
        if (state.item == item && state.kind == RecoveryKind::kFailover &&
            state.stage != RecoveryStage::kCleaning && state.stage != RecoveryStage::kArriving)
            input.recovery = state.id;
    if (input.recovery.empty())
        return fail(Code::kNotFound, "no failover of this item runs here",
                    "the vault node that it runs on does it");
    return input;
}

// kNotFound when there is none of these kinds.
Result<JobRecord> ReturnDesk::open_job(const ItemId& item, JobKinds kinds, Whose whose) {
    FS_ASSIGN(const auto jobs, open_jobs(vault_.database()));
    const std::string node = node_of(vault_.database());
    for (const JobRecord& job : jobs) {
        if (job.item != item || std::ranges::find(kinds, job.kind) == kinds.end()) continue;
        if (whose == Whose::kAnyNodes || !is_of_another_node(job, node)) return job;
    }
    return fail(Code::kNotFound, "no such job is under way");
}

// A crash between a change of state and the job that does the rest.
void ReturnDesk::mend() {
    const auto ways = list_returns(vault_.database());
    if (!ways) {
        log::warn("vault", about(ways.error()), "ways home: {}", ways.error().to_string());
        return;
    }
    for (const ReturnRecord& way : *ways) {
        const auto item = get_item(vault_.database(), way.item);
        if (!item) continue;
        const auto input = input_for(way.item);
        Status mended;
        if (!input) {
            // What was here of it is gone; with other nodes it may be at one of them.
            if (item->state == ItemState::kCommittedHome && !vault_.database().is_shared())
                if (auto home = vault_.commit_return(way.item); !home) mended = fail(home.error());
        } else if (is_left_reprotecting(*item)) {
            if (auto job = start(kReprotect, *item, true, encode(*input)); !job)
                mended = fail(job.error());
        } else if (item->state == ItemState::kFailingBack &&
                   is_none(open_job(way.item, {kFailback}))) {
            mended = give_failback_up(*item, input->recovery, "the vault ended meanwhile");
        } else if (item->state == ItemState::kCommittedHome &&
                   is_none(open_job(way.item, {kCommitFailback}))) {
            if (auto job = start(kCommitFailback, *item, false, encode(*input)); !job)
                mended = fail(job.error());
        }
        if (!mended)
            log::error("vault", about(*item, mended.error()), "the way home of '{}': {}",
                       item->name, mended.error().to_string());
    }
    for (const RecoveryState& state : recoveries_.list()) {
        const auto item = get_item(vault_.database(), state.item);
        if (!item || !is_left_captured(*item)) continue;
        if (auto job = start_for(kCancelReprotect, *item, false); !job)
            log::error("vault", about(*item, job.error()), "the disks of '{}': {}", item->name,
                       job.error().to_string());
    }
}

// Reprotecting, and the job that brings it on has not begun or has ended.
bool ReturnDesk::is_left_reprotecting(const ItemRecord& item) {
    return item.state == ItemState::kReprotecting &&
           is_none(open_job(item.id, {kReprotect, kCancelReprotect, kCancelFailback}));
}

// The way home was given up, and the job that takes the disks back has ended before that.
bool ReturnDesk::is_left_captured(const ItemRecord& item) {
    return item.state == ItemState::kCommitted &&
           std::ranges::any_of(recoveries_.list(),
                               [&](const RecoveryState& state) {
                                   return state.item == item.id && state.captured &&
                                          state.kind == RecoveryKind::kFailover;
                               }) &&
           is_none(open_job(item.id, {kReprotect, kCancelReprotect}));
}

Result<JobRecord> ReturnDesk::start_for(const std::string& kind, const ItemRecord& item,
                                        bool cancellable) {
    FS_ASSIGN(const Input input, input_for(item.id));
    return start(kind, item, cancellable, encode(input));
}

Result<std::string> ReturnDesk::result_of(const ItemId& item) {
    FS_ASSIGN(const ItemReport report, vault_.item(item.to_string()));
    Json json{{"item", report.record.name},
              {"state", std::string(item_state_name(report.record.state))}};
    if (const Json way = way_home_view(report); !way.is_null()) json["way_home"] = way;
    return dump_json(json);
}

// ---- waiting -----------------------------------------------------------------------------------

Status ReturnDesk::wait_for_home(JobRun& run, const ItemId& item, double from, double to,
                                 const std::function<Result<bool>(const ItemReport&)>& done) {
    while (true) {
        FS_ASSIGN(const ItemReport report, vault_.item(item.to_string()));
        FS_ASSIGN(const bool over, done(report));
        if (over) return {};
        std::string words = "the machine's changes are captured at the recovery site";
        double fraction = from;
        if (report.record.error) words = report.record.error->what;
        if (const ReturnStatus* home = home_of(report)) {
            words = fmt::format("{} bytes written at home", home->written);
            if (home->total != 0) {
                const double compared =
                    static_cast<double>(home->compared) / static_cast<double>(home->total);
                fraction = from + (to - from) * std::min(compared, 1.0);
                words = fmt::format("{} of {} bytes compared with the home, {}", home->compared,
                                    home->total, words);
            }
            if (home->held)
                words =
                    "most of what is on the home's disks is something else: it waits for "
                    "--accept";
        }
        if (report.way_home && report.way_home->home && report.way_home->home->error)
            words = report.way_home->home->error->what;
        FS_TRY(run.report(fraction, words));
        FS_TRY(run.pause(kLookUs));
    }
}

Status ReturnDesk::wait_let_go(JobRun& run, const ItemId& item) {
    // What is behind this must come to its end: a database that is away does not stop it.
    const Status told = run.report(0.5, "waiting until nothing captures the machine any more");
    if (!told && told.error().code() == Code::kCancelled) return told;
    while (!site_.has_let_go(item)) FS_TRY(run.pause(kLookUs));
    return {};
}

// ---- reprotection ------------------------------------------------------------------------------

// A job of a way home may still be about to give the machine its disks back, to take them, or to
// remove it: that must not happen to another way. And what begins needs room for a job.
Status ReturnDesk::check_may_begin(const ItemId& item) {
    FS_ASSIGN(const auto jobs, open_jobs(vault_.database()));
    for (const JobRecord& job : jobs)
        if (job.item == item && (job.kind == kReprotect || job.kind == kCancelReprotect ||
                                 job.kind == kCancelFailback || job.kind == kCommitFailback))
            return fail(Code::kWrongState,
                        fmt::format("an earlier step of a way home has not ended: job {} ({})",
                                    job.id, job.kind),
                        "try again when that job has ended");
    return check_room(jobs, node_of(vault_.database()));
}

Status give_up_files(Database& database, Recoveries& recoveries, const std::string& recovery) {
    FS_ASSIGN(RecoveryState state, recoveries.get(recovery));
    if (state.own.empty()) return {};
    FS_ASSIGN(const auto jobs, open_jobs(database));
    for (const JobRecord& job : jobs)
        if (job.item == state.item && job.kind == "hydrate")
            return fail(
                Code::kWrongState,
                fmt::format("job {} copies the machine's disks to {}", job.id, state.own_directory),
                "cancel it, or wait for its end");
    FS_TRY(recoveries.stop_own_files(recovery));
    FS_ASSIGN(state, recoveries.get(recovery));
    if (state.own.empty()) return {};
    return fail(Code::kWrongState,
                fmt::format("disks of '{}' are files in {} at its host", state.item_name,
                            state.own_directory),
                "it is a machine of its own now: protect it there as one");
}

Result<JobRecord> ReturnDesk::reprotect(const std::string& name, const ReturnRequest& request) {
    const std::lock_guard hold(start_mutex_);
    FS_ASSIGN(const ItemRecord item, find_item(vault_.database(), name));
    if (item.state == ItemState::kReprotecting && request.accept) {
        FS_TRY(vault_.accept_return(item.id));
        return open_job(item.id, {kReprotect});
    }
    // Its job did not begin, or could not be ended.
    if (is_left_reprotecting(item)) return start_for(kReprotect, item, true);
    FS_TRY(check_action(item.state, ItemAction::kReprotect));
    FS_TRY(check_may_begin(item.id));
    FS_ASSIGN(Input input, input_for(item.id));
    input.request = request;
    // What is wrong with it is told at once, not by a job.
    FS_TRY(give_up_files(vault_.database(), recoveries_, input.recovery));
    FS_TRY(site_.ensure());
    FS_TRY(vault_.begin_return(item.id, input.recovery, request));
    auto job = start(kReprotect, item, true, encode(input));
    if (!job) (void)vault_.end_return(item.id, "the reprotection did not begin");
    return job;
}

Result<std::string> ReturnDesk::run_reprotect(JobRun& run, const std::string& text) {
    FS_ASSIGN(const Input input, decode(text));
    const auto work = [&]() -> Status {
        FS_ASSIGN(const ItemRecord item, get_item(vault_.database(), input.item));
        if (item.state == ItemState::kCommitted || item.state == ItemState::kDisabling)
            return fail(Code::kCancelled, "the way home was given up");
        // Somebody has gone on from where this was to come to.
        if (item.state != ItemState::kReprotecting && item.state != ItemState::kReverseProtected)
            return {};
        FS_TRY(site_.ensure());
        FS_TRY(recoveries_.hand_over_disks(input.recovery));
        FS_TRY(recoveries_.start_again(input.recovery));
        return wait_for_home(
            run, input.item, 0.1, 0.95, [](const ItemReport& report) -> Result<bool> {
                const ItemState state = report.record.state;
                if (state == ItemState::kCommitted || state == ItemState::kDisabling)
                    return fail(Code::kCancelled, "the way home was given up");
                // Somebody may go on from there before this has seen it.
                return state != ItemState::kReprotecting;
            });
    };
    const Status done = work();
    if (!done && done.error().code() == Code::kCancelled && !run.vault_ends()) {
        // Somebody wants it to end; when he did by another job, that one does the rest.
        FS_ASSIGN(const ItemRecord item, get_item(vault_.database(), input.item));
        if (item.state == ItemState::kReprotecting)
            FS_TRY(vault_.end_return(input.item, "the reprotection was cancelled"));
        while (!site_.has_let_go(input.item))
            if (auto paused = run.pause(kLookUs); !paused && run.vault_ends())
                return fail(paused.error());
        FS_TRY(recoveries_.take_disks_back(input.recovery));
    }
    FS_TRY(done);
    return result_of(input.item);
}

Result<JobRecord> ReturnDesk::cancel_reprotect(const std::string& name) {
    const std::lock_guard hold(start_mutex_);
    FS_ASSIGN(const ItemRecord item, find_item(vault_.database(), name));
    if (is_left_captured(item)) return start_for(kCancelReprotect, item, false);
    if (auto job = open_job(item.id, {kCancelReprotect}, Whose::kThisNodes); !is_none(job))
        return job;
    FS_TRY(check_action(item.state, ItemAction::kCancelReprotect));
    // It is about to start the machine on the disks that this takes back.
    if (const auto job = open_job(item.id, {kCancelFailback}))
        return fail(Code::kWrongState,
                    fmt::format("the failback is still being cancelled by job {}", job->id),
                    "try again when that job has ended");
    FS_ASSIGN(const Input input, input_for(item.id));
    return start(kCancelReprotect, item, false, encode(input));
}

Result<std::string> ReturnDesk::run_cancel_reprotect(JobRun& run, const std::string& text) {
    FS_ASSIGN(const Input input, decode(text));
    FS_ASSIGN(const ItemRecord item, get_item(vault_.database(), input.item));
    if (item.state != ItemState::kCommitted)
        FS_TRY(vault_.end_return(input.item, "the reprotection was given up"));
    FS_TRY(wait_let_go(run, input.item));
    FS_TRY(recoveries_.take_disks_back(input.recovery));
    // Whoever waits for this may reprotect at once, which is refused while that job is there. It
    // looks at the state every time that it waits.
    const int64_t until_us = vault_.clock().steady_us() + kJobPatienceUs;
    while (open_job(input.item, {kReprotect}) && vault_.clock().steady_us() < until_us)
        FS_TRY(run.pause(kLookUs));
    return result_of(input.item);
}

// ---- failback ----------------------------------------------------------------------------------

Result<JobRecord> ReturnDesk::failback(const std::string& name, const FailbackRequest& request) {
    const std::lock_guard hold(start_mutex_);
    FS_ASSIGN(ItemRecord item, find_item(vault_.database(), name));
    if (item.state == ItemState::kFailingBack) {
        // Whoever began that has not come to its job, nor to putting the state back.
        const auto job = open_job(item.id, {kFailback});
        if (!job && job.error().code() == Code::kNotFound) {
            FS_ASSIGN(const Input left, input_for(item.id));
            FS_TRY(give_failback_up(item, left.recovery, "the failback did not begin"));
            FS_ASSIGN(item, get_item(vault_.database(), item.id));
        }
    }
    FS_TRY(check_action(item.state, ItemAction::kFailback));
    if (const auto job = open_job(item.id, {kFailback}, Whose::kThisNodes); !is_none(job)) {
        FS_TRY(job);
        return fail(Code::kWrongState,
                    fmt::format("an earlier failback has not ended: job {}", job->id),
                    "try again when that job has ended");
    }
    FS_ASSIGN(Input input, input_for(item.id));
    input.failback = request;
    FS_TRY(vault_.change_state(item.id, ItemState::kFailingBack, {}));
    auto job = start(kFailback, item, true, encode(input));
    if (!job)
        (void)vault_.change_state(item.id, ItemState::kReverseProtected,
                                  "the failback did not begin");
    return job;
}

Result<std::string> ReturnDesk::run_failback(JobRun& run, const std::string& text) {
    FS_ASSIGN(const Input input, decode(text));
    const auto work = [&]() -> Status {
        FS_TRY(site_.ensure());
        FS_TRY(run.report(0.05, "shutting the machine down"));
        FS_TRY(recoveries_.shut_down(
            input.recovery, static_cast<int>(input.failback.timeout_s) * 1000,
            input.failback.power_off,
            [&] { return run.report(0.05, "waiting until the machine has shut down"); }));
        // Behind all that it wrote: nobody writes any more.
        FS_TRY(run.report(0.2, "making the last point"));
        FS_ASSIGN(const BookmarkReport asked,
                  vault_.create_bookmark(input.item.to_string(), "failback", PointKind::kBookmark));
        BookmarkReport point = asked;
        const int64_t until_us = vault_.clock().steady_us() + kPointPatienceUs;
        while (!point.stored) {
            if (vault_.clock().steady_us() > until_us)
                return fail(Code::kTimeout, "the last point of the machine is not stored",
                            "look at the item's health, and fail back again");
            FS_TRY(run.pause(kLookUs));
            FS_ASSIGN(point, vault_.bookmark(asked.record.id, 0));
        }
        FS_TRY(vault_.choose_return(input.item, point.record.sequence));
        FS_TRY(wait_for_home(run, input.item, 0.3, 0.95,
                             [&](const ItemReport& report) -> Result<bool> {
                                 if (report.record.state != ItemState::kFailingBack)
                                     return is_over(report.record);
                                 const ReturnStatus* home = home_of(report);
                                 return home != nullptr && home->have == point.record.sequence;
                             }));
        FS_TRY(vault_.finish_return(input.item));
        return {};
    };
    FS_ASSIGN(const ItemRecord before, get_item(vault_.database(), input.item));
    if (before.state == ItemState::kFailedBack) return result_of(input.item);
    // It was given up: the machine runs, and is not shut down any more.
    if (before.state != ItemState::kFailingBack) return is_over(before);
    const Status done = work();
    if (done) return result_of(input.item);
    if (run.vault_ends()) return fail(done.error());
    FS_ASSIGN(const ItemRecord item, get_item(vault_.database(), input.item));
    if (item.state == ItemState::kFailingBack)
        FS_TRY(give_failback_up(item, input.recovery, done.error().what()));
    return fail(done.error());
}

// As it was: the machine runs here, and the home follows.
Status ReturnDesk::give_failback_up(const ItemRecord& item, const std::string& recovery,
                                    const std::string& why) {
    FS_TRY(site_.ensure());
    (void)vault_.reopen_return(item.id);
    if (auto started = recoveries_.start_again(recovery); !started)
        vault_.event(Severity::kCritical, std::string(code_name(started.error().code())), &item,
                     "the machine does not start again: " + started.error().what(),
                     started.error().remedy());
    FS_TRY(vault_.change_state(item.id, ItemState::kReverseProtected,
                               "the failback did not come to its end: " + why));
    return {};
}

Result<JobRecord> ReturnDesk::cancel_failback(const std::string& name) {
    const std::lock_guard hold(start_mutex_);
    FS_ASSIGN(const ItemRecord item, find_item(vault_.database(), name));
    // Its job did not begin: the machine is still off.
    if (is_left_reprotecting(item)) return start_for(kCancelFailback, item, false);
    FS_TRY(check_action(item.state, ItemAction::kCancelFailback));
    if (item.state == ItemState::kFailingBack) {
        FS_ASSIGN(const JobRecord job, open_job(item.id, {kFailback}));
        FS_TRY(vault_.cancel_job(job.id));
        return vault_.job(job.id, 0);
    }
    FS_TRY(check_may_begin(item.id));
    FS_ASSIGN(const Input input, input_for(item.id));
    FS_TRY(site_.ensure());
    FS_TRY(vault_.begin_return(item.id, input.recovery, {}));
    // Without its job somebody asks again, or the next start of the vault goes on.
    return start(kCancelFailback, item, false, encode(input));
}

Result<std::string> ReturnDesk::run_cancel_failback(JobRun& run, const std::string& text) {
    FS_ASSIGN(const Input input, decode(text));
    FS_ASSIGN(const ItemRecord item, get_item(vault_.database(), input.item));
    if (item.state != ItemState::kReprotecting && item.state != ItemState::kReverseProtected)
        return is_over(item);
    FS_TRY(site_.ensure());
    FS_TRY(run.report(0.2, "starting the machine at the recovery site"));
    FS_TRY(recoveries_.hand_over_disks(input.recovery));
    FS_TRY(recoveries_.start_again(input.recovery));
    return result_of(input.item);
}

Result<JobRecord> ReturnDesk::commit(const std::string& name) {
    const std::lock_guard hold(start_mutex_);
    FS_ASSIGN(const ItemRecord item, find_item(vault_.database(), name));
    if (auto job = open_job(item.id, {kCommitFailback}, Whose::kThisNodes); !is_none(job))
        return job;
    FS_TRY(check_action(item.state, ItemAction::kCommitHome));
    FS_ASSIGN(const Input input, input_for(item.id));
    return start(kCommitFailback, item, false, encode(input));
}

Result<std::string> ReturnDesk::run_commit(JobRun& run, const std::string& text) {
    FS_ASSIGN(const Input input, decode(text));
    FS_ASSIGN(const ItemRecord item, get_item(vault_.database(), input.item));
    // An earlier vault came to the end of it.
    if (is_replicating(item.state)) return result_of(input.item);
    if (item.state == ItemState::kFailedBack)
        FS_TRY(vault_.change_state(input.item, ItemState::kCommittedHome, {}));
    else if (item.state != ItemState::kCommittedHome)
        // The machine at the recovery site is the one that counts: nothing of it goes.
        return fail(Code::kWrongState, fmt::format("the machine is not home any more: it is {}",
                                                   item_state_name(item.state)));
    FS_TRY(wait_let_go(run, input.item));
    FS_TRY(recoveries_.clean_up(input.recovery, Recoveries::CleanUp::kRemoveCommitted));
    FS_TRY(vault_.commit_return(input.item));
    return result_of(input.item);
}

}  // namespace farshore
