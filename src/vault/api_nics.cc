// What is set for the network cards of items.
#include <fmt/core.h>

#include <algorithm>
#include <charconv>

#include "meta/item_nics.h"
#include "meta/items.h"
#include "meta/json_fields.h"
#include "meta/json_members.h"
#include "vault/api.h"
#include "vault/api_call.h"
#include "vault/recovery_desk.h"

namespace farshore {
namespace {

Json nic_view(uint32_t nic, const std::vector<MachineNic>& known, const NicSettings& settings) {
    Json json = nic_settings_json(settings);
    json["nic"] = nic;
    if (nic < known.size()) {
        json["model"] = known[nic].model;
        if (!known[nic].mac.empty()) json["source_mac"] = known[nic].mac;
    }
    return json;
}

}  // namespace

// /v1/items/ITEM/nics[/NIC]
Result<HttpResponse> Api::nics(const Call& call) {
    FS_ASSIGN(const ItemRecord item, find_item(vault_.database(), call.part(1)));
    FS_ASSIGN(const auto known, nics_of(item));
    if (call.parts.size() == 3 && call.is("GET")) {
        FS_ASSIGN(const auto set, nic_settings(vault_.database(), item.id));
        const size_t last = set.empty() ? 0 : size_t{set.rbegin()->first} + 1;
        Json list = Json::array();
        for (uint32_t nic = 0; nic < std::max(known.size(), last); ++nic) {
            const auto at = set.find(nic);
            // What was set for a card that the machine has no more.
            if (nic >= known.size() && at == set.end()) continue;
            list.push_back(nic_view(nic, known, at == set.end() ? NicSettings{} : at->second));
        }
        return answer({{"item", item.name}, {"nics", std::move(list)}});
    }
    if (call.parts.size() != 4 || !(call.is("PUT") || call.is("DELETE")))
        return no_such_resource(call.request);
    const std::string& text = call.part(3);
    uint32_t nic = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), nic);
    if (error != std::errc() || end != text.data() + text.size() || nic >= kMaxMachineNics)
        return fail(Code::kInvalidArgument,
                    fmt::format("'{}' is no network card's place", text.substr(0, 40)),
                    fmt::format("a number from 0 to {}", kMaxMachineNics - 1));
    if (call.is("DELETE")) {
        FS_TRY(clear_item_nic(vault_.database(), item.id, nic));
        return nothing();
    }
    FS_ASSIGN(const JsonFields fields, call.fields({"settings"}));
    const Json* json = fields.find("settings");
    if (json == nullptr) return fields.wrong("settings", "is missing");
    FS_ASSIGN(const NicSettings settings, nic_settings_from_json(*json));
    FS_TRY(check_members(*json, "settings",
                         {"failover", "test", "mac", "address", "gateway", "dns", "by"}));
    if (nic >= known.size())
        return fail(Code::kNotFound,
                    fmt::format("'{}' has {} network cards, none at place {}", item.name,
                                known.size(), nic),
                    "`farshore item network` shows them");
    FS_TRY(set_item_nic(vault_.database(), item.id, nic, dump_json(nic_settings_json(settings))));
    return answer(nic_view(nic, known, settings));
}

}  // namespace farshore
