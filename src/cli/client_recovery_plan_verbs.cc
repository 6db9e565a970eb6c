// farshore recovery-plan: plans, their runs and reports.
#include <fmt/core.h>

#include "cli/api_documents.h"
#include "cli/client_verbs_impl.h"
#include "cli/format.h"
#include "cli/plan_yaml.h"
#include "cli/recovery_verbs.h"
#include "os/real.h"

namespace farshore {
namespace {

std::string plan_target(const std::string& name, const std::string& rest = {}) {
    return "/v1/recovery-plans/" + url_encode(name) + rest;
}

std::string run_target(uint64_t id, const std::string& rest = {}) {
    return fmt::format("/v1/plan-runs/{}{}", id, rest);
}

std::string duration_text(const Json& json) {
    const auto ms = number_of(json, "duration_ms");
    return ms ? fmt::format("{:.1f} s", *ms / 1000) : std::string("-");
}

std::string names_of(const Json& list) {
    std::string names;
    if (list.is_array())
        for (const Json& one : list) names += (names.empty() ? "" : ", ") + text_of(one, "name");
    return names;
}

std::string actions_text(const Json& list) {
    std::string text;
    if (list.is_array())
        for (const Json& action : list) {
            std::string modes;
            if (const Json& all = member(action, "for"); all.is_array())
                for (const Json& mode : all)
                    if (mode.is_string())
                        modes += (modes.empty() ? "" : ", ") + printable(mode.get<std::string>());
            text += fmt::format("{}{} '{}' ({})", text.empty() ? "" : ", ", text_of(action, "kind"),
                                printable(text_of(action, "name")), modes);
        }
    return text.empty() ? "-" : text;
}

// What a step has to say for itself, on a line.
std::string step_words(const Json& step) {
    const Json& error = member(step, "error");
    if (error.is_object()) return printable(text_of(error, "detail"));
    if (flag_of(step, "waits_for_answer"))
        return fmt::format("waits for an answer: {}", printable(text_of(step, "instructions")));
    if (const std::string by = text_of(step, "by"); !by.empty()) {
        const std::string note = text_of(step, "note");
        return printable(by + (note.empty() ? "" : ": " + note));
    }
    std::string output = text_of(step, "output");
    output = output.substr(0, output.find('\n'));
    return printable(output.substr(0, 100));
}

// To a file that is made, or to the terminal.
Status write_out(ClientVerbs::Impl& impl, const RecoveryPlanArguments& arguments,
                 const std::string& text) {
    if (arguments.file.empty()) {
        impl.say(text);
        return {};
    }
    PosixFileSystem files;
    const std::string path = impl.absolute(arguments.file);
    FS_ASSIGN(const bool there, files.exists(path));
    if (there && !arguments.force)
        return fail(Code::kAlreadyExists, fmt::format("'{}' is there", path),
                    "remove it, name another file, or say --force");
    FS_TRY(write_file_durably(files, path, as_bytes(text)));
    if (impl.json)
        impl.print({{"out", path}});
    else
        impl.say(fmt::format("Written to {}.\n", path));
    return {};
}

void say_run(ClientVerbs::Impl& impl, const Json& run) {
    std::vector<std::pair<std::string, std::string>> rows{
        {"Run", std::to_string(count_of(run, "id"))},
        {"Plan", text_of(run, "plan")},
        {"Mode", text_of(run, "mode")},
        {"State", text_of(run, "state")},
        {"Point", printable(text_of(run, "point"))},
        {"Begun", fmt::format("{} by {}", human_time(text_of(run, "created")),
                              printable(text_of(run, "by")))},
        {"Lasted", duration_text(run)}};
    if (const std::string network = text_of(run, "network"); !network.empty())
        rows.push_back({"Network", network});
    if (const std::string note = text_of(run, "note"); !note.empty())
        rows.push_back({"Note", printable(note)});
    if (const std::string why = text_of(run, "why"); !why.empty())
        rows.push_back({"Why", printable(why)});
    impl.say(key_values(rows) + "\n");
    Table table({{"STEP"},
                 {"GROUP"},
                 {"KIND"},
                 {"NAME"},
                 {"STATE"},
                 {"TRIES", Align::kRight},
                 {"LASTED", Align::kRight},
                 {"WHAT"}});
    if (const Json& steps = member(run, "steps"); steps.is_array())
        for (const Json& step : steps)
            table.add({text_of(step, "id"), printable(text_of(step, "group")),
                       text_of(step, "kind"), printable(text_of(step, "name")),
                       text_of(step, "state"), std::to_string(count_of(step, "attempts")),
                       duration_text(step), step_words(step)});
    impl.say(table.to_string());
}

// Waits for the job of a run, and shows how it ended.
int follow_run(ClientVerbs::Impl& impl, const Json& started, bool wait) {
    const uint64_t id = count_of(started, "id");
    if (!wait || count_of(started, "job") == 0) {
        if (impl.json)
            impl.print(started);
        else
            impl.say(fmt::format("Run {0} goes on: `farshore recovery-plan run show {0}`\n", id));
        return 0;
    }
    if (!impl.json) impl.note(fmt::format("Run {}\n", id));
    auto job = impl.wait_for_job(count_of(started, "job"));
    if (!job) return impl.failed(job.error());
    auto run = impl.call("GET", run_target(id));
    if (!run) return impl.failed(run.error());
    if (text_of(*job, "state") == "succeeded") {
        if (impl.json)
            impl.print(*run);
        else
            say_run(impl, *run);
        return 0;
    }
    if (!impl.json) say_run(impl, *run);
    return impl.show_ended_job(*job);
}

}  // namespace

RecoveryVerbs::RecoveryVerbs(CliEnvironment& environment, const LocationOptions& location,
                             bool json)
    : impl_(new ClientVerbs::Impl{environment, location, json, nullptr, 0}) {}
RecoveryVerbs::~RecoveryVerbs() = default;

int RecoveryVerbs::hydrate(const std::string& item, uint64_t bytes_per_s,
                           const std::string& directory, const std::string& format, bool wait) {
    Json body{{"throttle_bytes_per_s", bytes_per_s}};
    if (!directory.empty()) {
        body["directory"] = directory;
        body["format"] = format;
    }
    auto answer = impl_->call("POST", item_target(item, "/hydration"), body);
    if (!answer) return impl_->failed(answer.error());
    return impl_->follow_job(*answer, wait);
}

int RecoveryVerbs::start_test(const TestArguments& arguments) {
    Json body{{"action", "test"}};
    if (!arguments.point.empty()) body["point"] = arguments.point;
    if (!arguments.copy.empty()) body["copy"] = arguments.copy;
    if (!arguments.note.empty()) body["note"] = arguments.note;
    if (!arguments.network.empty()) body["network"] = arguments.network;
    if (!arguments.compute.empty()) body["compute"] = arguments.compute;
    auto answer = impl_->call("POST", item_target(arguments.name, "/failovers"), body);
    if (!answer) return impl_->failed(answer.error());
    return impl_->follow_job(*answer, arguments.wait);
}

int RecoveryVerbs::item_network(const std::string& name, const NicArguments& arguments) {
    const std::string target = item_target(name, "/nics");
    const std::string card = fmt::format("{}/{}", target, arguments.nic);
    if (arguments.clear) {
        if (auto cleared = impl_->call("DELETE", card); !cleared)
            return impl_->failed(cleared.error());
    } else if (arguments.failover || arguments.test || arguments.mac || arguments.address ||
               arguments.gateway || arguments.address_by || !arguments.name_servers.empty()) {
        auto now = impl_->call("GET", target);
        if (!now) return impl_->failed(now.error());
        Json settings = Json::object();
        if (const Json& nics = member(*now, "nics"); nics.is_array())
            for (const Json& nic : nics)
                if (count_of(nic, "nic") == arguments.nic)
                    for (const char* key :
                         {"failover", "test", "mac", "address", "gateway", "dns", "by"})
                        if (nic.contains(key)) settings[key] = nic[key];
        const auto put = [&](const char* key, const std::optional<std::string>& value) {
            if (value) settings[key] = *value;
        };
        put("failover", arguments.failover);
        put("test", arguments.test);
        put("mac", arguments.mac);
        put("address", arguments.address);
        put("gateway", arguments.gateway);
        put("by", arguments.address_by);
        if (!arguments.name_servers.empty()) settings["dns"] = arguments.name_servers;
        if (arguments.address == "none")
            for (const char* key : {"address", "gateway", "dns", "by"}) settings.erase(key);
        if (arguments.gateway == "none") settings.erase("gateway");
        if (auto set = impl_->call("PUT", card, {{"settings", settings}}); !set)
            return impl_->failed(set.error());
    }
    auto answer = impl_->call("GET", target);
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table({{"NIC", Align::kRight},
                 {"MODEL"},
                 {"MAC AT THE SOURCE"},
                 {"FAILOVER"},
                 {"TEST"},
                 {"MAC"},
                 {"ADDRESS"},
                 {"BY"}});
    const auto or_dash = [](const std::string& text) { return text.empty() ? "-" : text; };
    if (const Json& nics = member(*answer, "nics"); nics.is_array())
        for (const Json& nic : nics)
            table.add({std::to_string(count_of(nic, "nic")), printable(text_of(nic, "model")),
                       or_dash(text_of(nic, "source_mac")), or_dash(text_of(nic, "failover")),
                       or_dash(text_of(nic, "test")), text_of(nic, "mac"),
                       or_dash(text_of(nic, "address")),
                       text_of(nic, "address").empty() ? "-"
                       : text_of(nic, "by").empty()    ? "agent"
                                                       : text_of(nic, "by")});
    impl_->say(table.empty() ? "The machine has no network cards.\n" : table.to_string());
    return 0;
}

int RecoveryVerbs::clean_up_tests(const TestArguments& arguments) {
    Json body{{"action", "cleanup"}};
    if (!arguments.id.empty()) body["id"] = arguments.id;
    auto answer = impl_->call("POST", item_target(arguments.name, "/failovers"), body);
    if (!answer) return impl_->failed(answer.error());
    return impl_->follow_job(*answer, arguments.wait);
}

int RecoveryVerbs::recovery_plans() {
    auto answer = impl_->list("/v1/recovery-plans", "plans", "after", UINT64_MAX);
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table({{"NAME"},
                 {"GROUPS", Align::kRight},
                 {"ITEMS", Align::kRight},
                 {"CHANGED"},
                 {"DESCRIPTION"}});
    for (const Json& row : member(*answer, "plans")) {
        const Json& plan = member(row, "plan");
        const Json& groups = member(plan, "groups");
        size_t items = 0;
        if (groups.is_array())
            for (const Json& group : groups) items += member(group, "items").size();
        table.add({text_of(row, "name"), std::to_string(groups.size()), std::to_string(items),
                   human_time(text_of(row, "updated")),
                   printable(text_of(plan, "description").substr(0, 60))});
    }
    impl_->say(table.empty() ? "No recovery plans: `farshore recovery-plan import` makes one.\n"
                             : table.to_string());
    return 0;
}

int RecoveryVerbs::recovery_plan(const std::string& name) {
    auto answer = impl_->call("GET", plan_target(name));
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    const Json& plan = member(*answer, "plan");
    std::vector<std::pair<std::string, std::string>> rows{
        {"Plan", text_of(plan, "name")},
        {"Description", printable(text_of(plan, "description"))},
        {"Version", std::to_string(count_of(*answer, "version"))},
        {"Shutdown", actions_text(member(plan, "shutdown"))}};
    if (const Json& groups = member(plan, "groups"); groups.is_array())
        for (const Json& group : groups) {
            rows.push_back({"Group", printable(text_of(group, "name"))});
            rows.push_back({"  before", actions_text(member(group, "before"))});
            rows.push_back({"  items", printable(names_of(member(group, "items")))});
            rows.push_back({"  after", actions_text(member(group, "after"))});
        }
    impl_->say(key_values(rows));
    return 0;
}

int RecoveryVerbs::import_recovery_plan(const RecoveryPlanArguments& arguments) {
    auto text = impl_->environment.read_file(arguments.file);
    if (!text) return impl_->failed(text.error());
    auto plan = json_from_yaml(*text);
    if (!plan) return impl_->failed(plan.error().with_context(arguments.file));
    const std::string name = text_of(*plan, "name");
    Result<Json> answer = Json();
    if (arguments.replace) {
        auto known = impl_->call("GET", plan_target(name));
        if (known)
            answer = impl_->call_if_match(text_of(*known, "etag"), "PUT", plan_target(name),
                                          {{"plan", *plan}});
        else if (known.error().code() == Code::kNotFound)
            answer = impl_->call("POST", "/v1/recovery-plans", {{"plan", *plan}});
        else
            return impl_->failed(known.error());
    } else {
        answer = impl_->call("POST", "/v1/recovery-plans", {{"plan", *plan}});
    }
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json)
        impl_->print(*answer);
    else
        impl_->say(fmt::format("'{}' is kept, version {}.\n", text_of(*answer, "name"),
                               count_of(*answer, "version")));
    return 0;
}

int RecoveryVerbs::export_recovery_plan(const RecoveryPlanArguments& arguments) {
    auto answer = impl_->call("GET", plan_target(arguments.name));
    if (!answer) return impl_->failed(answer.error());
    if (auto out = write_out(*impl_, arguments, yaml_from_json(member(*answer, "plan"))); !out)
        return impl_->failed(out.error());
    return 0;
}

int RecoveryVerbs::remove_recovery_plan(const std::string& name) {
    auto answer = impl_->call("DELETE", plan_target(name));
    if (!answer) return impl_->failed(answer.error());
    if (!impl_->json) impl_->say("Removed.\n");
    return 0;
}

int RecoveryVerbs::check_recovery_plan(const RecoveryPlanArguments& arguments) {
    auto answer = impl_->call("POST", plan_target(arguments.name, "/check"),
                              {{"mode", arguments.mode}, {"point", arguments.point}});
    if (!answer) return impl_->failed(answer.error());
    const bool good = flag_of(*answer, "would_run");
    if (impl_->json) {
        impl_->print(*answer);
    } else {
        Table table({{"SEVERITY"}, {"STEP"}, {"WHAT"}});
        for (const Json& finding : member(*answer, "findings")) {
            const std::string remedy = text_of(finding, "remedy");
            table.add(
                {text_of(finding, "severity"), text_of(finding, "step"),
                 printable(text_of(finding, "what") + (remedy.empty() ? "" : "; " + remedy))});
        }
        if (!table.empty()) impl_->say(table.to_string());
        impl_->say(good ? "Nothing was found that would fail.\n" : "It would fail.\n");
    }
    return good ? 0 : code_exit_status(Code::kWrongState);
}

int RecoveryVerbs::start_recovery_plan(const RecoveryPlanArguments& arguments) {
    auto answer = impl_->call("POST", plan_target(arguments.name, "/runs"),
                              {{"mode", arguments.mode},
                               {"point", arguments.point},
                               {"note", arguments.note},
                               {"unchecked", arguments.unchecked}});
    if (!answer) return impl_->failed(answer.error());
    return follow_run(*impl_, *answer, !arguments.no_wait);
}

int RecoveryVerbs::plan_runs(const RecoveryPlanArguments& arguments) {
    std::string target = "/v1/plan-runs";
    if (!arguments.name.empty()) target += "?plan=" + url_encode(arguments.name);
    auto answer = impl_->list(target, "runs", "before", arguments.limit);
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table({{"RUN", Align::kRight},
                 {"PLAN"},
                 {"MODE"},
                 {"STATE"},
                 {"BEGUN"},
                 {"BY"},
                 {"LASTED", Align::kRight},
                 {"NOTE"}});
    for (const Json& run : member(*answer, "runs"))
        table.add({std::to_string(count_of(run, "id")), text_of(run, "plan"), text_of(run, "mode"),
                   text_of(run, "state"), human_time(text_of(run, "created")),
                   printable(text_of(run, "by")), duration_text(run),
                   printable(text_of(run, "note"))});
    impl_->say(table.empty() ? "No runs.\n" : table.to_string());
    return 0;
}

int RecoveryVerbs::plan_run(uint64_t id) {
    auto answer = impl_->call("GET", run_target(id));
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json)
        impl_->print(*answer);
    else
        say_run(*impl_, *answer);
    return 0;
}

int RecoveryVerbs::report_plan_run(const RecoveryPlanArguments& arguments) {
    // A page, not a document for programs.
    const auto page = [&]() -> Result<std::string> {
        if (impl_->json) {
            FS_ASSIGN(const Json run, impl_->call("GET", run_target(arguments.run)));
            return dump_json(run) + "\n";
        }
        FS_TRY(impl_->connect());
        return impl_->transport->call("GET", run_target(arguments.run, "/report"), "", 90);
    };
    const auto text = page();
    if (!text) return impl_->failed(text.error());
    if (auto out = write_out(*impl_, arguments, *text); !out) return impl_->failed(out.error());
    return 0;
}

int RecoveryVerbs::change_plan_run(const RecoveryPlanArguments& arguments,
                                   const std::string& action) {
    Json body;
    if (action == "resume") body = {{"skip", arguments.skip}};
    auto answer = impl_->call("POST", run_target(arguments.run, "/" + action), body);
    if (!answer) return impl_->failed(answer.error());
    if (action == "resume") return follow_run(*impl_, *answer, !arguments.no_wait);
    if (impl_->json)
        impl_->print(*answer);
    else
        impl_->say(action == "stop" ? "It stops as soon as what runs has ended.\n"
                                    : "Cancelled.\n");
    return 0;
}

int RecoveryVerbs::clean_up_plan_run(const RecoveryPlanArguments& arguments) {
    auto answer = impl_->call("POST", run_target(arguments.run, "/cleanup"));
    if (!answer) return impl_->failed(answer.error());
    return impl_->follow_job(*answer, !arguments.no_wait);
}

int RecoveryVerbs::answer_plan_step(const RecoveryPlanArguments& arguments) {
    auto answer = impl_->call(
        "POST", run_target(arguments.run, "/steps/" + url_encode(arguments.step) + "/answer"),
        {{"outcome", arguments.done ? "done" : "failed"}, {"note", arguments.note}});
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json)
        impl_->print(*answer);
    else
        impl_->say("Answered.\n");
    return 0;
}

}  // namespace farshore
