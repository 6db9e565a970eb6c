#include "recovery/drill_policy.h"

#include <fmt/core.h>

#include <array>

#include "base/script_names.h"
#include "base/weekly_windows.h"
#include "meta/json_fields.h"
#include "meta/json_members.h"
#include "recovery/line_pattern.h"

namespace farshore {
namespace {

constexpr std::array<std::string_view, 4> kVerdicts{"open", "good", "bad", "none"};
constexpr size_t kMaxTextBytes = 4096;

Result<uint32_t> seconds(const JsonFields& fields, const char* key, uint32_t otherwise,
                         uint32_t limit) {
    FS_ASSIGN(const uint64_t value, fields.u64(key, otherwise, limit));
    return static_cast<uint32_t>(value);
}

Result<DrillCheck> check_from_json(const Json& json, const std::string& path) {
    FS_ASSIGN(const JsonFields fields, JsonFields::of(json, path));
    FS_TRY(check_members(json, path, {"kind", "program", "arguments", "limit_s"}));
    DrillCheck check;
    FS_ASSIGN(const std::string kind, fields.required_text("kind", 32));
    if (kind != "script" && kind != "guest-script")
        return fields.wrong("kind", "must be script or guest-script");
    check.inside = kind == "guest-script";
    FS_ASSIGN(check.program, fields.required_text("program", kMaxTextBytes));
    if (!check.inside) FS_TRY(check_script_name(check.program));
    FS_ASSIGN(const Json* list, fields.array("arguments", 64));
    for (size_t i = 0; list != nullptr && i < list->size(); ++i) {
        if (!(*list)[i].is_string() ||
            (*list)[i].get_ref<const std::string&>().size() > kMaxTextBytes)
            return fields.wrong("arguments", "must be a list of texts");
        check.arguments.push_back((*list)[i].get<std::string>());
        if (check.arguments.back().find('\0') != std::string::npos)
            return fields.wrong("arguments", "must not hold a null character");
    }
    FS_ASSIGN(check.limit_s, seconds(fields, "limit_s", check.limit_s, 86'400));
    if (check.limit_s == 0) return fields.wrong("limit_s", "must be at least 1");
    return check;
}

}  // namespace

int64_t DrillPolicy::overdue_us() const {
    const int64_t s = overdue_s != 0 ? int64_t{overdue_s} : int64_t{2} * interval_s;
    return s * 1'000'000;
}

Json drill_policy_json(const DrillPolicy& policy) {
    Json checks = Json::array();
    for (const DrillCheck& check : policy.checks)
        checks.push_back({{"kind", check.inside ? "guest-script" : "script"},
                          {"program", check.program},
                          {"arguments", check.arguments},
                          {"limit_s", check.limit_s}});
    return {{"interval_s", policy.interval_s}, {"after_consistent", policy.after_consistent},
            {"overdue_s", policy.overdue_s},   {"limit_s", policy.limit_s},
            {"agent", policy.agent},           {"port", policy.port},
            {"serial", policy.serial},         {"serial_pattern", policy.serial_pattern},
            {"windows", policy.windows},       {"checks", std::move(checks)}};
}

Result<DrillPolicy> drill_policy_from_json(const Json& json) {
    FS_ASSIGN(const JsonFields fields, JsonFields::of(json, "policy"));
    FS_TRY(check_members(json, "policy",
                         {"interval_s", "after_consistent", "overdue_s", "limit_s", "agent", "port",
                          "serial", "serial_pattern", "windows", "checks"}));
    DrillPolicy policy;
    FS_ASSIGN(policy.interval_s, seconds(fields, "interval_s", 0, kMaxDrillSeconds));
    FS_ASSIGN(policy.after_consistent, fields.boolean("after_consistent"));
    FS_ASSIGN(policy.overdue_s, seconds(fields, "overdue_s", 0, kMaxDrillSeconds));
    FS_ASSIGN(policy.limit_s, seconds(fields, "limit_s", policy.limit_s, 86'400));
    FS_ASSIGN(policy.agent, fields.boolean("agent"));
    FS_ASSIGN(const uint64_t port, fields.u64("port", 0, 65'535));
    policy.port = static_cast<uint16_t>(port);
    FS_ASSIGN(policy.serial, fields.text("serial", kMaxSerialPatternBytes));
    FS_ASSIGN(policy.serial_pattern, fields.text("serial_pattern", kMaxLinePatternBytes));
    if (!policy.serial_pattern.empty()) FS_TRY(LinePattern::parse(policy.serial_pattern));
    FS_ASSIGN(policy.windows, fields.text("windows", kMaxWindowsBytes));
    if (!policy.windows.empty()) FS_TRY(WeeklyWindows::parse(policy.windows, "UTC"));
    FS_ASSIGN(const Json* checks, fields.array("checks", kMaxDrillChecks));
    for (size_t i = 0; checks != nullptr && i < checks->size(); ++i) {
        FS_ASSIGN(DrillCheck check,
                  check_from_json((*checks)[i], fmt::format("policy.checks[{}]", i)));
        // Before the agent answers nothing inside can be started.
        policy.agent = policy.agent || check.inside;
        policy.checks.push_back(std::move(check));
    }
    if (policy.interval_s != 0 && policy.interval_s < kMinDrillIntervalS)
        return fail(Code::kInvalidArgument,
                    fmt::format("policy.interval_s must be at least {}", kMinDrillIntervalS));
    if (policy.limit_s == 0)
        return fail(Code::kInvalidArgument, "policy.limit_s must be at least 1");
    if (!policy.agent && policy.port == 0 && policy.serial.empty() &&
        policy.serial_pattern.empty() && policy.checks.empty())
        return fail(Code::kInvalidArgument,
                    "the policy does not say by what a good machine is known",
                    "name agent, port, serial, serial_pattern or checks");
    return policy;
}

std::string_view drill_verdict_name(DrillVerdict verdict) {
    return kVerdicts.at(static_cast<size_t>(verdict));
}

Result<DrillVerdict> drill_verdict_from_name(std::string_view name) {
    for (size_t i = 0; i < kVerdicts.size(); ++i)
        if (kVerdicts[i] == name) return static_cast<DrillVerdict>(i);
    return fail(Code::kMalformed, fmt::format("'{}' is no verdict", name.substr(0, 64)));
}

std::string DrillWatch::missing() const {
    std::string words;
    const auto add = [&](const std::string& what) { words += (words.empty() ? "" : "; ") + what; };
    if (wants_agent()) add("the guest agent does not answer");
    if (wants_port()) add(fmt::format("port {} takes no connection", policy_.port));
    if (wants_serial()) add(fmt::format("'{}' was not said at the serial line", policy_.serial));
    if (wants_pattern())
        add(fmt::format("no line at the serial line matches '{}'", policy_.serial_pattern));
    return words;
}

DrillVerdict DrillWatch::feed(const DrillSample& sample) {
    seen_.agent = seen_.agent || sample.agent;
    seen_.port = seen_.port || sample.port;
    seen_.serial = seen_.serial || sample.serial;
    seen_.pattern = seen_.pattern || sample.pattern;
    const std::string words = missing();
    if (words.empty()) return DrillVerdict::kGood;
    const int64_t age_s = sample.age_us / 1'000'000;
    if (sample.machine == MachineState::kStopped || sample.machine == MachineState::kFailed) {
        why_ = fmt::format("the machine {} after {} s: {}",
                           sample.machine == MachineState::kStopped ? "ended" : "failed", age_s,
                           words);
        return DrillVerdict::kBad;
    }
    if (age_s >= policy_.limit_s) {
        why_ = fmt::format("after {} s {}", age_s, words);
        return DrillVerdict::kBad;
    }
    return DrillVerdict::kOpen;
}

bool TextFinder::feed(std::string_view bytes) {
    if (text_.empty()) return true;
    tail_.append(bytes);
    const bool found = tail_.find(text_) != std::string::npos;
    if (tail_.size() >= text_.size()) tail_.erase(0, tail_.size() - (text_.size() - 1));
    return found;
}

}  // namespace farshore
