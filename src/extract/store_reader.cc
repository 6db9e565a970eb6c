#include "extract/store_reader.h"

#include <fmt/core.h>
#include <openssl/evp.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "extract/remote_reader.h"
#include "os/program_files.h"
#include "os/real.h"

namespace farshore::extraction {
namespace {

constexpr size_t kMaxSettingsBytes = 64u << 10;
constexpr size_t kMaxAuthorityBytes = 4u << 20;
using Json = nlohmann::json;

auto wrong_location(std::string_view location, std::string_view what) {
    return fail(Code::kInvalidArgument,
                fmt::format("'{}' is no store: {}", location.substr(0, 200), what),
                "a directory, s3://BUCKET[/PREFIX] or azure://ACCOUNT/CONTAINER[/PREFIX]");
}

Result<std::string> text_field(const Json& json, const char* name) {
    const auto at = json.find(name);
    if (at == json.end() || at->is_null()) return std::string();
    if (!at->is_string())
        return fail(Code::kMalformed, fmt::format("settings: {} must be text", name));
    return at->get<std::string>();
}

Secret secret_of(const std::string& text) { return Secret(to_bytes(as_bytes(text))); }

Result<Secret> decode_base64(const std::string& text) {
    const auto bad = [] {
        return fail(Code::kInvalidArgument, "settings: account_key is not base64",
                    "copy the whole key, as the portal shows it");
    };
    if (text.empty() || text.size() % 4 != 0 || text.size() > 1024) return bad();
    Bytes raw(text.size() / 4 * 3);
    const int length =
        EVP_DecodeBlock(raw.data(), as_bytes(text).data(), static_cast<int>(text.size()));
    if (length != static_cast<int>(raw.size())) return bad();
    raw.resize(raw.size() - (text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0));
    return Secret(std::move(raw));
}

Status take_s3(const Json& json, const std::function<std::string(const char*)>& variable,
               RemoteSettings& settings) {
    const auto field = [&](const char* name, const char* from) -> Result<std::string> {
        FS_ASSIGN(std::string text, text_field(json, name));
        return text.empty() ? variable(from) : text;
    };
    FS_ASSIGN(settings.access_key_id, field("access_key_id", "AWS_ACCESS_KEY_ID"));
    FS_ASSIGN(const std::string secret, field("secret_access_key", "AWS_SECRET_ACCESS_KEY"));
    FS_ASSIGN(const std::string token, text_field(json, "session_token"));
    FS_ASSIGN(const std::string region, field("region", "AWS_REGION"));
    FS_ASSIGN(const std::string addressing, text_field(json, "addressing"));
    if (settings.access_key_id.empty() || secret.empty())
        return fail(Code::kInvalidArgument, "there are no keys for the bucket",
                    "access_key_id and secret_access_key in --store-settings, or "
                    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
    settings.secret_access_key = secret_of(secret);
    settings.session_token = secret_of(token.empty() ? variable("AWS_SESSION_TOKEN") : token);
    if (!region.empty()) settings.region = region;
    settings.virtual_host =
        addressing.empty() ? settings.endpoint.empty() : addressing == "virtual-host";
    if (settings.endpoint.empty())
        settings.endpoint = fmt::format("https://s3.{}.amazonaws.com", settings.region);
    return {};
}

Status take_azure(const Json& json, RemoteSettings& settings) {
    FS_ASSIGN(const std::string key, text_field(json, "account_key"));
    FS_ASSIGN(settings.sas, text_field(json, "sas"));
    if (settings.sas.starts_with('?')) settings.sas.erase(0, 1);
    if (key.empty() == settings.sas.empty())
        return fail(Code::kUnsupported, "an extraction signs in with account_key, or with sas",
                    "one of the two in --store-settings");
    if (!key.empty()) {
        FS_ASSIGN(settings.account_key, decode_base64(key));
    }
    if (settings.endpoint.empty())
        settings.endpoint = fmt::format("https://{}.blob.core.windows.net", settings.account);
    return {};
}

}  // namespace

Result<RemoteSettings> parse_remote_location(std::string_view location) {
    RemoteSettings settings;
    settings.azure = location.starts_with("azure://");
    if (!settings.azure && !location.starts_with("s3://"))
        return wrong_location(location, "an unknown kind");
    std::string_view rest = location.substr(location.find("://") + 3);
    const auto part = [&]() -> std::string {
        const size_t slash = std::min(rest.find('/'), rest.size());
        std::string text(rest.substr(0, slash));
        rest.remove_prefix(std::min(slash + 1, rest.size()));
        return text;
    };
    if (settings.azure) settings.account = part();
    settings.container = part();
    if (settings.container.empty() || (settings.azure && settings.account.empty()))
        return wrong_location(location, "it names no bucket or container");
    while (!rest.empty() && rest.back() == '/') rest.remove_suffix(1);
    if (!rest.empty()) settings.prefix = std::string(rest) + "/";
    for (const std::string& text : {settings.account, settings.container, settings.prefix})
        for (const char c : text)
            if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
                c != '.' && c != '_' && c != '-' && c != '/')
                return wrong_location(location, "a character that no such name has");
    return settings;
}

Result<std::unique_ptr<StoreReader>> open_store_reader(
    FileSystem& files, const std::string& location, const std::string& settings_file,
    const std::function<std::string(const char*)>& variable) {
    if (location.find("://") == std::string::npos)
        return std::make_unique<StoreDirectory>(files, location);
    FS_ASSIGN(RemoteSettings settings, parse_remote_location(location));
    Json json = Json::object();
    if (!settings_file.empty()) {
        FS_TRY(check_private_file(settings_file));
        FS_ASSIGN(const Bytes text, read_whole_file(files, settings_file, kMaxSettingsBytes));
        json = Json::parse(as_text(text), nullptr, false);
        if (!json.is_object())
            return fail(Code::kMalformed, fmt::format("{} is not a JSON object", settings_file));
    }
    FS_ASSIGN(settings.endpoint, text_field(json, "endpoint"));
    while (settings.endpoint.ends_with('/')) settings.endpoint.pop_back();
    const bool here = settings.endpoint.starts_with("http://127.0.0.1") ||
                      settings.endpoint.starts_with("http://localhost") ||
                      settings.endpoint.starts_with("http://[::1]");
    if (!settings.endpoint.empty() && !settings.endpoint.starts_with("https://") && !here)
        return fail(Code::kInvalidArgument, "settings: endpoint must begin with https://");
    FS_ASSIGN(settings.proxy, text_field(json, "proxy"));
    FS_ASSIGN(settings.proxy_user, text_field(json, "proxy_user"));
    FS_ASSIGN(const std::string proxy_password, text_field(json, "proxy_password"));
    settings.proxy_password = secret_of(proxy_password);
    FS_ASSIGN(std::string ca_file, text_field(json, "ca_file"));
    if (!ca_file.empty()) {
        if (ca_file[0] != '/') ca_file = parent_directory(settings_file) + "/" + ca_file;
        FS_ASSIGN(const Bytes pem, read_whole_file(files, ca_file, kMaxAuthorityBytes));
        settings.authority_pem = std::string(as_text(pem));
    }
    FS_TRY(settings.azure ? take_azure(json, settings) : take_s3(json, variable, settings));
    return make_remote_reader(std::move(settings));
}

}  // namespace farshore::extraction
