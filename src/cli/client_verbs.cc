#include "cli/client_verbs.h"

#include <fmt/core.h>

#include <algorithm>

#include "cli/api_documents.h"
#include "cli/client_verbs_impl.h"
#include "cli/format.h"

namespace farshore {
namespace {

constexpr int kExportRenewalMs = 15'000;

}  // namespace

ClientVerbs::ClientVerbs(CliEnvironment& environment, const LocationOptions& location, bool json)
    : impl_(new Impl{environment, location, json, nullptr, 0}) {}
ClientVerbs::~ClientVerbs() = default;

// ---- items

int ClientVerbs::items(const ListArguments& arguments) {
    auto answer = impl_->list(filtered("/v1/items", arguments), "items", "after", UINT64_MAX);
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table({{"NAME"},
                 {"STATE"},
                 {"HEALTH"},
                 {"RPO", Align::kRight},
                 {"WORST", Align::kRight},
                 {"LAG", Align::kRight},
                 {"STORED", Align::kRight},
                 {"NEWEST POINT"}});
    for (const Json& item : member(*answer, "items")) {
        std::string state = text_of(item, "state");
        if (!copy_text(item).empty())
            state += fmt::format(" {:.0f} %", std::min(copy_fraction(item), 1.0) * 100);
        const std::string newest = text_of(member(item, "newest_point"), "time");
        table.add({text_of(item, "name"), state, text_of(item, "health"), seconds_of(item, "rpo_s"),
                   seconds_of(item, "rpo_worst_s"), human_bytes(count_of(item, "lag_bytes")),
                   human_bytes(count_of(item, "stored_bytes")),
                   newest.empty() ? "-" : human_time(newest)});
    }
    if (table.empty() && !arguments.filters.empty())
        impl_->note("No such items.\n");
    else if (table.empty())
        impl_->note("No items yet: `farshore protect NAME --qmp SOCKET` protects a machine.\n");
    else
        impl_->say(table.to_string());
    return 0;
}

void ClientVerbs::Impl::print_item(const Json& item) {
    std::vector<std::pair<std::string, std::string>> rows;
    rows.push_back({"Item", text_of(item, "name") + "  (" + text_of(item, "id") + ")"});
    rows.push_back({"State", text_of(item, "state") + ", " + text_of(item, "health")});
    if (const std::string copy = copy_text(item); !copy.empty()) {
        const int64_t eta = eta_of(item);
        rows.push_back({"Copied", copy + (eta >= 0 ? ", " + human_seconds(double(eta)) + " left"
                                                   : std::string())});
    }
    rows.push_back({"RPO", seconds_of(item, "rpo_s") + " now, " + seconds_of(item, "rpo_worst_s") +
                               " worst in the last hour"});
    rows.push_back({"Lag", human_bytes(count_of(item, "lag_bytes")) + ", " +
                               human_count(count_of(item, "lag_records")) + " records"});
    rows.push_back({"Oldest point", point_text(member(item, "oldest_point"))});
    rows.push_back({"Newest point", point_text(member(item, "newest_point"))});
    if (const Json& drill = member(item, "drill"); drill.is_object())
        rows.push_back(
            {"Last good test",
             drill.contains("last_good")
                 ? fmt::format("{} ago (drill {}){}", seconds_of(drill, "last_good_age_s"),
                               count_of(drill, "last_good_drill"),
                               text_of(drill, "verdict") == "bad" ? "; the newest was BAD" : "")
             : text_of(drill, "verdict") == "bad" ? std::string("none; the newest was BAD")
                                                  : std::string("none yet")});
    rows.push_back({"Written", human_bytes(count_of(item, "written_bytes")) + ", stored " +
                                   human_bytes(count_of(item, "stored_bytes"))});
    rows.push_back({"Captured", text_of(item, "mode") + (text_of(item, "agent").empty()
                                                             ? ", by no agent yet"
                                                             : " by " + text_of(item, "agent"))});
    if (const std::string socket = text_of(item, "nbd_socket"); !socket.empty())
        rows.push_back({"NBD socket", socket});
    if (const std::string socket = text_of(item, "qmp_socket"); !socket.empty())
        rows.push_back({"QMP socket", socket});
    if (const Json& disks = member(item, "disks"); disks.is_array())
        for (const Json& disk : disks)
            rows.push_back(
                {fmt::format("Disk {}", count_of(disk, "index")),
                 human_bytes(count_of(disk, "size_bytes")) + "  " + text_of(disk, "path") +
                     (text_of(disk, "state") == "joining" ? "  (joining: no part of the points yet)"
                      : text_of(disk, "state") == "removed" ? "  (removed)"
                                                            : "")});
    const Json& policy = member(item, "policy");
    const std::string keep = text_of(policy, "keep");
    rows.push_back(
        {"Policy",
         fmt::format(
             "{}points every {}, every write for {}{}",
             text_of(item, "policy_name").empty() ? "" : text_of(item, "policy_name") + ": ",
             human_seconds(double(count_of(policy, "crash_point_interval_s"))),
             human_seconds(double(count_of(policy, "window_s"))),
             keep.empty() ? "" : ", then " + printable(keep))});
    for (auto& row : policy_rows(item)) rows.push_back(std::move(row));
    if (const Json& consistent = member(item, "consistent_points"); consistent.is_object()) {
        const std::string last = text_of(consistent, "last_time");
        rows.push_back(
            {"Consistent",
             fmt::format("every {}, {}", human_seconds(double(count_of(consistent, "interval_s"))),
                         last.empty() ? "none yet" : "newest " + human_time(last))});
    }
    if (const Json& troubles = member(item, "troubles"); troubles.is_array())
        for (const Json& trouble : troubles) {
            std::string text = text_of(trouble, "code") + ": " + text_of(trouble, "cause");
            if (const std::string remedy = text_of(trouble, "remedy"); !remedy.empty())
                text += "; " + remedy;
            rows.push_back(
                {text_of(trouble, "severity") == "critical" ? "Critical" : "Warning", text});
        }
    say(key_values(rows));
}

int ClientVerbs::item(const std::string& name) {
    auto answer = impl_->call("GET", item_target(name));
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json)
        impl_->print(*answer);
    else
        impl_->print_item(*answer);
    return 0;
}

// Until `look` says how it ended; a vault that is away for a moment is waited for.
int ClientVerbs::Impl::follow_item(const std::string& name, int pause_ms,
                                   const std::string& what_goes_on,
                                   const std::function<std::optional<int>(const Json&)>& look) {
    int lost = 0;
    while (true) {
        auto answer = call("GET", item_target(name));
        if (!answer) {
            if (answer.error().retry() != Retry::kSoon || ++lost > kMaxLostPolls)
                return failed(answer.error());
        } else {
            lost = 0;
            if (const auto ended = look(*answer)) return *ended;
        }
        if (environment.pause(pause_ms)) {
            clear_progress();
            note(what_goes_on + " goes on; `farshore item " + name + "` shows it.\n");
            return kExitInterrupted;
        }
    }
}

int ClientVerbs::Impl::wait_until_protected(const std::string& name) {
    return follow_item(name, 1000, "The protection", [&](const Json& item) -> std::optional<int> {
        const std::string state = text_of(item, "state");
        if (state == "enabling" || state == "initial-replication" || state == "resynchronising") {
            draw_progress(copy_fraction(item), eta_of(item),
                          copy_text(item).empty() ? state : copy_text(item));
            return std::nullopt;
        }
        clear_progress();
        if (json)
            print(item);
        else
            say(fmt::format("'{}' is {}.\n", text_of(item, "name"), state));
        return 0;
    });
}

int ClientVerbs::protect(const ProtectArguments& arguments) {
    Json body{{"name", arguments.name}, {"wait_s", arguments.capture_wait_s}};
    if (!arguments.qmp_socket.empty()) body["qmp_socket"] = impl_->absolute(arguments.qmp_socket);
    for (const std::string& disk : arguments.disks) body["disks"].push_back(impl_->absolute(disk));
    for (const std::string& seed : arguments.seeds) {
        // As a person at the vault's machine types it; URIs and items are no paths.
        const bool path = seed.find(':') == std::string::npos && !seed.empty() && seed != "-";
        body["seeds"].push_back(path ? impl_->absolute(seed) : seed == "-" ? "" : seed);
    }
    // As they are called on the agent's machine, which may not be this one.
    for (const std::string& device : arguments.devices) body["devices"].push_back(device);
    if (!arguments.agent.empty()) body["agent"] = arguments.agent;
    if (const Json policy = policy_json(arguments.policy); !policy.empty()) body["policy"] = policy;
    if (!arguments.policy_name.empty()) body["policy_name"] = arguments.policy_name;
    auto answer =
        impl_->call("POST", "/v1/items", body,
                    static_cast<int>(std::min<uint64_t>(arguments.capture_wait_s, 60)) + 60);
    if (!answer) return impl_->failed(answer.error());
    const Json& item = *answer;
    const std::string state = text_of(item, "state");
    if (impl_->json && !arguments.wait) impl_->print(item);
    if (!impl_->json) {
        impl_->say(
            fmt::format("'{}' is {}, id {}.\n", text_of(item, "name"), state, text_of(item, "id")));
        if (const std::string socket = text_of(item, "nbd_socket"); !socket.empty())
            impl_->say(fmt::format("NBD socket: {}\n", socket));
    }
    if (const Json& troubles = member(item, "troubles"); state == "enabling" && troubles.is_array())
        for (const Json& trouble : troubles)
            if (text_of(trouble, "severity") == "critical")
                return impl_->failed(
                    Error(code_from_name(text_of(trouble, "code")),
                          "the item stays, but is not captured: " + text_of(trouble, "cause"),
                          text_of(trouble, "remedy")));
    if (arguments.wait) return impl_->wait_until_protected(text_of(item, "name"));
    if (state == "enabling" && !arguments.seeds.empty()) {
        // Its socket comes when that is done.
        if (!impl_->json)
            impl_->say(
                "Its seed is read first; `farshore item` and `farshore jobs` show how far.\n");
        return 0;
    }
    if (state == "enabling" && arguments.capture_wait_s != 0)
        return impl_->failed(Error(Code::kTimeout,
                                   fmt::format("no agent captures '{}' yet", text_of(item, "name")),
                                   "the item stays and is captured as soon as its agent connects; "
                                   "`farshore agents` lists the agents"));
    return 0;
}

int ClientVerbs::unprotect(const std::string& name, bool force, bool wait) {
    auto answer = impl_->call("DELETE", item_target(name, force ? "?force=true" : ""));
    if (!answer) return impl_->failed(answer.error());
    return impl_->follow_job(*answer, wait);
}

// ---- points

namespace {

// Where the disks changed unlike before; a template, since Impl is the client's own.
template <typename Client>
void print_suspicious(Client& client, const Json& found) {
    if (!found.is_array() || found.empty()) {
        client.say("The disks changed as they usually do.\n");
        return;
    }
    Table table({{"FROM"},
                 {"UNTIL"},
                 {"DISK"},
                 {"WHAT"},
                 {"IN AN HOUR"},
                 {"USUAL"},
                 {"LAST POINT BEFORE"}});
    for (const Json& one : found)
        table.add({human_time(text_of(one, "from")), human_time(text_of(one, "until")),
                   std::to_string(count_of(one, "disk")), text_of(one, "reason"),
                   human_bytes(count_of(one, "bytes")), human_bytes(count_of(one, "usual_bytes")),
                   member(one, "point_before").is_object() ? point_text(member(one, "point_before"))
                                                           : "none is left"});
    client.say(table.to_string());
}

}  // namespace

// A point that the item shares with its group says so; one that was given up does not.
static std::string kind_text(const Json& point) {
    const Json& shared = member(point, "shared");
    if (!shared.is_object() || text_of(shared, "state") == "void") return text_of(point, "kind");
    return "multi-vm " + text_of(shared, "kind");
}

int ClientVerbs::points(const ListArguments& arguments, const std::string& kind, bool suspicious) {
    std::string filter;
    if (!kind.empty()) filter += "&kind=" + url_encode(kind);
    if (suspicious) filter += "&suspicious=true";
    if (!arguments.copy.empty()) filter += "&copy=" + url_encode(arguments.copy);
    const std::string target = item_target(arguments.item, "/points");
    auto answer = impl_->call(
        "GET", fmt::format("{}?limit={}{}", target, std::min(arguments.limit, kPageRows), filter));
    // A page at a time; window and gaps are the first one's.
    for (Json next = answer ? member(*answer, "next") : Json(); next.is_number_integer();) {
        const uint64_t have = member(*answer, "points").size();
        if (have >= arguments.limit) break;
        const auto page = impl_->call(
            "GET", fmt::format("{}?limit={}&before={}{}", target,
                               std::min(arguments.limit - have, kPageRows), next.dump(), filter));
        if (!page) return impl_->failed(page.error());
        for (const Json& point : member(*page, "points")) (*answer)["points"].push_back(point);
        next = member(*page, "next");
        if (next.is_number_integer())
            (*answer)["next"] = next;
        else
            answer->erase("next");
    }
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    if (suspicious) {
        print_suspicious(*impl_, member(*answer, "suspicious"));
        return 0;
    }
    const Json& window = member(*answer, "window");
    if (!window.is_object()) {
        impl_->say("There is no recovery point yet.\n");
        return 0;
    }
    std::vector<std::pair<std::string, std::string>> rows{
        {"Oldest", point_text(member(window, "oldest"))},
        {"Newest", point_text(member(window, "newest"))}};
    if (const Json& gaps = member(*answer, "gaps"); gaps.is_array())
        for (const Json& gap : gaps)
            rows.push_back({"Not between", point_text(member(gap, "after")) + "  and  " +
                                               (member(gap, "before").is_object()
                                                    ? point_text(member(gap, "before"))
                                                    : "now")});
    impl_->say(key_values(rows));
    Table table({{"SEQUENCE", Align::kRight}, {"TIME"}, {"KIND"}, {"DISKS"}, {"KEPT"}, {"LABEL"}});
    if (const Json& points = member(*answer, "points"); points.is_array())
        for (const Json& point : points)
            table.add({std::to_string(count_of(point, "sequence")),
                       human_time(text_of(point, "time")), kind_text(point),
                       disks_text(member(point, "disks")), flag_of(point, "kept") ? "yes" : "",
                       text_of(point, "label")});
    if (!table.empty()) impl_->say("\n" + table.to_string());
    impl_->note(
        "\nAny sequence or time of the window can be asked for, not only those listed; of what is "
        "older, those that are kept.\n");
    return 0;
}

int ClientVerbs::point(const std::string& name, const std::string& point, const std::string& copy) {
    auto answer = impl_->call(
        "GET", item_target(name, "/points/" + url_encode(point) +
                                     (copy.empty() ? "" : "?copy=" + url_encode(copy))));
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json)
        impl_->print(*answer);
    else
        impl_->say(point_text(*answer) + "\n");
    return 0;
}

int ClientVerbs::bookmark(const std::string& name, const std::string& label, bool consistent,
                          uint64_t timeout_s) {
    Json request{{"label", label}, {"wait_s", std::min<uint64_t>(timeout_s, 30)}};
    if (consistent) request["kind"] = "application";
    auto answer = impl_->call("POST", item_target(name, "/bookmarks"), request);
    if (!answer) return impl_->failed(answer.error());
    Json bookmark = *answer;
    const std::string id = text_of(bookmark, "id");
    for (uint64_t waited_s = 30; text_of(bookmark, "state") != "stored"; waited_s += 10) {
        if (waited_s >= timeout_s)
            return impl_->failed(
                Error(Code::kTimeout,
                      fmt::format("the bookmark is not stored after {} s; it is {}", timeout_s,
                                  text_of(bookmark, "state")),
                      "`farshore item` shows what the replication waits for"));
        if (impl_->environment.pause(1)) return kExitInterrupted;
        auto again = impl_->call("GET", fmt::format("/v1/bookmarks/{}?wait_s=10", url_encode(id)));
        if (!again) return impl_->failed(again.error());
        bookmark = std::move(*again);
    }
    if (impl_->json)
        impl_->print(bookmark);
    else
        impl_->say(point_text(bookmark) + "\n");
    return 0;
}

int ClientVerbs::export_point(const ExportArguments& arguments) {
    // From here on an interruption ends the export, and does not leave one behind.
    if (impl_->environment.pause(0)) return kExitInterrupted;
    Json body{{"point", arguments.point},
              {"disk", arguments.disk},
              {"socket", impl_->absolute(arguments.socket)}};
    if (!arguments.copy.empty()) body["copy"] = arguments.copy;
    auto answer = impl_->call("POST", item_target(arguments.name, "/exports"), body);
    if (!answer) return impl_->failed(answer.error());
    const std::string id = text_of(*answer, "id");
    if (impl_->json) {
        impl_->print(*answer);
    } else {
        impl_->say(fmt::format("Disk {} of '{}' at {}\n{}\n", count_of(*answer, "disk"),
                               text_of(*answer, "item"), point_text(member(*answer, "point")),
                               text_of(*answer, "uri")));
        impl_->note("Read-only. Ctrl-C ends it.\n");
    }
    const std::string target = "/v1/exports/" + url_encode(id);
    int lost = 0;
    while (!impl_->environment.pause(kExportRenewalMs)) {
        auto renewed = impl_->call("GET", target);
        if (renewed) {
            lost = 0;
        } else if (renewed.error().retry() != Retry::kSoon || ++lost > 3) {
            return impl_->failed(renewed.error().with_context("the export has ended"));
        }
    }
    auto ended = impl_->call("DELETE", target);
    if (!ended && ended.error().code() != Code::kNotFound) return impl_->failed(ended.error());
    return 0;
}

}  // namespace farshore
