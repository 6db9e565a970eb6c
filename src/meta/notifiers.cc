#include "meta/notifiers.h"

#include <fmt/core.h>

#include <array>

#include "meta/parties.h"
#include "meta/sql.h"

namespace farshore {
namespace {

using L = long long;
using T = std::string;

constexpr std::array<std::string_view, 2> kKinds{"webhook", "mail"};

template <typename... Args>
Result<std::vector<NotifierRecord>> select_notifiers(SqlSession& sql, std::string_view condition,
                                                     const Args&... args) {
    std::vector<NotifierRecord> out;
    select<T, T, T, T, T, L, L, L, T, T, T, L>(
        sql,
        "SELECT name, kind, target, settings_file, least, event_cursor, created_us, delivered_us, "
        "error_code, error_what, error_remedy, failing_since_us FROM notifiers " +
            std::string(condition),
        [&](const T& name, const T& kind, const T& target, const T& settings, const T& least,
            L cursor, L created, L delivered, const T& code, const T& what, const T& remedy,
            L failing) {
            NotifierRecord record;
            record.name = name;
            record.kind = kind == kKinds[1] ? NotifierKind::kMail : NotifierKind::kWebhook;
            record.target = target;
            record.settings_file = settings;
            record.least = severity_from_name(least).value_or(Severity::kInformation);
            record.cursor = from_column(cursor);
            record.created.us = created;
            record.delivered.us = delivered;
            if (!code.empty()) record.error = ItemError{code_from_name(code), what, remedy};
            record.failing_since.us = failing;
            out.push_back(std::move(record));
        },
        args...);
    return out;
}

Error no_such_notifier(const std::string& name) {
    return Error(Code::kNotFound, fmt::format("no notifier is called '{}'", name.substr(0, 64)),
                 "`farshore notify list` shows them");
}

}  // namespace

std::string_view notifier_kind_name(NotifierKind kind) {
    return kKinds.at(static_cast<size_t>(kind));
}

Result<NotifierKind> notifier_kind_from_name(std::string_view name) {
    for (size_t i = 0; i < kKinds.size(); ++i)
        if (kKinds[i] == name) return static_cast<NotifierKind>(i);
    return fail(Code::kInvalidArgument,
                fmt::format("kind: nobody is notified by '{}'", name.substr(0, 64)),
                "use webhook or mail");
}

Status check_notifier_name(const std::string& name) {
    const bool good =
        !name.empty() && name.size() <= kMaxNotifierNameBytes &&
        name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos &&
        name.find_first_of("abcdefghijklmnopqrstuvwxyz") != std::string::npos;
    if (good) return {};
    return fail(Code::kInvalidArgument,
                fmt::format("'{}' cannot be a notifier's name", name.substr(0, 64)),
                fmt::format("1 to {} of a-z, 0-9 and -, with a letter", kMaxNotifierNameBytes));
}

Result<NotifierRecord> add_notifier(Database& database, const NotifierRecord& record) {
    return in_transaction(
        database, "adding a notifier", [&](SqlSession& sql) -> Result<NotifierRecord> {
            FS_ASSIGN(const auto known, select_notifiers(sql, ""));
            if (known.size() >= kMaxNotifiers)
                return fail(Code::kLimitReached,
                            fmt::format("there are {} notifiers already", known.size()));
            for (const NotifierRecord& other : known)
                if (other.name == record.name)
                    return fail(Code::kAlreadyExists,
                                fmt::format("a notifier is called '{}' already", record.name));
            execute(sql,
                    "INSERT INTO notifiers (name, kind, target, settings_file, least, "
                    "event_cursor, created_us, delivered_us, error_code, error_what, error_remedy, "
                    "failing_since_us) SELECT :n, :k, :t, :f, :l, COALESCE(MAX(id), 0), :c, 0, '', "
                    "'', '', 0 FROM events",
                    record.name, notifier_kind_name(record.kind), record.target,
                    record.settings_file, severity_name(record.least),
                    database.impl().clock->now());
            FS_ASSIGN(auto added, select_notifiers(sql, "WHERE name = :n", record.name));
            if (added.empty()) return fail(no_such_notifier(record.name));
            return std::move(added.front());
        });
}

Result<NotifierRecord> get_notifier(Database& database, const std::string& name) {
    return in_snapshot(database, "reading a notifier",
                       [&](SqlSession& sql) -> Result<NotifierRecord> {
                           FS_ASSIGN(auto rows, select_notifiers(sql, "WHERE name = :n", name));
                           if (rows.empty()) return fail(no_such_notifier(name));
                           return std::move(rows.front());
                       });
}

Result<std::vector<NotifierRecord>> list_notifiers(Database& database) {
    return in_snapshot(database, "listing notifiers",
                       [&](SqlSession& sql) { return select_notifiers(sql, "ORDER BY name"); });
}

Status remove_notifier(Database& database, const std::string& name) {
    return in_transaction(database, "removing a notifier", [&](SqlSession& sql) -> Status {
        if (execute(sql, "DELETE FROM notifiers WHERE name = :n", name) == 0)
            return fail(no_such_notifier(name));
        return {};
    });
}

Status notifier_told(Database& database, const std::string& name, uint64_t cursor, bool arrived) {
    return in_transaction(database, "a notification", [&](SqlSession& sql) -> Status {
        execute(sql, "UPDATE notifiers SET event_cursor = :c WHERE name = :n", cursor, name);
        if (arrived)
            execute(sql,
                    "UPDATE notifiers SET delivered_us = :t, error_code = '', error_what = '', "
                    "error_remedy = '', failing_since_us = 0 WHERE name = :n",
                    database.impl().clock->now(), name);
        return {};
    });
}

Status notifier_failed(Database& database, const std::string& name, const ItemError& error) {
    return in_transaction(database, "a failed notification", [&](SqlSession& sql) -> Status {
        execute(sql,
                "UPDATE notifiers SET error_code = :c, error_what = :w, error_remedy = :r, "
                "failing_since_us = CASE failing_since_us WHEN 0 THEN :t ELSE failing_since_us END "
                "WHERE name = :n",
                code_name(error.code), error.what, error.remedy, database.impl().clock->now(),
                name);
        return {};
    });
}

}  // namespace farshore
