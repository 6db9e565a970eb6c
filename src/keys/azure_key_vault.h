// Azure Key Vault as the keeper of a key-encryption key: its RSA key wraps ours (RSA-OAEP-256) and
// never leaves it; we keep what it gave. REST over HTTPS: `POST KEY/wrapkey`, `POST KEY/unwrapkey`
// (api-version 7.4), with a token from Entra ID (client credentials) or from the machine's managed
// identity.
//
// Settings are a JSON file:
//
//     {"key": "https://NAME.vault.azure.net/keys/KEY/VERSION",
//      "identity": "managed",                        or "client" with the three below
//      "tenant": "...", "client_id": "...", "client_secret_file": "/path",
//      "authority": "https://login.microsoftonline.com", "ca_file": "...", "proxy": "..."}
//
// Any thread may call; calls block for up to a minute. Errors: kUnavailable (nobody answers, its
// certificate is not trusted, 5xx), kThrottled (429), kUnauthenticated (401, or no token),
// kForbidden (403), kNotFound (404: key or version is gone), kCorrupt (400: it does not take what
// it is given), kMalformed (its answer makes no sense). Never kWrongKey: that it says nothing of.
#pragma once

#include <memory>
#include <string>

#include "base/error.h"
#include "base/seams.h"
#include "base/secret.h"
#include "os/http.h"

namespace farshore {

struct AzureKeyVaultSettings {
    std::string key_url;  // with version
    bool managed_identity = true;
    std::string tenant, client_id, client_secret_file;
    std::string authority = "https://login.microsoftonline.com";
    std::string identity_endpoint = "http://169.254.169.254";
    std::string ca_file, proxy;
    int64_t timeout_us = 30'000'000;
};

// kMalformed, kInvalidArgument: what is missing, or a URL without version.
Result<AzureKeyVaultSettings> parse_azure_settings(std::string_view text);

class AzureKeyVault {
  public:
    // Borrows `files`.
    AzureKeyVault(AzureKeyVaultSettings settings, FileSystem& files);

    const std::string& key_url() const { return settings_.key_url; }
    Result<Bytes> wrap(const Secret& key);
    // `key_url`: of the version that wrapped it; must be a key of the same vault.
    Result<Secret> unwrap(const std::string& key_url, ByteView wrapped);

  private:
    Result<std::string> token();
    Result<std::string> ask(const std::string& url, const char* what, const std::string& value);
    Result<HttpResponse> send(const HttpClientRequest& request, const std::string& what);
    Result<HttpClient*> client();

    const AzureKeyVaultSettings settings_;
    FileSystem& files_;
    std::unique_ptr<HttpClient> client_;
};

// RFC 4648 §5 without padding. Decoding takes nothing else: kMalformed.
std::string to_base64url(ByteView bytes);
Result<Bytes> from_base64url(std::string_view text);

}  // namespace farshore
