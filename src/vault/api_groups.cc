// The resource of replication groups: items with common points.
#include "meta/json_fields.h"
#include "vault/api.h"
#include "vault/api_call.h"
#include "vault/group_desk.h"
#include "vault/group_views.h"
#include "vault/tags.h"
#include "vault/views.h"

namespace farshore {
namespace {

Result<std::vector<std::string>> names_of(const JsonFields& fields, const char* member) {
    FS_ASSIGN(const Json* names, fields.array(member, kMaxGroupMembers));
    std::vector<std::string> out;
    for (size_t i = 0; names != nullptr && i < names->size(); ++i) {
        if (!(*names)[i].is_string()) return fields.wrong(member, "must be a list of texts");
        out.push_back((*names)[i].get<std::string>());
    }
    return out;
}

Result<std::optional<uint32_t>> interval_of(const JsonFields& fields, const char* member) {
    if (!fields.has(member)) return std::optional<uint32_t>{};
    FS_ASSIGN(const uint64_t value, fields.u64(member, 0, kMaxSharedIntervalS));
    return std::optional(static_cast<uint32_t>(value));
}

}  // namespace

// /v1/groups[/NAME[/members[/ITEM]|/points[/ID]]]
Result<HttpResponse> Api::groups(const Call& call) {
    GroupDesk& desk = vault_.groups();
    Database& database = vault_.database();
    const std::string& name = call.part(1);
    const auto shown = [&](const GroupRecord& group, int status = 200) -> Result<HttpResponse> {
        FS_ASSIGN(const auto trouble, desk.trouble(group));
        return tagged(call, group_view(group, trouble), tag_of(group), status);
    };
    if (call.parts.size() == 1 && call.is("GET")) {
        FS_ASSIGN(const size_t limit, call.limit());
        Status read;
        auto page = answer_page(
            "groups", limit, call.query("after"),
            [&](const std::string& after, size_t rows) {
                return list_groups(database, after, rows);
            },
            [](const GroupRecord&) { return true; },
            [&](const GroupRecord& group) {
                auto trouble = desk.trouble(group);
                if (!trouble) read = tl::unexpected(trouble.error());
                return group_view(group, trouble.value_or(std::nullopt));
            },
            [](const GroupRecord& group) { return group.name; });
        FS_TRY(read);
        return page;
    }
    if (call.parts.size() == 1 && call.is("POST")) {
        FS_ASSIGN(const JsonFields fields,
                  call.fields({"name", "crash_interval_s", "application_interval_s", "items"}));
        GroupRecord group;
        FS_ASSIGN(group.name, fields.required_text("name", 256));
        FS_ASSIGN(const auto crash, interval_of(fields, "crash_interval_s"));
        FS_ASSIGN(const auto application, interval_of(fields, "application_interval_s"));
        FS_ASSIGN(const auto items, names_of(fields, "items"));
        group.crash_interval_s = crash.value_or(group.crash_interval_s);
        group.application_interval_s = application.value_or(group.application_interval_s);
        // What cannot be a member must not leave half a group.
        for (const std::string& item : items) FS_TRY(find_item(database, item));
        FS_ASSIGN(GroupRecord made, desk.create(group));
        if (!items.empty()) {
            auto joined = desk.join(made.name, items);
            if (!joined) {
                FS_TRY(desk.remove(made.name));
                return tl::unexpected(joined.error());
            }
            made = std::move(*joined);
        }
        return shown(made, 201);
    }
    if (call.parts.size() == 2 && call.is("GET")) {
        FS_ASSIGN(const GroupRecord group, get_group(database, name));
        return shown(group);
    }
    if (call.parts.size() == 2 && call.is("PATCH")) {
        FS_ASSIGN(const JsonFields fields,
                  call.fields({"crash_interval_s", "application_interval_s"}));
        FS_ASSIGN(const auto crash, interval_of(fields, "crash_interval_s"));
        FS_ASSIGN(const auto application, interval_of(fields, "application_interval_s"));
        FS_ASSIGN(const GroupRecord group, desk.change(name, crash, application));
        return shown(group);
    }
    if (call.parts.size() == 2 && call.is("DELETE")) {
        FS_TRY(desk.remove(name));
        return nothing();
    }
    if (call.part(2) == "members" && call.parts.size() == 3 && call.is("POST")) {
        FS_ASSIGN(const JsonFields fields, call.fields({"items"}));
        FS_ASSIGN(const auto items, names_of(fields, "items"));
        if (items.empty()) return fields.wrong("items", "must name one item at least");
        FS_ASSIGN(const GroupRecord group, desk.join(name, items));
        return shown(group);
    }
    if (call.part(2) == "members" && call.parts.size() == 4 && call.is("DELETE")) {
        FS_ASSIGN(const GroupRecord group, desk.leave(name, call.part(3)));
        return shown(group);
    }
    if (call.part(2) == "points") return group_points(call);
    return no_such_resource(call.request);
}

Result<HttpResponse> Api::group_points(const Call& call) {
    GroupDesk& desk = vault_.groups();
    const std::string& name = call.part(1);
    if (call.parts.size() == 3 && call.is("GET")) {
        FS_ASSIGN(const size_t limit, call.limit());
        FS_ASSIGN(const uint64_t before, call.number("before", 0, INT64_MAX));
        FS_ASSIGN(const auto rows, list_shared_points(vault_.database(), name, before, limit));
        Json list = Json::array();
        for (const SharedPointRecord& row : rows) list.push_back(shared_point_view(row));
        Json json{{"points", std::move(list)}};
        if (rows.size() == limit) json["next"] = rows.back().number;
        return answer(json);
    }
    if (call.parts.size() == 3 && call.is("POST")) {
        FS_ASSIGN(const JsonFields fields, call.fields({"kind", "label", "wait_s"}));
        FS_ASSIGN(const std::string kind, fields.text("kind", 32, "crash"));
        if (kind != "crash" && kind != "application")
            return fields.wrong("kind", "must be crash or application");
        AskSharedPoint wanted;
        wanted.group = name;
        wanted.application = kind == "application";
        FS_ASSIGN(wanted.label, fields.text("label", kMaxLabelBytes));
        FS_ASSIGN(const uint64_t wait_s, fields.u64("wait_s", 20, 60));
        FS_ASSIGN(const SharedPointRecord asked, desk.ask(wanted));
        FS_ASSIGN(const SharedPointRecord now,
                  desk.point(asked.id, std::min<int64_t>(static_cast<int64_t>(wait_s), kMaxWaitS) *
                                           1'000'000));
        return answer(shared_point_view(now), 201);
    }
    if (call.parts.size() == 4 && call.is("GET")) {
        FS_ASSIGN(const int64_t wait_us, call.wait_us());
        FS_ASSIGN(const SharedPointRecord point, desk.point(call.part(3), wait_us));
        if (point.group != name)
            return fail(Code::kNotFound, "the group has no such shared point",
                        "`farshore group points` lists them");
        return answer(shared_point_view(point));
    }
    return no_such_resource(call.request);
}

}  // namespace farshore
