// The verbs about who is told of events.
#include <fmt/core.h>

#include "cli/api_documents.h"
#include "cli/client_verbs_impl.h"
#include "cli/format.h"

namespace farshore {

int ClientVerbs::notifiers() {
    auto answer = impl_->call("GET", "/v1/notifiers");
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table({{"NAME"}, {"KIND"}, {"TO"}, {"FROM SEVERITY"}, {"TOLD LAST"}, {"TROUBLE"}});
    if (const Json& rows = member(*answer, "notifiers"); rows.is_array())
        for (const Json& row : rows)
            table.add({text_of(row, "name"), text_of(row, "kind"),
                       printable(text_of(row, "target")), text_of(row, "severity"),
                       row.contains("delivered") ? human_time(text_of(row, "delivered"))
                                                 : std::string("never"),
                       printable(text_of(member(row, "error"), "detail"))});
    impl_->say(table.empty() ? "Nobody is told of events.\n" : table.to_string());
    return 0;
}

int ClientVerbs::add_notifier(const NotifierArguments& arguments) {
    auto answer = impl_->call("POST", "/v1/notifiers",
                              {{"name", arguments.name},
                               {"kind", arguments.kind},
                               {"target", arguments.target},
                               {"settings", impl_->absolute(arguments.settings)},
                               {"severity", arguments.severity}});
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json)
        impl_->print(*answer);
    else
        impl_->say(
            fmt::format("'{0}' is told of what happens from now on. `farshore notify test "
                        "{0}` tries it.\n",
                        text_of(*answer, "name")));
    return 0;
}

int ClientVerbs::remove_notifier(const std::string& name) {
    auto answer = impl_->call("DELETE", "/v1/notifiers/" + url_encode(name));
    if (!answer) return impl_->failed(answer.error());
    if (!impl_->json) impl_->say("Removed: it is told nothing any more.\n");
    return 0;
}

int ClientVerbs::test_notifier(const std::string& name) {
    auto answer = impl_->call("POST", "/v1/notifiers/" + url_encode(name) + "/test");
    if (!answer) return impl_->failed(answer.error());
    if (!impl_->json) impl_->say("It took a message.\n");
    return 0;
}

}  // namespace farshore
