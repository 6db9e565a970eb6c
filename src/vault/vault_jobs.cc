// Jobs: each runs on a thread of its own, reports into the database, and outlives a crash of the
// vault when its kind has a resumer.
#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "vault/job_limits.h"
#include "vault/log_about.h"
#include "vault/vault_impl.h"

namespace farshore {
namespace {

constexpr int64_t kReportIntervalUs = 200'000;

ItemError item_error(const Error& error) { return {error.code(), error.what(), error.remedy()}; }

}  // namespace

// Reports go to the database at most a few times a second, whatever the work does.
class DatabaseJobRun final : public JobRun {
  public:
    DatabaseJobRun(Vault::Impl& vault, JobRecord job) : vault_(vault), job_(std::move(job)) {}

    const JobRecord& job() const override { return job_; }
    bool vault_ends() const override { return vault_.ending; }
    Status report(double fraction, const std::string& message, int64_t eta_s) override {
        if (vault_.ending) return fail(Code::kCancelled, "the vault ends");
        const int64_t now_us = vault_.clock.steady_us();
        if (message == message_ && now_us - reported_us_ < kReportIntervalUs) return {};
        message_ = message;
        reported_us_ = now_us;
        permille_ = static_cast<uint32_t>(std::clamp(fraction, 0.0, 1.0) * 1000);
        auto told = report_job(*vault_.database, job_.id, permille_, eta_s, message);
        vault_.notify();
        return told;
    }
    Status save(const std::string& input) override {
        job_.input = input;
        return save_job_input(*vault_.database, job_.id, input);
    }
    Status pause(int64_t us) override {
        const int64_t until_us = vault_.clock.steady_us() + us;
        while (vault_.wait_change(vault_.change_count(), until_us)) {
        }
        if (vault_.ending) return fail(Code::kCancelled, "the vault ends");
        auto now = get_job(*vault_.database, job_.id);
        if (now && now->cancel_requested)
            return fail(Code::kCancelled, fmt::format("job {} was cancelled", job_.id));
        return {};
    }

  private:
    Vault::Impl& vault_;
    JobRecord job_;
    std::string message_;
    uint32_t permille_ = 0;
    int64_t reported_us_ = 0;
};

// "test-failover of 'web'".
static std::string job_words(const JobRecord& job) {
    return job.item_name.empty() ? job.kind : fmt::format("{} of '{}'", job.kind, job.item_name);
}

void Vault::Impl::run_job(uint64_t id, const JobWork& work) {
    auto job = get_job(*database, id);
    if (!job || job->over()) return;
    // The database may be away, or its disk full, just now: what a job begins and ends with is
    // worth waiting for.
    const auto note = [&](const std::function<Status()>& write) {
        while (true) {
            const Status written = write();
            if (written || written.error().retry() == Retry::kNever || ending) return written;
            const int64_t until_us = clock.steady_us() + 1'000'000;
            while (wait_change(change_count(), until_us)) {
            }
        }
    };
    if (const Status started = note([&] { return farshore::start_job(*database, id); }); !started) {
        log::error("vault", about(*job, started.error()), "job {}: {}", id,
                   started.error().to_string());
        return;
    }
    notify();
    log::info("vault", about(*job), "job {} begins: {}", id, job_words(*job));
    DatabaseJobRun run(*this, *job);
    auto result = work(run);
    if (ending && !result) return;  // stays open: the next vault takes it up
    JobState state = JobState::kSucceeded;
    std::optional<ItemError> error;
    if (!result) {
        state =
            result.error().code() == Code::kCancelled ? JobState::kCancelled : JobState::kFailed;
        error = item_error(result.error());
        log::warn("vault", about(*job, result.error()), "job {} ({}): {}", id, job_words(*job),
                  result.error().to_string());
    } else {
        log::info("vault", about(*job), "job {} has ended: {}", id, job_words(*job));
    }
    (void)note(
        [&] { return end_job(*database, id, state, result ? *result : std::string(), error); });
    notify();
}

void Vault::Impl::launch_job(uint64_t id, JobWork work) {
    const std::lock_guard hold(jobs_mutex);
    for (const uint64_t done : finished_jobs) job_threads.erase(done);
    finished_jobs.clear();
    if (ending) return;
    auto& thread = job_threads[id];
    thread = std::make_unique<ThreadExecutor>(fmt::format("fs-job-{}", id));
    thread->post([this, id, work = std::move(work)] {
        run_job(id, work);
        const std::lock_guard hold_again(jobs_mutex);
        finished_jobs.insert(id);
    });
}

Result<JobRecord> Vault::start_job(const std::string& kind, const std::optional<ItemRecord>& item,
                                   bool cancellable, const std::string& input, JobWork work) {
    {
        const std::lock_guard hold(impl_->jobs_mutex);
        if (impl_->job_threads.size() - impl_->finished_jobs.size() >= kMaxRunningJobs)
            return fail(Code::kLimitReached, fmt::format("{} jobs run already", kMaxRunningJobs),
                        "wait until some have ended");
    }
    JobRecord job;
    job.kind = kind;
    if (item) {
        job.item = item->id;
        job.item_name = item->name;
    }
    job.cancellable = cancellable;
    job.input = input;
    const std::lock_guard starting(impl_->starting_mutex);
    FS_ASSIGN(const JobRecord added, add_job(*impl_->database, job));
    impl_->launch_job(added.id, std::move(work));
    return added;
}

void Vault::set_resumer(const std::string& kind, std::function<JobWork(const JobRecord&)> resumer) {
    impl_->resumers[kind] = std::move(resumer);
}

void Vault::resume_jobs() {
    set_resumer("seed", [this](const JobRecord& job) { return impl_->seed_work(job); });
    set_resumer("materialise",
                [this](const JobRecord& job) { return impl_->materialise_work(job); });
    set_resumer("scrub", [this](const JobRecord& job) {
        return impl_->scrub_work(*this, job.item.value_or(ItemId{}));
    });
    auto jobs = open_jobs(*impl_->database);
    if (!jobs) {
        log::error("vault", about(jobs.error()), "open jobs cannot be read: {}",
                   jobs.error().to_string());
        return;
    }
    for (const JobRecord& job : *jobs) {
        if (job.kind == "initial-replication") continue;  // tend() goes on watching
        if (is_of_another_node(job, impl_->options.node)) {
            // Its files, and perhaps its machine, are there: nothing is done twice.
            log::info("vault", about(job), "job {} ({}) waits for the vault node '{}'", job.id,
                      job.kind, job.node);
            (void)report_job(*impl_->database, job.id, job.progress_permille, -1,
                             fmt::format("waits for the vault node '{}'", job.node));
            continue;
        }
        const auto resumer = impl_->resumers.find(job.kind);
        if (resumer != impl_->resumers.end()) {
            log::info("vault", about(job), "job {} ({}) goes on", job.id, job.kind);
            impl_->launch_job(job.id, resumer->second(job));
            continue;
        }
        auto ended = end_job(
            *impl_->database, job.id, JobState::kFailed, "",
            ItemError{Code::kCancelled, "the vault was restarted meanwhile", "start it again"});
        if (!ended)
            log::error("vault", about(job, ended.error()), "job {}: {}", job.id,
                       ended.error().to_string());
    }
    impl_->jobs_resumed = true;
}

Result<JobRecord> Vault::job(uint64_t id, int64_t timeout_us) {
    const int64_t until_us = impl_->clock.steady_us() + timeout_us;
    while (true) {
        const uint64_t seen = impl_->change_count();
        FS_ASSIGN(JobRecord job, get_job(*impl_->database, id));
        if (job.over() || !impl_->wait_change(seen, until_us)) return job;
    }
}

// Whoever began it was told that it did not begin: nobody waits for it, and it must not run when
// that is not expected any more.
void Vault::Impl::end_lost_jobs() {
    if (!jobs_resumed) return;
    const std::lock_guard starting(starting_mutex);
    const auto open = open_jobs(*database);
    if (!open) return;
    for (const JobRecord& job : *open) {
        if (job.state != JobState::kQueued || job.node != options.node ||
            job.kind == "initial-replication")
            continue;
        {
            const std::lock_guard hold(jobs_mutex);
            const bool has_thread = job_threads.contains(job.id) && !finished_jobs.contains(job.id);
            if (ending || has_thread) continue;
        }
        log::warn("vault", about(job), "job {} ({}) was never begun", job.id, job.kind);
        (void)end_job(
            *database, job.id, JobState::kFailed, "",
            ItemError{Code::kUnavailable, "the database did not answer when it was to begin",
                      "begin it again"});
        notify();
    }
}

Result<JobRecord> Vault::retry_job(uint64_t id) {
    // A machine that was to be started, and an image that was to be imported, have verbs that say
    // what about what is there of them.
    static constexpr std::array<std::string_view, 7> kKinds{
        "scrub",        "materialise",  "hydrate",        "unprotect",
        "copy-removal", "key-rotation", "key-destruction"};
    const std::lock_guard hold(impl_->retry_mutex);
    FS_ASSIGN(const JobRecord failed, get_job(*impl_->database, id));
    if (failed.state != JobState::kFailed && failed.state != JobState::kCancelled)
        return fail(Code::kWrongState,
                    fmt::format("job {} is {}", id, job_state_name(failed.state)),
                    "only what has failed or was cancelled is tried again");
    const auto resumer = impl_->resumers.find(failed.kind);
    if (std::ranges::find(kKinds, failed.kind) == kKinds.end() || resumer == impl_->resumers.end())
        return fail(Code::kUnsupported,
                    fmt::format("a job of kind {} is not tried again as it was", failed.kind),
                    "use the verb that began it");
    FS_ASSIGN(const auto open, open_jobs(*impl_->database));
    for (const JobRecord& other : open)
        if (other.kind == failed.kind && other.item == failed.item)
            return fail(Code::kWrongState, fmt::format("job {} does the same", other.id),
                        "wait for its end");
    std::optional<ItemRecord> item;
    if (failed.item) {
        FS_ASSIGN(item, get_item(*impl_->database, *failed.item));
    }
    return start_job(failed.kind, item, failed.cancellable, failed.input, resumer->second(failed));
}

Status Vault::cancel_job(uint64_t id) {
    FS_ASSIGN(const JobRecord job, get_job(*impl_->database, id));
    if (!job.over() && is_of_another_node(job, impl_->options.node)) {
        FS_TRY(end_job(*impl_->database, id, JobState::kCancelled, "",
                       ItemError{Code::kCancelled,
                                 fmt::format("the vault node '{}' had not ended it", job.node),
                                 "what it left there is removed when that node is back"}));
        impl_->notify();
        return {};
    }
    FS_TRY(farshore::cancel_job(*impl_->database, id));
    impl_->notify();
    return {};
}

}  // namespace farshore
