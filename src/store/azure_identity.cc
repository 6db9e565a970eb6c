#include "store/azure_identity.h"

#include <fmt/core.h>

namespace farshore {
namespace {

HttpClientOptions client_options() {
    HttpClientOptions options;
    options.connect_timeout_us = 5'000'000;
    options.timeout_us = 20'000'000;
    options.max_body_bytes = 256u << 10;
    return options;
}

}  // namespace

AzureIdentity::AzureIdentity(AzureIdentityOptions options, Clock& clock)
    : options_(std::move(options)), clock_(clock), http_(client_options()) {}

void AzureIdentity::cancel() { http_.cancel(); }

void AzureIdentity::forget(const Secret& token) {
    std::lock_guard lock(mutex_);
    if (token_ && as_text(token_->access_token.reveal()) == as_text(token.reveal())) token_.reset();
}

Result<Secret> AzureIdentity::token() {
    std::lock_guard lock(mutex_);
    const TimePoint now = clock_.now();
    if (token_ && now.us + kAzureTokenMarginUs < token_->expires.us) return token_->access_token;
    auto fresh = ask();
    if (fresh) {
        token_ = std::move(*fresh);
        return token_->access_token;
    }
    // The old one is good for a while: the service may be back before it ends.
    if (token_ && now.us < token_->expires.us) return token_->access_token;
    return fail(fresh.error());
}

Result<AzureToken> AzureIdentity::ask() {
    HttpClientRequest request;
    request.url = options_.endpoint.empty() ? kAzureIdentityEndpoint : options_.endpoint;
    request.url += request.url.find('?') == std::string::npos ? '?' : '&';
    request.url += "api-version=2018-02-01&resource=https%3A%2F%2Fstorage.azure.com%2F";
    if (!options_.client_id.empty())
        request.url += "&client_id=" + percent_encode(options_.client_id);
    request.headers = {{"Metadata", "true"}};
    auto answer = http_.request(request);
    if (!answer) {
        const Error& error = answer.error();
        // Nobody there is no passing trouble on a machine that has no such service.
        return fail(Error(error.code(), "ask for a managed identity's token: " + error.what(),
                          "managed identities work on machines in Azure only; elsewhere give an "
                          "account_key or a sas"));
    }
    if (answer->status == 200) return parse_azure_token(answer->body, clock_.now());
    const std::string words = fmt::format(
        "the token service answers {} to a request for a managed identity's token", answer->status);
    if (answer->status == 429) return fail(Code::kThrottled, words);
    // Its own documentation: 404 and 410 while it is set up or upgraded.
    if (answer->status == 404 || answer->status == 410 || answer->status >= 500)
        return fail(Code::kUnavailable, words);
    return fail(Code::kUnauthenticated, words,
                options_.client_id.empty()
                    ? "give the machine a system-assigned identity, or name a client_id"
                    : "see that the identity with this client_id is assigned to the machine");
}

}  // namespace farshore
