#include "vault/component_health.h"

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "meta/json_fields.h"
#include "vault/policy.h"

namespace farshore {
namespace {

constexpr size_t kMaxLimitsBytes = 4096;
constexpr int64_t kDayUs = int64_t{86'400} * 1'000'000;
constexpr int64_t kCertificateWarningUs = 14 * kDayUs, kCertificateCriticalUs = 3 * kDayUs;

struct NamedPair {
    const char* name;
    HealthLimits::Pair HealthLimits::*pair;
    uint32_t most;
    bool less;  // what is less is worse
};
constexpr NamedPair kPairs[] = {
    {"cpu_percent", &HealthLimits::cpu_percent, 100, false},
    {"memory_percent", &HealthLimits::memory_percent, 100, false},
    {"spool_free_percent", &HealthLimits::spool_free_percent, 100, true},
    {"upload_eta_min", &HealthLimits::upload_eta_min, 43'200, false},
};
constexpr uint32_t kMostSeconds = 86'400;

std::string percent(int32_t permille) { return fmt::format("{:.1f} %", permille / 10.0); }

}  // namespace

Status check_limits(const HealthLimits& limits) {
    for (const NamedPair& named : kPairs) {
        const HealthLimits::Pair& pair = limits.*named.pair;
        const bool ordered =
            named.less ? pair.critical <= pair.warning : pair.warning <= pair.critical;
        if (!ordered || std::max(pair.warning, pair.critical) > named.most)
            return fail(
                Code::kInvalidArgument,
                fmt::format("{}: {} and {} are no limits", named.name, pair.warning, pair.critical),
                fmt::format("two numbers up to {}, the critical one {} than the other", named.most,
                            named.less ? "not more" : "not less"));
    }
    if (limits.lasting_s > kMostSeconds || limits.silent_s < 10 || limits.silent_s > kMostSeconds)
        return fail(Code::kInvalidArgument,
                    fmt::format("lasting_s {} and silent_s {} are no limits", limits.lasting_s,
                                limits.silent_s),
                    fmt::format("lasting_s 0 to {0}, silent_s 10 to {0}", kMostSeconds));
    return {};
}

std::string encode_limits(const HealthLimits& limits) {
    nlohmann::json json{{"lasting_s", limits.lasting_s}, {"silent_s", limits.silent_s}};
    for (const NamedPair& named : kPairs) {
        const HealthLimits::Pair& pair = limits.*named.pair;
        json[named.name] = {{"warning", pair.warning}, {"critical", pair.critical}};
    }
    return json.dump();
}

Result<HealthLimits> decode_limits(std::string_view text, const HealthLimits& otherwise) {
    FS_ASSIGN(const Json json, parse_json(text, "limits", kMaxLimitsBytes));
    FS_ASSIGN(const JsonFields fields, JsonFields::of(json, "limits"));
    HealthLimits limits = otherwise;
    for (const NamedPair& named : kPairs) {
        const Json* found = fields.find(named.name);
        if (found == nullptr) continue;
        FS_ASSIGN(const JsonFields pair, JsonFields::of(*found, named.name));
        FS_TRY(check_members(*found, named.name, {"warning", "critical"}));
        HealthLimits::Pair& to = limits.*named.pair;
        FS_ASSIGN(const uint64_t warning, pair.u64("warning", to.warning, named.most));
        FS_ASSIGN(const uint64_t critical, pair.u64("critical", to.critical, named.most));
        to = {static_cast<uint32_t>(warning), static_cast<uint32_t>(critical)};
    }
    FS_ASSIGN(const uint64_t lasting, fields.u64("lasting_s", limits.lasting_s, kMostSeconds));
    FS_ASSIGN(const uint64_t silent, fields.u64("silent_s", limits.silent_s, kMostSeconds));
    limits.lasting_s = static_cast<uint32_t>(lasting);
    limits.silent_s = static_cast<uint32_t>(silent);
    FS_TRY(check_limits(limits));
    return limits;
}

std::optional<Severity> ComponentWatch::judge(int64_t now_us, const std::string& what, bool warning,
                                              bool critical, const HealthLimits& limits) {
    Over& over = over_[what];
    const auto follow = [&](std::optional<int64_t>& since, bool is_over) {
        if (!is_over)
            since.reset();
        else if (!since)
            since = now_us;
        return since && now_us - *since >= int64_t{limits.lasting_s} * 1'000'000;
    };
    const bool warns = follow(over.warning_us, warning || critical);
    if (follow(over.critical_us, critical)) return Severity::kCritical;
    if (warns) return Severity::kWarning;
    return {};
}

std::vector<Trouble> ComponentWatch::look(int64_t now_us, const ComponentReading& reading,
                                          const HealthLimits& limits) {
    std::vector<Trouble> troubles;
    if (reading.trouble) troubles.push_back(*reading.trouble);
    if (reading.silent_us && *reading.silent_us > int64_t{limits.silent_s} * 1'000'000) {
        troubles.push_back(
            {Severity::kCritical, "component-silent",
             fmt::format("{} has not been heard of for {} s", reading.name,
                         *reading.silent_us / 1'000'000),
             "look at it, its machine and the line; its items can be given to another "
             "appliance with `farshore appliance evacuate`"});
        // What it said last is no news.
        return troubles;
    }
    const auto check = [&](const char* code, const std::string& what, int64_t value,
                           const HealthLimits::Pair& pair, bool less, const std::string& cause,
                           const char* remedy) {
        const auto worse = [&](uint32_t limit) {
            return less ? value < int64_t{limit} : value > int64_t{limit};
        };
        const bool known = value >= 0;
        if (const auto severity = judge(now_us, what, known && worse(pair.warning),
                                        known && worse(pair.critical), limits))
            troubles.push_back(
                {*severity, code, fmt::format("{}: {}", reading.name, cause), remedy});
    };
    // In the limits' units times ten.
    const auto tenfold = [](const HealthLimits::Pair& pair) {
        return HealthLimits::Pair{pair.warning * 10, pair.critical * 10};
    };
    check("cpu-high", "cpu", reading.load.cpu_permille, tenfold(limits.cpu_percent), false,
          "its processors are busy to " + percent(reading.load.cpu_permille),
          "give it more processors, or move items to another appliance");
    check("memory-high", "memory", reading.load.memory_permille, tenfold(limits.memory_percent),
          false, "its memory is used to " + percent(reading.load.memory_permille),
          "give it more memory, or see what else runs there");
    check("spool-filling", "spool", reading.spool_free_permille, tenfold(limits.spool_free_percent),
          true, "its spool has " + percent(reading.spool_free_permille) + " left",
          "see why it cannot store (line, store, bandwidth limit), or give it more: --spool-mib");
    check("upload-behind", "upload", reading.upload_eta_s,
          {limits.upload_eta_min.warning * 60, limits.upload_eta_min.critical * 60}, false,
          fmt::format("what it has received is stored in {} min", reading.upload_eta_s / 60),
          "see why it is slow (line, store, bandwidth limit)");
    if (reading.certificate_until.us != 0) {
        const int64_t left_us = reading.certificate_until.us - reading.now.us;
        if (left_us < kCertificateWarningUs)
            troubles.push_back(
                {left_us < kCertificateCriticalUs ? Severity::kCritical : Severity::kWarning,
                 "certificate-ending",
                 fmt::format("{}: its certificate ends at {}", reading.name,
                             to_rfc3339(reading.certificate_until)),
                 "it renews by itself: look at its log; after that time enrol it anew"});
    }
    return troubles;
}

std::optional<Trouble> StoreWatch::look(int64_t now_us, uint64_t requests, uint64_t failed) {
    const uint64_t asked = requests - std::min(requests, requests_);
    const uint64_t bad = failed - std::min(failed, failed_);
    requests_ = requests;
    failed_ = failed;
    if (asked > bad) {
        since_us_.reset();
        in_a_row_ = 0;
    } else if (bad > 0) {
        if (!since_us_) since_us_ = now_us;
        in_a_row_ += bad;
    }
    if (!since_us_) return {};
    return Trouble{Severity::kCritical, "store-failing",
                   fmt::format("none of {} requests to the store has succeeded for {} s", in_a_row_,
                               (now_us - *since_us_) / 1'000'000),
                   "see what the log says of it; nothing is lost, what waits goes on by itself"};
}

}  // namespace farshore
