// The vault as an appliance in a process of its own sees it: HTTPS with both certificates checked.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "os/http.h"
#include "os/pki.h"
#include "replicate/remote_link.h"

namespace farshore {

// A link to `url` ("https://host:port"). Without credentials only enrol() is answered. Any thread.
// The client is shared with the link: keep it to cancel() at shutdown.
std::unique_ptr<VaultLink> make_http_vault_link(std::shared_ptr<HttpClient> client,
                                                std::string url);

std::shared_ptr<HttpClient> make_vault_client(const std::string& authority_pem,
                                              const std::optional<Credentials>& credentials);

// The error that a problem document (RFC 9457) of the vault carries.
Error problem_of(const HttpResponse& response);

}  // namespace farshore
