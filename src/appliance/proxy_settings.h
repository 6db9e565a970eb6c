// The HTTP proxy through which an appliance reaches vault and store: `--proxy URL` and
// `--proxy-settings FILE`. Plain values; any thread.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "base/seams.h"
#include "base/secret.h"
#include "os/http.h"

namespace farshore {

inline constexpr size_t kMaxProxySettingsBytes = 64u << 10;

struct ProxySettings {
    std::string url;   // "http://HOST:PORT"; empty: no proxy, whatever the environment says
    std::string user;  // basic authentication; empty: none
    Secret password;
};

// {"user": "...", "password": "..."} over empty settings. kMalformed, naming the field; kTooLarge.
Result<ProxySettings> parse_proxy_settings(std::string_view json);

// Both together. `file` may be empty. kInvalidArgument: a URL that is none, or a file without one;
// kForbidden: a file that everybody may read; those of parse_proxy_settings and the file system.
Result<ProxySettings> load_proxy_settings(FileSystem& files, const std::string& url,
                                          const std::string& file);

void use_proxy(HttpClientOptions& client, const ProxySettings& proxy);

}  // namespace farshore
