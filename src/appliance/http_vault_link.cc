#include "appliance/http_vault_link.h"

#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>

namespace farshore {
namespace {

constexpr int64_t kCallTimeoutUs = 30'000'000;

}  // namespace

Error problem_of(const HttpResponse& response) {
    const auto document = nlohmann::json::parse(response.body, nullptr, false);
    const auto text = [&](const char* name) -> std::string {
        if (!document.is_object()) return {};
        const auto found = document.find(name);
        return found != document.end() && found->is_string() ? found->get<std::string>() : "";
    };
    const std::string code = text("code");
    if (code.empty())
        return Error(response.status >= 500 ? Code::kUnavailable : Code::kInternal,
                     fmt::format("the vault answered with status {}", response.status));
    const std::string detail = text("detail");
    return Error(code_from_name(code), detail.empty() ? text("title") : detail, text("remedy"));
}

std::shared_ptr<HttpClient> make_vault_client(const std::string& authority_pem,
                                              const std::optional<Credentials>& credentials,
                                              const ProxySettings& proxy) {
    HttpClientOptions options;
    options.authority_pem = authority_pem;
    options.credentials = credentials;
    options.timeout_us = kCallTimeoutUs;
    use_proxy(options, proxy);
    return std::make_shared<HttpClient>(std::move(options));
}

void VaultClient::replace(std::shared_ptr<HttpClient> client) {
    const std::lock_guard hold(mutex_);
    if (cancelled_) client->cancel();
    client_ = std::move(client);
}

void VaultClient::cancel() {
    const std::lock_guard hold(mutex_);
    cancelled_ = true;
    client_->cancel();
}

Result<std::vector<std::string>> parse_vault_urls(const std::string& text) {
    std::vector<std::string> urls;
    for (size_t from = 0; from <= text.size();) {
        const size_t end = std::min(text.find(',', from), text.size());
        std::string url = text.substr(from, end - from);
        while (url.ends_with('/')) url.pop_back();
        if (!url.starts_with("https://") || url.size() == sizeof "https://" - 1)
            return fail(Code::kInvalidArgument,
                        fmt::format("'{}' is not the address of a vault", url.substr(0, 200)),
                        "https://HOST:PORT, of several nodes with commas between");
        urls.push_back(std::move(url));
        from = end + 1;
    }
    return urls;
}

std::unique_ptr<VaultLink> make_http_vault_link(std::shared_ptr<VaultClient> client,
                                                std::vector<std::string> urls) {
    FS_CHECK(!urls.empty());
    auto at = std::make_shared<std::atomic<size_t>>(0);
    return std::make_unique<RemoteVaultLink>(
        [client = std::move(client), urls = std::move(urls), at](
            const std::string& method, const std::string& body) -> Result<std::string> {
            for (size_t tried = 1;; ++tried) {
                const size_t now = at->load();
                HttpClientRequest request;
                request.method = "POST";
                request.url = urls[now % urls.size()] + "/internal/v1/link/" + method;
                request.headers = {{"content-type", "application/json"}};
                request.body = body;
                Result<HttpResponse> response = client->get()->request(request);
                if (!response) {
                    size_t expected = now;  // others may have moved on meanwhile
                    at->compare_exchange_strong(expected, now + 1);
                    // Not even a connection: nothing was done. Else the caller decides.
                    if (response.error().code() == Code::kUnavailable && tried < urls.size())
                        continue;
                    return tl::unexpected(std::move(response).error());
                }
                if (response->status / 100 != 2) return fail(problem_of(*response));
                return std::move(response->body);
            }
        });
}

}  // namespace farshore
