// farshore appliances, appliance: who takes the records, and for which machines.
#include <fmt/core.h>

#include <tuple>

#include "cli/api_documents.h"
#include "cli/client_verbs_impl.h"
#include "cli/format.h"

namespace farshore {
namespace {

std::string percent(const Json& object, const char* name) {
    const Json& value = member(object, name);
    return value.is_number() ? fmt::format("{:.0f} %", value.get<double>()) : std::string("-");
}

bool is_true(const Json& object, const char* name) {
    const Json& value = member(object, name);
    return value.is_boolean() && value.get<bool>();
}

}  // namespace

int ClientVerbs::appliances() {
    auto answer = impl_->list("/v1/appliances", "appliances", "after", UINT64_MAX);
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table({{"NAME"},
                 {"SITE"},
                 {"ADDRESS"},
                 {"HEALTH"},
                 {"CONNECTED"},
                 {"ITEMS"},
                 {"CPU"},
                 {"MEMORY"},
                 {"SPOOL FREE"},
                 {"LAST SEEN"}});
    std::string words;
    for (const Json& one : member(*answer, "appliances")) {
        const std::string seen = text_of(one, "last_seen");
        const uint64_t coming = count_of(one, "coming");
        table.add({text_of(one, "name"), text_of(one, "site"), text_of(one, "address"),
                   text_of(one, "health"), is_true(one, "connected") ? "yes" : "no",
                   std::to_string(count_of(one, "items")) +
                       (coming == 0 ? std::string() : fmt::format(" (+{})", coming)),
                   percent(member(one, "load"), "cpu_percent"),
                   percent(member(one, "load"), "memory_percent"),
                   percent(one, "spool_free_percent"), seen.empty() ? "never" : human_time(seen)});
        for (const Json& trouble : member(one, "troubles"))
            words += fmt::format("{}: {}; {}\n", text_of(one, "name"), text_of(trouble, "cause"),
                                 text_of(trouble, "remedy"));
    }
    if (table.empty())
        impl_->note("No appliance has been heard of yet.\n");
    else
        impl_->say(table.to_string() + words);
    return 0;
}

int ClientVerbs::move_items(const std::vector<std::string>& items, const std::string& to,
                            bool lost) {
    for (const std::string& item : items) {
        auto answer = impl_->call("POST", "/v1/items/" + url_encode(item) + "/appliance",
                                  {{"appliance", to}, {"lost", lost}});
        if (!answer) return impl_->failed(answer.error());
        if (impl_->json) {
            impl_->print(*answer);
            continue;
        }
        const std::string next = text_of(member(*answer, "appliance"), "next");
        impl_->say(next.empty()
                       ? fmt::format("'{}' is appliance '{}''s.\n", item, to)
                       : fmt::format("'{}' goes to '{}' as soon as nothing is missed by that.\n",
                                     item, to));
    }
    return 0;
}

static int show_moves(ClientVerbs::Impl& impl, const Result<Json>& answer) {
    if (!answer) return impl.failed(answer.error());
    if (impl.json) {
        impl.print(*answer);
        return 0;
    }
    Table table({{"ITEM"}, {"FROM"}, {"TO"}});
    for (const Json& move : member(*answer, "moves"))
        table.add({text_of(move, "item"), text_of(move, "from"), text_of(move, "to")});
    if (table.empty())
        impl.note("Nothing has to move.\n");
    else
        impl.say(table.to_string());
    return 0;
}

int ClientVerbs::evacuate_appliance(const std::string& name, const std::string& to, bool lost) {
    Json body{{"lost", lost}};
    if (!to.empty()) body["to"] = to;
    return show_moves(
        *impl_, impl_->call("POST", "/v1/appliances/" + url_encode(name) + "/evacuate", body));
}

int ClientVerbs::balance_appliances(const std::string& site) {
    Json body = Json::object();
    if (!site.empty()) body["site"] = site;
    return show_moves(*impl_, impl_->call("POST", "/v1/appliances/balance", body));
}

int ClientVerbs::health_limits(const HealthLimitArguments& arguments) {
    Json body = Json::object();
    const auto add = [&](const char* name, const std::vector<uint32_t>& pair) {
        if (pair.size() == 2) body[name] = {{"warning", pair[0]}, {"critical", pair[1]}};
    };
    add("cpu_percent", arguments.cpu_percent);
    add("memory_percent", arguments.memory_percent);
    add("spool_free_percent", arguments.spool_free_percent);
    add("upload_eta_min", arguments.upload_eta_min);
    if (arguments.lasting_s) body["lasting_s"] = *arguments.lasting_s;
    if (arguments.silent_s) body["silent_s"] = *arguments.silent_s;
    auto answer = body.empty() ? impl_->call("GET", "/v1/health-limits")
                               : impl_->call("PATCH", "/v1/health-limits", body);
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table({{"OF"}, {"WARNING"}, {"CRITICAL"}});
    for (const auto& [name, unit, words] : {std::tuple{"cpu_percent", "%", "CPU above"},
                                            {"memory_percent", "%", "memory above"},
                                            {"spool_free_percent", "%", "free spool below"},
                                            {"upload_eta_min", "min", "time to store above"}}) {
        const Json& pair = member(*answer, name);
        table.add({words, fmt::format("{} {}", count_of(pair, "warning"), unit),
                   fmt::format("{} {}", count_of(pair, "critical"), unit)});
    }
    impl_->say(table.to_string() +
               fmt::format("Each when it has been so for {} s; silent after {} s.\n",
                           count_of(*answer, "lasting_s"), count_of(*answer, "silent_s")));
    return 0;
}

}  // namespace farshore
