#include "vault/id_tokens.h"

#include <fmt/core.h>

#include "os/http.h"
#include "os/real.h"

namespace farshore {
namespace {

constexpr size_t kMaxFileBytes = 256u << 10;
constexpr int64_t kAskAgainUs = 60'000'000;
constexpr int64_t kKeysKeptUs = int64_t{86'400} * 1'000'000;
constexpr int64_t kFetchUs = 10'000'000;

}  // namespace

Result<std::unique_ptr<IdTokens>> IdTokens::open(const std::string& settings_file,
                                                 FileSystem& files, Clock& clock) {
    FS_ASSIGN(const Bytes text, read_whole_file(files, settings_file, kMaxFileBytes));
    auto settings = parse_oidc_settings(as_text(text));
    if (!settings) return fail(settings.error().with_context(settings_file));
    std::string authority;
    if (!settings->ca_file.empty()) {
        FS_ASSIGN(const Bytes pem, read_whole_file(files, settings->ca_file, kMaxFileBytes));
        authority = to_text(pem);
    }
    return std::unique_ptr<IdTokens>(
        new IdTokens(std::move(*settings), std::move(authority), files, clock));
}

Result<std::vector<SigningKey>> IdTokens::fetch() const {
    if (!settings_.keys_file.empty()) {
        FS_ASSIGN(const Bytes text, read_whole_file(files_, settings_.keys_file, kMaxKeySetBytes));
        return parse_key_set(as_text(text));
    }
    HttpClientOptions options;
    options.authority_pem = authority_pem_;
    options.timeout_us = kFetchUs;
    options.max_body_bytes = kMaxKeySetBytes;
    HttpClient client(options);
    HttpClientRequest request;
    request.url = settings_.keys_url;
    FS_ASSIGN(const HttpResponse response, client.request(request));
    if (response.status != 200)
        return fail(Code::kUnavailable,
                    fmt::format("the provider answered with status {}", response.status));
    return parse_key_set(response.body);
}

Result<IdTokenUser> IdTokens::check(std::string_view token) {
    const std::lock_guard hold(mutex_);
    bool unknown_key = true;
    const int64_t now_us = clock_.steady_us();
    const bool fresh = fetched_ && now_us - asked_us_ < kKeysKeptUs;
    if (fresh) {
        auto user = check_id_token(token, keys_, settings_, clock_.now(), unknown_key);
        if (user || !unknown_key || now_us - asked_us_ < kAskAgainUs) return user;
    }
    asked_us_ = now_us;
    auto keys = fetch();
    if (!keys)
        return fail(
            Error(keys.error().code() == Code::kNotFound ? Code::kUnavailable : keys.error().code(),
                  "the keys of the OpenID provider cannot be had: " + keys.error().what(),
                  "log in with a password, or try again"));
    keys_ = std::move(*keys);
    fetched_ = true;
    return check_id_token(token, keys_, settings_, clock_.now(), unknown_key);
}

}  // namespace farshore
