#include "vault/access_desk.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/bytes.h"
#include "codec/hash.h"
#include "codec/password.h"
#include "meta/parties.h"
#include "meta/sites.h"
#include "vault/api.h"
#include "vault/log_about.h"
#include "vault/vault.h"

namespace farshore {
namespace {

constexpr int64_t kUsedSaveUs = 60'000'000;
constexpr int64_t kMinuteUs = 60'000'000;
constexpr size_t kMaxAuditText = 300;

std::string random_text(Random& random, size_t bytes) {
    Bytes raw(bytes);
    random.fill(raw);
    return to_hex(raw);
}

// What any database and any terminal can show: other bytes as %XX.
std::string plain_text(const std::string& text) {
    std::string out;
    for (const char c : text.substr(0, kMaxAuditText)) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte >= 0x20 && byte < 0x7f)
            out.push_back(c);
        else
            out += fmt::format("%{:02X}", byte);
    }
    return out;
}

struct Counted {
    explicit Counted(std::atomic<int>& count) : count_(count), before(count.fetch_add(1)) {}
    ~Counted() { count_.fetch_sub(1); }
    Counted(const Counted&) = delete;
    Counted& operator=(const Counted&) = delete;

  private:
    std::atomic<int>& count_;

  public:
    const int before;
};

tl::unexpected<Error> unknown_token(const char* what) {
    return fail(Code::kUnauthenticated, what,
                "log in with `farshore login`, or take the token in vault/admin.token of the "
                "server's data directory");
}

tl::unexpected<Error> wait_first(int64_t wait_us, int64_t& retry_s) {
    retry_s = std::max<int64_t>((wait_us + 999'999) / 1'000'000, 1);
    return fail(Code::kThrottled, "too many wrong passwords for this user or from this address",
                fmt::format("try again in {} s", retry_s));
}

// ---- scopes that name sites

bool is_site(const std::string& entry) { return entry.starts_with(kSitePrefix); }
bool names_site(const Scope& scope) { return std::ranges::any_of(scope.items, is_site); }

Result<Scope> with_items_of_sites(Database& database, Scope scope) {
    std::vector<std::string> sites;
    std::erase_if(scope.items, [&](const std::string& entry) {
        if (is_site(entry)) sites.push_back(entry.substr(kSitePrefix.size()));
        return is_site(entry);
    });
    if (sites.empty()) return scope;
    FS_ASSIGN(const auto items, items_of_sites(database, sites));
    for (const ItemId& item : items) scope.items.push_back(item.to_string());
    std::ranges::sort(scope.items);
    return scope;
}

}  // namespace

std::string token_owner(const Identity& who) {
    return who.kind == IdentityKind::kAdministrator ? std::string() : who.name;
}

std::string address_without_port(const std::string& address) {
    const size_t colon = address.rfind(':');
    return colon == std::string::npos ? address : address.substr(0, colon);
}

AccessDesk::AccessDesk(Vault& vault) : vault_(vault) {}

Result<Identity> AccessDesk::identify(const std::string& bearer, std::string& detail) {
    Identity who;
    if (bearer.empty()) return unknown_token("the request carries no access token");
    if (same_secret(as_bytes(bearer), vault_.admin_token().reveal())) {
        who.kind = IdentityKind::kAdministrator;
        who.name = identity_kind_name(who.kind);
        who.role = Role::kOwner;
        return who;
    }
    const auto shown = parse_token(bearer);
    if (!shown) return unknown_token("the access token is not this vault's");
    auto found = get_access_token(vault_.database(), shown->id);
    if (!found && found.error().code() != Code::kNotFound) return tl::unexpected(found.error());
    const Digest hash = sha256(as_bytes(shown->secret));
    if (!found || !same_secret(hash, found->token.hash))
        return unknown_token("the access token is not this vault's");
    const AccessTokenRecord& token = found->token;
    detail = fmt::format("token {} of {}", token.id,
                         token.owner.empty() ? "the administrator" : token.owner);
    const TimePoint now = vault_.clock().now();
    if (token.revoked.us != 0) return unknown_token("the access token was revoked");
    if (!token.is_good(now)) return unknown_token("the access token has expired");
    if (found->owner && found->owner->disabled)
        return unknown_token("the user of this access token is disabled");
    detail.clear();
    who.kind = token.session ? IdentityKind::kUser : IdentityKind::kToken;
    who.name = token.owner.empty() ? std::string(identity_kind_name(IdentityKind::kAdministrator))
                                   : token.owner;
    who.token_id = token.id;
    who.role = token.role;
    who.scope = token.scope;
    who.expires = token.expires;
    std::vector<Scope> scopes;
    if (!token.session || !found->owner) scopes.push_back(token.scope);
    if (found->owner) {
        // Those of a session are its user's, whatever they were at the login.
        who.role = token.session ? found->owner->role : lesser(token.role, found->owner->role);
        who.scope =
            token.session ? found->owner->scope : intersection(token.scope, found->owner->scope);
        scopes.push_back(found->owner->scope);
    }
    if (std::ranges::any_of(scopes, names_site)) {
        // What is written of the two cannot be compared: a site here, items there.
        if (scopes.size() == 2 && !scopes[0].all && !scopes[1].all) who.scope = token.scope;
        for (const Scope& scope : scopes) {
            FS_ASSIGN(Scope resolved, with_items_of_sites(vault_.database(), scope));
            who.within.push_back(std::move(resolved));
        }
    }
    if (now.us - token.last_used.us > kUsedSaveUs)
        if (auto kept = access_token_used(vault_.database(), token.id); !kept)
            log::warn("access", about(kept.error()), "the use of a token could not be kept: {}",
                      kept.error().to_string());
    return who;
}

// Costs the same whether there is such a user or not.
Result<bool> AccessDesk::check_password(const std::string& user, const Secret& password,
                                        const std::string& address, int64_t& retry_s,
                                        std::optional<UserRecord>& found) {
    const Counted counted(logins_);
    if (counted.before >= kMaxLoginsAtOnce) {
        retry_s = 1;
        return fail(Code::kThrottled, "many log in at the same time", "try again in a second");
    }
    auto known = get_user(vault_.database(), user);
    if (!known && known.error().code() != Code::kNotFound) return tl::unexpected(known.error());
    if (known) found = std::move(*known);
    std::string hash;
    uint32_t failures = 0;
    {
        const std::lock_guard hold(mutex_);
        const int64_t now_us = vault_.clock().steady_us();
        int64_t wait_us = throttle_.wait_us(user, address, now_us);
        // What an earlier run of the vault has locked.
        if (found) wait_us = std::max(wait_us, found->locked_until.us - vault_.clock().now().us);
        if (wait_us > 0) return wait_first(wait_us, retry_s);
        if (nobodys_hash_.empty()) {
            const Secret nobody(as_bytes(random_text(vault_.random(), 32)));
            FS_ASSIGN(nobodys_hash_, hash_password(nobody, vault_.kdf_cost(), vault_.random()));
        }
        failures = throttle_.begin(user, address, now_us);
        if (found) failures = std::max(failures, found->failed_logins + 1);
        const bool has_password = found && found->password_hash != kProvidedUser;
        hash = has_password ? found->password_hash : nobodys_hash_;
    }
    const auto right = is_password(password, hash);
    if (!right) {
        const std::lock_guard hold(mutex_);
        throttle_.undecided(user, address);
        // An empty password, or one that is too long, is nobody's.
        if (right.error().code() == Code::kInvalidArgument) return false;
        return right;
    }
    if (*right && found) {
        const std::lock_guard hold(mutex_);
        throttle_.succeeded(user, address);
        return true;
    }
    const TimePoint now = vault_.clock().now();
    if (found)
        FS_TRY(login_failed(vault_.database(), user, failures,
                            {now.us + lock_us(failures, kFreeTriesOfUser)}));
    else  // takes as long
        FS_TRY(set_setting(vault_.database(), "login_of_nobody", std::to_string(now.us)));
    return false;
}

Result<MadeToken> AccessDesk::login(const std::string& user, const Secret& password,
                                    const std::string& address, int64_t& retry_s,
                                    Attempt& attempt) {
    std::optional<UserRecord> found;
    const auto right = check_password(user, password, address, retry_s, found);
    // A name that is nobody's may be a password in the wrong place.
    attempt.detail = found ? "user " + found->name : "no such user";
    if (!right) return tl::unexpected(right.error());
    if (*right && found->disabled) attempt.detail += ", disabled";
    if (!*right || found->disabled)
        return fail(Code::kUnauthenticated, "the user or the password is wrong",
                    "an owner can set another: `farshore user password`");
    FS_TRY(login_succeeded(vault_.database(), user));
    return begin_session(*found, attempt);
}

Result<MadeToken> AccessDesk::login_provided(const IdTokenUser& provided, Attempt& attempt) {
    attempt.detail = "user " + provided.name + ", by the provider";
    FS_ASSIGN(const UserRecord user,
              keep_provided_user(vault_.database(), provided.name, provided.role));
    if (user.disabled) {
        attempt.detail += ", disabled";
        return fail(Code::kForbidden, fmt::format("'{}' is disabled here", user.name),
                    "an owner can change it: `farshore user set`");
    }
    FS_TRY(login_succeeded(vault_.database(), user.name));
    return begin_session(user, attempt);
}

Result<MadeToken> AccessDesk::begin_session(const UserRecord& user, Attempt& attempt) {
    AccessTokenRecord record;
    record.name = "login";
    record.session = true;
    record.owner = user.name;
    record.role = user.role;
    record.scope = user.scope;
    record.expires = {vault_.clock().now().us + kSessionS * 1'000'000};
    attempt.who.kind = IdentityKind::kUser;
    attempt.who.name = user.name;
    attempt.detail.clear();
    auto made = keep_token(std::move(record));
    if (made) attempt.who.token_id = made->record.id;
    return made;
}

Status AccessDesk::logout(const Identity& who) {
    if (who.kind != IdentityKind::kUser)
        return fail(Code::kWrongState, "this access token is no login",
                    who.token_id.empty() ? "it is the administrator's, in vault/admin.token"
                                         : "`farshore access-token revoke` ends it");
    return revoke_access_token(vault_.database(), who.token_id);
}

Result<UserRecord> AccessDesk::add_user(UserRecord user, const Secret& password) {
    FS_TRY(check_user_name(user.name));
    FS_TRY(check_new_password(password));
    FS_ASSIGN(user.password_hash, hash_password(password, vault_.kdf_cost(), vault_.random()));
    return farshore::add_user(vault_.database(), user);
}

Status AccessDesk::set_password(const std::string& user, const Secret& password) {
    FS_TRY(get_user(vault_.database(), user));
    FS_TRY(check_new_password(password));
    FS_ASSIGN(const std::string hash, hash_password(password, vault_.kdf_cost(), vault_.random()));
    return farshore::set_password(vault_.database(), user, hash);
}

Status AccessDesk::change_own_password(const Identity& who, const Secret& old_password,
                                       const Secret& password, const std::string& address,
                                       int64_t& retry_s) {
    if (who.kind != IdentityKind::kUser)
        return fail(Code::kWrongState, "only somebody who has logged in has a password");
    FS_TRY(check_new_password(password));
    std::optional<UserRecord> found;
    FS_ASSIGN(const bool right, check_password(who.name, old_password, address, retry_s, found));
    if (!right) return fail(Code::kInvalidArgument, "old_password: it is wrong");
    return set_password(who.name, password);
}

Result<MadeToken> AccessDesk::keep_token(AccessTokenRecord record) {
    TokenText text{random_text(vault_.random(), kTokenIdBytes),
                   random_text(vault_.random(), kTokenSecretBytes)};
    record.id = text.id;
    record.hash = sha256(as_bytes(text.secret));
    FS_ASSIGN(AccessTokenRecord kept, add_access_token(vault_.database(), record));
    return MadeToken{std::move(kept), format_token(text)};
}

Result<MadeToken> AccessDesk::make_token(const Identity& who, const TokenWish& wish) {
    if (who.kind != IdentityKind::kUser && who.kind != IdentityKind::kAdministrator)
        return fail(Code::kForbidden, "an access token makes no further ones",
                    "log in: `farshore login`");
    AccessTokenRecord record;
    record.name = wish.name;
    record.owner = token_owner(who);
    record.role = wish.role.value_or(who.role);
    record.scope = wish.scope.value_or(who.scope);
    if (record.role > who.role || !record.scope.within(who.scope))
        return fail(Code::kForbidden,
                    fmt::format("a token with more rights than one's own: {}, of {}",
                                role_name(record.role), role_name(who.role)),
                    "name a role and items that are yours");
    record.expires = {vault_.clock().now().us + wish.valid_s * 1'000'000};
    return keep_token(std::move(record));
}

Status AccessDesk::revoke_token(const Identity& who, const std::string& id) {
    FS_ASSIGN(const TokenAndOwner found, get_access_token(vault_.database(), id));
    const bool all = who.role == Role::kOwner && who.scope.all;
    if (!all && found.token.owner != token_owner(who))
        return fail(Code::kNotFound, fmt::format("there is no access token '{}'", id.substr(0, 64)),
                    "`farshore access-token list` shows them");
    return revoke_access_token(vault_.database(), id);
}

void AccessDesk::audit(const Attempt& attempt, const std::string& method, const std::string& path,
                       const std::string& source, const std::string& outcome) {
    AuditRecord record;
    record.known = attempt.who.kind != IdentityKind::kNobody;
    record.detail = attempt.detail;
    if (!record.known) {
        const std::lock_guard hold(mutex_);
        const int64_t now_us = vault_.clock().steady_us();
        if (now_us - minute_began_us_ >= kMinuteUs) {
            minute_began_us_ = now_us;
            rows_of_nobody_ = 0;
        }
        if (++rows_of_nobody_ > kAuditOfNobodyPerMinute) {
            ++left_out_;
            return;
        }
        if (left_out_ != 0)
            record.detail += fmt::format("{}{} more were refused before",
                                         record.detail.empty() ? "" : "; ", left_out_);
        left_out_ = 0;
    }
    record.who = plain_text(attempt.who.name);
    record.kind = identity_kind_name(attempt.who.kind);
    record.token = attempt.who.token_id;
    record.source = plain_text(source);
    record.method = plain_text(method);
    record.path = plain_text(path);
    if (attempt.operation != nullptr) record.operation = attempt.operation->text();
    record.item = plain_text(attempt.item);
    record.outcome = attempt.outcome.empty() ? outcome : attempt.outcome;
    record.detail = plain_text(record.detail);
    if (auto kept = add_audit(vault_.database(), record); !kept)
        log::error("access", about(kept.error()),
                   "the audit could not be kept: {} {} by '{}' from {}: {}: {}", record.method,
                   record.path, record.who, record.source, record.outcome,
                   kept.error().to_string());
}

}  // namespace farshore
