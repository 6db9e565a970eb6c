#include "vault/webhook.h"

#include <fmt/core.h>

#include "os/program_files.h"
#include "os/real.h"
#include "replicate/limits.h"
#include "vault/notify_message.h"

namespace farshore {
namespace {

constexpr size_t kMaxSettingsBytes = 64u << 10, kMaxAuthorityBytes = 1u << 20;

}  // namespace

Result<Json> read_private_settings(FileSystem& files, const std::string& file) {
    FS_TRY(check_private_file(file));
    FS_ASSIGN(Bytes bytes, read_whole_file(files, file, kMaxSettingsBytes));
    const Secret wiped(std::move(bytes));
    return parse_json(as_text(wiped.reveal()), "the notifier's settings", kMaxSettingsBytes);
}

Result<std::string> read_authority(FileSystem& files, const JsonFields& fields,
                                   const std::string& file) {
    FS_ASSIGN(std::string authority, fields.text("ca_file", kMaxPathBytes));
    if (authority.empty()) return authority;
    if (authority[0] != '/') authority = file.substr(0, file.rfind('/') + 1) + authority;
    FS_ASSIGN(const Bytes pem, read_whole_file(files, authority, kMaxAuthorityBytes));
    return std::string(as_text(pem));
}

Result<WebhookSettings> read_webhook_settings(FileSystem& files, const std::string& file) {
    FS_ASSIGN(const Json json, read_private_settings(files, file));
    FS_ASSIGN(const JsonFields fields, JsonFields::of(json, "settings"));
    WebhookSettings settings;
    FS_ASSIGN(settings.authority_pem, read_authority(files, fields, file));
    FS_ASSIGN(const std::string secret, fields.required_text("secret", 4096));
    settings.secret = Secret(as_bytes(secret));
    return settings;
}

Error without_path(const Error& error, const std::string& url) {
    const std::string whole = url.substr(0, url.find('?'));
    const std::string host = whole.substr(0, whole.find('/', whole.find("//") + 2));
    std::string what = error.what();
    for (size_t at = 0; (at = what.find(whole, at)) != std::string::npos; at += host.size())
        what.replace(at, whole.size(), host);
    return Error(error.code(), what, error.remedy());
}

Status post_webhook(HttpClient& client, const Secret& secret, const std::string& url,
                    const std::string& body, TimePoint now) {
    HttpClientRequest request;
    request.method = "POST";
    request.url = url;
    request.body = body;
    request.headers = {{"Content-Type", "application/json"},
                       {"Farshore-Signature", webhook_signature(secret, now, body)}};
    const auto answered = client.request(request);
    if (!answered) return fail(without_path(answered.error(), url));
    if (answered->status >= 200 && answered->status < 300) return {};
    return fail(
        answered->status == 429 || answered->status >= 500 ? Code::kUnavailable : Code::kForbidden,
        fmt::format("the webhook answers {}", answered->status));
}

}  // namespace farshore
