// The verbs about points that are held, and about what keeping points costs.
#include <fmt/core.h>

#include "cli/api_documents.h"
#include "cli/client_verbs_impl.h"
#include "cli/format.h"

namespace farshore {

int ClientVerbs::holds(const std::string& name) {
    auto answer = impl_->call("GET", item_target(name, "/holds"));
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table({{"HOLD"}, {"SEQUENCE", Align::kRight}, {"POINT"}, {"SINCE"}, {"REASON"}});
    if (const Json& holds = member(*answer, "holds"); holds.is_array())
        for (const Json& hold : holds)
            table.add({text_of(hold, "id"),
                       std::to_string(count_of(member(hold, "point"), "sequence")),
                       human_time(text_of(member(hold, "point"), "time")),
                       human_time(text_of(hold, "since")), printable(text_of(hold, "reason"))});
    impl_->say(table.empty() ? "No point is held.\n" : table.to_string());
    return 0;
}

int ClientVerbs::place_hold(const std::string& name, const std::string& point,
                            const std::string& reason) {
    auto answer =
        impl_->call("POST", item_target(name, "/holds"), {{"point", point}, {"reason", reason}});
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json)
        impl_->print(*answer);
    else
        impl_->say(fmt::format("Hold {}: {}\n", text_of(*answer, "id"),
                               point_text(member(*answer, "point"))));
    return 0;
}

int ClientVerbs::release_hold(const std::string& name, const std::string& id) {
    auto answer = impl_->call("DELETE", item_target(name, "/holds/" + url_encode(id)));
    if (!answer) return impl_->failed(answer.error());
    if (!impl_->json) impl_->say("Released: its point goes when the policy says.\n");
    return 0;
}

int ClientVerbs::cost(const std::string& name, const PolicyArguments& policy) {
    std::string target = item_target(name, "/cost");
    char joint = '?';
    if (policy.window_s) {
        target += fmt::format("{}window_s={}", joint, *policy.window_s);
        joint = '&';
    }
    if (policy.keep) target += fmt::format("{}keep={}", joint, url_encode(*policy.keep));
    auto answer = impl_->call("GET", target);
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table({{"WHAT"}, {"POINTS", Align::kRight}, {"BYTES", Align::kRight}});
    table.add({"the newest state", "1", human_bytes(count_of(*answer, "newest_bytes"))});
    table.add(
        {fmt::format("every write of {}", human_seconds(double(count_of(*answer, "window_s")))), "",
         human_bytes(count_of(*answer, "window_bytes"))});
    if (const Json& steps = member(*answer, "steps"); steps.is_array())
        for (const Json& step : steps)
            table.add({fmt::format("one every {} up to {}",
                                   human_seconds(double(count_of(step, "every_s"))),
                                   human_seconds(double(count_of(step, "until_s")))),
                       std::to_string(count_of(step, "points")),
                       human_bytes(count_of(step, "bytes"))});
    table.add({"together", "", human_bytes(count_of(*answer, "total_bytes"))});
    impl_->say(table.to_string());
    impl_->note(fmt::format("\nAn estimate from the last {} ({}/s written); {} are stored now.\n",
                            human_seconds(double(count_of(*answer, "seen_s"))),
                            human_bytes(count_of(*answer, "written_per_s")),
                            human_bytes(count_of(*answer, "stored_bytes"))));
    return 0;
}

}  // namespace farshore
