#include "meta/jobs.h"

#include <fmt/core.h>

#include <array>

#include "meta/sql.h"

namespace farshore {
namespace {

constexpr std::array<std::string_view, 5> kStates{"queued", "running", "succeeded", "failed",
                                                  "cancelled"};

template <typename... Args>
Result<std::vector<JobRecord>> select_jobs(SqlSession& sql, std::string_view condition,
                                           const Args&... args) {
    std::vector<JobRecord> jobs;
    Status damaged;
    using L = long long;
    using T = std::string;
    select<L, T, T, T, T, L, L, L, L, T, T, T, T, T, T, L, L, L, T>(
        sql,
        "SELECT id, kind, item_id, item_name, state, cancellable, cancel_requested, "
        "progress_permille, eta_s, message, input, result, error_code, error_what, error_remedy, "
        "created_us, started_us, ended_us, node FROM jobs " +
            std::string(condition),
        [&](L id, const T& kind, const T& item, const T& item_name, const T& state, L cancellable,
            L cancel, L progress, L eta, const T& message, const T& input, const T& result,
            const T& error_code, const T& error_what, const T& error_remedy, L created, L started,
            L ended, const T& node) {
            JobRecord job;
            job.id = from_column(id);
            job.kind = kind;
            if (!item.empty()) {
                auto item_id = item_id_column(item);
                if (item_id)
                    job.item = *item_id;
                else
                    damaged = tl::unexpected(item_id.error());
            }
            job.item_name = item_name;
            for (size_t i = 0; i < kStates.size(); ++i)
                if (kStates[i] == state) job.state = static_cast<JobState>(i);
            job.cancellable = cancellable != 0;
            job.cancel_requested = cancel != 0;
            job.progress_permille = static_cast<uint32_t>(progress);
            job.eta_s = eta;
            job.message = message;
            job.input = input;
            job.result = result;
            if (!error_code.empty())
                job.error = ItemError{code_from_name(error_code), error_what, error_remedy};
            job.created.us = created;
            job.started.us = started;
            job.ended.us = ended;
            job.node = node;
            jobs.push_back(std::move(job));
        },
        args...);
    FS_TRY(damaged);
    return jobs;
}

Result<JobRecord> read_job(SqlSession& sql, uint64_t id) {
    FS_ASSIGN(auto jobs, select_jobs(sql, "WHERE id = :i", id));
    if (jobs.empty())
        return fail(Code::kNotFound, fmt::format("there is no job {}", id),
                    "`farshore jobs` lists them");
    return std::move(jobs.front());
}

void add_message(SqlSession& sql, uint64_t job, TimePoint now, const std::string& text) {
    execute(sql, "INSERT INTO job_messages (job_id, time_us, text) VALUES (:j, :t, :x)", job, now,
            text);
    execute(
        sql,
        "DELETE FROM job_messages WHERE job_id = :j AND id <= (SELECT max(id) FROM job_messages "
        "WHERE job_id = :k) - :l",
        job, job, kMaxJobMessages);
}

}  // namespace

std::string_view job_state_name(JobState state) { return kStates.at(static_cast<size_t>(state)); }

Result<JobRecord> add_job(Database& database, JobRecord job) {
    return in_transaction(database, "adding a job", [&](SqlSession& sql) -> Result<JobRecord> {
        size_t open = 0;
        select<long long>(sql, "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')",
                          [&](long long count) { open = static_cast<size_t>(count); });
        if (open >= kMaxOpenJobs)
            return fail(Code::kLimitReached, fmt::format("{} jobs are under way already", open),
                        "wait until some have ended");
        job.state = JobState::kQueued;
        job.created = database.impl().clock->now();
        job.node = database.impl().node;
        job.id = insert_returning(
            sql,
            "INSERT INTO jobs (kind, item_id, item_name, state, cancellable, cancel_requested, "
            "progress_permille, eta_s, message, input, result, error_code, error_what, "
            "error_remedy, created_us, started_us, ended_us, node) VALUES (:k, :i, :n, 'queued', "
            ":c, "
            "0, 0, -1, '', :in, '', '', '', '', :t, 0, 0, :o) RETURNING id",
            job.kind, job.item ? job.item->to_string() : std::string(), job.item_name,
            job.cancellable, job.input, job.created, job.node);
        if (job.id > kMaxKeptJobs)
            execute(sql, "DELETE FROM jobs WHERE state NOT IN ('queued', 'running') AND id <= :i",
                    job.id - kMaxKeptJobs);
        return job;
    });
}

Result<JobRecord> get_job(Database& database, uint64_t id) {
    return in_one_read(database, "reading a job",
                       [&](SqlSession& sql) { return read_job(sql, id); });
}

Result<std::vector<JobRecord>> list_jobs(Database& database, uint64_t before, size_t limit,
                                         const std::optional<ItemId>& item) {
    const uint64_t below = before == 0 ? UINT64_MAX : before;
    return in_one_read(database, "listing jobs", [&](SqlSession& sql) {
        return item ? select_jobs(sql, "WHERE id < :b AND item_id = :i ORDER BY id DESC LIMIT :l",
                                  below, *item, limit)
                    : select_jobs(sql, "WHERE id < :b ORDER BY id DESC LIMIT :l", below, limit);
    });
}

Result<std::vector<JobCount>> count_jobs(Database& database) {
    return in_one_read(
        database, "counting jobs", [&](SqlSession& sql) -> Result<std::vector<JobCount>> {
            std::vector<JobCount> counts;
            select<std::string, std::string, long long>(
                sql,
                "SELECT kind, state, count(*) FROM jobs GROUP BY kind, state ORDER BY kind, state",
                [&](const std::string& kind, const std::string& state, long long jobs) {
                    for (size_t i = 0; i < kStates.size(); ++i)
                        if (kStates[i] == state)
                            counts.push_back({kind, static_cast<JobState>(i), from_column(jobs)});
                });
            return counts;
        });
}

Result<std::vector<JobRecord>> open_jobs(Database& database) {
    return in_one_read(database, "listing open jobs", [&](SqlSession& sql) {
        return select_jobs(sql, "WHERE state IN ('queued', 'running') ORDER BY id");
    });
}

Result<std::vector<JobMessage>> job_messages(Database& database, uint64_t id) {
    return in_one_read(
        database, "reading a job", [&](SqlSession& sql) -> Result<std::vector<JobMessage>> {
            std::vector<JobMessage> messages;
            select<long long, std::string>(
                sql, "SELECT time_us, text FROM job_messages WHERE job_id = :j ORDER BY id",
                [&](long long time, const std::string& text) {
                    messages.push_back({{time}, text});
                },
                id);
            return messages;
        });
}

Status start_job(Database& database, uint64_t id) {
    return in_transaction(database, "starting a job", [&](SqlSession& sql) -> Status {
        FS_ASSIGN(JobRecord job, read_job(sql, id));
        if (job.over())
            return fail(Code::kWrongState,
                        fmt::format("job {} is {} already", id, job_state_name(job.state)));
        // A resumed job keeps the time of its first start.
        const TimePoint now = database.impl().clock->now();
        execute(sql,
                "UPDATE jobs SET state = 'running', started_us = CASE WHEN started_us = 0 THEN :t "
                "ELSE started_us END WHERE id = :i",
                now, id);
        return {};
    });
}

Status report_job(Database& database, uint64_t id, uint32_t progress_permille, int64_t eta_s,
                  const std::string& message) {
    return in_transaction(database, "a job's progress", [&](SqlSession& sql) -> Status {
        FS_ASSIGN(JobRecord job, read_job(sql, id));
        if (job.over()) return {};
        execute(sql,
                "UPDATE jobs SET progress_permille = :p, eta_s = :e, message = :m WHERE id = :i",
                std::min<uint32_t>(progress_permille, 1000), eta_s, message, id);
        if (message != job.message && !message.empty())
            add_message(sql, id, database.impl().clock->now(), message);
        if (job.cancel_requested)
            return fail(Code::kCancelled, fmt::format("job {} was cancelled", id));
        return {};
    });
}

Status save_job_input(Database& database, uint64_t id, const std::string& input) {
    return in_transaction(database, "a job's input", [&](SqlSession& sql) -> Status {
        if (execute(sql, "UPDATE jobs SET input = :n WHERE id = :i", input, id) == 0)
            return fail(Code::kNotFound, fmt::format("there is no job {}", id));
        return {};
    });
}

Status end_job(Database& database, uint64_t id, JobState state, const std::string& result,
               const std::optional<ItemError>& error) {
    return in_transaction(database, "ending a job", [&](SqlSession& sql) -> Status {
        FS_ASSIGN(JobRecord job, read_job(sql, id));
        if (job.over()) return {};
        const TimePoint now = database.impl().clock->now();
        const ItemError words = error.value_or(ItemError{});
        execute(sql,
                "UPDATE jobs SET state = :s, result = :r, error_code = :c, error_what = :w, "
                "error_remedy = :m, ended_us = :t, eta_s = 0, progress_permille = CASE WHEN :o = 1 "
                "THEN 1000 ELSE progress_permille END WHERE id = :i",
                job_state_name(state), result, error ? code_name(words.code) : std::string_view{},
                words.what, words.remedy, now, state == JobState::kSucceeded, id);
        if (error) add_message(sql, id, now, words.what);
        return {};
    });
}

Status cancel_job(Database& database, uint64_t id) {
    return in_transaction(database, "cancelling a job", [&](SqlSession& sql) -> Status {
        FS_ASSIGN(JobRecord job, read_job(sql, id));
        if (job.over())
            return fail(Code::kWrongState,
                        fmt::format("job {} is {} already", id, job_state_name(job.state)));
        if (!job.cancellable)
            return fail(Code::kWrongState,
                        fmt::format("a job of kind {} cannot be cancelled", job.kind),
                        "wait for its end");
        execute(sql, "UPDATE jobs SET cancel_requested = 1 WHERE id = :i", id);
        return {};
    });
}

}  // namespace farshore
