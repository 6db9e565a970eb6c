// The scrub of an item: asked for, shown.
#include <fmt/core.h>

#include "cli/api_documents.h"
#include "cli/client_verbs_impl.h"
#include "cli/format.h"

namespace farshore {
namespace {

std::string cost_of(const Json& damage) {
    const Json& points = member(damage, "points");
    std::string text;
    size_t shown = 0;
    for (const Json& range : member(points, "ranges")) {
        if (++shown > 3) break;
        const Json &oldest = member(range, "oldest"), &newest = member(range, "newest");
        text +=
            fmt::format("{}{} to {} ({} to {})", text.empty() ? "" : ", ",
                        count_of(oldest, "sequence"), count_of(newest, "sequence"),
                        human_time(text_of(oldest, "time")), human_time(text_of(newest, "time")));
    }
    if (const size_t ranges = member(points, "ranges").size(); ranges > 3)
        text += fmt::format(", {} further ranges", ranges - 3);
    if (const size_t kept = member(points, "kept").size(); kept != 0)
        text +=
            fmt::format("{}{} kept point{}", text.empty() ? "" : ", ", kept, kept == 1 ? "" : "s");
    return text.empty() ? "none" : text;
}

}  // namespace

int ClientVerbs::scrub(const std::string& name, bool now, bool wait) {
    if (now) {
        auto started = impl_->call("POST", item_target(name, "/scrub"));
        if (!started) return impl_->failed(started.error());
        if (!wait) return impl_->follow_job(*started, false);
        auto ended = impl_->wait_for_job(count_of(*started, "id"));
        if (!ended) return impl_->failed(ended.error());
        if (text_of(*ended, "state") != "succeeded") return impl_->show_ended_job(*ended);
    }
    auto scrub = impl_->call("GET", item_target(name, "/scrub"));
    if (!scrub) return impl_->failed(scrub.error());
    if (impl_->json) {
        impl_->print(*scrub);
        return 0;
    }
    Table table({{""}, {""}});
    table.add({"State", text_of(*scrub, "state")});
    for (const auto& [label, key] : {std::pair{"Started", "started"},
                                     std::pair{"Finished", "finished"}, std::pair{"Next", "next"}})
        if (const std::string time = text_of(*scrub, key); !time.empty())
            table.add({label, human_time(time)});
    table.add({"Read", fmt::format("{} in {} objects", human_bytes(count_of(*scrub, "read_bytes")),
                                   count_of(*scrub, "objects"))});
    if (const Json& error = member(*scrub, "error"); error.is_object())
        table.add({"Ended early", printable(text_of(error, "detail"))});
    const Json& damaged = member(*scrub, "damaged");
    table.add({"Damaged", std::to_string(damaged.size())});
    impl_->say(table.to_string());
    for (const Json& one : damaged)
        impl_->say(fmt::format(
            "\n{}\n  {}\n  unreadable points: {}\n{}", printable(text_of(one, "object")),
            printable(text_of(one, "cause")), cost_of(one),
            flag_of(one, "newest_point") ? "  the newest among them: the source sends it again\n"
                                         : ""));
    return 0;
}

}  // namespace farshore
