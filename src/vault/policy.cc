#include "vault/policy.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/bandwidth_limit.h"
#include "base/retention_grid.h"
#include "vault/item_drive.h"
#include "vault/json_text.h"
#include "vault/resync_plan.h"

namespace farshore {
namespace {

constexpr std::string_view kWaiting = "what-can-wait";
constexpr std::string_view kAll = "all";
constexpr std::string_view kInOrder = "in-order";
constexpr std::string_view kNewestFirst = "newest-first";
constexpr uint32_t kMaxRpoThresholdS = 604'800;
constexpr uint32_t kMinScrubIntervalS = 3600, kMaxScrubIntervalS = 31'536'000;

}  // namespace

Result<ItemPolicy> read_policy(const JsonFields& body, ItemPolicy policy) {
    const Json* json = body.find("policy");
    if (json == nullptr) return policy;
    FS_ASSIGN(const JsonFields fields, JsonFields::of(*json, "policy"));
    FS_TRY(check_members(
        *json, "policy",
        {"crash_point_interval_s", "window_s", "grace_s", "copy_throttle_bytes_per_s",
         "consistent_interval_s", "rpo_threshold_s", "resync_windows", "resync_windows_for",
         "verify_interval_s", "bandwidth", "catch_up", "scrub_interval_s", "keep"}));
    FS_ASSIGN(const uint64_t interval,
              fields.u64("crash_point_interval_s", policy.crash_point_interval_s, 86'400));
    FS_ASSIGN(const uint64_t window, fields.u64("window_s", policy.window_s, 31'536'000));
    FS_ASSIGN(const uint64_t grace, fields.u64("grace_s", policy.grace_s, 604'800));
    FS_ASSIGN(policy.copy_throttle_bytes_per_s,
              fields.u64("copy_throttle_bytes_per_s", policy.copy_throttle_bytes_per_s));
    FS_ASSIGN(
        const uint64_t consistent,
        fields.u64("consistent_interval_s", policy.consistent_interval_s, kMaxConsistentIntervalS));
    FS_ASSIGN(const uint64_t rpo,
              fields.u64("rpo_threshold_s", policy.rpo_threshold_s, kMaxRpoThresholdS));
    FS_ASSIGN(policy.resync_windows,
              fields.text("resync_windows", kMaxWindowsBytes, policy.resync_windows));
    FS_ASSIGN(const std::string waits_for,
              fields.text("resync_windows_for", 32,
                          std::string(policy.resync_windows_for_all ? kAll : kWaiting)));
    if (waits_for != kAll && waits_for != kWaiting)
        return fields.wrong("resync_windows_for", "must be what-can-wait or all");
    policy.resync_windows_for_all = waits_for == kAll;
    FS_ASSIGN(const uint64_t verify,
              fields.u64("verify_interval_s", policy.verify_interval_s, kMaxVerifyIntervalS));
    FS_ASSIGN(policy.bandwidth, fields.text("bandwidth", kMaxBandwidthBytes, policy.bandwidth));
    FS_ASSIGN(
        const std::string catch_up,
        fields.text("catch_up", 32, std::string(policy.newest_first ? kNewestFirst : kInOrder)));
    if (catch_up != kInOrder && catch_up != kNewestFirst)
        return fields.wrong("catch_up", "must be in-order or newest-first");
    policy.newest_first = catch_up == kNewestFirst;
    FS_ASSIGN(const uint64_t scrub,
              fields.u64("scrub_interval_s", policy.scrub_interval_s, kMaxScrubIntervalS));
    FS_ASSIGN(policy.keep, fields.text("keep", kMaxGridBytes, policy.keep));
    if (rpo < 1) return fail(Code::kInvalidArgument, "policy.rpo_threshold_s must be at least 1");
    if (interval < 1)
        return fail(Code::kInvalidArgument, "policy.crash_point_interval_s must be at least 1");
    if (window < 60) return fail(Code::kInvalidArgument, "policy.window_s must be at least 60");
    policy.crash_point_interval_s = static_cast<uint32_t>(interval);
    policy.window_s = static_cast<uint32_t>(window);
    policy.grace_s = static_cast<uint32_t>(grace);
    policy.rpo_threshold_s = static_cast<uint32_t>(rpo);
    policy.verify_interval_s = static_cast<uint32_t>(verify);
    policy.scrub_interval_s = static_cast<uint32_t>(scrub);
    policy.consistent_interval_s = static_cast<uint32_t>(consistent);
    return policy;
}

int64_t retention_us(const ItemPolicy& policy) {
    int64_t longest_us = int64_t{policy.window_s} * 1'000'000;
    if (const auto grid = RetentionGrid::parse(policy.keep))
        for (const GridStep& step : grid->steps()) longest_us = std::max(longest_us, step.until_us);
    return longest_us;
}

Status check_policy(const ItemPolicy& policy, std::string_view zone) {
    if (!policy.resync_windows.empty()) {
        auto windows = WeeklyWindows::parse(policy.resync_windows, zone);
        if (!windows) return fail(windows.error().with_context("resync_windows"));
    }
    if (auto limit = BandwidthLimit::parse(policy.bandwidth, zone); !limit)
        return fail(limit.error().with_context("bandwidth"));
    if (auto grid = RetentionGrid::parse(policy.keep); !grid)
        return fail(grid.error().with_context("keep"));
    if (policy.verify_interval_s != 0 && (policy.verify_interval_s < kMinVerifyIntervalS ||
                                          policy.verify_interval_s > kMaxVerifyIntervalS))
        return fail(Code::kInvalidArgument,
                    fmt::format("source and replica can be compared every {} to {} seconds, or not "
                                "by the policy (0)",
                                kMinVerifyIntervalS, kMaxVerifyIntervalS));
    if (policy.scrub_interval_s != 0 && policy.scrub_interval_s < kMinScrubIntervalS)
        return fail(Code::kInvalidArgument,
                    fmt::format("objects can be scrubbed every {} to {} seconds, or not by the "
                                "policy (0)",
                                kMinScrubIntervalS, kMaxScrubIntervalS));
    const uint32_t interval_s = policy.consistent_interval_s;
    if (interval_s == 0) return {};
    if (interval_s < kMinConsistentIntervalS || interval_s > kMaxConsistentIntervalS)
        return fail(Code::kInvalidArgument,
                    fmt::format("consistent points can be made every {} to {} seconds, or not at "
                                "all (0)",
                                kMinConsistentIntervalS, kMaxConsistentIntervalS));
    if (int64_t{interval_s} * 1'000'000 >= retention_us(policy))
        return fail(Code::kInvalidArgument,
                    fmt::format("a consistent point every {} seconds, of points that stay for {}: "
                                "none would be there at times",
                                interval_s, retention_us(policy) / 1'000'000),
                    "consistent_interval_s must be less than the retention (window_s, or the last "
                    "step of keep)");
    return {};
}

void write_policy(JsonText& text, const char* key, const ItemPolicy& policy) {
    text.begin(key)
        .member("crash_point_interval_s", policy.crash_point_interval_s)
        .member("window_s", policy.window_s)
        .member("keep", policy.keep)
        .member("grace_s", policy.grace_s)
        .member("copy_throttle_bytes_per_s", policy.copy_throttle_bytes_per_s)
        .member("consistent_interval_s", policy.consistent_interval_s)
        .member("rpo_threshold_s", policy.rpo_threshold_s)
        .member("resync_windows", policy.resync_windows)
        .member("resync_windows_for", policy.resync_windows_for_all ? kAll : kWaiting)
        .member("verify_interval_s", policy.verify_interval_s)
        .member("bandwidth", policy.bandwidth)
        .member("scrub_interval_s", policy.scrub_interval_s)
        .member("catch_up", policy.newest_first ? kNewestFirst : kInOrder)
        .end();
}

Json policy_view(const ItemPolicy& policy) {
    JsonText text;
    text.begin();
    write_policy(text, "policy", policy);
    return Json::parse(text.end().text())["policy"];
}

}  // namespace farshore
