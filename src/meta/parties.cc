#include "meta/parties.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <functional>
#include <iterator>

#include "meta/sql.h"

namespace farshore {
namespace {

constexpr std::array<std::string_view, 3> kSeverities{"information", "warning", "critical"};

template <typename... Args>
Result<std::vector<PartyRecord>> select_parties(SqlSession& sql, std::string_view condition,
                                                const Args&... args) {
    std::vector<PartyRecord> parties;
    using T = std::string;
    select<T, T, T, T, T, long long, long long, T>(
        sql,
        "SELECT name, kind, fingerprint, instance, version, enrolled_us, last_seen_us, status FROM "
        "parties " +
            std::string(condition),
        [&](const T& name, const T& kind, const T& fingerprint, const T& instance, const T& version,
            long long enrolled, long long seen, const T& status) {
            parties.push_back({name,
                               kind == "appliance" ? PartyKind::kAppliance : PartyKind::kAgent,
                               fingerprint,
                               instance,
                               version,
                               {enrolled},
                               {seen},
                               status});
        },
        args...);
    return parties;
}

}  // namespace

std::string_view party_kind_name(PartyKind kind) {
    return kind == PartyKind::kAgent ? "agent" : "appliance";
}

Result<PartyKind> party_kind_from_name(std::string_view name) {
    if (name == "agent") return PartyKind::kAgent;
    if (name == "appliance") return PartyKind::kAppliance;
    return fail(Code::kMalformed, fmt::format("'{}' is not a kind of party", name.substr(0, 64)),
                "use agent or appliance");
}

std::string_view severity_name(Severity severity) {
    return kSeverities.at(static_cast<size_t>(severity));
}

std::optional<Severity> severity_from_name(std::string_view name) {
    for (size_t i = 0; i < kSeverities.size(); ++i)
        if (kSeverities[i] == name) return static_cast<Severity>(i);
    return {};
}

Status add_token(Database& database, const EnrolmentToken& token) {
    return in_transaction(database, "adding a token", [&](SqlSession& sql) -> Status {
        const TimePoint now = database.impl().clock->now();
        // Used and expired ones are of no more use to anybody.
        execute(sql, "DELETE FROM enrolment_tokens WHERE expires_us <= :t OR used_us != 0", now);
        size_t open = 0;
        select<long long>(sql, "SELECT count(*) FROM enrolment_tokens",
                          [&](long long count) { open = static_cast<size_t>(count); });
        if (open >= kMaxOpenTokens)
            return fail(Code::kLimitReached, fmt::format("{} enrolment tokens are open", open),
                        "wait until some have expired");
        execute(sql,
                "INSERT INTO enrolment_tokens (hash, kind, name, created_us, expires_us, used_us) "
                "VALUES (:h, :k, :n, :c, :e, 0)",
                token.hash, party_kind_name(token.kind), token.name, now, token.expires);
        return {};
    });
}

Result<EnrolmentToken> use_token(Database& database, const Digest& hash) {
    return in_transaction(
        database, "using a token", [&](SqlSession& sql) -> Result<EnrolmentToken> {
            const TimePoint now = database.impl().clock->now();
            EnrolmentToken token;
            if (execute(
                    sql,
                    "UPDATE enrolment_tokens SET used_us = :n WHERE hash = :h AND used_us = 0 AND "
                    "expires_us > :t",
                    now, hash, now) == 0)
                return fail(Code::kUnauthenticated,
                            "the enrolment token is unknown, used already or expired",
                            "make a new one with `farshore token create`");
            token.hash = hash;
            select<std::string, std::string, long long>(
                sql, "SELECT kind, name, expires_us FROM enrolment_tokens WHERE hash = :h",
                [&](const std::string& kind, const std::string& name, long long expires) {
                    token.kind = kind == "appliance" ? PartyKind::kAppliance : PartyKind::kAgent;
                    token.name = name;
                    token.expires.us = expires;
                },
                hash);
            return token;
        });
}

Status enrol_party(Database& database, const PartyRecord& party) {
    return in_transaction(database, "enrolling a party", [&](SqlSession& sql) -> Status {
        FS_ASSIGN(auto same, select_parties(sql, "WHERE name = :n", party.name));
        if (!same.empty() && same.front().kind != party.kind)
            return fail(Code::kAlreadyExists,
                        fmt::format("'{}' is the name of an {} already", party.name,
                                    party_kind_name(same.front().kind)));
        size_t count = 0;
        select<long long>(sql, "SELECT count(*) FROM parties",
                          [&](long long n) { count = static_cast<size_t>(n); });
        if (same.empty() && count >= kMaxParties)
            return fail(Code::kLimitReached,
                        fmt::format("{} agents and appliances are known", count));
        const TimePoint now = database.impl().clock->now();
        execute(sql,
                "INSERT INTO parties (name, kind, fingerprint, instance, version, enrolled_us, "
                "last_seen_us, status) VALUES (:n, :k, :f, '', '', :e, 0, '') ON CONFLICT(name) DO "
                "UPDATE SET fingerprint = excluded.fingerprint, enrolled_us = excluded.enrolled_us",
                party.name, party_kind_name(party.kind), party.fingerprint, now);
        return {};
    });
}

Result<PartyRecord> get_party(Database& database, const std::string& name) {
    return in_one_read(database, "reading a party", [&](SqlSession& sql) -> Result<PartyRecord> {
        FS_ASSIGN(auto parties, select_parties(sql, "WHERE name = :n", name));
        if (parties.empty())
            return fail(Code::kNotFound,
                        fmt::format("there is no agent or appliance '{}'", name.substr(0, 128)));
        return std::move(parties.front());
    });
}

Result<std::vector<PartyRecord>> list_parties(Database& database, const std::string& after,
                                              size_t limit) {
    return in_one_read(database, "listing parties", [&](SqlSession& sql) {
        return select_parties(sql, "WHERE name > :a ORDER BY name LIMIT :l", after, limit);
    });
}

Status party_seen(Database& database, const std::string& name, const std::string& instance,
                  const std::string& version, const std::string& status) {
    return in_transaction(database, "a party's status", [&](SqlSession& sql) -> Status {
        if (execute(
                sql,
                "UPDATE parties SET instance = :i, version = :v, status = :s, last_seen_us = :t "
                "WHERE name = :n",
                instance, version, status, database.impl().clock->now(), name) == 0)
            return fail(Code::kNotFound, fmt::format("'{}' is not enrolled", name.substr(0, 128)));
        return {};
    });
}

Status parties_seen(Database& database,
                    const std::vector<std::pair<std::string, TimePoint>>& seen) {
    return in_transaction(database, "when parties were heard of", [&](SqlSession& sql) -> Status {
        for (const auto& [name, time] : seen)
            execute(sql, "UPDATE parties SET last_seen_us = :t WHERE name = :n", time, name);
        return {};
    });
}

Status remove_party(Database& database, const std::string& name) {
    return in_transaction(database, "removing a party", [&](SqlSession& sql) -> Status {
        execute(sql, "DELETE FROM parties WHERE name = :n", name);
        return {};
    });
}

Status add_event(Database& database, const EventRecord& event) {
    return in_transaction(database, "an event", [&](SqlSession& sql) -> Status {
        const uint64_t id = insert_returning(
            sql,
            "INSERT INTO events (time_us, severity, code, item_id, item_name, cause, remedy) "
            "VALUES (:t, :s, :c, :i, :n, :w, :r) RETURNING id",
            database.impl().clock->now(), severity_name(event.severity), event.code,
            event.item ? event.item->to_string() : std::string(), event.item_name, event.cause,
            event.remedy);
        if (id > kMaxKeptEvents)
            execute(sql, "DELETE FROM events WHERE id <= :i", id - kMaxKeptEvents);
        return {};
    });
}

namespace {

template <typename... Args>
Result<std::vector<EventRecord>> select_events(SqlSession& sql, std::string_view condition,
                                               const Args&... args) {
    std::vector<EventRecord> events;
    Status damaged;
    using T = std::string;
    select<long long, long long, T, T, T, T, T, T>(
        sql,
        "SELECT id, time_us, severity, code, item_id, item_name, cause, remedy FROM events " +
            std::string(condition),
        [&](long long id, long long time, const T& severity, const T& code, const T& item_id,
            const T& item_name, const T& cause, const T& remedy) {
            EventRecord event;
            event.id = from_column(id);
            event.time.us = time;
            event.severity = severity_from_name(severity).value_or(event.severity);
            event.code = code;
            if (!item_id.empty()) {
                auto parsed = item_id_column(item_id);
                if (parsed)
                    event.item = *parsed;
                else
                    damaged = tl::unexpected(parsed.error());
            }
            event.item_name = item_name;
            event.cause = cause;
            event.remedy = remedy;
            events.push_back(std::move(event));
        },
        args...);
    FS_TRY(damaged);
    return events;
}

// Each severity by its index: a rare one is not looked for among all.
Result<std::vector<EventRecord>> events_by_severity(SqlSession& sql, uint64_t below, size_t limit,
                                                    const EventQuery& query) {
    std::vector<EventRecord> found;
    for (const Severity severity :
         {Severity::kInformation, Severity::kWarning, Severity::kCritical}) {
        if (severity < query.least) continue;
        const std::string_view name = severity_name(severity);
        FS_ASSIGN(auto events,
                  query.code.empty()
                      ? select_events(sql,
                                      "WHERE severity = :s AND id < :b ORDER BY id DESC "
                                      "LIMIT :l",
                                      name, below, limit)
                      : select_events(sql,
                                      "WHERE code = :c AND severity = :s AND id < :b ORDER "
                                      "BY id DESC LIMIT :l",
                                      query.code, name, below, limit));
        std::ranges::move(events, std::back_inserter(found));
    }
    std::ranges::sort(found, std::greater<>(), &EventRecord::id);
    if (found.size() > limit) found.resize(limit);
    return found;
}

}  // namespace

Result<std::vector<EventRecord>> list_events(Database& database, uint64_t before, size_t limit,
                                             const EventQuery& query) {
    const uint64_t below = before == 0 ? UINT64_MAX : before;
    const std::string_view least = severity_name(query.least);
    return in_snapshot(
        database, "listing events", [&](SqlSession& sql) -> Result<std::vector<EventRecord>> {
            // The rows of one item are looked through.
            if (query.item)
                return select_events(
                    sql,
                    "WHERE item_id = :i AND id < :b AND (:c = '' OR code = :c2) AND (severity = "
                    "'critical' OR severity = :s OR :s2 = 'information') ORDER BY id DESC LIMIT :l",
                    *query.item, below, query.code, query.code, least, least, limit);
            if (query.code.empty() && query.least == Severity::kInformation)
                return select_events(sql, "WHERE id < :b ORDER BY id DESC LIMIT :l", below, limit);
            return events_by_severity(sql, below, limit, query);
        });
}

Result<std::vector<EventRecord>> list_events_after(Database& database, uint64_t after,
                                                   size_t limit) {
    return in_one_read(database, "listing events", [&](SqlSession& sql) {
        return select_events(sql, "WHERE id > :a ORDER BY id LIMIT :l", after, limit);
    });
}

Result<std::string> get_setting(Database& database, const std::string& key) {
    return in_one_read(database, "reading a setting", [&](SqlSession& sql) -> Result<std::string> {
        std::string value;
        select<std::string>(
            sql, "SELECT value FROM settings WHERE key = :k",
            [&](const std::string& text) { value = text; }, key);
        return value;
    });
}

Status set_setting(Database& database, const std::string& key, const std::string& value) {
    return in_transaction(database, "a setting", [&](SqlSession& sql) -> Status {
        upsert(sql, "settings", "key", "value", key, value);
        return {};
    });
}

}  // namespace farshore
