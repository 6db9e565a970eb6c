// What an OpenID provider, or somebody who says so, may send: key sets, tokens, their claims; and
// the settings file. Nobody gets in by it without a role that the settings name.
#include "base/error.h"
#include "vault/id_token.h"

using namespace farshore;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static const OidcSettings settings = *parse_oidc_settings(
        R"({"issuer":"i","client_id":"c","keys_file":"/k","roles":{"a":"operator","b":"owner"}})");
    if (size == 0 || size > 65'536) return 0;
    const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
    const TimePoint now{1'700'000'000'000'000};
    switch (data[0] % 4) {
        case 0: {
            if (auto user = check_id_claims(text, settings, now)) {
                FS_CHECK(check_user_name(user->name).has_value());
                FS_CHECK(user->role == Role::kOperator || user->role == Role::kOwner);
                FS_CHECK(user->expires.us + kIdTokenSkewUs > now.us);
            }
            break;
        }
        case 1: {
            bool unknown = false;
            const auto keys = parse_key_set(text);
            // A key set that is its own token: whatever it is, no key of it has signed it.
            if (keys) FS_CHECK(!check_id_token(text, *keys, settings, now, unknown));
            break;
        }
        case 2: {
            bool unknown = false;
            const std::vector<SigningKey> keys{{"", true, Bytes(256, 0xff), Bytes{1, 0, 1}},
                                               {"", false, Bytes(32, 1), Bytes(32, 2)}};
            FS_CHECK(!check_id_token(text, keys, settings, now, unknown));
            break;
        }
        default:
            if (auto other = parse_oidc_settings(text)) FS_CHECK(!other->roles.empty());
    }
    return 0;
}
