// The vault as an appliance in a process of its own sees it: HTTPS with both certificates checked.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "os/http.h"
#include "os/pki.h"
#include "replicate/remote_link.h"

namespace farshore {

// "https://host:port[,https://host:port…]": the vault, or its nodes. kInvalidArgument.
Result<std::vector<std::string>> parse_vault_urls(const std::string& text);

// A link to the vault at `urls` (one at least), any of which will do: the next is asked when one
// cannot be reached. Without credentials only enrol() is answered. Any thread. The client is shared
// with the link: keep it to cancel() at shutdown.
std::unique_ptr<VaultLink> make_http_vault_link(std::shared_ptr<HttpClient> client,
                                                std::vector<std::string> urls);

std::shared_ptr<HttpClient> make_vault_client(const std::string& authority_pem,
                                              const std::optional<Credentials>& credentials);

// The error that a problem document (RFC 9457) of the vault carries.
Error problem_of(const HttpResponse& response);

}  // namespace farshore
