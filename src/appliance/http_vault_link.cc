#include "appliance/http_vault_link.h"

#include <fmt/core.h>

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
                                              const std::optional<Credentials>& credentials) {
    HttpClientOptions options;
    options.authority_pem = authority_pem;
    options.credentials = credentials;
    options.timeout_us = kCallTimeoutUs;
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

std::unique_ptr<VaultLink> make_http_vault_link(std::shared_ptr<VaultClient> client,
                                                std::string url) {
    return std::make_unique<RemoteVaultLink>(
        [client = std::move(client), url = std::move(url)](
            const std::string& method, const std::string& body) -> Result<std::string> {
            HttpClientRequest request;
            request.method = "POST";
            request.url = url + "/internal/v1/link/" + method;
            request.headers = {{"content-type", "application/json"}};
            request.body = body;
            FS_ASSIGN(HttpResponse response, client->get()->request(request));
            if (response.status / 100 != 2) return fail(problem_of(response));
            return std::move(response.body);
        });
}

}  // namespace farshore
