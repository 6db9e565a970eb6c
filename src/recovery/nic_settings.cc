#include "recovery/nic_settings.h"

#include <fmt/core.h>

#include "compute/dhcp_address.h"
#include "meta/json_fields.h"

namespace farshore {
namespace {

constexpr size_t kMaxAddressBytes = 64;
constexpr size_t kMaxByBytes = 16;

Result<std::optional<NetworkChoice>> network_of(const JsonFields& fields, const char* key) {
    FS_ASSIGN(const std::string word, fields.text(key, kMaxNetworkWordBytes));
    if (word.empty()) return std::nullopt;
    auto network = network_from_word(word);
    if (!network) return fail(network.error().with_context(key));
    return std::optional(std::move(*network));
}

Result<std::optional<GuestAddress>> address_of(const JsonFields& fields) {
    GuestAddress address;
    FS_ASSIGN(address.address, fields.text("address", kMaxAddressBytes));
    FS_ASSIGN(address.gateway, fields.text("gateway", kMaxAddressBytes));
    FS_ASSIGN(const Json* servers, fields.array("dns", kMaxNameServers));
    for (size_t i = 0; servers != nullptr && i < servers->size(); ++i) {
        if (!(*servers)[i].is_string()) return fields.wrong("dns", "must be a list of texts");
        address.name_servers.push_back((*servers)[i].get<std::string>());
    }
    FS_ASSIGN(const std::string by, fields.text("by", kMaxByBytes));
    if (address.address.empty()) {
        if (!address.gateway.empty() || !address.name_servers.empty() || !by.empty())
            return fields.wrong("address", "is missing: gateway, dns and by go with it");
        return std::nullopt;
    }
    if (!by.empty()) {
        auto known = address_by_from_name(by);
        if (!known) return fail(known.error().with_context("by"));
        address.by = *known;
    }
    FS_TRY(check_guest_address(address));
    return std::optional(std::move(address));
}

// Where it would be refused at each start, it is refused now.
Status check_by_dhcp(const NicSettings& settings) {
    if (!settings.address || settings.address->by != AddressBy::kDhcp) return {};
    // A test that has no network of its own is on one of QEMU's.
    FS_TRY(check_dhcp_address(settings.test.value_or(NetworkChoice{}), *settings.address));
    if (settings.failover) FS_TRY(check_dhcp_address(*settings.failover, *settings.address));
    return {};
}

}  // namespace

Json nic_settings_json(const NicSettings& settings) {
    Json json = Json::object();
    if (settings.failover) json["failover"] = network_word(*settings.failover);
    if (settings.test) json["test"] = network_word(*settings.test);
    json["mac"] = settings.mac_rule == MacRule::kGiven ? settings.mac
                  : settings.mac_rule == MacRule::kNew ? std::string("new")
                                                       : std::string("keep");
    if (settings.address) {
        json["address"] = settings.address->address;
        if (!settings.address->gateway.empty()) json["gateway"] = settings.address->gateway;
        if (!settings.address->name_servers.empty()) json["dns"] = settings.address->name_servers;
        if (settings.address->by != AddressBy::kAgent)
            json["by"] = address_by_name(settings.address->by);
    }
    return json;
}

Result<NicSettings> nic_settings_from_json(const Json& json) {
    FS_ASSIGN(const JsonFields fields, JsonFields::of(json, "settings"));
    NicSettings settings;
    FS_ASSIGN(settings.failover, network_of(fields, "failover"));
    FS_ASSIGN(settings.test, network_of(fields, "test"));
    FS_ASSIGN(const std::string mac, fields.text("mac", 32, "keep"));
    if (mac == "new") {
        settings.mac_rule = MacRule::kNew;
    } else if (mac != "keep") {
        settings.mac_rule = MacRule::kGiven;
        auto known = check_mac(mac);
        if (!known)
            return fail(Code::kInvalidArgument, "mac: " + known.error().what(),
                        "keep, new, or " + known.error().remedy());
        settings.mac = std::move(*known);
    }
    FS_ASSIGN(settings.address, address_of(fields));
    FS_TRY(check_by_dhcp(settings));
    return settings;
}

std::string recovery_mac(const NicSettings& settings, const std::string& source,
                         const std::string& recovery, uint32_t nic) {
    switch (settings.mac_rule) {
        case MacRule::kKeep:
            break;
        case MacRule::kNew:
            return mac_from(fmt::format("{} {}", recovery, nic));
        case MacRule::kGiven:
            return settings.mac;
    }
    return source;
}

}  // namespace farshore
