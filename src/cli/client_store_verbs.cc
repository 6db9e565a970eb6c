// The verbs about more stores, and about copies of items in them.
#include <fmt/core.h>

#include "cli/api_documents.h"
#include "cli/client_verbs_impl.h"
#include "cli/format.h"

namespace farshore {
namespace {

std::string store_state(const Json& store) {
    if (store.contains("error")) return printable(text_of(member(store, "error"), "detail"));
    return member(store, "open") == true ? "open" : "not seen yet";
}

std::string copy_state(const Json& copy) {
    const std::string state = text_of(copy, "state");
    if (state == "failing") return printable(text_of(member(copy, "error"), "detail"));
    if (state == "seeding")
        return fmt::format("seeding, {} of {} objects", count_of(copy, "seed_objects"),
                           count_of(copy, "seed_objects_total"));
    if (state != "following") return state;
    const uint64_t behind = count_of(copy, "behind_segments");
    if (behind == 0) return "following";
    return fmt::format("following, {} objects behind", behind);
}

}  // namespace

int ClientVerbs::stores() {
    auto answer = impl_->call("GET", "/v1/stores");
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table({{"STORE"}, {"LOCATION"}, {"COPIES", Align::kRight}, {"STATE"}});
    if (const Json& stores = member(*answer, "stores"); stores.is_array())
        for (const Json& store : stores)
            table.add({text_of(store, "name"), printable(text_of(store, "location")),
                       std::to_string(count_of(store, "copies")), store_state(store)});
    impl_->say(table.to_string());
    return 0;
}

int ClientVerbs::add_store(const StoreArguments& arguments) {
    // The vault takes whole paths; one that is relative is so to where the user is.
    const bool remote = arguments.location.find("://") != std::string::npos;
    const std::string place = remote ? arguments.location : impl_->absolute(arguments.location);
    Json body{{"name", arguments.name}, {"location", place}};
    if (!arguments.settings.empty()) body["settings"] = impl_->absolute(arguments.settings);
    if (arguments.take_over) body["take_over"] = true;
    auto answer = impl_->call("POST", "/v1/stores", body);
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json)
        impl_->print(*answer);
    else
        impl_->say(
            fmt::format("Store {} at {} is added. `farshore copy add ITEM --store {}` "
                        "begins a copy there.\n",
                        text_of(*answer, "name"), printable(text_of(*answer, "location")),
                        text_of(*answer, "name")));
    return 0;
}

int ClientVerbs::remove_store(const std::string& name) {
    auto answer = impl_->call("DELETE", "/v1/stores/" + url_encode(name));
    if (!answer) return impl_->failed(answer.error());
    if (!impl_->json) impl_->say("Removed; what is in it stays there.\n");
    return 0;
}

int ClientVerbs::copies(const std::string& name) {
    auto answer = impl_->call("GET", item_target(name, "/copies"));
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table({{"STORE"},
                 {"STATE"},
                 {"OLDEST"},
                 {"NEWEST"},
                 {"WINDOW"},
                 {"KEPT BEHIND IT"},
                 {"BYTES", Align::kRight},
                 {"DAMAGED", Align::kRight}});
    if (const Json& copies = member(*answer, "copies"); copies.is_array())
        for (const Json& copy : copies) {
            const auto time = [&](const char* which) {
                return copy.contains(which) ? human_time(text_of(member(copy, which), "time"))
                                            : std::string("-");
            };
            table.add({text_of(copy, "store"), copy_state(copy), time("oldest"), time("newest"),
                       human_seconds(double(count_of(copy, "window_s"))), text_of(copy, "keep"),
                       human_bytes(count_of(copy, "stored_bytes")),
                       std::to_string(count_of(copy, "damaged"))});
        }
    impl_->say(table.empty() ? "It has no copy in another store.\n" : table.to_string());
    return 0;
}

int ClientVerbs::change_copy(const std::string& name, const std::string& store,
                             const PolicyArguments& policy, bool add) {
    Json body = Json::object();
    if (add) body["store"] = store;
    if (policy.window_s) body["window_s"] = *policy.window_s;
    if (policy.keep) body["keep"] = *policy.keep;
    auto answer =
        add ? impl_->call("POST", item_target(name, "/copies"), body)
            : impl_->call("PATCH", item_target(name, "/copies/" + url_encode(store)), body);
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json)
        impl_->print(*answer);
    else
        impl_->say(fmt::format(
            "The copy in {} keeps every write of {}, and behind it {}.\n",
            text_of(*answer, "store"), human_seconds(double(count_of(*answer, "window_s"))),
            text_of(*answer, "keep").empty() ? "nothing" : text_of(*answer, "keep")));
    return 0;
}

int ClientVerbs::remove_copy(const std::string& name, const std::string& store, bool delete_points,
                             bool wait) {
    auto answer = impl_->call("DELETE", item_target(name, "/copies/" + url_encode(store)) +
                                            (delete_points ? "?points=delete" : ""));
    if (!answer) return impl_->failed(answer.error());
    if (delete_points) return impl_->follow_job(*answer, wait);
    if (!impl_->json) impl_->say("It follows no more; its points stay in that store.\n");
    return 0;
}

}  // namespace farshore
