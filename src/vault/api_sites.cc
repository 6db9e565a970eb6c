// The resource of sites: where appliances stand, and what is there.
#include "meta/json_fields.h"
#include "meta/sites.h"
#include "vault/api.h"
#include "vault/api_call.h"
#include "vault/tags.h"
#include "vault/views.h"

namespace farshore {
namespace {

Json site_view(const SiteRecord& site, const std::vector<ApplianceReport>& appliances) {
    Json names = Json::array();
    size_t items = 0, connected = 0;
    std::vector<Trouble> troubles;
    for (const ApplianceReport& report : appliances) {
        if (report.record.site != site.name) continue;
        names.push_back(report.record.name);
        items += report.items;
        connected += report.connected ? 1 : 0;
        troubles.insert(troubles.end(), report.troubles.begin(), report.troubles.end());
    }
    Json json{{"name", site.name},   {"description", site.description},
              {"appliances", names}, {"connected_appliances", connected},
              {"items", items},      {"health", std::string(health_name(troubles))},
              {"etag", tag_of(site)}};
    if (site.version != 0) {
        json["created"] = to_rfc3339(site.created);
        json["updated"] = to_rfc3339(site.updated);
    }
    return json;
}

}  // namespace

// /v1/sites[/SITE]
Result<HttpResponse> Api::sites(const Call& call) {
    Database& database = vault_.database();
    const std::string& name = call.part(1);
    if (call.parts.size() == 1 && call.is("GET")) {
        FS_ASSIGN(const auto known, list_sites(database));
        FS_ASSIGN(const auto appliances, vault_.appliances());
        Json list = Json::array();
        for (const SiteRecord& site : known) list.push_back(site_view(site, appliances));
        return answer({{"sites", std::move(list)}});
    }
    if (call.parts.size() != 2) return no_such_resource(call.request);
    if (call.is("DELETE")) {
        FS_TRY(remove_site(database, name));
        return nothing();
    }
    SiteRecord site;
    if (call.is("PUT")) {
        FS_ASSIGN(const JsonFields fields, call.fields({"description"}));
        FS_ASSIGN(const std::string description,
                  fields.text("description", kMaxSiteDescriptionBytes));
        FS_ASSIGN(site, put_site(database, name, description));
    } else if (call.is("GET")) {
        FS_ASSIGN(site, get_site(database, name));
    } else {
        return no_such_resource(call.request);
    }
    FS_ASSIGN(const auto appliances, vault_.appliances());
    return tagged(call, site_view(site, appliances), tag_of(site));
}

}  // namespace farshore
