// What a bucket is set to: for `farshore store check`.
#include <fmt/core.h>

#include "store/s3_store.h"

namespace farshore {
namespace {

using Found = StoreFinding::Result;
constexpr int64_t kSkewNoteUs = 5'000'000;
constexpr int64_t kSkewWarningUs = 300'000'000;  // S3 refuses from 15 min on

}  // namespace

std::vector<StoreFinding> S3Store::inspect() {
    std::vector<StoreFinding> found;
    const auto add = [&](Found result, const char* subject, std::string what,
                         std::string remedy = {}) {
        found.push_back({result, subject, std::move(what), std::move(remedy)});
    };
    const auto ask = [&](const char* what) -> Result<std::string> {
        S3Call call;
        call.query = {{what, ""}};
        FS_ASSIGN(HttpResponse response, wire_->send_ok(call));
        return std::move(response.body);
    };
    const auto cannot_ask = [&](const char* subject, const Error& error) {
        add(Found::kNote, subject, fmt::format("could not be asked for: {}", error.what()),
            "the user of this key needs the right to read the bucket's settings for that");
    };

    {
        S3Call call;
        call.query = {{"list-type", "2"}, {"max-keys", "1"}, {"prefix", prefix_}};
        const auto response = wire_->send(call);
        const auto date = response ? from_http_date(response->header("date"))
                                   : Result<TimePoint>(fail(Code::kMalformed, "no date"));
        if (!date) {
            add(Found::kNote, "clock", "the server does not say what time it is");
        } else {
            const int64_t ahead_us = clock_.now().us - date->us;
            const std::string words =
                fmt::format("this machine's clock is {:.0f} s {} the server's",
                            std::abs(static_cast<double>(ahead_us)) / 1e6,
                            ahead_us >= 0 ? "ahead of" : "behind");
            if (std::abs(ahead_us) < kSkewNoteUs)
                add(Found::kOk, "clock", "within 5 s of the server's");
            else if (std::abs(ahead_us) < kSkewWarningUs)
                add(Found::kNote, "clock", words, "set it by NTP");
            else
                add(Found::kWarning, "clock",
                    words + "; requests are signed with the server's time",
                    "set it by NTP; times of points come from the machines' own clocks");
        }
    }

    if (conditional() == Conditional::kObeyed)
        add(Found::kOk, "conditional create", "'If-None-Match: *' is obeyed");
    else if (conditional() == Conditional::kIgnored)
        add(Found::kWarning, "conditional create",
            "'If-None-Match: *' is not obeyed: each put looks first and checks afterwards",
            "let never two vaults start at one instant on this store");

    std::string versioning;
    if (const auto body = ask("versioning"); !body) {
        cannot_ask("versioning", body.error());
    } else if (const auto status = parse_s3_versioning(*body); !status) {
        cannot_ask("versioning", status.error());
    } else {
        versioning = *status;
        if (versioning.empty())
            add(Found::kOk, "versioning", "off: what is deleted frees its space");
        else if (lock_us_ != 0)
            add(Found::kOk, "versioning", "on, as locks need it");
        else
            add(Found::kWarning, "versioning",
                fmt::format("{}: a deleted object stays as an older version and takes up space",
                            versioning == "Enabled" ? "on" : "suspended"),
                "let a lifecycle rule expire noncurrent versions, or use a bucket without "
                "versioning");
    }

    if (const auto body = ask("lifecycle"); !body) {
        // "There is none" comes as an error, too, under various codes.
        if (body.error().what().find("NoSuchLifecycleConfiguration") != std::string::npos)
            add(Found::kOk, "lifecycle", "no rule deletes objects behind our back");
        else
            cannot_ask("lifecycle", body.error());
    } else if (const auto rules = parse_s3_expiry(*body); !rules) {
        cannot_ask("lifecycle", rules.error());
    } else {
        for (const std::string& rule : *rules)
            add(Found::kRefused, "lifecycle", rule,
                "take the rule away: what it deletes may be needed by every point behind it");
        if (rules->empty()) add(Found::kOk, "lifecycle", "no rule deletes objects behind our back");
    }

    const auto body = ask("object-lock");
    const auto lock = body ? parse_s3_lock_configuration(*body)
                           : Result<S3LockConfiguration>(S3LockConfiguration{});
    const bool can_lock = lock && lock->enabled;
    if (lock_us_ == 0) {
        if (can_lock && !lock->default_rule.empty())
            add(Found::kWarning, "object lock",
                fmt::format("the bucket locks every object by a rule of its own ({}), and the "
                            "settings have no object_lock_days: deleting will fail until locks end",
                            lock->default_rule),
                "set object_lock_days, or take the rule away");
        else
            add(Found::kNote, "object lock",
                can_lock ? "the bucket could lock objects, but the settings do not ask for it"
                         : "none: whoever has the keys can delete everything",
                "set object_lock_days, on a bucket with object lock");
        return found;
    }
    if (const Status configured = check_lock_configuration(); !configured) {
        add(Found::kRefused, "object lock", configured.error().what(), configured.error().remedy());
        return found;
    }
    if (const Status tried = try_lock(); !tried)
        add(Found::kRefused, "object lock", tried.error().what(), tried.error().remedy());
    else
        add(Found::kOk, "object lock", "tried: a locked object's version can't be deleted");
    return found;
}

}  // namespace farshore
