// Tokens of a managed identity: the virtual machine's own token service gives them, without any
// secret in our settings. A token is used until five minutes before it expires.
//
// Source: "How to use managed identities on an Azure VM to acquire an access token" (Azure). Any
// thread may call; one asks, the others wait for its answer.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/seams.h"
#include "base/secret.h"
#include "os/http.h"
#include "store/azure_answers.h"

namespace farshore {

inline constexpr const char* kAzureIdentityEndpoint =
    "http://169.254.169.254/metadata/identity/oauth2/token";
// So long before its end a token is exchanged.
inline constexpr int64_t kAzureTokenMarginUs = 300'000'000;

struct AzureIdentityOptions {
    std::string endpoint;   // empty: kAzureIdentityEndpoint
    std::string client_id;  // of a user-assigned identity; empty: the machine's own
};

class AzureIdentity {
  public:
    // `clock` outlives it. Never asks through a proxy: the service is the machine's own.
    AzureIdentity(AzureIdentityOptions options, Clock& clock);

    // kUnavailable (nobody there, or no identity yet: a retry can help), kThrottled,
    // kUnauthenticated (no such identity), kMalformed.
    Result<Secret> token();
    // The service refused `token`: the next call asks for another one.
    void forget(const Secret& token);
    void cancel();

  private:
    Result<AzureToken> ask();
    const AzureIdentityOptions options_;
    Clock& clock_;
    HttpClient http_;
    std::mutex mutex_;
    std::optional<AzureToken> token_;
};

}  // namespace farshore
