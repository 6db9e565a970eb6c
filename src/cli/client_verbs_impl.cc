#include "cli/client_verbs_impl.h"

#include <fmt/core.h>

#include <algorithm>
#include <ostream>

#include "cli/api_documents.h"
#include "cli/format.h"

namespace farshore {
namespace {

constexpr size_t kMaxAnswerBytes = 64u << 20;

}  // namespace

int print_error(CliEnvironment& environment, const Error& error, bool json) {
    if (json)
        *environment.err << dump_json(problem_of(error)) << std::endl;
    else
        *environment.err << "farshore: " << printable(error.to_string()) << std::endl;
    return code_exit_status(error.code());
}

std::string filtered(std::string target, const ListArguments& arguments) {
    const auto add = [&](const std::string& name, const std::string& value) {
        if (value.empty()) return;
        target += target.find('?') == std::string::npos ? '?' : '&';
        target += name + "=" + url_encode(value);
    };
    add("item", arguments.item);
    for (const auto& [name, value] : arguments.filters) add(name, value);
    return target;
}

Status ClientVerbs::Impl::connect() {
    if (transport) return {};
    FS_ASSIGN(ServerLocation location, find_server(environment, options));
    FS_ASSIGN(transport, environment.connect(location));
    return {};
}

Result<Json> ClientVerbs::Impl::call(const std::string& method, const std::string& target,
                                     const Json& body, int timeout_s) {
    FS_TRY(connect());
    FS_ASSIGN(std::string answer,
              transport->call(method, target, body.is_null() ? std::string() : dump_json(body),
                              timeout_s));
    if (answer.empty()) return Json();
    return parse_json(answer, "the server's answer", kMaxAnswerBytes);
}

Result<Json> ClientVerbs::Impl::call_if_match(const std::string& etag, const std::string& method,
                                              const std::string& target, const Json& body) {
    constexpr int kTimeoutS = 90;
    FS_TRY(connect());
    FS_ASSIGN(std::string answer, transport->call_if_match(
                                      etag, method, target,
                                      body.is_null() ? std::string() : dump_json(body), kTimeoutS));
    if (answer.empty()) return Json();
    return parse_json(answer, "the server's answer", kMaxAnswerBytes);
}

Result<Json> ClientVerbs::Impl::list(const std::string& target, const char* member_name,
                                     const char* cursor, uint64_t limit) {
    Json all = Json::array();
    std::string next;
    while (all.size() < limit) {
        const uint64_t page = std::min(limit - all.size(), kPageRows);
        std::string query = fmt::format("{}{}limit={}", target,
                                        target.find('?') == std::string::npos ? '?' : '&', page);
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

int ClientVerbs::Impl::failed(const Error& error) {
    clear_progress();
    return print_error(environment, error, json);
}

void ClientVerbs::Impl::note(const std::string& text) {
    if (!json) *environment.err << text << std::flush;
}

std::string ClientVerbs::Impl::absolute(const std::string& path) const {
    return path.empty() || path[0] == '/' ? path : environment.working_directory + "/" + path;
}

void ClientVerbs::Impl::draw_progress(double fraction, int64_t eta_s, const std::string& message) {
    if (!shows_progress()) return;
    const std::string line = progress_line(fraction, eta_s, message, environment.columns - 1);
    const size_t width = display_width(line);
    *environment.err << '\r' << line << std::string(drawn > width ? drawn - width : 0, ' ')
                     << std::flush;
    drawn = width;
}

void ClientVerbs::Impl::clear_progress() {
    if (drawn == 0) return;
    *environment.err << '\r' << std::string(drawn, ' ') << '\r' << std::flush;
    drawn = 0;
}

void ClientVerbs::Impl::print_job(const Json& job_json) {
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
            rows.push_back({printable(key), value.is_string() ? printable(value.get<std::string>())
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

Result<Json> ClientVerbs::Impl::wait_for_job(uint64_t id) {
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

int ClientVerbs::Impl::follow_job(const Json& started, bool wait) {
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

int ClientVerbs::Impl::show_ended_job(const Json& job_json) {
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

}  // namespace farshore
