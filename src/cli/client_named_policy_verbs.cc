// farshore policy: policies that many items follow; what a change would do is shown before.
#include <fmt/core.h>

#include "cli/api_documents.h"
#include "cli/client_verbs_impl.h"
#include "cli/format.h"

namespace farshore {
namespace {

std::string policy_target(const std::string& name, const std::string& rest = {}) {
    return "/v1/policies/" + url_encode(name) + rest;
}

std::string value_text(const Json& value) {
    if (value.is_string()) {
        const auto& text = value.get_ref<const std::string&>();
        return text.empty() ? "-" : printable(text);
    }
    return value.is_null() ? "-" : printable(dump_json(value));
}

std::string signed_bytes(const Json& json) {
    const auto change = number_of(json, "bytes_change");
    if (!change) return {};
    const auto bytes = static_cast<uint64_t>(*change < 0 ? -*change : *change);
    return fmt::format("about {} {}", human_bytes(bytes), *change < 0 ? "less" : "more");
}

// One item of a preview, as lines.
std::string preview_text(const Json& item) {
    std::string text = text_of(item, "item") + "\n";
    const auto line = [&](const std::string& words) { text += "  " + words + "\n"; };
    if (const Json& refused = member(item, "refused"); refused.is_object())
        line("refused: " + text_of(refused, "detail"));
    const Json& changed = member(item, "changed");
    if (changed.is_object() && changed.empty()) line("nothing changes");
    if (changed.is_object())
        for (const auto& [name, values] : changed.items())
            line(fmt::format("{}: {} -> {}", printable(name), value_text(member(values, "old")),
                             value_text(member(values, "new"))));
    if (const Json& points = member(item, "points"); points.is_object()) {
        const uint64_t dropped = count_of(points, "dropped"),
                       anyway = count_of(points, "dropped_anyway");
        line(fmt::format("points that go at the next round: {} (without the change {})", dropped,
                         anyway));
        if (const Json& oldest = member(points, "oldest_stays"); oldest.is_object())
            line("the oldest that stays: " + point_text(oldest));
    }
    if (const std::string bytes = signed_bytes(item); !bytes.empty()) line("stored: " + bytes);
    for (const auto& [key, words] :
         {std::pair("alarms", "raised at once"), std::pair("alarms_over", "over at once")})
        if (const Json& alarms = member(item, key); alarms.is_array())
            for (const Json& alarm : alarms)
                line(fmt::format("alarm {}: {} ({}), {}", words, text_of(alarm, "code"),
                                 text_of(alarm, "severity"), text_of(alarm, "cause")));
    return text;
}

}  // namespace

Result<int> ClientVerbs::Impl::agreed(const Json& preview, bool only_preview, bool yes) {
    if (only_preview && json) {
        print(preview);
        return 1;
    }
    if (!json) {
        const Json& items = member(preview, "items");
        if (items.is_array() && items.empty()) say("No item is concerned.\n");
        if (items.is_array())
            for (const Json& item : items) say(preview_text(item));
        if (const uint64_t more = count_of(preview, "more"); more != 0)
            say(fmt::format("and {} items more\n", more));
    }
    if (only_preview) {
        note("Nothing was changed.\n");
        return 1;
    }
    if (yes) return 0;
    if (!environment.ask || json)
        return fail(Code::kInvalidArgument, "nobody can be asked whether this is meant",
                    "say --yes, or --preview to see what it would do");
    FS_ASSIGN(const std::string answer, environment.ask("Change this? [y/N] "));
    if (answer == "y" || answer == "Y" || answer == "yes") return 0;
    note("Nothing was changed.\n");
    return 1;
}

int ClientVerbs::policies() {
    auto answer = impl_->list("/v1/policies", "policies", "after", UINT64_MAX);
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table({{"NAME"}, {"ITEMS", Align::kRight}, {"POINTS"}, {"WINDOW"}, {"KEEP"}, {"RPO"}});
    for (const Json& row : member(*answer, "policies")) {
        const Json& values = member(row, "policy");
        const std::string keep = text_of(values, "keep");
        table.add({text_of(row, "name"), std::to_string(count_of(row, "items")),
                   seconds_of(values, "crash_point_interval_s"), seconds_of(values, "window_s"),
                   keep.empty() ? "-" : keep, seconds_of(values, "rpo_threshold_s")});
    }
    impl_->say(table.to_string());
    return 0;
}

int ClientVerbs::policy(const std::string& name) {
    auto answer = impl_->call("GET", policy_target(name));
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    std::vector<std::pair<std::string, std::string>> rows{{"Policy", text_of(*answer, "name")}};
    if (const Json& values = member(*answer, "policy"); values.is_object())
        for (const auto& [key, value] : values.items())
            rows.push_back({printable(key), value_text(value)});
    std::string items;
    if (const Json& names = member(*answer, "followed_by"); names.is_array())
        for (const Json& one : names)
            if (one.is_string())
                items += (items.empty() ? "" : ", ") + printable(one.get<std::string>());
    rows.push_back({"Followed by", items.empty() ? "no item" : items});
    impl_->say(key_values(rows));
    return 0;
}

int ClientVerbs::create_policy(const NamedPolicyArguments& arguments) {
    auto answer =
        impl_->call("POST", "/v1/policies",
                    {{"name", arguments.name}, {"policy", policy_json(arguments.values)}});
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json)
        impl_->print(*answer);
    else
        impl_->say(fmt::format("The policy '{}' is there.\n", text_of(*answer, "name")));
    return 0;
}

int ClientVerbs::edit_policy(const NamedPolicyArguments& arguments) {
    const Json wanted = policy_json(arguments.values);
    if (wanted.empty())
        return impl_->failed(Error(Code::kInvalidArgument, "nothing to change was named",
                                   "`farshore policy edit --help` lists what there is"));
    auto before = impl_->call("GET", policy_target(arguments.name));
    if (!before) return impl_->failed(before.error());
    Json values = member(*before, "policy");
    for (const auto& [key, value] : wanted.items()) values[key] = value;
    auto preview =
        impl_->call("POST", policy_target(arguments.name, "/preview"), {{"policy", values}});
    if (!preview) return impl_->failed(preview.error());
    const auto asked = impl_->agreed(*preview, arguments.preview, arguments.yes);
    if (!asked) return impl_->failed(asked.error());
    if (*asked != 0) return 0;
    // Of the version that was shown: another one may have changed it since.
    auto answer = impl_->call_if_match(text_of(*before, "etag"), "PUT",
                                       policy_target(arguments.name), {{"policy", values}});
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json)
        impl_->print(*answer);
    else
        impl_->say(fmt::format("Changed; {} items follow it.\n", count_of(*answer, "items")));
    return 0;
}

int ClientVerbs::remove_policy(const std::string& name) {
    auto answer = impl_->call("DELETE", policy_target(name));
    if (!answer) return impl_->failed(answer.error());
    if (!impl_->json) impl_->say("Removed.\n");
    return 0;
}

int ClientVerbs::assign_policy(const NamedPolicyArguments& arguments) {
    const Json body{{"items", arguments.items}};
    auto preview = impl_->call("POST", policy_target(arguments.name, "/preview"), body);
    if (!preview) return impl_->failed(preview.error());
    const auto asked = impl_->agreed(*preview, arguments.preview, arguments.yes);
    if (!asked) return impl_->failed(asked.error());
    if (*asked != 0) return 0;
    auto answer = impl_->call_if_match(text_of(*preview, "etag"), "POST",
                                       policy_target(arguments.name, "/assign"), body);
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json)
        impl_->print(*answer);
    else
        impl_->say(fmt::format("Assigned; {} items follow it.\n", count_of(*answer, "items")));
    return 0;
}

}  // namespace farshore
