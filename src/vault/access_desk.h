// Who somebody is, by what he shows: tokens and passwords against the database; and the audit.
// docs/operations/access.md.
//
// Any thread may call. A login holds its thread for a tenth of a second to half a second, with
// 64 MiB; of more than kMaxLoginsAtOnce the others are kThrottled.
#pragma once

#include <atomic>
#include <mutex>
#include <string>

#include "base/secret.h"
#include "vault/access.h"
#include "vault/id_token.h"
#include "vault/login_throttle.h"

namespace farshore {

class Vault;

inline constexpr int kMaxLoginsAtOnce = 4;
inline constexpr int64_t kSessionS = 12 * 3600;
inline constexpr int64_t kLeastTokenS = 60;
inline constexpr int64_t kLongestTokenS = int64_t{366} * 86'400;
inline constexpr int64_t kUsualTokenS = int64_t{90} * 86'400;
// Rows of the audit about nobody in a minute; more are counted in the next one.
inline constexpr uint32_t kAuditOfNobodyPerMinute = 120;

struct MadeToken {
    AccessTokenRecord record;
    std::string text;  // shown this once
};

// An attempt to do something, for the audit.
struct Attempt {
    Identity who;
    const Operation* operation = nullptr;
    std::string item;    // its name, when there is one
    std::string detail;  // no secrets
    // What is written instead of the answer's code: nobody is told that an item that he may not see
    // is there.
    std::string outcome;
};

class AccessDesk {
  public:
    // Borrows it.
    explicit AccessDesk(Vault& vault);

    // kUnauthenticated. `detail` gets what is not for the answer.
    Result<Identity> identify(const std::string& bearer, std::string& detail);

    // A session. kUnauthenticated: no such user, wrong password, or disabled, which is not told
    // apart; kThrottled: in `retry_s`. `address` without its port.
    Result<MadeToken> login(const std::string& user, const Secret& password,
                            const std::string& address, int64_t& retry_s, Attempt& attempt);
    // The same for somebody whom the provider vouches for. kForbidden: he has no role here.
    Result<MadeToken> login_provided(const IdTokenUser& provided, Attempt& attempt);
    // Ends the session that was shown. kWrongState: it is none.
    Status logout(const Identity& who);

    Result<UserRecord> add_user(UserRecord user, const Secret& password);
    Status set_password(const std::string& user, const Secret& password);
    // One's own: kUnauthenticated, kThrottled as login().
    Status change_own_password(const Identity& who, const Secret& old_password,
                               const Secret& password, const std::string& address,
                               int64_t& retry_s);

    // A token of one's own, with at most one's own rights. kForbidden: more than these, or from
    // somebody who shows such a token himself.
    struct TokenWish {
        std::string name;
        std::optional<Role> role;    // one's own
        std::optional<Scope> scope;  // one's own
        int64_t valid_s = kUsualTokenS;
    };
    Result<MadeToken> make_token(const Identity& who, const TokenWish& wish);
    // kNotFound: no such token, or another's and `who` is no owner of the whole vault.
    Status revoke_token(const Identity& who, const std::string& id);

    // Keeps what came of it; logs when that fails.
    void audit(const Attempt& attempt, const std::string& method, const std::string& path,
               const std::string& source, const std::string& outcome);

  private:
    Result<bool> check_password(const std::string& user, const Secret& password,
                                const std::string& address, int64_t& retry_s,
                                std::optional<UserRecord>& found);
    Result<MadeToken> keep_token(AccessTokenRecord record);
    Result<MadeToken> begin_session(const UserRecord& user, Attempt& attempt);

    Vault& vault_;
    std::atomic<int> logins_{0};
    std::mutex mutex_;
    LoginThrottle throttle_;    // guarded by mutex_
    std::string nobodys_hash_;  // guarded by mutex_; what the password of no user is held against
    int64_t minute_began_us_ = 0;  // guarded by mutex_, as the next two
    uint32_t rows_of_nobody_ = 0;
    uint64_t left_out_ = 0;
};

// The owner of the tokens that an identity makes: "" for the administrator.
std::string token_owner(const Identity& who);

// "[::1]:80" to "[::1]"; "unix" as it is.
std::string address_without_port(const std::string& address);

}  // namespace farshore
