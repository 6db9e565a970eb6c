// farshore drill: points that are booted in isolation and judged.
#include <fmt/core.h>

#include "cli/api_documents.h"
#include "cli/client_verbs_impl.h"
#include "cli/format.h"
#include "cli/recovery_verbs.h"
#include "os/real.h"

namespace farshore {
namespace {

// "check.sh -v web": a program and its arguments, apart at blanks.
Json check_json(const std::string& kind, const std::string& line) {
    Json arguments = Json::array();
    std::string program;
    for (size_t at = 0; at < line.size();) {
        const size_t from = line.find_first_not_of(' ', at);
        if (from == std::string::npos) break;
        const size_t until = std::min(line.find(' ', from), line.size());
        const std::string word = line.substr(from, until - from);
        if (program.empty())
            program = word;
        else
            arguments.push_back(word);
        at = until;
    }
    return {{"kind", kind}, {"program", program}, {"arguments", std::move(arguments)}};
}

void say_policy(ClientVerbs::Impl& impl, const Json& answer) {
    const Json& policy = member(answer, "policy");
    std::vector<std::pair<std::string, std::string>> rows{{"Item", text_of(answer, "item")}};
    const auto seconds = [&](const char* key) {
        return count_of(policy, key) == 0 ? std::string("-") : seconds_of(policy, key);
    };
    rows.push_back({"Every", seconds("interval_s")});
    rows.push_back({"After consistent points", flag_of(policy, "after_consistent") ? "yes" : "no"});
    rows.push_back({"Overdue after", seconds("overdue_s")});
    rows.push_back({"Limit", seconds("limit_s")});
    rows.push_back({"Guest agent", flag_of(policy, "agent") ? "answers" : "-"});
    const uint64_t port = count_of(policy, "port");
    rows.push_back({"Port", port == 0 ? std::string("-") : std::to_string(port)});
    const std::string serial = text_of(policy, "serial");
    rows.push_back({"Serial line says", serial.empty() ? "-" : printable(serial)});
    for (const auto& [title, key] :
         {std::pair{"Serial line matches", "serial_pattern"}, std::pair{"Begin in", "windows"}})
        if (const std::string text = text_of(policy, key); !text.empty())
            rows.push_back({title, printable(text)});
    if (const Json& checks = member(policy, "checks"); checks.is_array())
        for (const Json& check : checks) {
            std::string words = text_of(check, "program");
            if (const Json& arguments = member(check, "arguments"); arguments.is_array())
                for (const Json& one : arguments)
                    if (one.is_string()) words += " " + one.get<std::string>();
            rows.push_back({text_of(check, "kind"), printable(words)});
        }
    impl.say(key_values(rows));
}

void say_drill(ClientVerbs::Impl& impl, const Json& drill) {
    const auto ms = [&](const char* key) {
        const auto value = number_of(drill, key);
        return value ? fmt::format("{:.1f} s", *value / 1000) : std::string("-");
    };
    std::vector<std::pair<std::string, std::string>> rows{
        {"Drill", std::to_string(count_of(drill, "id"))},
        {"Item", text_of(drill, "item")},
        {"Verdict", text_of(drill, "verdict")},
        {"Point", point_text(member(drill, "point"))},
        {"Begun", human_time(text_of(drill, "created")) + ", " + text_of(drill, "asked")},
        {"Lasted", ms("duration_ms")},
        {"First read after", ms("first_read_ms")},
        {"All seen after", ms("ready_ms")}};
    if (const std::string why = text_of(drill, "why"); !why.empty())
        rows.push_back({"Why", printable(why)});
    if (const std::string remedy = text_of(drill, "remedy"); !remedy.empty())
        rows.push_back({"What to do", printable(remedy)});
    if (const Json& checks = member(drill, "checks"); checks.is_array())
        for (const Json& check : checks)
            rows.push_back({"Check", fmt::format("{}: {}", printable(text_of(check, "program")),
                                                 flag_of(check, "good") ? "good" : "BAD")});
    impl.say(key_values(rows));
}

}  // namespace

int RecoveryVerbs::drill_policy(const std::string& item) {
    auto answer = impl_->call("GET", item_target(item, "/drill-policy"));
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json)
        impl_->print(*answer);
    else
        say_policy(*impl_, *answer);
    return 0;
}

int RecoveryVerbs::set_drill_policy(const DrillArguments& arguments) {
    Json policy = Json::object();
    if (arguments.every_s) policy["interval_s"] = *arguments.every_s;
    if (arguments.overdue_s) policy["overdue_s"] = *arguments.overdue_s;
    if (arguments.limit_s) policy["limit_s"] = *arguments.limit_s;
    if (arguments.port) policy["port"] = *arguments.port;
    if (arguments.after_consistent) policy["after_consistent"] = true;
    if (arguments.agent) policy["agent"] = true;
    if (!arguments.serial.empty()) policy["serial"] = arguments.serial;
    if (!arguments.serial_pattern.empty()) policy["serial_pattern"] = arguments.serial_pattern;
    if (!arguments.windows.empty()) policy["windows"] = arguments.windows;
    Json checks = Json::array();
    for (const std::string& line : arguments.scripts) checks.push_back(check_json("script", line));
    for (const std::string& line : arguments.guest_scripts)
        checks.push_back(check_json("guest-script", line));
    if (!checks.empty()) policy["checks"] = std::move(checks);
    auto answer =
        impl_->call("PUT", item_target(arguments.item, "/drill-policy"), {{"policy", policy}});
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json)
        impl_->print(*answer);
    else
        say_policy(*impl_, *answer);
    return 0;
}

int RecoveryVerbs::remove_drill_policy(const std::string& item) {
    auto answer = impl_->call("DELETE", item_target(item, "/drill-policy"));
    if (!answer) return impl_->failed(answer.error());
    if (!impl_->json) impl_->say("Removed: its points are not tried any more.\n");
    return 0;
}

int RecoveryVerbs::start_drill(const DrillArguments& arguments) {
    auto answer =
        impl_->call("POST", item_target(arguments.item, "/drills"), {{"point", arguments.point}});
    if (!answer) return impl_->failed(answer.error());
    if (arguments.no_wait) return impl_->follow_job(*answer, false);
    auto job = impl_->wait_for_job(count_of(*answer, "id"));
    if (!job) return impl_->failed(job.error());
    if (text_of(*job, "state") != "succeeded") return impl_->show_ended_job(*job);
    auto drill =
        impl_->call("GET", fmt::format("/v1/drills/{}", count_of(member(*job, "result"), "drill")));
    if (!drill) return impl_->failed(drill.error());
    if (impl_->json)
        impl_->print(*drill);
    else
        say_drill(*impl_, *drill);
    // For scripts: a machine that is not good is no success.
    return text_of(*drill, "verdict") == "good" ? 0 : code_exit_status(Code::kGuestFailed);
}

int RecoveryVerbs::drills(const DrillArguments& arguments) {
    std::string target = "/v1/drills";
    if (!arguments.item.empty()) target += "?item=" + url_encode(arguments.item);
    auto answer = impl_->list(target, "drills", "before", arguments.limit);
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table({{"DRILL", Align::kRight}, {"ITEM"}, {"VERDICT"}, {"POINT"}, {"BEGUN"}, {"WHY"}});
    for (const Json& drill : member(*answer, "drills"))
        table.add({std::to_string(count_of(drill, "id")), text_of(drill, "item"),
                   text_of(drill, "verdict"), human_time(text_of(member(drill, "point"), "time")),
                   human_time(text_of(drill, "created")), printable(text_of(drill, "why"))});
    impl_->say(table.empty() ? "No drills: `farshore drill set` says when there are.\n"
                             : table.to_string());
    return 0;
}

int RecoveryVerbs::drill(const DrillArguments& arguments) {
    const std::string target = fmt::format("/v1/drills/{}", arguments.drill);
    auto answer = impl_->call("GET", target);
    if (!answer) return impl_->failed(answer.error());
    const auto keep = [&](const std::string& what, const std::string& file) -> Status {
        if (file.empty()) return {};
        PosixFileSystem files;
        const std::string path = impl_->absolute(file);
        FS_ASSIGN(const bool there, files.exists(path));
        if (there && !arguments.force)
            return fail(Code::kAlreadyExists, fmt::format("'{}' is there", path),
                        "remove it, name another file, or say --force");
        FS_ASSIGN(const std::string bytes, impl_->transport->call("GET", target + what, "", 90));
        return write_file_durably(files, path, as_bytes(bytes));
    };
    if (auto kept = keep("/screenshot", arguments.screenshot_file); !kept)
        return impl_->failed(kept.error());
    if (auto kept = keep("/serial", arguments.serial_file); !kept)
        return impl_->failed(kept.error());
    if (impl_->json)
        impl_->print(*answer);
    else
        say_drill(*impl_, *answer);
    return 0;
}

int RecoveryVerbs::drill_budget(const DrillArguments& arguments) {
    auto answer = impl_->call("GET", "/v1/drill-budget");
    if (!answer) return impl_->failed(answer.error());
    if (arguments.cpus || arguments.memory_bytes) {
        Json body = *answer;
        if (arguments.cpus) body["cpus"] = *arguments.cpus;
        if (arguments.memory_bytes) body["memory_bytes"] = *arguments.memory_bytes;
        answer = impl_->call("PUT", "/v1/drill-budget", body);
        if (!answer) return impl_->failed(answer.error());
    }
    if (impl_->json)
        impl_->print(*answer);
    else
        impl_->say(key_values({{"Processors", std::to_string(count_of(*answer, "cpus"))},
                               {"Memory", human_bytes(count_of(*answer, "memory_bytes"))}}));
    return 0;
}

}  // namespace farshore
