// Who may use the vault's API: users, their access tokens and sessions; and the audit of what was
// done. Any thread may call; errors of the database as in database.h. Secrets do not come here:
// only their hashes do.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "meta/records.h"

namespace farshore {

class Database;

inline constexpr size_t kMaxUsers = 1000;
inline constexpr size_t kMaxUserNameBytes = 64;
inline constexpr size_t kMaxAccessTokens = 10'000;  // sessions included
inline constexpr size_t kMaxTokenNameBytes = 64;
inline constexpr size_t kMaxScopeItems = 200;
// Of what those did that were known, and of what was refused to nobody in particular: a flood of
// the latter must not push the former out.
inline constexpr size_t kMaxKeptAudit = 100'000;
inline constexpr size_t kMaxKeptAuditOfNobody = 20'000;
// Tokens that have ended are shown for so long.
inline constexpr int64_t kEndedTokenKeptUs = int64_t{30} * 86'400 * 1'000'000;

// Each may do what those before it may.
enum class Role : uint8_t { kReader, kOperator, kContributor, kOwner };
std::string_view role_name(Role role);  // "reader", ...
Result<Role> role_from_name(std::string_view name);

// Which items somebody's role is for.
struct Scope {
    bool all = true;
    // Names or ids, or all of a site (kSitePrefix of sites.h, which has() knows nothing of);
    // sorted, each once; when not `all`.
    std::vector<std::string> items;

    bool has(const std::string& name, const std::string& id) const;
    // Whether nothing is in this one that is not in `other`, which compares what is written.
    bool within(const Scope& other) const;
    bool operator==(const Scope&) const = default;
};
// Sorted and checked. kInvalidArgument, kLimitReached.
Result<Scope> scope_of_items(std::vector<std::string> items);

// Instead of a hash: a provider says who it is.
inline constexpr std::string_view kProvidedUser = "provided";

struct UserRecord {
    std::string name;
    std::string password_hash;  // codec/password.h, or kProvidedUser
    Role role = Role::kReader;
    Scope scope;
    bool disabled = false;
    uint32_t failed_logins = 0;  // since the last that was good
    TimePoint locked_until;
    TimePoint created;
    TimePoint last_login;  // 0: never
};

struct AccessTokenRecord {
    std::string id;        // 16 hexadecimal digits
    std::string name;      // what people call it
    bool session = false;  // a login made it
    Digest hash{};         // SHA-256 of its secret
    std::string owner;     // a user's name; empty: the administrator
    Role role = Role::kReader;
    Scope scope;
    TimePoint created, expires;
    TimePoint last_used;  // 0: never; to the minute
    TimePoint revoked;    // 0: it is not

    bool is_good(TimePoint now) const { return revoked.us == 0 && now < expires; }
};

struct AuditRecord {
    uint64_t id = 0;
    TimePoint time;
    bool known = true;   // false: whoever it was has not shown who
    std::string who;     // a name; "": nobody
    std::string kind;    // "administrator", "user", "token", "party", "nobody"
    std::string token;   // its id
    std::string source;  // address
    std::string method;
    std::string path;
    std::string operation;  // "POST /v1/items/{item}/failovers"; "": there is none
    std::string item;       // its name, or what stood for it
    std::string outcome;    // "ok", or the code of an error
    std::string detail;     // no secrets
};
struct AuditQuery {
    uint64_t before = 0;  // 0: from the newest
    size_t limit = 100;
    std::string who, item, outcome;  // empty: any
};

// ---- users

// kInvalidArgument.
Status check_user_name(const std::string& name);
// `created` is set. kAlreadyExists, kLimitReached.
Result<UserRecord> add_user(Database& database, const UserRecord& user);
// kNotFound.
Result<UserRecord> get_user(Database& database, const std::string& name);
Result<std::vector<UserRecord>> list_users(Database& database, const std::string& after,
                                           size_t limit);
// Somebody whom a provider vouches for: added, or with that role from now on. Has no password.
// kForbidden: somebody with a password has the name.
Result<UserRecord> keep_provided_user(Database& database, const std::string& name, Role role);
struct UserChange {
    std::optional<Role> role;
    std::optional<Scope> scope;
    std::optional<bool> disabled;
};
Result<UserRecord> change_user(Database& database, const std::string& name,
                               const UserChange& change);
// Ends every session of the user, and a lock.
Status set_password(Database& database, const std::string& name, const std::string& password_hash);
// With all tokens. kNotFound.
Status remove_user(Database& database, const std::string& name);
Status login_failed(Database& database, const std::string& name, uint32_t failed_logins,
                    TimePoint locked_until);
Status login_succeeded(Database& database, const std::string& name);

// ---- access tokens

// `created` is set. kAlreadyExists (id), kLimitReached; kNotFound: the owner is gone.
Result<AccessTokenRecord> add_access_token(Database& database, const AccessTokenRecord& token);
// A token, and its owner unless that is the administrator. kNotFound.
struct TokenAndOwner {
    AccessTokenRecord token;
    std::optional<UserRecord> owner;
};
Result<TokenAndOwner> get_access_token(Database& database, const std::string& id);
// By id; of one owner, or of all.
Result<std::vector<AccessTokenRecord>> list_access_tokens(Database& database,
                                                          const std::optional<std::string>& owner,
                                                          const std::string& after, size_t limit);
// The first revocation counts. kNotFound.
Status revoke_access_token(Database& database, const std::string& id);
Status access_token_used(Database& database, const std::string& id);

// ---- audit

// `id` and `time` are set. There is no way to change one.
Status add_audit(Database& database, const AuditRecord& record);
// Newest first.
Result<std::vector<AuditRecord>> list_audit(Database& database, const AuditQuery& query);

}  // namespace farshore
