// farshore alarms, alarm: what is wrong.
#include <fmt/core.h>

#include "cli/api_documents.h"
#include "cli/client_verbs_impl.h"
#include "cli/format.h"

namespace farshore {

int ClientVerbs::alarms(const ListArguments& arguments, bool all) {
    const std::string target = all ? "/v1/alarms?all=true" : "/v1/alarms?all=false";
    auto answer = impl_->list(filtered(target, arguments), "alarms", "before", arguments.limit);
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table({{"ID"}, {"RAISED"}, {"SEVERITY"}, {"CODE"}, {"OF"}, {"STATE"}, {"WHAT"}});
    for (const Json& alarm : member(*answer, "alarms")) {
        std::string what = text_of(alarm, "cause");
        if (const std::string remedy = text_of(alarm, "remedy"); !remedy.empty())
            what += "; " + remedy;
        const std::string cleared = text_of(alarm, "cleared");
        const std::string by = text_of(alarm, "acknowledged_by");
        table.add({std::to_string(count_of(alarm, "id")), human_time(text_of(alarm, "raised")),
                   text_of(alarm, "severity"), text_of(alarm, "code"),
                   text_of(alarm, "item") + text_of(alarm, "component"),
                   !cleared.empty() ? "cleared"
                   : by.empty()     ? "stands"
                                    : "seen by " + by,
                   what});
    }
    if (table.empty())
        impl_->note("No alarms.\n");
    else
        impl_->say(table.to_string());
    return 0;
}

int ClientVerbs::acknowledge_alarm(uint64_t id, const std::string& note) {
    Json body = Json::object();
    if (!note.empty()) body["note"] = note;
    auto answer = impl_->call("POST", fmt::format("/v1/alarms/{}/acknowledge", id), body);
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json)
        impl_->print(*answer);
    else
        impl_->say(fmt::format("Alarm {} ({}) is acknowledged.\n", id, text_of(*answer, "code")));
    return 0;
}

}  // namespace farshore
