// What the client's verbs share: calls with their pages, words and documents on the terminal, jobs
// that are waited for. One thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "cli/client_verbs.h"
#include "meta/json_fields.h"

namespace farshore {

// A vault that restarts is away for seconds; waiting for a job outlasts that.
inline constexpr int kMaxLostPolls = 60;
// The most rows that the vault gives at once.
inline constexpr uint64_t kPageRows = 1000;

// `target` with the filters of a list, and its item, in its query.
std::string filtered(std::string target, const ListArguments& arguments);
// client_policy_verbs.cc: the members that were named; an item's rows about windows and limits.
Json policy_json(const PolicyArguments& policy);
std::vector<std::pair<std::string, std::string>> policy_rows(const Json& item);

struct ClientVerbs::Impl {
    CliEnvironment& environment;
    LocationOptions options;
    bool json;
    std::unique_ptr<ApiTransport> transport;
    size_t drawn = 0;  // columns of the progress line that stands on the terminal

    Result<Json> call(const std::string& method, const std::string& target, const Json& body = {},
                      int timeout_s = 90);
    // The same, and only while what is named has the version `etag`.
    Result<Json> call_if_match(const std::string& etag, const std::string& method,
                               const std::string& target, const Json& body);
    Status connect();
    // Shows what a change would do; 0: go on, else what to end with.
    Result<int> agreed(const Json& preview, bool only_preview, bool yes);

    // All pages of a list as one document.
    Result<Json> list(const std::string& target, const char* member_name, const char* cursor,
                      uint64_t limit);

    int failed(const Error& error);
    void print(const Json& document) { *environment.out << dump_json(document) << std::endl; }
    void say(const std::string& text) { *environment.out << text << std::flush; }
    // Words beside the result: not for programs, not in the way of a pipe.
    void note(const std::string& text);
    std::string absolute(const std::string& path) const;
    Result<Json> credentials_of(const AccessArguments& arguments, const std::string& url);
    Result<std::string> password(const std::string& file, const std::string& prompt, bool twice);

    bool shows_progress() const { return environment.err_is_terminal && !json; }
    void draw_progress(double fraction, int64_t eta_s, const std::string& message);
    void clear_progress();

    void print_job(const Json& job_json);

    // Waits until the job is over; draws its progress. Its document, or why waiting ended.
    Result<Json> wait_for_job(uint64_t id);

    // What a verb that starts a job does with it.
    int follow_job(const Json& started, bool wait);
    int show_ended_job(const Json& job_json);

    void print_item(const Json& item);
    int show_group(const Result<Json>& answer);
    int follow_item(const std::string& name, int pause_ms, const std::string& what_goes_on,
                    const std::function<std::optional<int>(const Json&)>& look);
    int wait_until_protected(const std::string& name);
    int wait_until_resynced(const std::string& name);
    int wait_until_joined(const std::string& name, uint64_t index);
};

}  // namespace farshore
