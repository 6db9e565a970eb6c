#include "keys/azure_key_vault.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "codec/passphrase.h"
#include "os/real.h"

namespace farshore {
namespace {

using nlohmann::json;

constexpr size_t kMaxSettingsBytes = 64u << 10;
constexpr size_t kMaxAnswerBytes = 1u << 20;
constexpr const char* kApiVersion = "?api-version=7.4";
constexpr const char* kScope = "https://vault.azure.net/.default";
constexpr const char* kResource = "https%3A%2F%2Fvault.azure.net";
constexpr std::string_view kDigits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

std::string text_or(const json& from, const char* field, std::string otherwise) {
    const auto at = from.find(field);
    return at != from.end() && at->is_string() ? at->get<std::string>() : std::move(otherwise);
}

// https://HOST/keys/NAME/VERSION
bool is_key_url(const std::string& url) {
    constexpr std::string_view kScheme = "https://";
    if (!url.starts_with(kScheme) || url.find_first_of("?# \r\n") != std::string::npos)
        return false;
    const size_t path = url.find('/', kScheme.size());
    if (path == std::string::npos || url.compare(path, 6, "/keys/") != 0) return false;
    const size_t name = path + 6;
    const size_t version = url.find('/', name);
    return version != std::string::npos && version > name && version + 1 < url.size() &&
           url.find('/', version + 1) == std::string::npos;
}

std::string origin_of(const std::string& url) { return url.substr(0, url.find('/', 8)); }

// The service's own words, cut short; they name the reason (a firewall, a missing permission).
std::string reason_of(const std::string& body) {
    const json in = json::parse(body.substr(0, kMaxAnswerBytes), nullptr, false);
    if (!in.is_object()) return {};
    const auto error = in.find("error");
    std::string text;
    if (error != in.end() && error->is_object())
        text = text_or(*error, "code", "") + ": " + text_or(*error, "message", "");
    else
        text = text_or(in, "error_description", text_or(in, "error", ""));
    for (char& c : text)
        if (static_cast<unsigned char>(c) < 0x20) c = ' ';
    return text.substr(0, 300);
}

tl::unexpected<Error> refused(const HttpResponse& response, const std::string& what) {
    const std::string words =
        fmt::format("{}: HTTP {} {}", what, response.status, reason_of(response.body));
    switch (response.status) {
        case 400:
            return fail(Code::kCorrupt, words,
                        "the key's version must be the one that sealed it, with wrapKey and "
                        "unwrapKey among its permitted operations");
        case 401:
            return fail(Code::kUnauthenticated, words,
                        "check tenant, client id and secret, or the machine's managed identity");
        case 403:
            return fail(Code::kForbidden, words,
                        "grant the identity wrapKey and unwrapKey on the key (role Key Vault "
                        "Crypto Service Encryption User), enable the key, and let this machine "
                        "through the vault's firewall");
        case 404:
            return fail(Code::kNotFound, words,
                        "the key or its version is gone: recover it (Key Vault keeps deleted "
                        "keys for a while) before it is purged");
        case 429:
            return fail(Code::kThrottled, words, "try again later");
        default:
            if (response.status >= 500)
                return fail(Code::kUnavailable, words, "try again when the key service is back");
            return fail(Code::kMalformed, words, "check the URL of the key");
    }
}

}  // namespace

std::string to_base64url(ByteView bytes) {
    std::string out;
    uint32_t value = 0;
    int bits = 0;
    for (const uint8_t byte : bytes) {
        value = value << 8 | byte;
        for (bits += 8; bits >= 6; bits -= 6) out += kDigits[value >> (bits - 6) & 63];
    }
    if (bits > 0) out += kDigits[value << (6 - bits) & 63];
    return out;
}

Result<Bytes> from_base64url(std::string_view text) {
    Bytes out;
    out.reserve(text.size());
    uint32_t value = 0;
    int bits = 0;
    for (const char c : text) {
        const size_t digit = kDigits.find(c);
        if (digit == std::string_view::npos) return fail(Code::kMalformed, "no base64url");
        value = value << 6 | static_cast<uint32_t>(digit);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            out.push_back(static_cast<uint8_t>(value >> bits));
        }
    }
    if (text.size() % 4 == 1 || (value & ((1u << bits) - 1)) != 0)
        return fail(Code::kMalformed, "no base64url");
    return out;
}

Result<AzureKeyVaultSettings> parse_azure_settings(std::string_view text) {
    const json in = text.size() > kMaxSettingsBytes ? json(json::value_t::discarded)
                                                    : json::parse(text, nullptr, false);
    if (!in.is_object())
        return fail(Code::kMalformed, "the settings of a key service must be a JSON object");
    AzureKeyVaultSettings settings;
    settings.key_url = text_or(in, "key", "");
    if (!is_key_url(settings.key_url))
        return fail(Code::kInvalidArgument,
                    fmt::format("'key' is '{}'", settings.key_url.substr(0, 200)),
                    "give the key's identifier with version, "
                    "https://NAME.vault.azure.net/keys/KEY/VERSION");
    const std::string identity = text_or(in, "identity", "managed");
    if (identity != "managed" && identity != "client")
        return fail(Code::kInvalidArgument,
                    fmt::format("'identity' is '{}'", identity.substr(0, 64)),
                    "it is managed or client");
    settings.managed_identity = identity == "managed";
    settings.tenant = text_or(in, "tenant", "");
    settings.client_id = text_or(in, "client_id", "");
    settings.client_secret_file = text_or(in, "client_secret_file", "");
    if (!settings.managed_identity && (settings.tenant.empty() || settings.client_id.empty() ||
                                       settings.client_secret_file.empty()))
        return fail(Code::kInvalidArgument,
                    "'tenant', 'client_id' or 'client_secret_file' is missing",
                    "identity 'client' needs all three");
    settings.authority = text_or(in, "authority", settings.authority);
    if (!settings.authority.starts_with("https://"))
        return fail(Code::kInvalidArgument, "'authority' is no https URL");
    settings.identity_endpoint = text_or(in, "identity_endpoint", settings.identity_endpoint);
    settings.ca_file = text_or(in, "ca_file", "");
    settings.proxy = text_or(in, "proxy", "");
    if (const auto at = in.find("timeout_s"); at != in.end()) {
        if (!at->is_number_unsigned() || at->get<uint64_t>() < 1 || at->get<uint64_t>() > 60)
            return fail(Code::kInvalidArgument, "'timeout_s' is a number from 1 to 60");
        settings.timeout_us = static_cast<int64_t>(at->get<uint64_t>()) * 1'000'000;
    }
    return settings;
}

AzureKeyVault::AzureKeyVault(AzureKeyVaultSettings settings, FileSystem& files)
    : settings_(std::move(settings)), files_(files) {}

Result<HttpClient*> AzureKeyVault::client() {
    if (!client_) {
        HttpClientOptions options;
        if (!settings_.ca_file.empty()) {
            FS_ASSIGN(const Bytes pem, read_whole_file(files_, settings_.ca_file, 1u << 20));
            options.authority_pem = to_text(pem);
        }
        options.proxy = settings_.proxy;
        options.connect_timeout_us = std::min<int64_t>(settings_.timeout_us, 10'000'000);
        options.timeout_us = settings_.timeout_us;
        options.max_body_bytes = kMaxAnswerBytes;
        client_ = std::make_unique<HttpClient>(std::move(options));
    }
    return client_.get();
}

Result<HttpResponse> AzureKeyVault::send(const HttpClientRequest& request,
                                         const std::string& what) {
    FS_ASSIGN(HttpClient * http, client());
    auto response = http->request(request);
    if (!response)
        return fail(Code::kUnavailable, fmt::format("{}: {}", what, response.error().what()),
                    "check the way to the key service (name, proxy, firewall, certificate), then "
                    "try again; what is opened already goes on");
    if (response->status != 200) return refused(*response, what);
    return response;
}

Result<std::string> AzureKeyVault::token() {
    HttpClientRequest request;
    std::string what;
    if (settings_.managed_identity) {
        what = "the token of the machine's managed identity";
        request.url =
            settings_.identity_endpoint +
            "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=" + kResource;
        if (!settings_.client_id.empty())
            request.url += "&client_id=" + percent_encode(settings_.client_id);
        request.headers = {{"Metadata", "true"}};
    } else {
        what = fmt::format("a token of {}", settings_.authority);
        FS_ASSIGN(Bytes raw, read_whole_file(files_, settings_.client_secret_file, 4096));
        const Secret secret = trim_passphrase(raw);
        std::fill(raw.begin(), raw.end(), uint8_t{0});
        request.method = "POST";
        request.url = fmt::format("{}/{}/oauth2/v2.0/token", settings_.authority,
                                  percent_encode(settings_.tenant));
        request.headers = {{"Content-Type", "application/x-www-form-urlencoded"}};
        request.body =
            fmt::format("grant_type=client_credentials&client_id={}&scope={}&client_secret={}",
                        percent_encode(settings_.client_id), percent_encode(kScope),
                        percent_encode(as_text(secret.reveal())));
    }
    auto response = send(request, what);
    // Entra ID answers wrong credentials with 400, too.
    if (!response && response.error().code() == Code::kCorrupt)
        return fail(Code::kUnauthenticated, response.error().what(),
                    "check tenant, client id and secret, or the machine's managed identity");
    if (!response) return fail(response.error());
    const json in = json::parse(response->body, nullptr, false);
    const std::string token = in.is_object() ? text_or(in, "access_token", "") : "";
    if (token.empty() || token.find_first_of("\r\n") != std::string::npos)
        return fail(Code::kMalformed, fmt::format("{}: the answer has no access token", what));
    return token;
}

Result<std::string> AzureKeyVault::ask(const std::string& url, const char* what,
                                       const std::string& value) {
    FS_ASSIGN(const std::string bearer, token());
    HttpClientRequest request;
    request.method = "POST";
    request.url = fmt::format("{}/{}{}", url, what, kApiVersion);
    request.headers = {{"Authorization", "Bearer " + bearer}, {"Content-Type", "application/json"}};
    request.body = json{{"alg", "RSA-OAEP-256"}, {"value", value}}.dump();
    FS_ASSIGN(const HttpResponse response, send(request, fmt::format("{} of {}", what, url)));
    const json in = json::parse(response.body, nullptr, false);
    const std::string answered = in.is_object() ? text_or(in, "value", "") : "";
    if (answered.empty())
        return fail(Code::kMalformed, fmt::format("{} of {}: the answer has no value", what, url));
    return answered;
}

Result<Bytes> AzureKeyVault::wrap(const Secret& key) {
    FS_ASSIGN(const std::string value,
              ask(settings_.key_url, "wrapkey", to_base64url(key.reveal())));
    return from_base64url(value);
}

Result<Secret> AzureKeyVault::unwrap(const std::string& key_url, ByteView wrapped) {
    // The token must not go wherever a document in the store says.
    if (!is_key_url(key_url) || origin_of(key_url) != origin_of(settings_.key_url))
        return fail(Code::kForeignStore,
                    fmt::format("the key was sealed by {}, not by {}", key_url.substr(0, 200),
                                origin_of(settings_.key_url)),
                    "name that key vault in the settings");
    FS_ASSIGN(const std::string value, ask(key_url, "unwrapkey", to_base64url(wrapped)));
    FS_ASSIGN(Bytes raw, from_base64url(value));
    return Secret(std::move(raw));
}

}  // namespace farshore
