#include "meta/kept_answers.h"

#include <fmt/core.h>

#include "meta/sql.h"

namespace farshore {
namespace {

using L = long long;
using T = std::string;

}  // namespace

Result<std::optional<KeptAnswer>> begin_answer(Database& database, const KeptAnswer& request) {
    return in_transaction(
        database, "a request's key", [&](SqlSession& sql) -> Result<std::optional<KeptAnswer>> {
            const TimePoint now = database.impl().clock->now();
            execute(sql, "DELETE FROM kept_answers WHERE created_us <= :t",
                    TimePoint{now.us - kAnswerKeptUs});
            std::optional<KeptAnswer> known;
            select<T, T, T, T, L, T, L>(
                sql,
                "SELECT method, target, fingerprint, run, status, answer, created_us FROM "
                "kept_answers WHERE identity = :i AND request_key = :k",
                [&](const T& method, const T& target, const T& fingerprint, const T& run, L status,
                    const T& answer, L created) {
                    known = KeptAnswer{request.identity,
                                       request.key,
                                       method,
                                       target,
                                       fingerprint,
                                       run,
                                       static_cast<uint32_t>(status),
                                       answer,
                                       {created}};
                },
                request.identity, request.key);
            if (known) return known;
            L count = 0;
            select<L>(sql, "SELECT count(*) FROM kept_answers", [&](L all) { count = all; });
            if (static_cast<size_t>(count) >= kMaxKeptAnswers)
                return fail(Code::kLimitReached,
                            fmt::format("{} answers are kept, which is the limit", count),
                            "use Idempotency-Key for fewer requests a day");
            execute(sql,
                    "INSERT INTO kept_answers (identity, request_key, method, target, fingerprint, "
                    "run, status, answer, created_us) VALUES (:i, :k, :m, :t, :f, :r, 0, '', :c)",
                    request.identity, request.key, request.method, request.target,
                    request.fingerprint, request.run, now);
            return std::optional<KeptAnswer>();
        });
}

Status keep_answer(Database& database, const std::string& identity, const std::string& key,
                   uint32_t status, const std::string& answer) {
    return in_transaction(database, "an answer", [&](SqlSession& sql) -> Status {
        execute(sql,
                "UPDATE kept_answers SET status = :s, answer = :a WHERE identity = :i AND "
                "request_key = :k",
                status, answer, identity, key);
        return {};
    });
}

Status forget_answer(Database& database, const std::string& identity, const std::string& key) {
    return in_transaction(database, "a request's key", [&](SqlSession& sql) -> Status {
        execute(sql, "DELETE FROM kept_answers WHERE identity = :i AND request_key = :k", identity,
                key);
        return {};
    });
}

}  // namespace farshore
