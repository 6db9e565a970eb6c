// An item's policy, shown and changed; comparisons, asked for and cancelled.
#include <fmt/core.h>

#include "cli/api_documents.h"
#include "cli/client_verbs_impl.h"
#include "cli/format.h"

namespace farshore {
namespace {

std::string shown_value(const Json& value) {
    if (value.is_string()) {
        const auto& text = value.get_ref<const std::string&>();
        return text.empty() ? "-" : printable(text);
    }
    return value.is_null() ? "-" : printable(dump_json(value));
}

}  // namespace

Json policy_json(const PolicyArguments& policy) {
    Json json = Json::object();
    const auto put = [&](const char* name, const auto& value) {
        if (value) json[name] = *value;
    };
    put("crash_point_interval_s", policy.crash_point_interval_s);
    put("window_s", policy.window_s);
    put("keep", policy.keep);
    put("grace_s", policy.grace_s);
    put("copy_throttle_bytes_per_s", policy.copy_throttle_bytes_per_s);
    put("consistent_interval_s", policy.consistent_interval_s);
    put("rpo_threshold_s", policy.rpo_threshold_s);
    put("resync_windows", policy.resync_windows);
    put("resync_windows_for", policy.resync_windows_for);
    put("verify_interval_s", policy.verify_interval_s);
    put("bandwidth", policy.bandwidth);
    put("catch_up", policy.catch_up);
    put("scrub_interval_s", policy.scrub_interval_s);
    return json;
}

std::vector<std::pair<std::string, std::string>> policy_rows(const Json& item) {
    std::vector<std::pair<std::string, std::string>> rows;
    const Json& policy = member(item, "policy");
    const Json& plan = member(item, "resync_plan");
    if (const std::string stage = text_of(plan, "stage"); !stage.empty() && stage != "none") {
        const std::string opens = text_of(plan, "window_opens");
        std::string text = stage == "waiting" ? "waits" : stage == "asked" ? "begins" : "runs";
        text += " (" + text_of(plan, "kind") + ")";
        if (flag_of(plan, "held")) text += ", held";
        if (!opens.empty() && (stage == "waiting" || flag_of(plan, "held")))
            text += ", its window opens " + human_time(opens);
        rows.push_back({"Comparison", text});
    } else if (flag_of(plan, "held")) {
        const std::string opens = text_of(plan, "window_opens");
        rows.push_back(
            {"Comparison",
             "held" + (opens.empty() ? std::string() : ", its window opens " + human_time(opens))});
    }
    if (const uint64_t interval_s = count_of(policy, "verify_interval_s"); interval_s != 0)
        rows.push_back(
            {"Checked",
             fmt::format("every {}, next from {} on, in {}", human_seconds(double(interval_s)),
                         human_time(text_of(plan, "next_check")), text_of(plan, "windows"))});
    if (const std::string limit = text_of(policy, "bandwidth"); !limit.empty())
        rows.push_back({"Bandwidth", printable(limit)});
    if (const Json& upload = member(item, "upload");
        upload.is_object() && flag_of(upload, "limited")) {
        std::string text = human_bytes(count_of(upload, "waiting_bytes")) + " wait";
        if (const int64_t eta = eta_of(upload); eta >= 0)
            text += ", " + human_seconds(double(eta)) + " at this limit";
        rows.push_back({"Upload", text});
    }
    return rows;
}

int ClientVerbs::set(const std::string& name, const PolicyArguments& policy) {
    const Json wanted = policy_json(policy);
    if (wanted.empty())
        return impl_->failed(Error(Code::kInvalidArgument, "nothing to set was named",
                                   "`farshore set --help` lists what there is"));
    auto before = impl_->call("GET", item_target(name));
    if (!before) return impl_->failed(before.error());
    auto after = impl_->call("PATCH", item_target(name), Json{{"policy", wanted}});
    if (!after) return impl_->failed(after.error());
    const Json& old_policy = member(*before, "policy");
    const Json& new_policy = member(*after, "policy");
    Json changed = Json::object();
    for (const auto& [key, unused] : wanted.items())
        changed[key] = {{"old", member(old_policy, key.c_str())},
                        {"new", member(new_policy, key.c_str())}};
    if (impl_->json) {
        impl_->print({{"item", text_of(*after, "name")},
                      {"changed", std::move(changed)},
                      {"policy", new_policy}});
        return 0;
    }
    Table table({{"POLICY"}, {"OLD"}, {""}, {"NEW"}});
    for (const auto& [key, values] : changed.items())
        table.add({key, shown_value(values["old"]), "->", shown_value(values["new"])});
    impl_->say(table.to_string());
    return 0;
}

// ---- comparisons

int ClientVerbs::resynchronise(const std::string& name, ResyncWish wish, bool wait) {
    if (wish == ResyncWish::kCancel) {
        auto cancelled = impl_->call("POST", item_target(name, "/resynchronise/cancel"));
        if (!cancelled) return impl_->failed(cancelled.error());
        if (impl_->json)
            impl_->print(*cancelled);
        else
            impl_->say("The comparison is cancelled.\n");
        return 0;
    }
    const bool in_window = wish == ResyncWish::kInWindow;
    auto answer = impl_->call("POST", item_target(name, "/resynchronise"),
                              in_window ? Json{{"when", "in-window"}} : Json());
    if (!answer) return impl_->failed(answer.error());
    const Json& plan = member(*answer, "resync_plan");
    if (in_window || !wait) {
        const std::string opens = text_of(plan, "window_opens");
        if (impl_->json)
            impl_->print(*answer);
        else if (text_of(plan, "stage") == "waiting" && !opens.empty())
            impl_->say("Source and replica are compared in the window that opens " +
                       human_time(opens) + ".\n");
        else
            impl_->say("Source and replica are compared; `farshore item` shows how far it is.\n");
        return 0;
    }
    return impl_->wait_until_resynced(name);
}

int ClientVerbs::Impl::wait_until_resynced(const std::string& name) {
    return follow_item(name, 300, "The comparison", [&](const Json& item) -> std::optional<int> {
        const Json& resync = member(item, "resync");
        const std::string state = text_of(resync, "state");
        const auto bytes = [&](const char* key) { return number_of(resync, key).value_or(0); };
        // An agent that was started again has forgotten whose it was, not that it runs.
        if (!text_of(item, "resync_requested").empty()) return std::nullopt;
        const std::string stage = text_of(member(item, "resync_plan"), "stage");
        const bool planned = !stage.empty() && stage != "none";
        if (planned || text_of(item, "state") != "protected" ||
            (state != "done" && state != "none")) {
            if (const double total = bytes("total_bytes"); total != 0)
                draw_progress(bytes("compared_bytes") / total, -1, state);
            return std::nullopt;
        }
        clear_progress();
        if (json)
            print(resync);
        else if (state == "done")
            say(fmt::format("{:.0f} bytes compared, {:.0f} differed, {:.0f} sent.\n",
                            bytes("compared_bytes"), bytes("differing_bytes"),
                            bytes("sent_bytes")));
        else
            say("Nothing could be compared: everything was sent.\n");
        return 0;
    });
}

}  // namespace farshore
