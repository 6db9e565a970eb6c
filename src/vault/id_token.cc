#include "vault/id_token.h"

#include <fmt/core.h>

#include <algorithm>

#include "codec/signature.h"
#include "keys/azure_key_vault.h"
#include "meta/json_fields.h"
#include "vault/policy.h"

namespace farshore {
namespace {

constexpr size_t kMaxSettingsBytes = 64u << 10;
constexpr size_t kMaxKeys = 64;
constexpr size_t kMaxText = 2048;

tl::unexpected<Error> wrong(std::string_view what) {
    return fail(Code::kUnauthenticated, fmt::format("the ID token is refused: {}", what),
                "get a new one from the provider, for this client");
}

// Its part as a JSON object.
Result<Json> object_of(std::string_view part) {
    auto raw = from_base64url(part);
    if (!raw) return wrong("it is not base64url");
    auto json = parse_json(as_text(*raw), "the ID token", kMaxIdTokenBytes);
    if (!json || !json->is_object()) return wrong("it is not JSON");
    return std::move(*json);
}

std::string text_in(const Json& json, const char* name) {
    const auto at = json.find(name);
    return at != json.end() && at->is_string() ? at->get<std::string>() : std::string();
}

// Seconds, at most some thousand years away.
std::optional<int64_t> seconds_in(const Json& json, const char* name) {
    const auto at = json.find(name);
    if (at == json.end() || !at->is_number()) return {};
    const double value = at->get<double>();
    if (!(value > 0 && value < 1e11)) return {};
    return static_cast<int64_t>(value);
}

// A text, or one of a list of texts.
bool says(const Json& json, const char* name, std::string_view wanted) {
    const auto at = json.find(name);
    if (at == json.end()) return false;
    if (at->is_string()) return at->get_ref<const std::string&>() == wanted;
    return at->is_array() && std::ranges::any_of(*at, [&](const Json& one) {
               return one.is_string() && one.get_ref<const std::string&>() == wanted;
           });
}

Result<bool> is_signed(const SigningKey& key, ByteView message, ByteView signature) {
    return key.rsa ? verify_rs256(key.a, key.b, message, signature)
                   : verify_es256(key.a, key.b, message, signature);
}

}  // namespace

Result<OidcSettings> parse_oidc_settings(std::string_view text) {
    FS_ASSIGN(const Json json, parse_json(text, "the OpenID settings", kMaxSettingsBytes));
    FS_ASSIGN(const JsonFields fields, JsonFields::of(json, "OpenID settings"));
    FS_TRY(check_members(json, "OpenID settings",
                         {"issuer", "client_id", "keys_url", "keys_file", "ca_file", "user_claim",
                          "role_claim", "roles"}));
    OidcSettings settings;
    FS_ASSIGN(settings.issuer, fields.required_text("issuer", kMaxText));
    FS_ASSIGN(settings.client_id, fields.required_text("client_id", kMaxText));
    FS_ASSIGN(settings.keys_url, fields.text("keys_url", kMaxText));
    FS_ASSIGN(settings.keys_file, fields.text("keys_file", kMaxText));
    FS_ASSIGN(settings.ca_file, fields.text("ca_file", kMaxText));
    FS_ASSIGN(settings.user_claim, fields.text("user_claim", 256, settings.user_claim));
    FS_ASSIGN(settings.role_claim, fields.text("role_claim", 256, settings.role_claim));
    if (settings.keys_url.empty() == settings.keys_file.empty())
        return fields.wrong("keys_url", "or keys_file must be named, one of the two");
    if (!settings.keys_url.empty() && !settings.keys_url.starts_with("https://"))
        return fields.wrong("keys_url", "must be an https URL");
    const Json* roles = fields.find("roles");
    if (roles == nullptr || !roles->is_object() || roles->empty())
        return fields.wrong("roles", "must say which value of the claim has which role");
    for (const auto& [value, role] : roles->items()) {
        if (!role.is_string()) return fields.wrong("roles", "must have roles as texts");
        FS_ASSIGN(settings.roles[value], role_from_name(role.get<std::string>()));
    }
    return settings;
}

Result<std::vector<SigningKey>> parse_key_set(std::string_view text) {
    FS_ASSIGN(const Json json, parse_json(text, "the provider's key set", kMaxKeySetBytes));
    FS_ASSIGN(const JsonFields fields, JsonFields::of(json, "key set"));
    FS_ASSIGN(const Json* list, fields.array("keys", kMaxKeys));
    if (list == nullptr) return fields.wrong("keys", "is missing");
    std::vector<SigningKey> keys;
    for (const Json& one : *list) {
        if (!one.is_object()) return fields.wrong("keys", "must have objects");
        const std::string type = text_in(one, "kty"), use = text_in(one, "use"),
                          algorithm = text_in(one, "alg");
        if (!use.empty() && use != "sig") continue;
        SigningKey key;
        key.id = text_in(one, "kid");
        key.rsa = type == "RSA";
        if (!key.rsa && (type != "EC" || text_in(one, "crv") != "P-256")) continue;
        if (!algorithm.empty() && algorithm != (key.rsa ? "RS256" : "ES256")) continue;
        const auto a = from_base64url(text_in(one, key.rsa ? "n" : "x"));
        const auto b = from_base64url(text_in(one, key.rsa ? "e" : "y"));
        if (!a || !b) return fields.wrong("keys", "has a key that is not base64url");
        key.a = *a;
        key.b = *b;
        keys.push_back(std::move(key));
    }
    return keys;
}

Result<IdTokenUser> check_id_token(std::string_view token, const std::vector<SigningKey>& keys,
                                   const OidcSettings& settings, TimePoint now, bool& unknown_key) {
    unknown_key = false;
    if (token.size() > kMaxIdTokenBytes) return wrong("it is too long");
    const size_t first = token.find('.');
    const size_t second = first == std::string_view::npos ? first : token.find('.', first + 1);
    if (second == std::string_view::npos || token.find('.', second + 1) != std::string_view::npos)
        return wrong("it has not three parts");
    FS_ASSIGN(const Json header, object_of(token.substr(0, first)));
    // Never "none", nor one by which a public key would be taken for a secret.
    const std::string algorithm = text_in(header, "alg");
    if (algorithm != "RS256" && algorithm != "ES256") return wrong("it is not RS256 or ES256");
    if (header.contains("crit")) return wrong("it has a header that is not known");
    const auto signature = from_base64url(token.substr(second + 1));
    if (!signature) return wrong("its signature is not base64url");
    const ByteView message = as_bytes(token.substr(0, second));
    const std::string id = text_in(header, "kid");
    bool good = false, tried = false;
    for (const SigningKey& key : keys) {
        if (good || key.rsa != (algorithm == "RS256") || (!id.empty() && key.id != id)) continue;
        tried = true;
        good = is_signed(key, message, *signature).value_or(false);
    }
    unknown_key = !tried;
    if (!good) return wrong("no key of the provider has signed it");

    const auto claims = from_base64url(token.substr(first + 1, second - first - 1));
    if (!claims) return wrong("it is not base64url");
    return check_id_claims(as_text(*claims), settings, now);
}

Result<IdTokenUser> check_id_claims(std::string_view text, const OidcSettings& settings,
                                    TimePoint now) {
    const auto parsed = parse_json(text, "the ID token", kMaxIdTokenBytes);
    if (!parsed || !parsed->is_object()) return wrong("it is not JSON");
    const Json& claims = *parsed;
    if (text_in(claims, "iss") != settings.issuer) return wrong("it is another provider's");
    if (!says(claims, "aud", settings.client_id)) return wrong("it is for another client");
    const auto audience = claims.find("aud");
    const std::string party = text_in(claims, "azp");
    if ((audience->is_array() && audience->size() > 1 && party.empty()) ||
        (!party.empty() && party != settings.client_id))
        return wrong("it was given to another client");
    const auto expires = seconds_in(claims, "exp");
    const auto issued = seconds_in(claims, "iat");
    if (!expires || !issued) return wrong("it says not when it ends");
    const int64_t now_s = now.us / 1'000'000, skew_s = kIdTokenSkewUs / 1'000'000;
    if (*expires + skew_s <= now_s) return wrong("it has expired");
    if (*issued - skew_s > now_s) return wrong("it is not valid yet");
    if (const auto from = seconds_in(claims, "nbf"); from && *from - skew_s > now_s)
        return wrong("it is not valid yet");
    IdTokenUser user;
    user.expires.us = *expires * 1'000'000;
    user.name = text_in(claims, settings.user_claim.c_str());
    if (!check_user_name(user.name))
        return wrong(fmt::format("its claim '{}' is not a user's name", settings.user_claim));
    bool any = false;
    for (const auto& [value, role] : settings.roles)
        if (says(claims, settings.role_claim.c_str(), value)) {
            user.role = any ? std::max(user.role, role) : role;
            any = true;
        }
    if (!any)
        return fail(Code::kForbidden,
                    fmt::format("nothing in the claim '{}' of '{}' has a role here",
                                settings.role_claim, user.name),
                    "the provider can add one, or the settings of the vault name one");
    return user;
}

}  // namespace farshore
