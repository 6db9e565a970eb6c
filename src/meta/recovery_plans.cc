#include "meta/recovery_plans.h"

#include <fmt/core.h>

#include "meta/sql.h"

namespace farshore {
namespace {

using L = long long;
using T = std::string;

template <typename... Args>
std::vector<PlanRecord> select_plans(SqlSession& sql, std::string_view condition,
                                     const Args&... args) {
    std::vector<PlanRecord> plans;
    select<T, L, T, L, L>(
        sql,
        "SELECT name, version, document, created_us, updated_us FROM recovery_plans " +
            std::string(condition),
        [&](const T& name, L version, const T& document, L created, L updated) {
            plans.push_back({name, from_column(version), document, {created}, {updated}});
        },
        args...);
    return plans;
}

template <typename... Args>
std::vector<PlanRunRecord> select_runs(SqlSession& sql, std::string_view condition,
                                       const Args&... args) {
    std::vector<PlanRunRecord> runs;
    select<L, T, T, T, L, T, T, L>(
        sql,
        "SELECT id, plan, mode, state, is_over, document, wish, created_us FROM plan_runs " +
            std::string(condition),
        [&](L id, const T& plan, const T& mode, const T& state, L over, const T& document,
            const T& wish, L created) {
            runs.push_back(
                {from_column(id), plan, mode, state, over != 0, document, wish, {created}});
        },
        args...);
    return runs;
}

Result<PlanRecord> read_plan(SqlSession& sql, const std::string& name) {
    auto plans = select_plans(sql, "WHERE name = :n", name);
    if (plans.empty())
        return fail(Code::kNotFound,
                    fmt::format("no recovery plan is called '{}'", name.substr(0, 64)),
                    "`farshore recovery-plan list` shows them");
    return std::move(plans.front());
}

Result<PlanRunRecord> read_run(SqlSession& sql, uint64_t id) {
    auto runs = select_runs(sql, "WHERE id = :i", id);
    if (runs.empty())
        return fail(Code::kNotFound, fmt::format("there is no run {} of a recovery plan", id),
                    "`farshore recovery-plan runs` lists them");
    return std::move(runs.front());
}

Status check_no_open_run(SqlSession& sql, const std::string& plan, bool tests_too) {
    auto open = select_runs(sql, "WHERE plan = :p AND is_over = 0 ORDER BY id", plan);
    if (!tests_too)
        std::erase_if(open, [](const PlanRunRecord& run) { return run.mode == "test"; });
    if (open.empty()) return {};
    return fail(Code::kWrongState,
                fmt::format("run {} of '{}' is {}", open.front().id, plan, open.front().state),
                "wait for its end; or stop and cancel it");
}

}  // namespace

Result<PlanRecord> add_plan(Database& database, const PlanRecord& plan) {
    return in_transaction(
        database, "adding a recovery plan", [&](SqlSession& sql) -> Result<PlanRecord> {
            size_t count = 0;
            select<L>(sql, "SELECT count(*) FROM recovery_plans",
                      [&](L all) { count = static_cast<size_t>(all); });
            if (count >= kMaxPlans)
                return fail(Code::kLimitReached,
                            fmt::format("there are {} recovery plans already", count));
            if (!select_plans(sql, "WHERE name = :n", plan.name).empty())
                return fail(Code::kAlreadyExists,
                            fmt::format("a recovery plan is called '{}' already", plan.name));
            const TimePoint now = database.impl().clock->now();
            execute(sql,
                    "INSERT INTO recovery_plans (name, version, document, created_us, updated_us) "
                    "VALUES (:n, 1, :d, :c, :u)",
                    plan.name, plan.document, now, now);
            return read_plan(sql, plan.name);
        });
}

Result<PlanRecord> get_plan(Database& database, const std::string& name) {
    return in_snapshot(database, "reading a recovery plan",
                       [&](SqlSession& sql) { return read_plan(sql, name); });
}

Result<std::vector<PlanRecord>> list_plans(Database& database, const std::string& after,
                                           size_t limit) {
    return in_snapshot(database, "listing recovery plans",
                       [&](SqlSession& sql) -> Result<std::vector<PlanRecord>> {
                           return select_plans(sql, "WHERE name > :a ORDER BY name LIMIT :l", after,
                                               limit);
                       });
}

Result<PlanRecord> change_plan(Database& database, const std::string& name,
                               const std::string& document) {
    return in_transaction(
        database, "changing a recovery plan", [&](SqlSession& sql) -> Result<PlanRecord> {
            execute(sql,
                    "UPDATE recovery_plans SET document = :d, version = version + 1, "
                    "updated_us = :u WHERE name = :n",
                    document, database.impl().clock->now(), name);
            return read_plan(sql, name);
        });
}

Status remove_plan(Database& database, const std::string& name) {
    return in_transaction(database, "removing a recovery plan", [&](SqlSession& sql) -> Status {
        FS_TRY(read_plan(sql, name));
        FS_TRY(check_no_open_run(sql, name, true));
        execute(sql, "DELETE FROM recovery_plans WHERE name = :n", name);
        return {};
    });
}

Result<PlanRunRecord> add_plan_run(Database& database, PlanRunRecord run, bool alone,
                                   const std::function<void(PlanRunRecord&)>& fill) {
    return in_transaction(
        database, "adding a run of a recovery plan", [&](SqlSession& sql) -> Result<PlanRunRecord> {
            FS_TRY(read_plan(sql, run.plan));
            if (alone) FS_TRY(check_no_open_run(sql, run.plan, false));
            size_t open = 0;
            select<L>(sql, "SELECT count(*) FROM plan_runs WHERE is_over = 0",
                      [&](L count) { open = static_cast<size_t>(count); });
            if (open >= kMaxOpenPlanRuns)
                return fail(Code::kLimitReached,
                            fmt::format("{} runs of recovery plans are not over", open),
                            "resume or cancel some of them");
            run.created = database.impl().clock->now();
            run.id = insert_returning(
                sql,
                "INSERT INTO plan_runs (plan, mode, state, is_over, document, wish, created_us) "
                "VALUES (:p, :m, '', 0, '', '', :c) RETURNING id",
                run.plan, run.mode, run.created);
            fill(run);
            execute(sql, "UPDATE plan_runs SET state = :s, document = :d WHERE id = :i", run.state,
                    run.document, run.id);
            execute(sql,
                    "DELETE FROM plan_runs WHERE plan = :p AND is_over = 1 AND id NOT IN (SELECT "
                    "id FROM plan_runs WHERE plan = :q ORDER BY id DESC LIMIT :l)",
                    run.plan, run.plan, kMaxKeptPlanRuns);
            execute(sql, "DELETE FROM step_answers WHERE run_id NOT IN (SELECT id FROM plan_runs)");
            return run;
        });
}

Result<PlanRunRecord> get_plan_run(Database& database, uint64_t id) {
    return in_snapshot(database, "reading a run of a recovery plan",
                       [&](SqlSession& sql) { return read_run(sql, id); });
}

Result<std::vector<PlanRunRecord>> list_plan_runs(Database& database, uint64_t before, size_t limit,
                                                  const std::string& plan) {
    return in_snapshot(
        database, "listing runs of recovery plans",
        [&](SqlSession& sql) -> Result<std::vector<PlanRunRecord>> {
            const uint64_t below = before == 0 ? INT64_MAX : before;
            if (plan.empty())
                return select_runs(sql, "WHERE id < :b ORDER BY id DESC LIMIT :l", below, limit);
            return select_runs(sql, "WHERE plan = :p AND id < :b ORDER BY id DESC LIMIT :l", plan,
                               below, limit);
        });
}

Result<std::vector<PlanRunRecord>> open_plan_runs(Database& database) {
    return in_snapshot(database, "listing runs of recovery plans",
                       [&](SqlSession& sql) -> Result<std::vector<PlanRunRecord>> {
                           return select_runs(sql, "WHERE is_over = 0 ORDER BY id");
                       });
}

Result<PlanRunRecord> change_plan_run(Database& database, uint64_t id,
                                      const std::function<Status(PlanRunRecord&)>& change) {
    return in_transaction(
        database, "a run of a recovery plan", [&](SqlSession& sql) -> Result<PlanRunRecord> {
            FS_ASSIGN(PlanRunRecord run, read_run(sql, id));
            FS_TRY(change(run));
            execute(sql,
                    "UPDATE plan_runs SET state = :s, is_over = :o, document = :d, wish = :w "
                    "WHERE id = :i",
                    run.state, run.over, run.document, run.wish, id);
            return run;
        });
}

Status add_step_answer(Database& database, const StepAnswer& answer) {
    return in_transaction(database, "an answer to a step", [&](SqlSession& sql) -> Status {
        size_t known = 0;
        select<L>(
            sql, "SELECT count(*) FROM step_answers WHERE handle = :h",
            [&](L count) { known = static_cast<size_t>(count); }, answer.handle);
        if (known != 0) return fail(Code::kAlreadyExists, "the step was answered already");
        execute(sql,
                "INSERT INTO step_answers (handle, run_id, good, note, who, time_us) VALUES (:h, "
                ":r, :g, :n, :w, :t)",
                answer.handle, answer.run, answer.good, answer.note, answer.who,
                database.impl().clock->now());
        return {};
    });
}

Result<std::optional<StepAnswer>> get_step_answer(Database& database, const std::string& handle) {
    return in_snapshot(
        database, "an answer to a step", [&](SqlSession& sql) -> Result<std::optional<StepAnswer>> {
            std::optional<StepAnswer> answer;
            select<L, L, T, T, L>(
                sql, "SELECT run_id, good, note, who, time_us FROM step_answers WHERE handle = :h",
                [&](L run, L good, const T& note, const T& who, L time) {
                    answer = StepAnswer{handle, from_column(run), good != 0, note, who, {time}};
                },
                handle);
            return answer;
        });
}

}  // namespace farshore
