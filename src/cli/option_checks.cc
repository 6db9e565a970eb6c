#include "cli/option_checks.h"

#include <algorithm>
#include <functional>

#include "appliance/http_vault_link.h"
#include "base/bandwidth_limit.h"
#include "base/error.h"
#include "base/weekly_windows.h"
#include "os/log.h"
#include "os/metrics_server.h"
#include "os/tls_connection.h"
#include "store/store_settings.h"

namespace farshore {
namespace {

// Refuses a value with the words of the error.
CLI::Validator checked_by(std::function<Status(const std::string&)> check) {
    return {[check = std::move(check)](std::string& text) {
                const Status checked = check(text);
                return checked ? std::string() : checked.error().to_string();
            },
            ""};
}

// Only whether it can be made.
template <typename Made>
Status made(const Result<Made>& result) {
    if (!result) return fail(result.error());
    return {};
}

Status check_urls(const std::string& text) {
    FS_ASSIGN(const auto urls, parse_vault_urls(text));
    for (const std::string& url : urls)
        FS_TRY(made(parse_host_port(url.substr(url.find("//") + 2))));
    return {};
}

Status check_addresses(const std::string& text) {
    for (size_t from = 0; from <= text.size();) {
        const size_t end = std::min(text.find(',', from), text.size());
        FS_TRY(made(parse_host_port(text.substr(from, end - from))));
        from = end + 1;
    }
    return {};
}

}  // namespace

CLI::Validator log_level_check() {
    return checked_by([](const std::string& text) { return made(log::level_from_name(text)); });
}
CLI::Validator log_format_check() {
    return checked_by([](const std::string& text) { return made(log::json_from_name(text)); });
}
CLI::Validator metrics_address_check() { return checked_by(check_metrics_address); }
CLI::Validator bandwidth_check() {
    return checked_by(
        [](const std::string& text) { return made(BandwidthLimit::parse(text, "UTC")); });
}
CLI::Validator time_zone_check() {
    return checked_by([](const std::string& text) { return check_time_zone(text); });
}
CLI::Validator address_check() {
    return checked_by([](const std::string& text) { return made(parse_host_port(text)); });
}
CLI::Validator addresses_check() { return checked_by(check_addresses); }
CLI::Validator vault_url_check() { return checked_by(check_urls); }
CLI::Validator store_location_check() {
    return checked_by([](const std::string& text) { return made(parse_store_location(text)); });
}

}  // namespace farshore
