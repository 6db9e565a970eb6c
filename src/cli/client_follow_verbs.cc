// farshore events --follow: what happens, as it does.
#include <fmt/core.h>

#include "cli/api_documents.h"
#include "cli/client_verbs_impl.h"
#include "cli/event_stream.h"
#include "cli/format.h"

namespace farshore {
namespace {

constexpr int64_t kReconnectMs = 1000;

std::string event_text(const Json& event) {
    std::string text = human_time(text_of(event, "time")) + "  " + text_of(event, "severity") +
                       "  " + text_of(event, "code");
    if (const std::string item = text_of(event, "item"); !item.empty()) text += "  " + item;
    text += "  " + text_of(event, "cause");
    if (const std::string remedy = text_of(event, "remedy"); !remedy.empty()) text += "; " + remedy;
    return text + "\n";
}

}  // namespace

int ClientVerbs::follow_events(const ListArguments& arguments) {
    Impl& impl = *impl_;
    ListArguments of_item;
    of_item.item = arguments.item;
    const std::string target = filtered("/v1/changes", of_item);
    const auto wanted = [&](const Json& event) {
        const auto is = [&](const char* name) {
            const auto at = arguments.filters.find(name);
            return at == arguments.filters.end() || at->second.empty() ||
                   text_of(event, name) == at->second;
        };
        return is("code");
    };
    const auto rank = [](const std::string& severity) {
        return severity == "critical" ? 2 : severity == "warning" ? 1 : 0;
    };
    const auto least = arguments.filters.find("severity");
    const int at_least = least == arguments.filters.end() ? 0 : rank(least->second);
    std::string last_id;
    int lost = 0;
    bool waited = false;  // from then on an interruption is only seen by who looks
    bool is_over = false;
    const auto interrupted = [&] { return is_over = impl.environment.pause(0); };
    while (true) {
        if (const Status connected = impl.connect(); !connected)
            return impl.failed(connected.error());
        EventStream stream;
        const Status ended = impl.transport->follow(target, last_id, [&](std::string_view bytes) {
            lost = 0;
            const bool good = stream.take(bytes, [&](const StreamMessage& message) {
                auto json = parse_json(message.data, "a message", kMaxStreamLineBytes);
                if (!json) return;
                if (message.kind == "lost")
                    impl.note("Events before this were forgotten by the server.\n");
                if (message.kind != "event" || !wanted(*json) ||
                    rank(text_of(*json, "severity")) < at_least)
                    return;
                if (impl.json)
                    impl.print(*json);
                else
                    impl.say(event_text(*json));
            });
            if (!stream.last_id().empty()) last_id = stream.last_id();
            return good && impl.environment.out->good() && !(waited && interrupted());
        });
        if (is_over) return kExitInterrupted;
        // The server ended, or was lost: another may be there soon.
        if (!ended && ended.error().retry() != Retry::kSoon) return impl.failed(ended.error());
        if (++lost > kMaxLostPolls)
            return impl.failed(ended ? Error(Code::kUnavailable, "the server ends each stream")
                                     : ended.error());
        if (impl.environment.pause(kReconnectMs)) return kExitInterrupted;
        waited = true;
    }
}

}  // namespace farshore
