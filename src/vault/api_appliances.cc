// The resources of appliances: how it goes with them, and which has which items.
#include "meta/json_fields.h"
#include "vault/api.h"
#include "vault/api_call.h"
#include "vault/views.h"

namespace farshore {
namespace {

Json appliance_view(const ApplianceReport& report) {
    const ApplianceRecord& record = report.record;
    Json json{{"name", record.name},
              {"site", record.site},
              {"connected", report.connected},
              {"items", report.items},
              {"coming", report.coming},
              {"health", std::string(health_name(report.troubles))},
              {"troubles", troubles_view(report.troubles)}};
    if (!record.address.empty()) json["address"] = record.address;
    if (!record.version.empty()) json["version"] = record.version;
    if (record.seen.us != 0) json["last_seen"] = to_rfc3339(record.seen);
    if (report.status) {
        const ApplianceStatus& status = *report.status;
        json["load"] = load_view(status.load);
        json["spool_used_bytes"] = status.spool_used_bytes;
        json["scripts"] = status.programs;
        if (status.spool_free_permille >= 0)
            json["spool_free_percent"] = status.spool_free_permille / 10.0;
        if (status.certificate_until.us != 0)
            json["certificate_until"] = to_rfc3339(status.certificate_until);
    }
    return json;
}

Json moves_view(const std::vector<Vault::ApplianceMove>& moves) {
    Json list = Json::array();
    for (const Vault::ApplianceMove& move : moves)
        list.push_back({{"item", move.item}, {"from", move.from}, {"to", move.to}});
    return {{"moves", std::move(list)}};
}

constexpr size_t kMaxName = 256;

}  // namespace

// /v1/appliances[/balance | /NAME/evacuate]
Result<HttpResponse> Api::appliances(const Call& call) {
    if (call.parts.size() == 1 && call.is("GET")) {
        FS_ASSIGN(const size_t limit, call.limit());
        return answer_page(
            "appliances", limit, call.query("after"),
            [&](const std::string& after, size_t rows) { return vault_.appliances(after, rows); },
            [](const ApplianceReport&) { return true; }, appliance_view,
            [](const ApplianceReport& report) { return report.record.name; });
    }
    if (call.parts.size() == 2 && call.part(1) == "balance" && call.is("POST")) {
        FS_ASSIGN(const JsonFields fields, call.fields({"site"}));
        FS_ASSIGN(const std::string site, fields.text("site", kMaxName));
        FS_ASSIGN(const auto moves, vault_.balance_appliances(site));
        return answer(moves_view(moves));
    }
    if (call.parts.size() == 3 && call.part(2) == "evacuate" && call.is("POST")) {
        FS_ASSIGN(const JsonFields fields, call.fields({"to", "lost"}));
        FS_ASSIGN(const std::string to, fields.text("to", kMaxName));
        FS_ASSIGN(const bool lost, fields.boolean("lost", false));
        FS_ASSIGN(const auto moves, vault_.evacuate_appliance(call.part(1), to, lost));
        return answer(moves_view(moves));
    }
    return no_such_resource(call.request);
}

// /v1/health-limits
Result<HttpResponse> Api::health_limits(const Call& call) {
    if (call.parts.size() != 1 || !(call.is("GET") || call.is("PATCH")))
        return no_such_resource(call.request);
    FS_ASSIGN(HealthLimits limits, vault_.health_limits());
    if (call.is("PATCH")) {
        FS_TRY(call.fields({"cpu_percent", "memory_percent", "spool_free_percent", "upload_eta_min",
                            "lasting_s", "silent_s"}));
        FS_ASSIGN(limits, decode_limits(call.body.dump(), limits));
        FS_TRY(vault_.set_health_limits(limits));
    }
    return HttpResponse::json(encode_limits(limits));
}

// /v1/items/ITEM/appliance
Result<HttpResponse> Api::item_appliance(const Call& call) {
    if (call.parts.size() != 3 || !call.is("POST")) return no_such_resource(call.request);
    FS_ASSIGN(const JsonFields fields, call.fields({"appliance", "lost"}));
    FS_ASSIGN(const std::string appliance, fields.required_text("appliance", kMaxName));
    FS_ASSIGN(const bool lost, fields.boolean("lost", false));
    FS_ASSIGN(const ItemReport report, vault_.move_item(call.part(1), appliance, lost));
    return HttpResponse::json(item_text(report), 202);
}

}  // namespace farshore
