// The resources of recovery plans and their runs.
#include <fmt/core.h>

#include <charconv>

#include "meta/json_fields.h"
#include "vault/api.h"
#include "vault/api_call.h"
#include "vault/plan_desk.h"
#include "vault/plan_views.h"
#include "vault/tags.h"
#include "vault/views.h"

namespace farshore {
namespace {

Result<PlanDesk*> desk_of(PlanDesk* plans) {
    if (plans == nullptr)
        return fail(Code::kUnsupported, "this vault has no recovery plans of its own");
    return plans;
}

Result<RecoveryPlan> plan_of_body(const JsonFields& fields) {
    const Json* plan = fields.find("plan");
    if (plan == nullptr) return fields.wrong("plan", "is missing");
    return plan_from_json(*plan);
}

// Of an answer: "done" or "failed".
Result<bool> outcome_of(const JsonFields& fields) {
    FS_ASSIGN(const std::string outcome, fields.required_text("outcome", 64));
    if (outcome != "done" && outcome != "failed")
        return fields.wrong("outcome", "must be done or failed");
    return outcome == "done";
}

}  // namespace

// /v1/recovery-plans[/NAME[/check|/runs]]
Result<HttpResponse> Api::recovery_plans(const Call& call) {
    FS_ASSIGN(PlanDesk * desk, desk_of(plans_));
    Database& database = vault_.database();
    const std::string& name = call.part(1);
    if (call.parts.size() > 1 && !check_plan_name(name))
        return fail(Code::kNotFound,
                    fmt::format("no recovery plan is called '{}'", name.substr(0, 64)),
                    "`farshore recovery-plan list` shows them");
    if (call.parts.size() == 1 && call.is("GET")) {
        FS_ASSIGN(const size_t limit, call.limit());
        FS_ASSIGN(const auto plans, list_plans(database, call.query("after"), limit));
        Json list = Json::array();
        for (const PlanRecord& plan : plans) {
            FS_ASSIGN(Json view, plan_view(plan));
            list.push_back(std::move(view));
        }
        Json json{{"plans", std::move(list)}};
        if (plans.size() == limit) json["next"] = plans.back().name;
        return answer(json);
    }
    if (call.parts.size() == 1 && call.is("POST")) {
        FS_ASSIGN(const JsonFields fields, call.fields({"plan"}));
        FS_ASSIGN(const RecoveryPlan plan, plan_of_body(fields));
        FS_ASSIGN(const PlanRecord made, desk->add(plan));
        FS_ASSIGN(const Json view, plan_view(made));
        return tagged(call, view, tag_of(made), 201);
    }
    if (call.parts.size() == 2 && call.is("GET")) {
        FS_ASSIGN(const PlanRecord plan, get_plan(database, name));
        FS_ASSIGN(const Json view, plan_view(plan));
        return tagged(call, view, tag_of(plan));
    }
    if (call.parts.size() == 2 && call.is("PUT")) {
        FS_ASSIGN(const JsonFields fields, call.fields({"plan"}));
        FS_TRY(get_plan(database, name));
        FS_ASSIGN(const RecoveryPlan plan, plan_of_body(fields));
        FS_ASSIGN(const PlanRecord changed, desk->change(name, plan));
        FS_ASSIGN(const Json view, plan_view(changed));
        return tagged(call, view, tag_of(changed));
    }
    if (call.parts.size() == 2 && call.is("DELETE")) {
        FS_TRY(remove_plan(database, name));
        return nothing();
    }
    if (call.parts.size() != 3 || !call.is("POST")) return no_such_resource(call.request);
    if (call.part(2) == "check") {
        FS_ASSIGN(const JsonFields fields, call.fields({"mode", "point"}));
        FS_ASSIGN(const std::string mode_name, fields.required_text("mode", 64));
        auto mode = plan_mode_from_name(mode_name);
        if (!mode) return fail(mode.error().with_context("mode"));
        FS_ASSIGN(const std::string point, fields.text("point", 1024, "latest"));
        FS_ASSIGN(const auto findings, desk->check(name, *mode, point));
        Json list = Json::array();
        bool good = true;
        for (const PlanFinding& finding : findings) {
            good = good && finding.severity != Severity::kCritical;
            list.push_back(finding_view(finding));
        }
        return answer({{"would_run", good}, {"findings", std::move(list)}});
    }
    if (call.part(2) == "runs") {
        FS_ASSIGN(const JsonFields fields, call.fields({"mode", "point", "note", "unchecked"}));
        FS_ASSIGN(const std::string mode_name, fields.required_text("mode", 64));
        auto mode = plan_mode_from_name(mode_name);
        if (!mode) return fail(mode.error().with_context("mode"));
        StartPlan how;
        how.mode = *mode;
        FS_ASSIGN(how.point, fields.text("point", 1024, "latest"));
        FS_ASSIGN(how.note, fields.text("note", kMaxStepNoteBytes));
        FS_ASSIGN(how.unchecked, fields.boolean("unchecked", false));
        how.by = call.who().name;
        FS_ASSIGN(const PlanRun run, desk->start(name, how));
        return answer(plan_run_view(run), 202);
    }
    return no_such_resource(call.request);
}

// /v1/plan-runs[/ID[/report|/stop|/resume|/cancel|/cleanup|/steps/STEP/answer]]
Result<HttpResponse> Api::plan_runs(const Call& call) {
    FS_ASSIGN(PlanDesk * desk, desk_of(plans_));
    if (call.parts.size() == 1 && call.is("GET")) {
        FS_ASSIGN(const size_t limit, call.limit());
        FS_ASSIGN(const uint64_t before, call.number("before", 0, INT64_MAX));
        const std::string plan = call.query("plan");
        if (!plan.empty()) FS_TRY(check_plan_name(plan));
        return answer_page(
            "runs", limit, before,
            [&](uint64_t from, size_t rows) {
                return list_plan_runs(vault_.database(), from, rows, plan);
            },
            [](const PlanRunRecord&) { return true; },
            [](const PlanRunRecord& record) {
                const auto run = decode_plan_run(record.document);
                // What a newer Farshore wrote is named, and no more.
                return run ? plan_run_brief(*run)
                           : Json{{"id", record.id},
                                  {"plan", record.plan},
                                  {"plan_version", 0},
                                  {"mode", record.mode},
                                  {"point", ""},
                                  {"state", record.state},
                                  {"created", to_rfc3339(record.created)},
                                  {"by", ""}};
            },
            [](const PlanRunRecord& record) { return record.id; });
    }
    const std::string& text = call.part(1);
    uint64_t id = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
    if (error != std::errc() || end != text.data() + text.size() || id > INT64_MAX)
        return fail(Code::kNotFound,
                    fmt::format("there is no run '{}' of a recovery plan", text.substr(0, 64)));
    const std::string& who = call.who().name;
    if (call.parts.size() == 2 && call.is("GET")) {
        FS_ASSIGN(const PlanRun run, desk->run(id));
        return answer(plan_run_view(run));
    }
    const std::string& what = call.part(2);
    if (call.parts.size() == 3 && what == "report" && call.is("GET")) {
        FS_ASSIGN(const PlanRun run, desk->run(id));
        HttpResponse page = HttpResponse::text(plan_run_html(run));
        page.headers = {
            {"Content-Type", "text/html; charset=utf-8"},
            {"Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox"},
            {"X-Content-Type-Options", "nosniff"}};
        return page;
    }
    if (!call.is("POST")) return no_such_resource(call.request);
    if (call.parts.size() == 3 && (what == "stop" || what == "cancel" || what == "cleanup")) {
        FS_TRY(call.fields({}));
        if (what == "cleanup") {
            FS_ASSIGN(const JobRecord job, desk->clean_up(id));
            return answer(job_view(job), 202);
        }
        FS_ASSIGN(const PlanRun run, what == "stop" ? desk->stop(id, who) : desk->cancel(id, who));
        return answer(plan_run_view(run), 202);
    }
    if (call.parts.size() == 3 && what == "resume") {
        FS_ASSIGN(const JsonFields fields, call.fields({"skip"}));
        FS_ASSIGN(const Json* list, fields.array("skip", kMaxPlanItems + kMaxPlanActions));
        std::vector<std::string> skip;
        for (size_t i = 0; list != nullptr && i < list->size(); ++i) {
            if (!(*list)[i].is_string()) return fields.wrong("skip", "must be a list of texts");
            skip.push_back((*list)[i].get<std::string>());
        }
        FS_ASSIGN(const PlanRun run, desk->go_on(id, skip, who));
        return answer(plan_run_view(run), 202);
    }
    if (call.parts.size() == 5 && what == "steps" && call.part(4) == "answer") {
        FS_ASSIGN(const JsonFields fields, call.fields({"outcome", "note"}));
        FS_ASSIGN(const bool good, outcome_of(fields));
        FS_ASSIGN(const std::string note, fields.text("note", kMaxStepNoteBytes));
        FS_ASSIGN(const PlanRun run, desk->answer(id, call.part(3), good, note, who));
        return answer(plan_run_view(run), 202);
    }
    return no_such_resource(call.request);
}

// /v1/plan-callbacks/ATTEMPT
Result<HttpResponse> Api::plan_callbacks(const Call& call) {
    FS_ASSIGN(PlanDesk * desk, desk_of(plans_));
    if (call.parts.size() != 2 || !call.is("POST")) return no_such_resource(call.request);
    FS_ASSIGN(const JsonFields fields, call.fields({"token", "outcome", "note"}));
    FS_ASSIGN(const std::string token, fields.required_text("token", 128));
    FS_ASSIGN(const bool good, outcome_of(fields));
    FS_ASSIGN(const std::string note, fields.text("note", kMaxStepNoteBytes));
    const std::string& handle = call.part(1);
    if (handle.size() != 24 || handle.find_first_not_of("0123456789abcdef") != handle.npos)
        return fail(Code::kNotFound, "no step waits for that answer, or the token is not its own");
    FS_TRY(desk->callback(handle, token, good, note));
    return nothing();
}

}  // namespace farshore
