// Consistent points by policy: asked for like a bookmark of kind `application`, one at a time. How
// it goes is in the database; a cause is told once, not at every interval.
#include <fmt/core.h>

#include "vault/log_about.h"
#include "vault/vault_impl.h"

namespace farshore {
namespace {

constexpr const char* kConsistentLabel = "consistent";

}  // namespace

Status Vault::Impl::consistent_point_failed(Vault& vault, const ItemRecord& record,
                                            const ItemError& error) {
    bool fresh = false;
    FS_TRY(change_consistent_state(*database, record.id, [&](ConsistentState& state) {
        state.request.clear();
        fresh = !state.error || state.error->code != error.code || state.error->what != error.what;
        state.error = error;
        state.failed = clock.now();
    }));
    if (fresh)
        vault.event(
            Severity::kWarning, "consistent-point-failed", &record,
            fmt::format("the consistent point of the policy was not made: {} ({}); it is "
                        "tried again every {} s",
                        error.what, code_name(error.code), record.policy.consistent_interval_s),
            error.remedy);
    notify();
    return {};
}

void Vault::Impl::tend_consistent_points(Vault& vault, ItemRuntime& item, const ItemRecord& record,
                                         Sequence stored, bool ready) {
    int64_t ready_us = 0;
    {
        const std::lock_guard hold(item.mutex);
        if (!ready)
            item.consistent_ready_us.reset();
        else if (!item.consistent_ready_us)
            item.consistent_ready_us = clock.steady_us();
        if (ready) ready_us = clock.steady_us() - *item.consistent_ready_us;
    }
    if (record.policy.consistent_interval_s == 0 || fenced) return;
    const auto tend = [&]() -> Status {
        FS_ASSIGN(const ConsistentState state, get_consistent_state(*database, record.id));
        ConsistentInputs inputs;
        inputs.interval_s = record.policy.consistent_interval_s;
        inputs.ready = ready;
        inputs.ready_us = ready_us;
        inputs.asked = state.asked;
        inputs.made = state.made;
        inputs.now = clock.now();
        BookmarkRecord bookmark;
        if (!state.request.empty()) {
            auto known = get_bookmark(*database, state.request);
            if (!known && known.error().code() != Code::kNotFound)
                return tl::unexpected(known.error());
            // Else a crash came between noting and asking.
            inputs.pending = known.has_value();
            if (known) bookmark = *known;
            inputs.stored = bookmark.sequence.v != 0 && stored >= bookmark.sequence;
        }
        switch (next_consistent_step(inputs)) {
            case ConsistentStep::kWait:
                return {};
            case ConsistentStep::kDone:
                FS_TRY(change_consistent_state(*database, record.id, [&](ConsistentState& to) {
                    to.request.clear();
                    to.made = bookmark.time;
                    to.error.reset();
                }));
                notify();
                return {};
            case ConsistentStep::kGiveUp: {
                const bool made = bookmark.sequence.v != 0;
                FS_TRY(consistent_point_failed(
                    vault, record,
                    {Code::kTimeout,
                     made ? "it was made, but is not stored when the next one is due"
                          : fmt::format("agent '{}' has not answered when the next one is due",
                                        record.agent),
                     "look at the agent and the line; `farshore item` shows the lag"}));
                return drop_bookmark(*database, bookmark.id);
            }
            case ConsistentStep::kAsk:
                break;
        }
        uint8_t raw[16];
        random.fill(raw);
        bookmark.id = to_hex(raw);
        bookmark.item = record.id;
        bookmark.label = kConsistentLabel;
        bookmark.kind = PointKind::kApplication;
        bookmark.requested = inputs.now;
        // Noted first: a crash before the request costs one interval, never a second point.
        FS_TRY(change_consistent_state(*database, record.id, [&](ConsistentState& to) {
            to.request = bookmark.id;
            to.asked = inputs.now;
        }));
        if (auto asked = add_bookmark(*database, bookmark); !asked)
            return consistent_point_failed(
                vault, record,
                {asked.error().code(), asked.error().what(), asked.error().remedy()});
        return {};
    };
    if (auto tended = tend(); !tended)
        log::warn("vault", about(record, tended.error()), "consistent points of '{}': {}",
                  record.name, tended.error().to_string());
}

}  // namespace farshore
