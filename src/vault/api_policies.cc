// The resource of policies: values that many items share.
#include <fmt/core.h>

#include <set>

#include "meta/json_fields.h"
#include "vault/api.h"
#include "vault/api_call.h"
#include "vault/policy_desk.h"
#include "vault/tags.h"
#include "vault/views.h"

namespace farshore {
namespace {

// All that follow it: an item of 10 000 is a few hundred bytes.
Result<std::vector<ItemRecord>> followers(Database& database, const std::string& name) {
    constexpr size_t kPage = 1000;
    std::vector<ItemRecord> all;
    while (true) {
        FS_ASSIGN(auto page,
                  list_items_of_policy(database, name,
                                       all.empty() ? std::string() : all.back().name, kPage));
        const bool last = page.size() < kPage;
        all.insert(all.end(), std::make_move_iterator(page.begin()),
                   std::make_move_iterator(page.end()));
        if (last) return all;
    }
}

}  // namespace

// The items that the body names, each once; those that the caller does not see are not there.
Result<std::vector<ItemRecord>> Api::named_items(const Call& call, const JsonFields& fields) {
    FS_ASSIGN(const Json* names, fields.array("items", kMaxAssignedItems));
    std::vector<ItemRecord> items;
    std::set<ItemId> seen;
    for (size_t i = 0; names != nullptr && i < names->size(); ++i) {
        if (!(*names)[i].is_string()) return fields.wrong("items", "must be a list of texts");
        const auto name = (*names)[i].get<std::string>();
        FS_TRY(check_item(call, name));
        FS_ASSIGN(ItemRecord item, find_item(vault_.database(), name));
        if (!call.who().may_see(item.name, item.id.to_string())) {
            call.attempt.outcome = "out-of-scope";
            return fail(Code::kItemNotFound,
                        fmt::format("there is no item '{}'", name.substr(0, 128)),
                        "`farshore items` lists them");
        }
        if (seen.insert(item.id).second) items.push_back(std::move(item));
    }
    return items;
}

// /v1/policies[/NAME[/preview|/assign]]
Result<HttpResponse> Api::policies(const Call& call) {
    Database& database = vault_.database();
    const std::string& name = call.part(1);
    if (call.parts.size() == 1 && call.is("GET")) {
        FS_ASSIGN(const size_t limit, call.limit());
        return answer_page(
            "policies", limit, call.query("after"),
            [&](const std::string& after, size_t rows) {
                return list_policies(database, after, rows);
            },
            [](const PolicyRecord&) { return true; }, policy_record_view,
            [](const PolicyRecord& policy) { return policy.name; });
    }
    if (call.parts.size() == 1 && call.is("POST")) {
        FS_ASSIGN(const JsonFields fields, call.fields({"name", "policy"}));
        PolicyRecord policy;
        FS_ASSIGN(policy.name, fields.required_text("name", kMaxPolicyNameBytes));
        FS_ASSIGN(policy.values, read_policy(fields, {}));
        FS_ASSIGN(const PolicyRecord made, add_policy(vault_, std::move(policy)));
        return tagged(call, policy_record_view(made), tag_of(made), 201);
    }
    if (call.parts.size() == 2 && call.is("GET")) {
        FS_ASSIGN(const PolicyRecord policy, get_policy(database, name));
        Json json = policy_record_view(policy);
        Json names = Json::array();
        FS_ASSIGN(const auto items, followers(database, name));
        for (const ItemRecord& item : items)
            if (call.sees(item.id, item.name)) names.push_back(item.name);
        json["followed_by"] = std::move(names);
        return tagged(call, json, tag_of(policy));
    }
    if (call.parts.size() == 2 && call.is("PUT")) {
        FS_ASSIGN(const JsonFields fields, call.fields({"policy"}));
        if (!fields.has("policy")) return fields.wrong("policy", "is missing");
        FS_ASSIGN(const ItemPolicy values, read_policy(fields, {}));
        FS_ASSIGN(const PolicyRecord changed, edit_policy(vault_, name, values));
        return tagged(call, policy_record_view(changed), tag_of(changed));
    }
    if (call.parts.size() == 2 && call.is("DELETE")) {
        FS_TRY(drop_policy(vault_, name));
        return nothing();
    }
    if (call.parts.size() != 3 || !call.is("POST")) return no_such_resource(call.request);
    FS_ASSIGN(const PolicyRecord policy, get_policy(database, name));
    if (call.part(2) == "preview") {
        FS_ASSIGN(const JsonFields fields, call.fields({"policy", "items"}));
        FS_ASSIGN(const ItemPolicy values, read_policy(fields, policy.values));
        std::vector<ItemRecord> items;
        if (fields.has("items")) {
            FS_ASSIGN(items, named_items(call, fields));
        } else {
            FS_ASSIGN(items, followers(database, name));
            std::erase_if(items,
                          [&](const ItemRecord& item) { return !call.sees(item.id, item.name); });
        }
        FS_ASSIGN(Json json, preview_policy(vault_, values, items));
        json["name"] = policy.name;
        json["etag"] = tag_of(policy);
        return answer(json);
    }
    if (call.part(2) == "assign") {
        FS_ASSIGN(const JsonFields fields, call.fields({"items"}));
        if (!fields.has("items")) return fields.wrong("items", "is missing");
        FS_ASSIGN(const auto items, named_items(call, fields));
        FS_ASSIGN(const PolicyRecord given, give_policy(vault_, name, items));
        return tagged(call, policy_record_view(given), tag_of(given));
    }
    return no_such_resource(call.request);
}

}  // namespace farshore
