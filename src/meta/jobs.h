// Use cases over jobs: every long thing is one, listed with progress, kept with its result, and
// taken up again (or ended by name) when the vault comes back from a crash. Any thread may call.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "meta/records.h"

namespace farshore {

class Database;

inline constexpr size_t kMaxOpenJobs = 1000;     // queued and running; more: kLimitReached
inline constexpr size_t kMaxKeptJobs = 10'000;   // older ones that are over are forgotten
inline constexpr size_t kMaxJobMessages = 1000;  // a job; older ones are forgotten

// Adds it as queued; `id` and `created` are set.
Result<JobRecord> add_job(Database& database, JobRecord job);
// kNotFound.
Result<JobRecord> get_job(Database& database, uint64_t id);
// Newest first, with an id below `before` (0: from the newest).
Result<std::vector<JobRecord>> list_jobs(Database& database, uint64_t before, size_t limit,
                                         const std::optional<ItemId>& item = {});
struct JobCount {
    std::string kind;
    JobState state = JobState::kQueued;
    uint64_t jobs = 0;
};
// Of all that are kept, by kind and state; those that there are.
Result<std::vector<JobCount>> count_jobs(Database& database);
// Queued and running ones, oldest first: what a starting vault has to take up.
Result<std::vector<JobRecord>> open_jobs(Database& database);
Result<std::vector<JobMessage>> job_messages(Database& database, uint64_t id);

Status start_job(Database& database, uint64_t id);
// Progress and what it does now; a changed message is kept in its list. kCancelled when somebody
// asked for that: the job then ends itself with end_job. Not for each block: a few times a second.
Status report_job(Database& database, uint64_t id, uint32_t progress_permille, int64_t eta_s,
                  const std::string& message);
// Replaces the stored input, so that a resumption starts from there.
Status save_job_input(Database& database, uint64_t id, const std::string& input);
// kSucceeded with a result, or kFailed / kCancelled with an error. The first end counts.
Status end_job(Database& database, uint64_t id, JobState state, const std::string& result,
               const std::optional<ItemError>& error);
// Asks it to end. kWrongState when it is over or cannot be cancelled.
Status cancel_job(Database& database, uint64_t id);

}  // namespace farshore
