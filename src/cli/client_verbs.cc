#include "cli/client_verbs.h"

#include <fmt/core.h>

#include <ostream>

#include "cli/format.h"
#include "meta/json_fields.h"

namespace farshore {
namespace {

constexpr size_t kMaxAnswerBytes = 64u << 20;
constexpr uint64_t kPageRows = 1000;
// A vault that restarts is away for seconds; waiting for a job outlasts that.
constexpr int kMaxLostPolls = 60;
constexpr int kExportRenewalMs = 15'000;

// A path component or query value (RFC 3986: unreserved characters stay).
std::string url_encode(std::string_view text) {
    std::string out;
    for (unsigned char c : text) {
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
            c == '-' || c == '.' || c == '_' || c == '~')
            out.push_back(static_cast<char>(c));
        else
            out += fmt::format("%{:02X}", c);
    }
    return out;
}

std::string item_target(const std::string& name, std::string_view rest = {}) {
    return fmt::format("/v1/items/{}{}", url_encode(name), rest);
}

// What the server sends is not trusted to have the right types: a missing or odd field is shown
// empty.
std::string text_of(const Json& json, const char* key) {
    if (!json.is_object()) return {};
    const auto at = json.find(key);
    return at != json.end() && at->is_string() ? printable(at->get<std::string>()) : std::string();
}
std::optional<double> number_of(const Json& json, const char* key) {
    if (!json.is_object()) return {};
    const auto at = json.find(key);
    if (at == json.end() || !at->is_number()) return {};
    return at->get<double>();
}
uint64_t count_of(const Json& json, const char* key) {
    if (!json.is_object()) return 0;
    const auto at = json.find(key);
    if (at == json.end() || !at->is_number_integer()) return 0;
    if (at->is_number_unsigned()) return at->get<uint64_t>();
    return 0;
}
const Json& member(const Json& json, const char* key) {
    static const Json none;
    if (!json.is_object()) return none;
    const auto at = json.find(key);
    return at == json.end() ? none : *at;
}

std::string seconds_of(const Json& json, const char* key) {
    const auto value = number_of(json, key);
    return value ? human_seconds(*value) : std::string("-");
}

std::string point_text(const Json& point) {
    if (!point.is_object()) return "none";
    std::string text = human_count(count_of(point, "sequence"));
    if (const std::string time = text_of(point, "time"); !time.empty())
        text += "  " + human_time(time);
    if (const std::string kind = text_of(point, "kind"); !kind.empty()) text += "  " + kind;
    if (const std::string label = text_of(point, "label"); !label.empty())
        text += "  \"" + label + "\"";
    return text;
}

std::string copy_text(const Json& item) {
    const uint64_t total = count_of(item, "copy_total_bytes");
    if (total == 0) return {};
    const uint64_t done = std::min(count_of(item, "copied_bytes"), total);
    if (done == total) return {};
    return fmt::format("{} of {} at {}/s", human_bytes(done), human_bytes(total),
                       human_bytes(count_of(item, "copy_rate_bytes_per_s")));
}

double copy_fraction(const Json& item) {
    const uint64_t total = count_of(item, "copy_total_bytes");
    return total == 0
               ? 0
               : static_cast<double>(count_of(item, "copied_bytes")) / static_cast<double>(total);
}

int64_t eta_of(const Json& json) {
    const auto eta = number_of(json, "eta_s");
    return eta ? static_cast<int64_t>(*eta) : -1;
}

Error error_of_problem(const Json& problem) {
    std::string code = text_of(problem, "code");
    return Error(code_from_name(code), text_of(problem, "detail"), text_of(problem, "remedy"));
}

Json problem_of(const Error& error) {
    Json problem{{"type", fmt::format("urn:farshore:error:{}", code_name(error.code()))},
                 {"code", std::string(code_name(error.code()))},
                 {"detail", error.what()}};
    if (!error.remedy().empty()) problem["remedy"] = error.remedy();
    return problem;
}

}  // namespace

int print_error(CliEnvironment& environment, const Error& error, bool json) {
    if (json)
        *environment.err << dump_json(problem_of(error)) << std::endl;
    else
        *environment.err << "farshore: " << printable(error.to_string()) << std::endl;
    return code_exit_status(error.code());
}

struct ClientVerbs::Impl {
    CliEnvironment& environment;
    LocationOptions options;
    bool json;
    std::unique_ptr<ApiTransport> transport;
    size_t drawn = 0;  // columns of the progress line that stands on the terminal

    Result<Json> call(const std::string& method, const std::string& target, const Json& body = {},
                      int timeout_s = 90) {
        if (!transport) {
            FS_ASSIGN(ServerLocation location, find_server(environment, options));
            FS_ASSIGN(transport, environment.connect(location));
        }
        FS_ASSIGN(std::string answer,
                  transport->call(method, target, body.is_null() ? std::string() : dump_json(body),
                                  timeout_s));
        if (answer.empty()) return Json();
        return parse_json(answer, "the server's answer", kMaxAnswerBytes);
    }

    // All pages of a list as one document.
    Result<Json> list(const std::string& target, const char* member_name, const char* cursor,
                      uint64_t limit) {
        Json all = Json::array();
        std::string next;
        while (all.size() < limit) {
            const uint64_t page = std::min(limit - all.size(), kPageRows);
            std::string query = fmt::format(
                "{}{}limit={}", target, target.find('?') == std::string::npos ? '?' : '&', page);
            if (!next.empty()) query += fmt::format("&{}={}", cursor, url_encode(next));
            FS_ASSIGN(Json answer, call("GET", query));
            const Json& rows = member(answer, member_name);
            if (!rows.is_array()) break;
            for (const Json& row : rows) all.push_back(row);
            const Json& more = member(answer, "next");
            if (more.is_string())
                next = more.get<std::string>();
            else if (more.is_number_integer())
                next = std::to_string(more.get<int64_t>());
            else
                break;
            if (rows.empty()) break;
        }
        return Json{{member_name, std::move(all)}};
    }

    int failed(const Error& error) {
        clear_progress();
        return print_error(environment, error, json);
    }
    void print(const Json& document) { *environment.out << dump_json(document) << std::endl; }
    void say(const std::string& text) { *environment.out << text << std::flush; }
    // Words beside the result: not for programs, not in the way of a pipe.
    void note(const std::string& text) {
        if (!json) *environment.err << text << std::flush;
    }
    std::string absolute(const std::string& path) const {
        return path.empty() || path[0] == '/' ? path : environment.working_directory + "/" + path;
    }

    bool shows_progress() const { return environment.err_is_terminal && !json; }
    void draw_progress(double fraction, int64_t eta_s, const std::string& message) {
        if (!shows_progress()) return;
        const std::string line = progress_line(fraction, eta_s, message, environment.columns - 1);
        const size_t width = display_width(line);
        *environment.err << '\r' << line << std::string(drawn > width ? drawn - width : 0, ' ')
                         << std::flush;
        drawn = width;
    }
    void clear_progress() {
        if (drawn == 0) return;
        *environment.err << '\r' << std::string(drawn, ' ') << '\r' << std::flush;
        drawn = 0;
    }

    void print_job(const Json& job_json) {
        const std::string state = text_of(job_json, "state");
        std::vector<std::pair<std::string, std::string>> rows{
            {"Job", fmt::format("{}  {}", count_of(job_json, "id"), text_of(job_json, "kind"))}};
        if (const std::string item = text_of(job_json, "item"); !item.empty())
            rows.push_back({"Item", item});
        rows.push_back({"State", state});
        if (state == "running" || state == "queued") {
            rows.push_back(
                {"Progress", progress_line(number_of(job_json, "progress").value_or(0),
                                           eta_of(job_json), text_of(job_json, "message"), 200)});
        }
        if (const std::string time = text_of(job_json, "started"); !time.empty())
            rows.push_back({"Started", human_time(time)});
        if (const std::string time = text_of(job_json, "ended"); !time.empty())
            rows.push_back({"Ended", human_time(time)});
        if (const Json& result = member(job_json, "result"); result.is_object())
            for (const auto& [key, value] : result.items())
                rows.push_back({printable(key), value.is_string()
                                                    ? printable(value.get<std::string>())
                                                    : printable(dump_json(value))});
        if (const Json& error = member(job_json, "error"); error.is_object())
            rows.push_back({"Error", error_of_problem(error).to_string()});
        say(key_values(rows));
        if (const Json& messages = member(job_json, "messages");
            messages.is_array() && !messages.empty()) {
            say("\n");
            for (const Json& message : messages)
                say(human_time(text_of(message, "time")) + "  " + text_of(message, "text") + "\n");
        }
    }

    // Waits until the job is over; draws its progress. Its document, or why waiting ended.
    Result<Json> wait_for_job(uint64_t id) {
        int lost = 0;
        while (true) {
            auto answer =
                call("GET", fmt::format("/v1/jobs/{}?wait_s={}", id, shows_progress() ? 1 : 10));
            if (!answer) {
                if (answer.error().retry() != Retry::kSoon || ++lost > kMaxLostPolls)
                    return tl::unexpected(answer.error());
            } else {
                lost = 0;
                const std::string state = text_of(*answer, "state");
                if (state != "running" && state != "queued") {
                    clear_progress();
                    return answer;
                }
                draw_progress(number_of(*answer, "progress").value_or(0), eta_of(*answer),
                              text_of(*answer, "message"));
            }
            if (environment.pause(answer ? 50 : 1000)) {
                clear_progress();
                return fail(Code::kCancelled, fmt::format("job {} goes on", id),
                            fmt::format("`farshore job {} --wait` waits for it again", id));
            }
        }
    }

    // What a verb that starts a job does with it.
    int follow_job(const Json& started, bool wait) {
        const uint64_t id = count_of(started, "id");
        if (!wait) {
            if (json)
                print(started);
            else
                say(fmt::format("Job {} has begun.\n", id));
            return 0;
        }
        auto over = wait_for_job(id);
        if (!over) {
            const int code = failed(over.error());
            return over.error().code() == Code::kCancelled ? kExitInterrupted : code;
        }
        return show_ended_job(*over);
    }
    int show_ended_job(const Json& job_json) {
        const Json& error = member(job_json, "error");
        if (json)
            print(job_json);
        else if (!error.is_object())
            print_job(job_json);
        if (text_of(job_json, "state") == "succeeded") return 0;
        const Error reason = error.is_object() ? error_of_problem(error)
                                               : Error(Code::kCancelled, "the job was cancelled");
        if (json) return code_exit_status(reason.code());
        return failed(reason);
    }

    void print_item(const Json& item);
    int wait_until_protected(const std::string& name);
};

ClientVerbs::ClientVerbs(CliEnvironment& environment, const LocationOptions& location, bool json)
    : impl_(new Impl{environment, location, json, nullptr, 0}) {}
ClientVerbs::~ClientVerbs() = default;

// ---- items
// ---------------------------------------------------------------------------------------

int ClientVerbs::items() {
    auto answer = impl_->list("/v1/items", "items", "after", UINT64_MAX);
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
    if (table.empty())
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
                 human_bytes(count_of(disk, "size_bytes")) + "  " + text_of(disk, "path")});
    const Json& policy = member(item, "policy");
    rows.push_back(
        {"Policy", fmt::format("points every {}, kept for {}",
                               human_seconds(double(count_of(policy, "crash_point_interval_s"))),
                               human_seconds(double(count_of(policy, "window_s"))))});
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

int ClientVerbs::Impl::wait_until_protected(const std::string& name) {
    int lost = 0;
    while (true) {
        auto answer = call("GET", item_target(name));
        if (!answer) {
            if (answer.error().retry() != Retry::kSoon || ++lost > kMaxLostPolls)
                return failed(answer.error());
        } else {
            lost = 0;
            const std::string state = text_of(*answer, "state");
            if (state != "enabling" && state != "initial-replication" &&
                state != "resynchronising") {
                clear_progress();
                if (json)
                    print(*answer);
                else
                    say(fmt::format("'{}' is {}.\n", text_of(*answer, "name"), state));
                return 0;
            }
            draw_progress(copy_fraction(*answer), eta_of(*answer),
                          copy_text(*answer).empty() ? state : copy_text(*answer));
        }
        if (environment.pause(1000)) {
            clear_progress();
            note("The protection goes on; `farshore item " + name + "` shows it.\n");
            return kExitInterrupted;
        }
    }
}

int ClientVerbs::protect(const ProtectArguments& arguments) {
    Json body{{"name", arguments.name}, {"wait_s", arguments.capture_wait_s}};
    if (!arguments.qmp_socket.empty()) body["qmp_socket"] = impl_->absolute(arguments.qmp_socket);
    for (const std::string& disk : arguments.disks) body["disks"].push_back(impl_->absolute(disk));
    if (!arguments.agent.empty()) body["agent"] = arguments.agent;
    if (arguments.crash_point_interval_s)
        body["policy"]["crash_point_interval_s"] = *arguments.crash_point_interval_s;
    if (arguments.window_s) body["policy"]["window_s"] = *arguments.window_s;
    if (arguments.grace_s) body["policy"]["grace_s"] = *arguments.grace_s;
    if (arguments.copy_throttle_bytes_per_s)
        body["policy"]["copy_throttle_bytes_per_s"] = *arguments.copy_throttle_bytes_per_s;
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

int ClientVerbs::resynchronise(const std::string& name) {
    auto answer = impl_->call("POST", item_target(name, "/resynchronise"));
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json)
        impl_->print(*answer);
    else
        impl_->say("Everything will be copied again.\n");
    return 0;
}

// ---- points
// --------------------------------------------------------------------------------------

int ClientVerbs::points(const ListArguments& arguments, const std::string& kind) {
    std::string target = item_target(arguments.item, "/points") +
                         fmt::format("?limit={}", std::min(arguments.limit, kPageRows));
    if (!kind.empty()) target += "&kind=" + url_encode(kind);
    auto answer = impl_->call("GET", target);
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
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
    Table table({{"SEQUENCE", Align::kRight}, {"TIME"}, {"KIND"}, {"LABEL"}});
    if (const Json& points = member(*answer, "points"); points.is_array())
        for (const Json& point : points)
            table.add({std::to_string(count_of(point, "sequence")),
                       human_time(text_of(point, "time")), text_of(point, "kind"),
                       text_of(point, "label")});
    if (!table.empty()) impl_->say("\n" + table.to_string());
    impl_->note("\nAny sequence or time of the window can be asked for, not only those listed.\n");
    return 0;
}

int ClientVerbs::point(const std::string& name, const std::string& point) {
    auto answer = impl_->call("GET", item_target(name, "/points/" + url_encode(point)));
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json)
        impl_->print(*answer);
    else
        impl_->say(point_text(*answer) + "\n");
    return 0;
}

int ClientVerbs::bookmark(const std::string& name, const std::string& label, uint64_t timeout_s) {
    auto answer = impl_->call("POST", item_target(name, "/bookmarks"),
                              {{"label", label}, {"wait_s", std::min<uint64_t>(timeout_s, 30)}});
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
    auto answer = impl_->call("POST", item_target(arguments.name, "/exports"),
                              {{"point", arguments.point},
                               {"disk", arguments.disk},
                               {"socket", impl_->absolute(arguments.socket)}});
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

// ---- recovery, jobs
// --------------------------------------------------------------------------------

int ClientVerbs::failover(const std::string& action, const std::string& name,
                          const std::string& point, bool wait) {
    Json body{{"action", action}};
    if (!point.empty()) body["point"] = point;
    auto answer = impl_->call("POST", item_target(name, "/failovers"), body);
    if (!answer) return impl_->failed(answer.error());
    return impl_->follow_job(*answer, wait);
}

int ClientVerbs::failovers(const std::string& name) {
    auto answer = impl_->call("GET", item_target(name, "/failovers"));
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table({{"ID"}, {"KIND"}, {"STATE"}, {"CREATED"}, {"POINT"}});
    if (const Json& rows = member(*answer, "failovers"); rows.is_array())
        for (const Json& row : rows)
            table.add({text_of(row, "id"), text_of(row, "kind"), text_of(row, "state"),
                       human_time(text_of(row, "created")), point_text(member(row, "point"))});
    if (table.empty())
        impl_->note("No failovers.\n");
    else
        impl_->say(table.to_string());
    return 0;
}

int ClientVerbs::jobs(const ListArguments& arguments) {
    std::string target = "/v1/jobs";
    if (!arguments.item.empty()) target += "?item=" + url_encode(arguments.item);
    auto answer = impl_->list(target, "jobs", "before", arguments.limit);
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
// ----------------------------------------------------------------------------------------

int ClientVerbs::events(const ListArguments& arguments) {
    std::string target = "/v1/events";
    if (!arguments.item.empty()) target += "?item=" + url_encode(arguments.item);
    auto answer = impl_->list(target, "events", "before", arguments.limit);
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
