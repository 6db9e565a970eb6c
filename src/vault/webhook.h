// What every webhook shares: its settings file, its signature, and that its address is a secret.
// For .cc files only: it pulls in the JSON library.
#pragma once

#include <string>

#include "base/seams.h"
#include "base/secret.h"
#include "meta/json_fields.h"
#include "os/http.h"

namespace farshore {

// A JSON file that nobody else may read. kForbidden, kMalformed, kTooLarge, those of files.
Result<Json> read_private_settings(FileSystem& files, const std::string& file);
// The authority that the member `ca_file` names, relative to `file`, in PEM; empty: none.
Result<std::string> read_authority(FileSystem& files, const JsonFields& fields,
                                   const std::string& file);

struct WebhookSettings {
    Secret secret;
    std::string authority_pem;
};
Result<WebhookSettings> read_webhook_settings(FileSystem& files, const std::string& file);

// An error of asking for `url`, which is often all that one needs to write to a chat: it goes to
// the log and to whoever may read events, so only the host is named.
Error without_path(const Error& error, const std::string& url);

// POSTs `body`, signed, as `client` is set up. kUnavailable (5xx, 429: may be tried again),
// kForbidden (any other refusal), those of the connection.
Status post_webhook(HttpClient& client, const Secret& secret, const std::string& url,
                    const std::string& body, TimePoint now);

}  // namespace farshore
