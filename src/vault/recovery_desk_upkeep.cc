// What nobody asks the desk for: what an earlier vault left, failovers that did not begin or that
// nobody decides about, exports that nobody renews.
#include <fmt/core.h>

#include <algorithm>

#include "meta/items.h"
#include "meta/jobs.h"
#include "vault/log_about.h"
#include "vault/recovery_desk.h"

namespace farshore {

Status RecoveryDesk::resume() {
    FS_TRY(recoveries_->resume());
    if (auto resumed = returns_->resume(); !resumed)
        log::error("vault", about(resumed.error()), "machines that are captured here: {}",
                   resumed.error().to_string());
    // Nobody renews the exports of an earlier vault for long: its clients see the end and ask
    // again.
    const std::lock_guard hold(mutex_);
    for (const RecoveryState& state : recoveries_->list())
        if (state.kind == RecoveryKind::kExport)
            exports_[state.id] = {clock_.steady_us() + kExportKeptUs, 0, state.export_socket};
    return {};
}

Result<bool> RecoveryDesk::mend_failovers() {
    const std::lock_guard hold(start_mutex_);
    bool under_way = false;
    FS_ASSIGN(const auto jobs, open_jobs(vault_.database()));
    for (std::string after;;) {
        FS_ASSIGN(const auto page, list_items(vault_.database(), after, 500));
        if (page.empty()) return under_way;
        after = page.back().name;
        for (const ItemRecord& item : page) {
            if (item.state != ItemState::kFailingOver) continue;
            if (fails_over(jobs, item.id))
                under_way = true;
            else
                FS_TRY(put_back(item));
        }
    }
}

void RecoveryDesk::mend() {
    if (auto mended = mend_failovers(); !mended) {
        stranded_ = true;
        log::error("vault", about(mended.error()), "failovers that did not begin: {}",
                   mended.error().to_string());
    }
    returns_->mend();
}

// Failovers that nobody has decided about. A clock that is set does not decide: how long is left is
// read from it once, when this vault first sees the failover.
void RecoveryDesk::decide() {
    constexpr int64_t kAgainUs = 60'000'000;
    const int64_t now_us = clock_.steady_us();
    std::map<std::string, int64_t> still;
    for (const RecoveryState& state : recoveries_->list()) {
        // What was left at a host that cannot be reached says nothing of the item any more.
        if (state.kind != RecoveryKind::kFailover || state.committed ||
            state.undecided == Undecided::kWaits || state.stage == RecoveryStage::kCleaning)
            continue;
        const auto known = undecided_.find(state.id);
        int64_t due_us = 0;
        if (known != undecided_.end()) {
            due_us = known->second;
        } else {
            const int64_t whole_us = state.decide_at.us - state.timings.requested.us;
            due_us = now_us + std::clamp<int64_t>(state.decide_at.us - clock_.now().us, 0,
                                                  std::max<int64_t>(whole_us, 0));
        }
        if (now_us >= due_us) {
            due_us = now_us + kAgainUs;
            const auto item = get_item(vault_.database(), state.item);
            // Somebody has gone on: the way home, the end of the protection.
            if (item && item->state == ItemState::kFailedOver) {
                const bool commits = state.undecided == Undecided::kCommits;
                const auto job =
                    failover(state.item.to_string(), commits ? "commit" : "cancel", {});
                if (job)
                    vault_.event(Severity::kWarning, "failover-decided", &*item,
                                 fmt::format("nobody decided about the failover in time: it is {}, "
                                             "as was asked for",
                                             commits ? "committed" : "given up"));
                else
                    log::warn("vault", about(job.error()), "failover {}: {}", state.id,
                              job.error().to_string());
            }
        }
        still.emplace(state.id, due_us);
    }
    undecided_ = std::move(still);
}

void RecoveryDesk::tick() {
    recoveries_->tick_elsewhere();
    let_orphans_go();
    tick_here();
}

void RecoveryDesk::tick_here() {
    recoveries_->tick();
    tend_addresses();
    // The disk was full, or the database away.
    if (stranded_.exchange(false) && mend_failovers().value_or(true)) stranded_ = true;
    decide();
    std::vector<std::string> ended;
    {
        const std::lock_guard hold(mutex_);
        for (const auto& [id, entry] : exports_)
            if (entry.until_us < clock_.steady_us()) ended.push_back(id);
    }
    for (const std::string& id : ended) {
        log::info("vault", "export {} ends: nobody renewed it", id);
        if (auto done = end_export(id); !done)
            log::warn("vault", about(done.error()), "export {}: {}", id, done.error().to_string());
    }
}

}  // namespace farshore
