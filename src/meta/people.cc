#include "meta/people.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "meta/items.h"
#include "meta/sites.h"
#include "meta/sql.h"

namespace farshore {
namespace {

using L = long long;
using T = std::string;

constexpr std::array<std::string_view, 4> kRoles{"reader", "operator", "contributor", "owner"};
// Rows too many are deleted every so often, not with each.
constexpr uint64_t kAuditPruneRows = 256;

// "*", or the items, a line each.
std::string scope_column(const Scope& scope) {
    if (scope.all) return "*";
    std::string text;
    for (const std::string& item : scope.items) text += item + "\n";
    return text;
}

Scope scope_from_column(const std::string& text) {
    Scope scope;
    if (text == "*") return scope;
    scope.all = false;
    for (size_t from = 0; from < text.size();) {
        const size_t end = std::min(text.find('\n', from), text.size());
        scope.items.push_back(text.substr(from, end - from));
        from = end + 1;
    }
    return scope;
}

// Of a damaged column the least.
Role role_from_column(const std::string& text) {
    return role_from_name(text).value_or(Role::kReader);
}

template <typename... Args>
Result<std::vector<UserRecord>> select_users(SqlSession& sql, std::string_view condition,
                                             const Args&... args) {
    std::vector<UserRecord> out;
    select<T, T, T, T, L, L, L, L, L>(
        sql,
        "SELECT name, password_hash, role, scope, disabled, failed_logins, locked_until_us, "
        "created_us, last_login_us FROM users " +
            std::string(condition),
        [&](const T& name, const T& hash, const T& role, const T& scope, L disabled, L failed,
            L locked, L created, L last) {
            UserRecord record;
            record.name = name;
            record.password_hash = hash;
            record.role = role_from_column(role);
            record.scope = scope_from_column(scope);
            record.disabled = disabled != 0;
            record.failed_logins = static_cast<uint32_t>(failed);
            record.locked_until.us = locked;
            record.created.us = created;
            record.last_login.us = last;
            out.push_back(std::move(record));
        },
        args...);
    return out;
}

template <typename... Args>
Result<std::vector<AccessTokenRecord>> select_tokens(SqlSession& sql, std::string_view condition,
                                                     const Args&... args) {
    std::vector<AccessTokenRecord> out;
    Status damaged;
    select<T, T, L, T, T, T, T, L, L, L, L>(
        sql,
        "SELECT id, name, is_session, hash, owner, role, scope, created_us, expires_us, "
        "last_used_us, revoked_us FROM access_tokens " +
            std::string(condition),
        [&](const T& id, const T& name, L session, const T& hash, const T& owner, const T& role,
            const T& scope, L created, L expires, L used, L revoked) {
            AccessTokenRecord record;
            record.id = id;
            record.name = name;
            record.session = session != 0;
            if (auto digest = digest_column(hash))
                record.hash = *digest;
            else
                damaged = tl::unexpected(digest.error());
            record.owner = owner;
            record.role = role_from_column(role);
            record.scope = scope_from_column(scope);
            record.created.us = created;
            record.expires.us = expires;
            record.last_used.us = used;
            record.revoked.us = revoked;
            out.push_back(std::move(record));
        },
        args...);
    FS_TRY(damaged);
    return out;
}

Error no_such_user(const std::string& name) {
    return Error(Code::kNotFound, fmt::format("there is no user '{}'", name.substr(0, 64)),
                 "`farshore user list` shows them");
}

Error no_such_token(const std::string& id) {
    return Error(Code::kNotFound, fmt::format("there is no access token '{}'", id.substr(0, 64)),
                 "`farshore access-token list` shows them");
}

Result<UserRecord> user_named(SqlSession& sql, const std::string& name) {
    FS_ASSIGN(auto users, select_users(sql, "WHERE name = :n", name));
    if (users.empty()) return fail(no_such_user(name));
    return std::move(users.front());
}

}  // namespace

std::string_view role_name(Role role) { return kRoles.at(static_cast<size_t>(role)); }

Result<Role> role_from_name(std::string_view name) {
    for (size_t i = 0; i < kRoles.size(); ++i)
        if (kRoles[i] == name) return static_cast<Role>(i);
    return fail(Code::kInvalidArgument, fmt::format("role: '{}' is none", name.substr(0, 64)),
                "use reader, operator, contributor or owner");
}

bool Scope::has(const std::string& name, const std::string& id) const {
    return all || std::binary_search(items.begin(), items.end(), name) ||
           std::binary_search(items.begin(), items.end(), id);
}

bool Scope::within(const Scope& other) const {
    if (other.all) return true;
    return !all &&
           std::includes(other.items.begin(), other.items.end(), items.begin(), items.end());
}

Result<Scope> scope_of_items(std::vector<std::string> items) {
    Scope scope;
    scope.all = false;
    if (items.empty())
        return fail(Code::kInvalidArgument, "items: a scope without items is of no use",
                    "leave it out for all items");
    if (items.size() > kMaxScopeItems)
        return fail(Code::kLimitReached,
                    fmt::format("items: a scope has at most {} items", kMaxScopeItems));
    for (const std::string& item : items)
        if (item.starts_with(kSitePrefix)) {
            FS_TRY(check_site_name(std::string_view(item).substr(kSitePrefix.size())));
        } else if (item.empty() || item.size() > kMaxItemNameBytes ||
                   std::ranges::any_of(item, [](unsigned char c) { return c < 0x20 || c == 0x7f; }))
            return fail(
                Code::kInvalidArgument,
                fmt::format("items: '{}' is not the name or id of an item", item.substr(0, 64)));
    std::ranges::sort(items);
    items.erase(std::unique(items.begin(), items.end()), items.end());
    scope.items = std::move(items);
    return scope;
}

Status check_user_name(const std::string& name) {
    const bool good =
        !name.empty() && name.size() <= kMaxUserNameBytes &&
        name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789._-@") == std::string::npos &&
        name.find_first_of("abcdefghijklmnopqrstuvwxyz") != std::string::npos;
    if (!good)
        return fail(Code::kInvalidArgument,
                    fmt::format("name: '{}' cannot be a user's", name.substr(0, 64)),
                    fmt::format("1 to {} of a-z, 0-9, '.', '_', '-' and '@', with a letter",
                                kMaxUserNameBytes));
    if (name == "administrator" || name == "nobody")
        return fail(Code::kAlreadyExists, fmt::format("name: '{}' is taken", name));
    return {};
}

Result<UserRecord> add_user(Database& database, const UserRecord& user) {
    return in_transaction(database, "adding a user", [&](SqlSession& sql) -> Result<UserRecord> {
        size_t count = 0;
        select<L>(sql, "SELECT count(*) FROM users", [&](L n) { count = static_cast<size_t>(n); });
        if (count >= kMaxUsers)
            return fail(Code::kLimitReached, fmt::format("there are {} users already", count));
        if (execute(sql,
                    "INSERT INTO users (name, password_hash, role, scope, disabled, failed_logins, "
                    "locked_until_us, created_us, last_login_us) VALUES (:n, :p, :r, :s, :d, 0, 0, "
                    ":c, 0) ON CONFLICT(name) DO NOTHING",
                    user.name, user.password_hash, role_name(user.role), scope_column(user.scope),
                    user.disabled ? 1 : 0, database.impl().clock->now()) == 0)
            return fail(Code::kAlreadyExists,
                        fmt::format("there is a user '{}' already", user.name));
        return user_named(sql, user.name);
    });
}

Result<UserRecord> keep_provided_user(Database& database, const std::string& name, Role role) {
    UserRecord user;
    user.name = name;
    user.password_hash = kProvidedUser;
    user.role = role;
    auto added = add_user(database, user);
    if (added || added.error().code() != Code::kAlreadyExists) return added;
    return in_transaction(
        database, "a provider's user", [&](SqlSession& sql) -> Result<UserRecord> {
            if (execute(sql, "UPDATE users SET role = :r WHERE name = :n AND password_hash = :p",
                        role_name(role), name, kProvidedUser) == 0)
                return fail(Code::kForbidden,
                            fmt::format("'{}' is a user with a password here", name),
                            "log in with it, or have an owner remove that user");
            return user_named(sql, name);
        });
}

Result<UserRecord> get_user(Database& database, const std::string& name) {
    return in_snapshot(database, "reading a user",
                       [&](SqlSession& sql) { return user_named(sql, name); });
}

Result<std::vector<UserRecord>> list_users(Database& database, const std::string& after,
                                           size_t limit) {
    return in_snapshot(database, "listing users", [&](SqlSession& sql) {
        return select_users(sql, "WHERE name > :a ORDER BY name LIMIT :l", after, limit);
    });
}

Result<UserRecord> change_user(Database& database, const std::string& name,
                               const UserChange& change) {
    return in_transaction(database, "changing a user", [&](SqlSession& sql) -> Result<UserRecord> {
        FS_ASSIGN(UserRecord user, user_named(sql, name));
        if (change.role) user.role = *change.role;
        if (change.scope) user.scope = *change.scope;
        if (change.disabled) user.disabled = *change.disabled;
        execute(sql, "UPDATE users SET role = :r, scope = :s, disabled = :d WHERE name = :n",
                role_name(user.role), scope_column(user.scope), user.disabled ? 1 : 0, name);
        return user;
    });
}

Status set_password(Database& database, const std::string& name, const std::string& password_hash) {
    return in_transaction(database, "setting a password", [&](SqlSession& sql) -> Status {
        if (execute(sql,
                    "UPDATE users SET password_hash = :p, failed_logins = 0, locked_until_us = 0 "
                    "WHERE name = :n",
                    password_hash, name) == 0)
            return fail(no_such_user(name));
        execute(sql,
                "UPDATE access_tokens SET revoked_us = :t WHERE owner = :n AND is_session = 1 AND "
                "revoked_us = 0",
                database.impl().clock->now(), name);
        return {};
    });
}

Status remove_user(Database& database, const std::string& name) {
    return in_transaction(database, "removing a user", [&](SqlSession& sql) -> Status {
        // The administrator's have no owner.
        if (name.empty() || execute(sql, "DELETE FROM users WHERE name = :n", name) == 0)
            return fail(no_such_user(name));
        execute(sql, "DELETE FROM access_tokens WHERE owner = :n", name);
        return {};
    });
}

Status login_failed(Database& database, const std::string& name, uint32_t failed_logins,
                    TimePoint locked_until) {
    return in_transaction(database, "a failed login", [&](SqlSession& sql) -> Status {
        execute(sql,
                "UPDATE users SET failed_logins = :f, locked_until_us = :l WHERE name = :n AND "
                "failed_logins < :g",
                failed_logins, locked_until, name, failed_logins);
        return {};
    });
}

Status login_succeeded(Database& database, const std::string& name) {
    return in_transaction(database, "a login", [&](SqlSession& sql) -> Status {
        execute(sql,
                "UPDATE users SET failed_logins = 0, locked_until_us = 0, last_login_us = :t WHERE "
                "name = :n",
                database.impl().clock->now(), name);
        return {};
    });
}

// ---- access tokens

Result<AccessTokenRecord> add_access_token(Database& database, const AccessTokenRecord& token) {
    return in_transaction(
        database, "adding an access token", [&](SqlSession& sql) -> Result<AccessTokenRecord> {
            const TimePoint now = database.impl().clock->now();
            // What has ended is shown for a while; of a session nobody wants to know.
            const TimePoint old{now.us - kEndedTokenKeptUs};
            execute(sql,
                    "DELETE FROM access_tokens WHERE expires_us < :o OR (revoked_us <> 0 AND "
                    "revoked_us < :p) OR (is_session = 1 AND (expires_us <= :n OR revoked_us <> "
                    "0))",
                    old, old, now);
            if (!token.owner.empty()) FS_TRY(user_named(sql, token.owner));
            size_t count = 0;
            select<L>(sql, "SELECT count(*) FROM access_tokens",
                      [&](L n) { count = static_cast<size_t>(n); });
            if (count >= kMaxAccessTokens)
                return fail(Code::kLimitReached,
                            fmt::format("there are {} access tokens already", count),
                            "log out, or wait until some have expired");
            if (execute(sql,
                        "INSERT INTO access_tokens (id, name, is_session, hash, owner, role, "
                        "scope, created_us, expires_us, last_used_us, revoked_us) VALUES (:i, :n, "
                        ":s, :h, :o, :r, :c, :t, :e, 0, 0) ON CONFLICT(id) DO NOTHING",
                        token.id, token.name, token.session ? 1 : 0, token.hash, token.owner,
                        role_name(token.role), scope_column(token.scope), now, token.expires) == 0)
                return fail(Code::kAlreadyExists, "there is an access token with this id already");
            FS_ASSIGN(auto added, select_tokens(sql, "WHERE id = :i", token.id));
            if (added.empty()) return fail(no_such_token(token.id));
            return std::move(added.front());
        });
}

Result<TokenAndOwner> get_access_token(Database& database, const std::string& id) {
    return in_snapshot(database, "reading an access token",
                       [&](SqlSession& sql) -> Result<TokenAndOwner> {
                           FS_ASSIGN(auto tokens, select_tokens(sql, "WHERE id = :i", id));
                           if (tokens.empty()) return fail(no_such_token(id));
                           TokenAndOwner found{std::move(tokens.front()), {}};
                           if (!found.token.owner.empty()) {
                               FS_ASSIGN(found.owner, user_named(sql, found.token.owner));
                           }
                           return found;
                       });
}

Result<std::vector<AccessTokenRecord>> list_access_tokens(Database& database,
                                                          const std::optional<std::string>& owner,
                                                          const std::string& after, size_t limit) {
    return in_snapshot(database, "listing access tokens", [&](SqlSession& sql) {
        if (owner)
            return select_tokens(sql, "WHERE id > :a AND owner = :o ORDER BY id LIMIT :l", after,
                                 *owner, limit);
        return select_tokens(sql, "WHERE id > :a ORDER BY id LIMIT :l", after, limit);
    });
}

Status revoke_access_token(Database& database, const std::string& id) {
    return in_transaction(database, "revoking an access token", [&](SqlSession& sql) -> Status {
        FS_ASSIGN(const auto tokens, select_tokens(sql, "WHERE id = :i", id));
        if (tokens.empty()) return fail(no_such_token(id));
        execute(sql, "UPDATE access_tokens SET revoked_us = :t WHERE id = :i AND revoked_us = 0",
                database.impl().clock->now(), id);
        return {};
    });
}

Status access_token_used(Database& database, const std::string& id) {
    return in_transaction(database, "an access token's use", [&](SqlSession& sql) -> Status {
        execute(sql, "UPDATE access_tokens SET last_used_us = :t WHERE id = :i",
                database.impl().clock->now(), id);
        return {};
    });
}

// ---- audit

Status add_audit(Database& database, const AuditRecord& record) {
    return in_transaction(database, "the audit", [&](SqlSession& sql) -> Status {
        execute(sql,
                "INSERT INTO audit (time_us, known, who, kind, token, source, method, path, "
                "operation, item, outcome, detail) VALUES (:t, :k, :w, :i, :o, :s, :m, :p, :r, :e, "
                ":u, :d)",
                database.impl().clock->now(), record.known ? 1 : 0, record.who, record.kind,
                record.token, record.source, record.method, record.path, record.operation,
                record.item, record.outcome, record.detail);
        uint64_t id = 0;
        select<L>(sql, "SELECT COALESCE(MAX(id), 0) FROM audit",
                  [&](L newest) { id = from_column(newest); });
        if (id % kAuditPruneRows != 0) return {};
        for (const auto& [known, kept] :
             {std::pair(1, kMaxKeptAudit), std::pair(0, kMaxKeptAuditOfNobody)})
            execute(sql,
                    "DELETE FROM audit WHERE known = :k AND id <= (SELECT COALESCE(MIN(id), 0) "
                    "FROM (SELECT id FROM audit WHERE known = :l ORDER BY id DESC LIMIT 1 OFFSET "
                    ":n) AS older)",
                    known, known, kept);
        return {};
    });
}

Result<std::vector<AuditRecord>> list_audit(Database& database, const AuditQuery& query) {
    return in_snapshot(
        database, "listing the audit", [&](SqlSession& sql) -> Result<std::vector<AuditRecord>> {
            std::vector<AuditRecord> out;
            select<L, L, L, T, T, T, T, T, T, T, T, T, T>(
                sql,
                "SELECT id, time_us, known, who, kind, token, source, method, path, operation, "
                "item, outcome, detail FROM audit WHERE id < :b AND (:v = '' OR who = :w) AND (:i "
                "= '' OR item = :j) AND (:o = '' OR outcome = :p) ORDER BY id DESC LIMIT :l",
                [&](L id, L time, L known, const T& who, const T& kind, const T& token,
                    const T& source, const T& method, const T& path, const T& operation,
                    const T& item, const T& outcome, const T& detail) {
                    out.push_back({from_column(id),
                                   {time},
                                   known != 0,
                                   who,
                                   kind,
                                   token,
                                   source,
                                   method,
                                   path,
                                   operation,
                                   item,
                                   outcome,
                                   detail});
                },
                query.before == 0 ? UINT64_MAX : query.before, query.who, query.who, query.item,
                query.item, query.outcome, query.outcome, query.limit);
            return out;
        });
}

}  // namespace farshore
