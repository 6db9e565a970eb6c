// The vault as an appliance in a process of its own sees it: HTTPS with both certificates checked.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "appliance/proxy_settings.h"
#include "os/http.h"
#include "os/pki.h"
#include "replicate/remote_link.h"

namespace farshore {

// The client of a link, which another one can take the place of: with a renewed certificate. Calls
// that are under way end on the one that they began with. Any thread.
class VaultClient {
  public:
    explicit VaultClient(std::shared_ptr<HttpClient> client) : client_(std::move(client)) {}
    std::shared_ptr<HttpClient> get() const {
        const std::lock_guard hold(mutex_);
        return client_;
    }
    // One that takes the place of a cancelled one is cancelled, too.
    void replace(std::shared_ptr<HttpClient> client);
    // For the end: calls of this and every later client end with kCancelled.
    void cancel();

  private:
    mutable std::mutex mutex_;
    std::shared_ptr<HttpClient> client_;
    bool cancelled_ = false;
};

// "https://host:port[,https://host:port…]": the vault, or its nodes. kInvalidArgument.
Result<std::vector<std::string>> parse_vault_urls(const std::string& text);

// A link to the vault at `urls` (one at least), any of which will do: the next is asked when one
// cannot be reached. Without credentials only enrol() is answered. Any thread. The client is shared
// with the link: keep it to cancel() at shutdown.
std::unique_ptr<VaultLink> make_http_vault_link(std::shared_ptr<VaultClient> client,
                                                std::vector<std::string> urls);

std::shared_ptr<HttpClient> make_vault_client(const std::string& authority_pem,
                                              const std::optional<Credentials>& credentials,
                                              const ProxySettings& proxy);

// The error that a problem document (RFC 9457) of the vault carries.
Error problem_of(const HttpResponse& response);

}  // namespace farshore
