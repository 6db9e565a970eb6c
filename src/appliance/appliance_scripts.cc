#include "appliance/appliance_scripts.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "os/log.h"
#include "os/program_files.h"
#include "os/real.h"
#include "os/remove_directory.h"

namespace farshore {
namespace {

constexpr size_t kMaxOverBytes = 128u << 10;

}  // namespace

ApplianceScripts::ApplianceScripts(FileSystem& files, Clock& clock, std::string programs,
                                   std::string state)
    : files_(files),
      clock_(clock),
      programs_(std::move(programs)),
      state_(std::move(state)),
      marks_(state_ + "/known"),
      runs_(files, state_ + "/runs", kMaxOrderedOutputBytes) {}

Status ApplianceScripts::open() {
    if (opened_) return {};
    const auto over = read_whole_file(files_, state_ + "/over", kMaxOverBytes);
    if (!over && over.error().code() != Code::kNotFound) return tl::unexpected(over.error());
    const auto marks = files_.list(marks_);
    if (!marks && marks.error().code() != Code::kNotFound) return tl::unexpected(marks.error());
    std::map<std::string, Known> known;
    const int64_t now_us = clock_.steady_us();
    for (const std::string& handle : marks ? *marks : std::vector<std::string>()) {
        if (!is_script_handle(handle)) continue;  // a write that was cut off
        FS_ASSIGN(const Bytes mark, read_whole_file(files_, mark_of(handle), 64));
        int64_t limit_s = 0;
        const std::string_view text = as_text(mark);
        std::from_chars(text.data(), text.data() + text.size(), limit_s);
        known[handle] = {limit_s * 1'000'000, now_us};
    }
    known_ = std::move(known);
    for (std::string_view rest = over ? as_text(*over) : std::string_view(); !rest.empty();) {
        const size_t end = std::min(rest.find('\n'), rest.size());
        if (is_script_handle(rest.substr(0, end))) over_.emplace_back(rest.substr(0, end));
        rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    opened_ = true;
    return {};
}

std::vector<ScriptWord> ApplianceScripts::words() const {
    const std::lock_guard hold(mutex_);
    return words_;
}

std::vector<std::string> ApplianceScripts::programs() const {
    auto names = files_.list(programs_);
    if (!names) return {};
    std::erase_if(*names, [&](const std::string& name) {
        return !check_script_name(name) || !check_program_file(programs_ + "/" + name);
    });
    std::ranges::sort(*names);
    if (names->size() > kMaxScriptsTold) names->resize(kMaxScriptsTold);
    return std::move(*names);
}

// The mark says that the handle was heard of, and is there before the vault may say that it begins:
// a handle that may begin and has none was forgotten here, so it may have begun.
Status ApplianceScripts::make_ready(const ScriptOrder& order) {
    FS_TRY(check_program_file(programs_ + "/" + order.program));
    FS_TRY(files_.make_directories(marks_));
    FS_TRY(
        write_file_durably(files_, mark_of(order.handle), as_bytes(std::to_string(order.limit_s))));
    known_[order.handle] = {int64_t{order.limit_s} * 1'000'000, clock_.steady_us()};
    return {};
}

ScriptWord ApplianceScripts::look(const std::string& handle) {
    ScriptWord word{.handle = handle};
    const auto looked = runs_.look(handle);
    if (!looked && looked.error().code() == Code::kNotFound) return word;
    if (!looked) {
        // What cannot be read just now still runs, as far as anybody knows.
        if (looked.error().retry() != Retry::kNever) {
            word.state = ScriptState::kRunning;
            return word;
        }
        // It may have begun, whatever is wrong with what is known of it.
        word.state = ScriptState::kFailed;
        word.error = Error(Code::kOutcomeUnknown, looked.error().what(), looked.error().remedy());
        return word;
    }
    word.state = *looked ? ScriptState::kEnded : ScriptState::kRunning;
    if (*looked) {
        word.code = (*looked)->code;
        word.output = (*looked)->output;
    }
    return word;
}

std::optional<ScriptWord> ApplianceScripts::follow_one(const ScriptOrder& order) {
    const auto failed = [&](const Error& error) -> std::optional<ScriptWord> {
        if (error.retry() != Retry::kNever) return {};  // it is tried again
        return ScriptWord{.handle = order.handle, .state = ScriptState::kFailed, .error = error};
    };
    const ScriptWord never_begun{.handle = order.handle, .state = ScriptState::kEnded};
    const auto known = known_.find(order.handle);
    if (known == known_.end()) {
        if (std::ranges::find(over_, order.handle) != over_.end())
            return failed(Error(Code::kOutcomeUnknown,
                                "the appliance has had it before, and was told to forget it: the "
                                "vault's database was put back",
                                "look what it has done"));
        if (order.go)
            return failed(Error(Code::kOutcomeUnknown,
                                "the appliance does not know any more whether it was begun: its "
                                "directory was put back, or is a new one",
                                "look what it has done"));
        if (order.end) return never_begun;
        if (auto ready = make_ready(order); !ready) return failed(ready.error());
        return ScriptWord{.handle = order.handle};
    }
    ScriptWord word = look(order.handle);
    if (word.state == ScriptState::kReady) {
        if (order.end) return never_begun;
        if (!order.go) return word;
        ScriptRequest request;
        request.program = programs_ + "/" + order.program;
        request.arguments = order.arguments;
        request.environment = order.environment;
        known->second.since_us = clock_.steady_us();
        if (auto begun = runs_.begin(order.handle, request); !begun) return failed(begun.error());
        log::info("appliance", "the script '{}' begins as {}", order.program, order.handle);
        return look(order.handle);
    }
    if (word.state != ScriptState::kRunning || !order.end) return word;
    if (auto ended = runs_.end(order.handle); !ended)
        log::warn("appliance", "the script '{}' is to end: {}", order.program,
                  ended.error().to_string());
    return look(order.handle);
}

// The mark last: what it has left is looked for again after a crash. And before that it is noted
// that there was such a handle.
Status ApplianceScripts::forget(const std::string& handle) {
    FS_TRY(runs_.forget(handle));
    if (std::ranges::find(over_, handle) == over_.end()) {
        std::deque<std::string> over = over_;
        over.push_back(handle);
        if (over.size() > kMaxOverHandles) over.pop_front();
        std::string text;
        for (const std::string& one : over) text += one + "\n";
        FS_TRY(write_file_durably(files_, state_ + "/over", as_bytes(text)));
        over_ = std::move(over);
    }
    return remove_if_there(files_, mark_of(handle));
}

void ApplianceScripts::follow(const std::vector<ScriptOrder>& orders) {
    if (auto opened = open(); !opened) {
        log::warn("appliance", "what is known of scripts cannot be read: {}",
                  opened.error().to_string());
        return;
    }
    std::vector<ScriptWord> words;
    std::set<std::string> wanted;
    for (const ScriptOrder& order : orders) {
        if (!wanted.insert(order.handle).second) continue;
        if (auto word = follow_one(order)) words.push_back(std::move(*word));
    }
    for (auto at = known_.begin(); at != known_.end();) {
        if (wanted.contains(at->first)) {
            ++at;
            continue;
        }
        if (const Status gone = forget(at->first); !gone) {
            log::warn("appliance", "what is left of a script: {}", gone.error().to_string());
            ++at;
            continue;
        }
        at = known_.erase(at);
    }
    if (words.size() > kMaxScriptOrders) words.resize(kMaxScriptOrders);
    const std::lock_guard hold(mutex_);
    words_ = std::move(words);
}

void ApplianceScripts::keep_limits() {
    if (!open()) return;
    const int64_t now_us = clock_.steady_us();
    for (const auto& [handle, known] : known_) {
        if (now_us - known.since_us < known.limit_us) continue;
        if (look(handle).state != ScriptState::kRunning) continue;
        log::warn("appliance", "the script {} has not ended within its {} s: it is ended", handle,
                  known.limit_us / 1'000'000);
        if (auto ended = runs_.end(handle); !ended)
            log::warn("appliance", "{}", ended.error().to_string());
    }
}

}  // namespace farshore
