#include "appliance/proxy_settings.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "os/program_files.h"
#include "os/real.h"

namespace farshore {
namespace {

// "host:port", the port given: curl's own default for proxies (1080) is nobody's wish.
bool is_proxy_url(const std::string& url) {
    constexpr std::string_view kScheme = "http://";
    if (!url.starts_with(kScheme)) return false;
    const std::string_view rest = std::string_view(url).substr(kScheme.size());
    for (const char c : rest)
        if (c <= ' ' || c == '/' || c == '@' || c == '?' || c == '#' || c == 0x7f) return false;
    const size_t colon = rest.rfind(':');
    if (colon == std::string_view::npos || colon == 0) return false;
    const std::string_view port = rest.substr(colon + 1);
    if (port.empty() || port.size() > 5) return false;
    int number = 0;
    for (const char c : port) {
        if (c < '0' || c > '9') return false;
        number = number * 10 + (c - '0');
    }
    return number > 0 && number <= 65'535;
}

}  // namespace

Result<ProxySettings> parse_proxy_settings(std::string_view text) {
    if (text.size() > kMaxProxySettingsBytes)
        return fail(Code::kTooLarge, fmt::format("{} bytes, at most {} are read", text.size(),
                                                 kMaxProxySettingsBytes));
    const auto json = nlohmann::json::parse(text, nullptr, false);
    if (!json.is_object()) return fail(Code::kMalformed, "it is no JSON object");
    ProxySettings out;
    for (const auto& [name, value] : json.items()) {
        if (name != "user" && name != "password")
            return fail(Code::kMalformed,
                        fmt::format("there is no field '{}'", name.substr(0, 100)),
                        "the fields are user and password");
        const auto* line = value.get_ptr<const std::string*>();
        if (line == nullptr || line->find_first_of(std::string_view("\r\n\0", 3)) != line->npos)
            return fail(Code::kMalformed, fmt::format("'{}' must be a text of one line", name));
        if (name == "user")
            out.user = *line;
        else
            out.password = Secret(as_bytes(*line));
    }
    if (out.user.empty()) return fail(Code::kMalformed, "'user' is missing");
    // Basic authentication ends the user at the first colon (RFC 7617).
    if (out.user.find(':') != std::string::npos)
        return fail(Code::kMalformed, "'user' must have no colon");
    return out;
}

Result<ProxySettings> load_proxy_settings(FileSystem& files, const std::string& url,
                                          const std::string& file) {
    ProxySettings out;
    if (url.empty() && !file.empty())
        return fail(Code::kInvalidArgument, "there are settings of a proxy, but no proxy",
                    "name it with --proxy http://HOST:PORT");
    if (!url.empty() && !is_proxy_url(url))
        return fail(Code::kInvalidArgument, "what --proxy names is not the address of a proxy",
                    "http://HOST:PORT; user and password go into the file that --proxy-settings "
                    "names");
    if (!file.empty()) {
        const std::string context = fmt::format("proxy settings {}", file);
        if (Status closed = check_private_file(file); !closed)
            return fail(closed.error().with_context("proxy settings"));
        auto text = read_whole_file(files, file, kMaxProxySettingsBytes);
        if (!text) return fail(text.error().with_context(context));
        const Secret wiped(std::move(*text));
        auto read = parse_proxy_settings(as_text(wiped.reveal()));
        if (!read) return fail(read.error().with_context(context));
        out = std::move(*read);
    }
    out.url = url;
    return out;
}

void use_proxy(HttpClientOptions& client, const ProxySettings& proxy) {
    client.proxy = proxy.url;
    client.proxy_user = proxy.user;
    client.proxy_password = proxy.password;
}

}  // namespace farshore
