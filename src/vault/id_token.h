// OpenID Connect's ID tokens: whose they are, after everything about them was checked (OpenID
// Connect Core 1.0 section 3.1.3.7; RFC 7515, 7517, 7519). Pure: keys and time are arguments.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "meta/people.h"

namespace farshore {

inline constexpr size_t kMaxIdTokenBytes = 16u << 10;
inline constexpr size_t kMaxKeySetBytes = 256u << 10;
inline constexpr int64_t kIdTokenSkewUs = 60'000'000;  // how far the provider's clock may be off

// The settings file (docs/operations/access.md). Only its owner may write it; nothing in it is
// secret.
struct OidcSettings {
    std::string issuer;
    std::string client_id;
    std::string keys_url;   // of the key set, https; or
    std::string keys_file;  // the key set itself
    std::string ca_file;    // of the URL's server; empty: the system's authorities
    std::string user_claim = "sub";
    std::string role_claim = "roles";  // a text, or a list of texts
    std::map<std::string, Role> roles;
};
// kMalformed, kInvalidArgument.
Result<OidcSettings> parse_oidc_settings(std::string_view text);

struct SigningKey {
    std::string id;   // "kid"; may be empty
    bool rsa = true;  // RS256, else ES256
    Bytes a, b;       // modulus and exponent, or x and y
};
// Of a JWK set those that we can use; others are left out. kMalformed.
Result<std::vector<SigningKey>> parse_key_set(std::string_view text);

struct IdTokenUser {
    std::string name;  // as check_user_name() likes it
    Role role = Role::kReader;
    TimePoint expires;
};
// kUnauthenticated: it is not for us, not now, or not signed by one of these keys, which is not
// told apart for others than the log; kForbidden: nothing in it has a role. `unknown_key`: it names
// a key that is not among them, so newer ones may help.
Result<IdTokenUser> check_id_token(std::string_view token, const std::vector<SigningKey>& keys,
                                   const OidcSettings& settings, TimePoint now, bool& unknown_key);

// Of its middle part, whose signature was checked; the same errors.
Result<IdTokenUser> check_id_claims(std::string_view json, const OidcSettings& settings,
                                    TimePoint now);

}  // namespace farshore
