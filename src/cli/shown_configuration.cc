#include "cli/shown_configuration.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace farshore {
namespace {

struct Decision {
    std::string_view key;
    Shown shown;
};
constexpr Decision kDecisions[] = {
    {"advertise", Shown::kAddress},
    {"appliance", Shown::kAddress},
    {"bandwidth", Shown::kWhole},
    {"ca", Shown::kWhole},
    {"data", Shown::kWhole},
    {"database", Shown::kNot},  // may have been given a password; `api/nodes.json` has its place
    {"enrol-token-file", Shown::kWhole},
    {"freeze-limit", Shown::kWhole},
    {"key", Shown::kWhole},
    {"key-source", Shown::kKind},
    {"listen", Shown::kAddress},
    {"log-format", Shown::kWhole},
    {"log-level", Shown::kWhole},
    {"metrics-listen", Shown::kAddress},
    {"name", Shown::kWhole},
    {"node-address", Shown::kAddress},
    {"oidc", Shown::kWhole},
    {"proxy", Shown::kAddress},
    {"proxy-settings", Shown::kWhole},
    {"replication-listen", Shown::kAddress},
    {"ring-mib", Shown::kWhole},
    {"run-directory", Shown::kWhole},
    {"scrub-bandwidth", Shown::kWhole},
    {"script-limit", Shown::kWhole},
    {"server-name", Shown::kWhole},
    {"shared-dir", Shown::kWhole},
    {"site", Shown::kWhole},
    {"spill-mib", Shown::kWhole},
    {"spool-mib", Shown::kWhole},
    {"store", Shown::kAddress},
    {"store-settings", Shown::kWhole},
    {"take-over", Shown::kWhole},
    {"time-zone", Shown::kWhole},
    {"trace-ring-kib", Shown::kWhole},
    {"vault", Shown::kAddress},
};

const Decision* find(std::string_view key) {
    const auto* found = std::ranges::find(kDecisions, key, &Decision::key);
    return found == std::end(kDecisions) ? nullptr : found;
}

std::string show(Shown shown, const std::string& value) {
    if (shown == Shown::kWhole) return value;
    if (shown == Shown::kAddress && value.find('@') == std::string::npos) return value;
    const size_t kind = value.find(':');
    if (shown == Shown::kKind && kind != std::string::npos)
        return value.substr(0, kind) + ":" + kNotShown;
    return kNotShown;
}

}  // namespace

Shown how_shown(std::string_view key) {
    const Decision* decision = find(key);
    return decision == nullptr ? Shown::kNot : decision->shown;
}

bool is_decided(std::string_view key) { return find(key) != nullptr; }

nlohmann::json shown_configuration(const std::vector<ConfigSetting>& settings) {
    nlohmann::json json = nlohmann::json::object();
    for (const ConfigSetting& setting : settings) {
        const Shown shown = how_shown(setting.key);
        nlohmann::json values = nlohmann::json::array();
        for (const std::string& value : setting.values) values.push_back(show(shown, value));
        json[setting.key] = setting.kind == ConfigKind::kTexts || values.size() != 1
                                ? values
                                : nlohmann::json(values.front());
    }
    return json;
}

nlohmann::json shown_store_settings(const StoreSettings& settings) {
    const auto secret = [](const Secret& value) { return value.empty() ? "" : kNotShown; };
    const auto address = [](const std::string& text) { return show(Shown::kAddress, text); };
    return {{"location", address(settings.location)},
            {"endpoint", address(settings.endpoint)},
            {"ca_file", settings.ca_file},
            {"proxy", address(settings.proxy)},
            {"proxy_user", settings.proxy_user.empty() ? "" : kNotShown},
            {"proxy_password", secret(settings.proxy_password)},
            {"connect_timeout_us", settings.connect_timeout_us},
            {"timeout_us", settings.timeout_us},
            {"object_lock_days", settings.object_lock_days},
            {"region", settings.region},
            {"addressing", settings.addressing},
            {"access_key_id", settings.access_key_id.empty() ? "" : kNotShown},
            {"secret_access_key", secret(settings.secret_access_key)},
            {"session_token", secret(settings.session_token)},
            {"account_key", secret(settings.account_key)},
            {"sas", secret(settings.sas)},
            {"managed_identity", settings.managed_identity},
            {"identity_endpoint", address(settings.identity_endpoint)},
            {"identity_client_id", settings.identity_client_id}};
}

}  // namespace farshore
