// The verbs of recovery, jobs, events, agents and the server: the second half of client_verbs.cc.
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "cli/api_documents.h"
#include "cli/client_verbs_impl.h"
#include "cli/format.h"

namespace farshore {

// ---- recovery, jobs

int ClientVerbs::failover(const FailoverArguments& arguments) {
    Json body{{"action", arguments.action}};
    if (!arguments.copy.empty()) body["copy"] = arguments.copy;
    if (!arguments.point.empty()) body["point"] = arguments.point;
    if (!arguments.network.empty()) body["network"] = arguments.network;
    if (!arguments.compute.empty()) body["compute"] = arguments.compute;
    if (arguments.shut_down) body["shut_down"] = true;
    if (arguments.planned) body["planned"] = true;
    if (arguments.power_off) body["power_off"] = true;
    if (arguments.timeout_s != 0) body["timeout_s"] = arguments.timeout_s;
    if (arguments.commit_after_s != 0 || arguments.roll_back_after_s != 0) {
        body["then"] = arguments.commit_after_s != 0 ? "commit" : "roll-back";
        body["after_s"] = std::max(arguments.commit_after_s, arguments.roll_back_after_s);
    }
    auto answer = impl_->call("POST", item_target(arguments.name, "/failovers"), body);
    if (!answer) return impl_->failed(answer.error());
    return impl_->follow_job(*answer, arguments.wait);
}

int ClientVerbs::way_home(const ReturnArguments& arguments) {
    Json body{{"action", arguments.action}};
    if (!arguments.agent.empty()) body["agent"] = arguments.agent;
    if (!arguments.appliance.empty()) body["appliance"] = arguments.appliance;
    for (const std::string& disk : arguments.disks) body["disks"].push_back(disk);
    if (arguments.accept) body["accept"] = true;
    if (arguments.power_off) body["power_off"] = true;
    if (arguments.timeout_s != 0) body["timeout_s"] = arguments.timeout_s;
    auto answer = impl_->call("POST", item_target(arguments.name, "/return"), body);
    if (!answer) return impl_->failed(answer.error());
    return impl_->follow_job(*answer, arguments.wait);
}

// The table, with the item's own state marked.
int ClientVerbs::states(const std::string& name) {
    auto answer = impl_->call("GET", item_target(name, "/states"));
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    const auto joined = [](const Json& list) {
        std::string text;
        if (list.is_array())
            for (const Json& one : list)
                if (one.is_string()) text += (text.empty() ? "" : ", ") + one.get<std::string>();
        return text;
    };
    const std::string now = text_of(*answer, "state");
    Table table({{""}, {"STATE"}, {"POSSIBLE"}, {"NEXT"}});
    if (const Json& rows = member(*answer, "states"); rows.is_array())
        for (const Json& row : rows)
            table.add({text_of(row, "state") == now ? "*" : "", text_of(row, "state"),
                       joined(member(row, "actions")), joined(member(row, "next"))});
    impl_->say(table.to_string());
    return 0;
}

// Of a machine's cards, each network once.
static std::string networks_text(const Json& nics) {
    std::vector<std::string> words;
    if (nics.is_array())
        for (const Json& nic : nics)
            if (std::string word = text_of(nic, "network");
                std::ranges::find(words, word) == words.end())
                words.push_back(std::move(word));
    return words.empty() ? "-" : fmt::format("{}", fmt::join(words, ", "));
}

int ClientVerbs::failovers(const std::string& name) {
    auto answer = impl_->call("GET", item_target(name, "/failovers"));
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table({{"ID"},
                 {"KIND"},
                 {"STATE"},
                 {"HOST"},
                 {"DISKS"},
                 {"CREATED"},
                 {"POINT"},
                 {"NETWORK"},
                 {"NOTE"}});
    if (const Json& rows = member(*answer, "failovers"); rows.is_array())
        for (const Json& row : rows)
            table.add({text_of(row, "id"), text_of(row, "kind"), text_of(row, "state"),
                       row.contains("compute") ? printable(text_of(row, "compute")) : "local",
                       // Of one that is committed, it is told.
                       !row.contains("hydrated")             ? "-"
                       : member(row, "stands_alone") == true ? "files"
                       : member(row, "hydrated") == true     ? "its own"
                                                             : "the replica's",
                       human_time(text_of(row, "created")), point_text(member(row, "point")),
                       networks_text(member(row, "nics")), printable(text_of(row, "note"))});
    if (table.empty())
        impl_->note("No failovers.\n");
    else
        impl_->say(table.to_string());
    return 0;
}

int ClientVerbs::materialise(const MaterialiseArguments& arguments) {
    // The vault takes whole paths; one that is relative is so to where the user is.
    std::string to = arguments.to;
    const size_t colon = to.find(':');
    if (colon != std::string::npos && to.find("://") == std::string::npos)
        to = to.substr(0, colon + 1) + impl_->absolute(to.substr(colon + 1));
    Json body{{"point", arguments.point},
              {"disk", arguments.disk},
              {"to", to},
              {"settings", impl_->absolute(arguments.settings)},
              {"replace", arguments.force},
              {"throttle_bytes_per_s", arguments.throttle_bytes_per_s}};
    if (!arguments.copy.empty()) body["copy"] = arguments.copy;
    auto answer = impl_->call("POST", item_target(arguments.name, "/materialise"), body);
    if (!answer) return impl_->failed(answer.error());
    return impl_->follow_job(*answer, arguments.wait);
}

int ClientVerbs::jobs(const ListArguments& arguments) {
    auto answer = impl_->list(filtered("/v1/jobs", arguments), "jobs", "before", arguments.limit);
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table({{"ID", Align::kRight},
                 {"KIND"},
                 {"ITEM"},
                 {"STATE"},
                 {"DONE", Align::kRight},
                 {"CREATED"},
                 {"WHAT"}});
    for (const Json& job : member(*answer, "jobs")) {
        const Json& error = member(job, "error");
        table.add({std::to_string(count_of(job, "id")), text_of(job, "kind"), text_of(job, "item"),
                   text_of(job, "state"),
                   fmt::format("{:.0f} %", number_of(job, "progress").value_or(0) * 100),
                   human_time(text_of(job, "created")),
                   error.is_object() ? text_of(error, "detail") : text_of(job, "message")});
    }
    if (table.empty())
        impl_->note("No jobs.\n");
    else
        impl_->say(table.to_string());
    return 0;
}

int ClientVerbs::job(uint64_t id, bool wait) {
    auto answer = impl_->call("GET", fmt::format("/v1/jobs/{}", id));
    if (!answer) return impl_->failed(answer.error());
    if (wait) return impl_->follow_job(*answer, true);
    if (impl_->json)
        impl_->print(*answer);
    else
        impl_->print_job(*answer);
    return 0;
}

int ClientVerbs::retry_job(uint64_t id, bool wait) {
    auto answer = impl_->call("POST", fmt::format("/v1/jobs/{}/retry", id));
    if (!answer) return impl_->failed(answer.error());
    const uint64_t again = count_of(*answer, "id");
    if (!impl_->json) impl_->say(fmt::format("Job {} does it again.\n", again));
    if (wait) return job(again, true);
    if (impl_->json) impl_->print(*answer);
    return 0;
}

int ClientVerbs::cancel_job(uint64_t id) {
    auto answer = impl_->call("POST", fmt::format("/v1/jobs/{}/cancel", id));
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json)
        impl_->print(*answer);
    else
        impl_->say(fmt::format("Job {} was asked to end.\n", id));
    return 0;
}

// ---- the rest

int ClientVerbs::events(const ListArguments& arguments) {
    auto answer =
        impl_->list(filtered("/v1/events", arguments), "events", "before", arguments.limit);
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table({{"TIME"}, {"SEVERITY"}, {"CODE"}, {"ITEM"}, {"WHAT"}});
    for (const Json& event : member(*answer, "events")) {
        std::string what = text_of(event, "cause");
        if (const std::string remedy = text_of(event, "remedy"); !remedy.empty())
            what += "; " + remedy;
        table.add({human_time(text_of(event, "time")), text_of(event, "severity"),
                   text_of(event, "code"), text_of(event, "item"), what});
    }
    if (table.empty())
        impl_->note("No events.\n");
    else
        impl_->say(table.to_string());
    return 0;
}

int ClientVerbs::agents() {
    auto answer = impl_->list("/v1/agents", "agents", "after", UINT64_MAX);
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table({{"NAME"}, {"KIND"}, {"CONNECTED"}, {"VERSION"}, {"LAST SEEN"}});
    for (const Json& agent : member(*answer, "agents")) {
        const Json& connected = member(agent, "connected");
        const std::string seen = text_of(agent, "last_seen");
        table.add({text_of(agent, "name"), text_of(agent, "kind"),
                   connected.is_boolean() && connected.get<bool>() ? "yes" : "no",
                   text_of(agent, "version"), seen.empty() ? "never" : human_time(seen)});
    }
    if (table.empty())
        impl_->note("No agents yet: `farshore token create` makes the token that admits one.\n");
    else
        impl_->say(table.to_string());
    return 0;
}

int ClientVerbs::revoke_agent(const std::string& name) {
    auto answer = impl_->call("DELETE", "/v1/agents/" + url_encode(name));
    if (!answer) return impl_->failed(answer.error());
    if (!impl_->json)
        impl_->say(
            "Revoked: what it says is refused from now on. Its items stay protected as they are "
            "until it is enrolled anew, or another agent is named.\n");
    return 0;
}

int ClientVerbs::nodes() {
    auto answer = impl_->call("GET", "/v1/nodes");
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table({{"NAME"}, {"ADDRESS"}, {"STATE"}, {"VERSION"}, {"MACHINES"}, {"STARTED"}});
    for (const Json& node : member(*answer, "nodes"))
        table.add({text_of(node, "name"), text_of(node, "address"), text_of(node, "state"),
                   text_of(node, "version"), std::to_string(count_of(node, "machines")),
                   human_time(text_of(node, "started"))});
    if (table.empty())
        impl_->note(fmt::format("One vault has the database {} to itself.\n",
                                text_of(*answer, "database")));
    else
        impl_->say(table.to_string());
    return 0;
}

int ClientVerbs::create_token(const std::string& kind, const std::string& name, uint64_t valid_s) {
    auto answer = impl_->call("POST", "/v1/enrolment-tokens",
                              {{"kind", kind}, {"name", name}, {"valid_s", valid_s}});
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    impl_->say(text_of(*answer, "token") + "\n");
    impl_->note(fmt::format("Admits one {}, once, until {}.\n", text_of(*answer, "kind"),
                            human_time(text_of(*answer, "expires"))));
    return 0;
}

int ClientVerbs::server() {
    auto answer = impl_->call("GET", "/v1/server");
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    impl_->say(key_values({{"Version", text_of(*answer, "version")},
                           {"Vault", text_of(*answer, "vault_id")},
                           {"Store", text_of(*answer, "store_id")},
                           {"Key", text_of(*answer, "key_id")},
                           {"Epoch", std::to_string(count_of(*answer, "epoch"))},
                           {"Started", human_time(text_of(*answer, "started"))},
                           {"Items", std::to_string(count_of(*answer, "items"))},
                           {"Stored", human_bytes(count_of(*answer, "stored_bytes"))}}));
    return 0;
}

}  // namespace farshore
