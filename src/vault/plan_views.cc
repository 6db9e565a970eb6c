#include "vault/plan_views.h"

#include <fmt/core.h>

#include <algorithm>

#include "meta/json_fields.h"
#include "vault/tags.h"
#include "vault/views.h"

namespace farshore {
namespace {

std::string escaped(std::string_view text) {
    std::string out;
    for (const char c : text) {
        switch (c) {
            case '&':
                out += "&amp;";
                break;
            case '<':
                out += "&lt;";
                break;
            case '>':
                out += "&gt;";
                break;
            case '"':
                out += "&quot;";
                break;
            default:
                out += c;
        }
    }
    return out;
}

std::string time_or_dash(TimePoint time) {
    return time.us == 0 ? "-" : to_rfc3339(time).substr(0, 19) + "Z";
}

std::string lasted(TimePoint from, TimePoint until) {
    if (from.us == 0 || until.us == 0) return "-";
    const int64_t ms = std::max<int64_t>(until.us - from.us, 0) / 1000;
    if (ms < 60'000) return fmt::format("{}.{:03} s", ms / 1000, ms % 1000);
    return fmt::format("{} min {:02} s", ms / 60'000, ms / 1000 % 60);
}

Json step_view(const PlanStep& step) {
    Json json{{"id", step.id},
              {"group", step.group},
              {"kind", std::string(step_kind_name(step.action.kind))},
              {"name", step.action.name},
              {"state", std::string(step_state_name(step.state))},
              {"attempts", step.attempts}};
    if (step.started.us != 0) json["started"] = to_rfc3339(step.started);
    if (step.ended.us != 0) {
        json["ended"] = to_rfc3339(step.ended);
        if (step.started.us != 0)
            json["duration_ms"] = std::max<int64_t>(step.ended.us - step.started.us, 0) / 1000;
    }
    if (!step.output.empty()) json["output"] = step.output;
    if (!step.note.empty()) json["note"] = step.note;
    if (!step.by.empty()) json["by"] = step.by;
    if (step.action.kind == StepKind::kManual) json["instructions"] = step.action.instructions;
    if (step.state == StepState::kRunning) {
        json["until"] =
            to_rfc3339({step.attempt_started.us + int64_t{step.action.limits.limit_s} * 1'000'000});
        json["waits_for_answer"] = step.action.kind == StepKind::kManual;
    }
    if (step.error)
        json["error"] =
            problem_view(ItemError{step.error->code, step.error->what, step.error->remedy});
    return json;
}

}  // namespace

Result<Json> plan_view(const PlanRecord& plan) {
    FS_ASSIGN(const Json document, parse_json(plan.document, "the plan", kMaxPlanBytes));
    FS_ASSIGN(const RecoveryPlan known, plan_from_json(document));
    return Json{{"name", plan.name},
                {"version", plan.version},
                {"etag", tag_of(plan)},
                {"created", to_rfc3339(plan.created)},
                {"updated", to_rfc3339(plan.updated)},
                {"plan", plan_json(known)}};
}

Json finding_view(const PlanFinding& finding) {
    Json json{{"severity", std::string(severity_name(finding.severity))},
              {"what", finding.what},
              {"remedy", finding.remedy}};
    if (!finding.step.empty()) json["step"] = finding.step;
    return json;
}

Json plan_run_brief(const PlanRun& run) {
    Json json{{"id", run.id},
              {"plan", run.plan},
              {"plan_version", run.plan_version},
              {"mode", std::string(plan_mode_name(run.mode))},
              {"point", run.point},
              {"state", std::string(plan_run_state_name(run.state))},
              {"created", to_rfc3339(run.created)},
              {"by", run.by}};
    if (const auto network = run.network ? run.network : usual_network_of(run))
        json["network"] = network_word(*network);
    if (!run.note.empty()) json["note"] = run.note;
    if (!run.why.empty()) json["why"] = run.why;
    if (run.job != 0) json["job"] = run.job;
    if (run.ended.us != 0) {
        json["ended"] = to_rfc3339(run.ended);
        json["duration_ms"] = std::max<int64_t>(run.ended.us - run.created.us, 0) / 1000;
    }
    return json;
}

Json plan_run_view(const PlanRun& run) {
    Json json = plan_run_brief(run);
    json["steps"] = Json::array();
    for (const PlanStep& step : run.steps) json["steps"].push_back(step_view(step));
    return json;
}

std::string plan_run_html(const PlanRun& run) {
    const std::string state(plan_run_state_name(run.state));
    std::string page = fmt::format(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
        "<title>Run {0} of recovery plan {1}</title><style>"
        ":root{{color-scheme:light dark}}body{{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;"
        "max-width:70rem;padding:0 1rem}}table{{border-collapse:collapse;width:100%}}"
        "th,td{{text-align:left;padding:.35rem .6rem;border-bottom:1px solid #8884;"
        "vertical-align:top}}pre{{white-space:pre-wrap;margin:.3rem 0;font-size:13px;"
        "max-height:20rem;overflow:auto}}.succeeded{{color:#1a7f37}}.failed,.stopped,"
        ".cancelled{{color:#cf222e}}.skipped,.incomplete{{color:#9a6700}}</style></head><body>\n"
        "<h1>Recovery plan {1}: run {0} is <span class=\"{2}\">{2}</span></h1>\n",
        run.id, escaped(run.plan), state);
    page += "<table>\n";
    const auto row = [&](const char* name, const std::string& value) {
        if (!value.empty())
            page += fmt::format("<tr><th>{}</th><td>{}</td></tr>\n", name, escaped(value));
    };
    row("Mode", std::string(plan_mode_name(run.mode)));
    row("Point", run.point);
    if (const auto network = run.network ? run.network : usual_network_of(run))
        row("Network", network_word(*network));
    row("Begun", time_or_dash(run.created) + (run.by.empty() ? "" : " by " + run.by));
    row("Ended", time_or_dash(run.ended));
    row("Lasted", lasted(run.created, run.ended));
    row("Plan's version", std::to_string(run.plan_version));
    row("Note", run.note);
    row("Why", run.why);
    page +=
        "</table>\n<h2>Steps</h2>\n<table>\n<tr><th>Step</th><th>What</th><th>State</th>"
        "<th>Attempts</th><th>Begun</th><th>Lasted</th><th>Details</th></tr>\n";
    std::string group;
    for (const PlanStep& step : run.steps) {
        if (step.group != group) {
            group = step.group;
            page += fmt::format("<tr><th colspan=\"7\">{}</th></tr>\n", escaped(group));
        }
        std::string details;
        if (step.error) {
            details += escaped(step.error->what);
            if (!step.error->remedy.empty())
                details += fmt::format(" <i>({})</i>", escaped(step.error->remedy));
        }
        if (!step.by.empty() || !step.note.empty())
            details += fmt::format("<div>{}: {}</div>", escaped(step.by), escaped(step.note));
        if (!step.output.empty()) details += fmt::format("<pre>{}</pre>", escaped(step.output));
        const std::string step_state(step_state_name(step.state));
        page += fmt::format(
            "<tr><td>{}</td><td>{} {}</td><td class=\"{}\">{}</td><td>{}</td><td>{}</td>"
            "<td>{}</td><td>{}</td></tr>\n",
            escaped(step.id), step_kind_name(step.action.kind), escaped(step.action.name),
            step_state, step_state, step.attempts, time_or_dash(step.started),
            lasted(step.started, step.ended), details);
    }
    page += "</table>\n</body></html>\n";
    return page;
}

}  // namespace farshore
