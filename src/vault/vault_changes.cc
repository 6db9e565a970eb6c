// Where an item's disks changed unlike before: for its points, and as an event.
// docs/design/change.md.
#include <fmt/core.h>

#include "meta/parties.h"
#include "vault/log_about.h"
#include "vault/vault_impl.h"

namespace farshore {
namespace {

constexpr int64_t kLookUs = 60'000'000;
constexpr int64_t kEventUs = 3'600'000'000;
constexpr const char* kEvent = "change-unusual";

}  // namespace

Result<std::vector<SuspiciousChange>> Vault::suspicious(const ItemId& id) {
    FS_ASSIGN(const std::shared_ptr<ItemRuntime> item, impl_->runtime(id));
    FS_ASSIGN(const auto rows, item->replica->changes());
    std::vector<SuspiciousChange> out;
    for (const ChangeBreak& known : find_breaks(rows)) {
        SuspiciousChange change{known, {}};
        // The last state before it that is still there.
        auto point =
            item->replica->resolve({.kind = PointSpec::Kind::kTime, .time = {known.from.us - 1}});
        if (point)
            change.before = *point;
        else if (point.error().code() != Code::kPointOutsideWindow &&
                 point.error().code() != Code::kPointInGap &&
                 point.error().code() != Code::kPointNotFound)
            return fail(point.error());
        out.push_back(change);
    }
    return out;
}

void Vault::Impl::tend_changes(Vault& vault, ItemRuntime& item, const ItemRecord& record,
                               Sequence stored) {
    const int64_t steady_us = clock.steady_us();
    if (steady_us < item.changes_look_us || stored == item.changes_seen) return;
    item.changes_look_us = steady_us + kLookUs;
    item.changes_seen = stored;
    const auto tend = [&]() -> Status {
        FS_ASSIGN(const auto found, vault.suspicious(record.id));
        if (found.empty()) return {};
        const ChangeBreak& newest = found.back().change;
        // One that is past is no news.
        if (source_now(item).us - newest.until.us > kEventUs) return {};
        if (!item.changes_told) {
            item.changes_told.emplace();
            FS_ASSIGN(const auto events, list_events(*database, 0, 100, {.item = record.id}));
            for (const EventRecord& event : events)
                if (event.code == kEvent)
                    item.changes_told = std::max(*item.changes_told, event.time);
        }
        if (clock.now().us - item.changes_told->us < kEventUs) return {};
        item.changes_told = clock.now();
        const auto& before = found.back().before;
        vault.event(
            Severity::kWarning, kEvent, &record,
            fmt::format(
                "disk {}: {} MB {} within an hour since {}, usual are {} MB", newest.disk,
                newest.bytes / 1'000'000,
                newest.reason == ChangeReason::kDense ? "that cannot be compressed" : "written",
                to_rfc3339(newest.from), newest.usual_bytes / 1'000'000),
            before
                ? fmt::format("if nobody knows why: the last point before it is {} ({}); `farshore "
                              "points --suspicious` lists more",
                              before->sequence.v, to_rfc3339(before->time))
                : "no point from before it is left in the window");
        return {};
    };
    if (const Status tended = tend(); !tended)
        log::warn("vault", about(record, tended.error()), "the changes of '{}': {}", record.name,
                  tended.error().to_string());
}

}  // namespace farshore
