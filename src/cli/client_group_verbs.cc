// farshore group: machines with common points.
#include <fmt/core.h>

#include <algorithm>

#include "cli/api_documents.h"
#include "cli/client_verbs_impl.h"
#include "cli/format.h"

namespace farshore {
namespace {

std::string group_target(const std::string& name, const std::string& rest = {}) {
    return "/v1/groups/" + url_encode(name) + rest;
}

std::string interval_text(const Json& group, const char* key) {
    return count_of(group, key) == 0 ? "-" : seconds_of(group, key);
}

std::string error_text(const Json& json) {
    const Json& error = member(json, "error");
    return error.is_object() ? text_of(error, "detail") : std::string();
}

}  // namespace

int ClientVerbs::groups() {
    auto answer = impl_->list("/v1/groups", "groups", "after", UINT64_MAX);
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table(
        {{"NAME"}, {"ITEMS", Align::kRight}, {"CRASH"}, {"APPLICATION"}, {"HEALTH"}, {"WHY"}});
    for (const Json& group : member(*answer, "groups"))
        table.add({text_of(group, "name"), std::to_string(member(group, "members").size()),
                   interval_text(group, "crash_interval_s"),
                   interval_text(group, "application_interval_s"), text_of(group, "health"),
                   error_text(group)});
    impl_->say(table.to_string());
    return 0;
}

int ClientVerbs::Impl::show_group(const Result<Json>& answer) {
    if (!answer) return failed(answer.error());
    if (json) {
        print(*answer);
        return 0;
    }
    std::vector<std::pair<std::string, std::string>> rows{
        {"Group", text_of(*answer, "name")},
        {"Crash-consistent", interval_text(*answer, "crash_interval_s")},
        {"Application-consistent", interval_text(*answer, "application_interval_s")}};
    if (const std::string why = error_text(*answer); !why.empty())
        rows.push_back({"Newest point", "not made: " + why});
    std::string items;
    if (const Json& members = member(*answer, "members"); members.is_array())
        for (const Json& one : members) items += (items.empty() ? "" : ", ") + text_of(one, "item");
    rows.push_back({"Items", items.empty() ? "none" : items});
    say(key_values(rows));
    return 0;
}

int ClientVerbs::group(const std::string& name) {
    return impl_->show_group(impl_->call("GET", group_target(name)));
}

namespace {

Json intervals_of(const GroupArguments& arguments) {
    Json json = Json::object();
    if (arguments.crash_interval_s) json["crash_interval_s"] = *arguments.crash_interval_s;
    if (arguments.application_interval_s)
        json["application_interval_s"] = *arguments.application_interval_s;
    return json;
}

}  // namespace

int ClientVerbs::create_group(const GroupArguments& arguments) {
    Json body = intervals_of(arguments);
    body["name"] = arguments.name;
    body["items"] = arguments.items;
    return impl_->show_group(impl_->call("POST", "/v1/groups", body));
}

int ClientVerbs::change_group(const GroupArguments& arguments) {
    const Json body = intervals_of(arguments);
    if (body.empty())
        return impl_->failed(Error(Code::kInvalidArgument, "nothing to set was named",
                                   "`farshore group set --help` lists what there is"));
    return impl_->show_group(impl_->call("PATCH", group_target(arguments.name), body));
}

int ClientVerbs::join_group(const GroupArguments& arguments) {
    return impl_->show_group(impl_->call("POST", group_target(arguments.name, "/members"),
                                         {{"items", arguments.items}}));
}

int ClientVerbs::leave_group(const GroupArguments& arguments) {
    Result<Json> answer = fail(Code::kInvalidArgument, "no item was named");
    for (const std::string& item : arguments.items) {
        answer =
            impl_->call("DELETE", group_target(arguments.name, "/members/" + url_encode(item)));
        if (!answer) break;
    }
    return impl_->show_group(answer);
}

int ClientVerbs::remove_group(const std::string& name) {
    auto answer = impl_->call("DELETE", group_target(name));
    if (!answer) return impl_->failed(answer.error());
    if (!impl_->json) impl_->say("Removed.\n");
    return 0;
}

int ClientVerbs::group_point(const GroupArguments& arguments) {
    constexpr uint64_t kStepS = 20;
    Json body{{"kind", arguments.consistent ? "application" : "crash"},
              {"wait_s", std::min(arguments.timeout_s, kStepS)}};
    if (!arguments.label.empty()) body["label"] = arguments.label;
    auto answer = impl_->call("POST", group_target(arguments.name, "/points"), body);
    for (uint64_t waited_s = kStepS; answer; waited_s += kStepS) {
        const std::string state = text_of(*answer, "state");
        if (state == "stored") break;
        if (state == "void") return impl_->failed(error_of_problem(member(*answer, "error")));
        if (waited_s >= arguments.timeout_s)
            return impl_->failed(
                Error(Code::kTimeout,
                      fmt::format("the shared point is not stored after {} s; it is {}",
                                  arguments.timeout_s, state),
                      "`farshore group points` shows what becomes of it"));
        answer = impl_->call(
            "GET", group_target(arguments.name, "/points/" + url_encode(text_of(*answer, "id")) +
                                                    "?wait_s=" + std::to_string(kStepS)));
    }
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json)
        impl_->print(*answer);
    else
        impl_->say(fmt::format("The shared point {} \"{}\" is stored; writes waited {:.0f} ms.\n",
                               text_of(*answer, "id"), text_of(*answer, "label"),
                               static_cast<double>(count_of(*answer, "barrier_us")) / 1000));
    return 0;
}

int ClientVerbs::group_points(const GroupArguments& arguments) {
    auto answer =
        impl_->list(group_target(arguments.name, "/points"), "points", "before", arguments.limit);
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table({{"ID"},
                 {"ASKED"},
                 {"KIND"},
                 {"STATE"},
                 {"ITEMS", Align::kRight},
                 {"BARRIER", Align::kRight},
                 {"LABEL"},
                 {"WHY"}});
    for (const Json& point : member(*answer, "points"))
        table.add({text_of(point, "id"), human_time(text_of(point, "asked")),
                   text_of(point, "kind"), text_of(point, "state"),
                   std::to_string(member(point, "members").size()),
                   count_of(point, "barrier_us") == 0
                       ? ""
                       : fmt::format("{:.0f} ms",
                                     static_cast<double>(count_of(point, "barrier_us")) / 1000),
                   text_of(point, "label"), error_text(point)});
    impl_->say(table.to_string());
    return 0;
}

}  // namespace farshore
