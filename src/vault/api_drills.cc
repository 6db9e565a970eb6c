// The resources of drills.
#include <fmt/core.h>

#include <algorithm>
#include <charconv>

#include "meta/json_fields.h"
#include "meta/json_members.h"
#include "vault/api.h"
#include "vault/api_call.h"
#include "vault/drill_desk.h"
#include "vault/views.h"

namespace farshore {
namespace {

Result<DrillDesk*> desk_of(DrillDesk* drills) {
    if (drills == nullptr) return fail(Code::kUnsupported, "this vault has no drills of its own");
    return drills;
}

Json drill_view(const DrillRecord& drill) {
    Json json{{"id", drill.id},
              {"item", drill.item_name},
              {"verdict", drill.verdict},
              {"created", to_rfc3339(drill.created)}};
    if (drill.sequence.v != 0) json["point"] = point_view(drill.sequence, drill.point_time);
    if (drill.ended.us != 0) {
        json["ended"] = to_rfc3339(drill.ended);
        json["duration_ms"] = std::max<int64_t>(drill.ended.us - drill.created.us, 0) / 1000;
    }
    if (const auto document = parse_json(drill.document, "a drill", 1u << 20);
        document && document->is_object())
        for (const char* key : {"asked", "why", "remedy", "checks", "screenshot", "serial",
                                "accelerator", "first_read_ms", "ready_ms"})
            if (document->contains(key)) json[key] = (*document)[key];
    return json;
}

Json budget_view(const DrillBudget& budget) {
    return {{"cpus", budget.cpus}, {"memory_bytes", budget.memory_bytes}};
}

}  // namespace

// /v1/drills[/ID[/screenshot|/serial]], /v1/drill-budget
Result<HttpResponse> Api::drills(const Call& call) {
    FS_ASSIGN(DrillDesk * desk, desk_of(drills_));
    if (call.part(0) == "drill-budget") {
        if (call.parts.size() != 1) return no_such_resource(call.request);
        if (call.is("GET")) return answer(budget_view(desk->budget()));
        if (!call.is("PUT")) return no_such_resource(call.request);
        FS_ASSIGN(const JsonFields fields, call.fields({"cpus", "memory_bytes"}));
        for (const char* key : {"cpus", "memory_bytes"})
            if (!fields.has(key)) return fields.wrong(key, "is missing");
        DrillBudget budget;
        FS_ASSIGN(const uint64_t cpus, fields.u64("cpus", 0, 100'000));
        budget.cpus = static_cast<uint32_t>(cpus);
        FS_ASSIGN(budget.memory_bytes, fields.u64("memory_bytes", 0, INT64_MAX));
        if (budget.cpus == 0) return fields.wrong("cpus", "must be at least 1");
        if (budget.memory_bytes < (uint64_t{16} << 20))
            return fields.wrong("memory_bytes", "must be at least 16777216");
        FS_TRY(desk->set_budget(budget));
        return answer(budget_view(budget));
    }
    if (!call.is("GET")) return no_such_resource(call.request);
    if (call.parts.size() == 1) {
        if (const std::string item = call.query("item"); !item.empty())
            FS_TRY(check_item(call, item));
        FS_ASSIGN(const RowQuery query, call.row_query(vault_.database()));
        const std::string verdict = call.query("verdict");
        if (!verdict.empty()) FS_TRY(drill_verdict_from_name(verdict));
        return answer_page(
            "drills", query.limit, query.before,
            [&](uint64_t before, size_t rows) {
                return list_drills(vault_.database(), before, rows, query.item);
            },
            [&](const DrillRecord& drill) {
                return call.sees(drill.item, drill.item_name) &&
                       (verdict.empty() || verdict == drill.verdict);
            },
            drill_view, [](const DrillRecord& drill) { return drill.id; });
    }
    const std::string& text = call.part(1);
    const Error none(Code::kNotFound, fmt::format("there is no drill '{}'", text.substr(0, 64)),
                     "`farshore drill list` shows them");
    uint64_t id = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
    if (error != std::errc() || end != text.data() + text.size() || id > INT64_MAX)
        return fail(none);
    FS_ASSIGN(const DrillRecord drill, get_drill(vault_.database(), id));
    if (!call.sees(drill.item, drill.item_name)) {
        call.attempt.outcome = "out-of-scope";
        return fail(none);
    }
    if (call.parts.size() == 2) return answer(drill_view(drill));
    if (call.parts.size() != 3) return no_such_resource(call.request);
    const bool screen = call.part(2) == "screenshot";
    if (!screen && call.part(2) != "serial") return no_such_resource(call.request);
    FS_ASSIGN(const Bytes bytes, screen ? desk->screenshot(id) : desk->serial_log(id));
    HttpResponse response;
    response.body = std::string(as_text(bytes));
    response.headers = {{"Content-Type", screen ? "image/png" : "application/octet-stream"},
                        {"X-Content-Type-Options", "nosniff"}};
    return response;
}

// /v1/items/ITEM/drill-policy, /v1/items/ITEM/drills
Result<HttpResponse> Api::item_drills(const Call& call) {
    FS_ASSIGN(DrillDesk * desk, desk_of(drills_));
    FS_ASSIGN(const ItemRecord item, find_item(vault_.database(), call.part(1)));
    if (call.parts.size() != 3) return no_such_resource(call.request);
    if (call.part(2) == "drills") {
        if (!call.is("POST")) return no_such_resource(call.request);
        FS_ASSIGN(const JsonFields fields, call.fields({"point"}));
        FS_ASSIGN(const std::string point, fields.text("point", 1024, "latest"));
        FS_ASSIGN(const JobRecord job, desk->start(item, point));
        return answer(job_view(job), 202);
    }
    if (call.is("GET")) {
        const auto policy = desk->policy(item.id);
        if (!policy)
            return fail(Code::kNotFound, fmt::format("'{}' has no drill policy", item.name),
                        "`farshore drill set` makes one");
        return answer({{"item", item.name}, {"policy", drill_policy_json(*policy)}});
    }
    if (call.is("PUT")) {
        FS_ASSIGN(const JsonFields fields, call.fields({"policy"}));
        const Json* json = fields.find("policy");
        if (json == nullptr) return fields.wrong("policy", "is missing");
        FS_ASSIGN(const DrillPolicy policy, drill_policy_from_json(*json));
        // Scripts are the whole vault's, and run as its user.
        const bool has_script = std::ranges::any_of(
            policy.checks, [](const DrillCheck& check) { return !check.inside; });
        if (has_script && !call.who().scope.all)
            return fail(Code::kForbidden,
                        "a policy with a script of the vault needs a role for all items",
                        "use a check inside of the machine, or ask somebody with that role");
        FS_TRY(desk->set_policy(item, policy));
        return answer({{"item", item.name}, {"policy", drill_policy_json(policy)}});
    }
    if (call.is("DELETE")) {
        FS_TRY(desk->remove_policy(item.id));
        return nothing();
    }
    return no_such_resource(call.request);
}

}  // namespace farshore
