// An item's own policy, and what a policy would do to its points.
#include <algorithm>

#include "vault/policy.h"
#include "vault/vault_impl.h"

namespace farshore {

int64_t retention_interval_us(const ItemPolicy& policy) {
    return std::clamp<int64_t>(int64_t{policy.window_s} * 1'000'000 / 20, 2'000'000, 60'000'000);
}

Result<ItemReport> Vault::change_policy(
    const std::string& name_or_id,
    const std::function<Result<ItemPolicy>(const ItemRecord&)>& edit) {
    FS_ASSIGN(const ItemRecord record, find_item(*impl_->database, name_or_id));
    bool asked_before = false;
    FS_ASSIGN(const ItemRecord changed,
              change_item(*impl_->database, record.id, [&](ItemRecord& item) -> Status {
                  asked_before = item.policy.consistent_interval_s != 0;
                  FS_ASSIGN(item.policy, edit(item));
                  item.policy_name.clear();
                  return check_policy(item.policy, impl_->options.time_zone);
              }));
    if (asked_before && changed.policy.consistent_interval_s == 0) {
        std::string pending;
        FS_TRY(change_consistent_state(*impl_->database, record.id, [&](ConsistentState& state) {
            pending = state.request;
            state.request.clear();
            state.error.reset();
        }));
        if (!pending.empty()) FS_TRY(drop_bookmark(*impl_->database, pending));
    }
    return impl_->report(changed);
}

Result<RetentionPreview> Vault::preview_retention(const ItemId& id, const ItemPolicy& policy) {
    FS_ASSIGN(const std::shared_ptr<ItemRuntime> item, impl_->runtime(id));
    RetentionPolicy retention;
    retention.window_us = int64_t{policy.window_s} * 1'000'000;
    FS_ASSIGN(retention.grid, RetentionGrid::parse(policy.keep));
    retention.min_advance_us = retention_interval_us(policy) / 2;
    retention.followed = [this, id] { return impl_->followed(id); };
    return item->replica->preview_retention(retention);
}

}  // namespace farshore
