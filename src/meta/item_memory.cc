#include "meta/item_memory.h"

namespace farshore {
namespace {

// As many are read one by one; more are read with all others.
constexpr size_t kOneByOne = 64;

}  // namespace

void ItemMemory::changed(const std::vector<ItemId>& ids) {
    const std::lock_guard hold(mutex_);
    ++changes_;
    for (const ItemId& id : ids) stale_[id] = changes_;
}

void ItemMemory::forget_all() {
    const std::lock_guard hold(mutex_);
    complete_ = false;
}

void ItemMemory::put(ItemRecord item) {
    drop(item.id);
    const ItemRecord& kept = items_[item.id] = std::move(item);
    by_name_[kept.name] = by_agent_[kept.agent][kept.name] = by_state_[kept.state][kept.name] =
        &kept;
}

void ItemMemory::drop(const ItemId& id) {
    const auto at = items_.find(id);
    if (at == items_.end()) return;
    const ItemRecord& item = at->second;
    for (Named* named : {&by_name_, &by_agent_[item.agent], &by_state_[item.state]})
        // Another one may have its name by now.
        if (const auto name = named->find(item.name); name != named->end() && name->second == &item)
            named->erase(name);
    if (by_agent_[item.agent].empty()) by_agent_.erase(item.agent);
    items_.erase(at);
}

Status ItemMemory::refresh() {
    const auto is_current = [&] { return complete_ && stale_.empty(); };
    {
        const std::lock_guard hold(mutex_);
        if (is_current()) return {};
    }
    const std::lock_guard reading(reading_);
    std::map<ItemId, uint64_t> stale;
    bool all = false;
    {
        const std::lock_guard hold(mutex_);
        if (is_current()) return {};
        stale = stale_;
        all = !complete_ || stale.size() > kOneByOne;
    }
    std::vector<ItemId> ids;
    for (const auto& [id, change] : stale) ids.push_back(id);
    FS_ASSIGN(std::vector<ItemRecord> found, read_(all ? nullptr : &ids));
    const std::lock_guard hold(mutex_);
    if (all) {
        items_.clear();
        by_name_.clear();
        by_agent_.clear();
        by_state_.clear();
    }
    for (const ItemId& id : ids) drop(id);
    for (ItemRecord& item : found) put(std::move(item));
    complete_ = true;
    // One that was changed again meanwhile is still stale.
    for (const auto& [id, change] : stale)
        if (const auto at = stale_.find(id); at->second == change) stale_.erase(at);
    return {};
}

Result<std::vector<ItemRecord>> ItemMemory::of_agent(const std::string& agent) {
    FS_TRY(refresh());
    Named found;
    const std::lock_guard hold(mutex_);
    for (const std::string& whose : {agent, std::string()})
        if (const auto its = by_agent_.find(whose); its != by_agent_.end())
            found.insert(its->second.begin(), its->second.end());
    std::vector<ItemRecord> items;
    items.reserve(found.size());
    for (const auto& [name, item] : found) items.push_back(*item);
    return items;
}

Result<std::vector<ItemRecord>> ItemMemory::list(const std::string& after, size_t limit,
                                                 const Wanted& wanted) {
    FS_TRY(refresh());
    std::vector<ItemRecord> items;
    Named few;
    const std::lock_guard hold(mutex_);
    // Fewer to look at where that is known.
    const Named* named = &by_name_;
    const auto only = [&](const auto& groups, const auto& key) {
        const auto group = groups.find(key);
        named = group != groups.end() ? &group->second : &few;
    };
    if (wanted.state) only(by_state_, *wanted.state);
    if (wanted.agent) only(by_agent_, *wanted.agent);
    if (wanted.among) {
        for (const ItemId& id : *wanted.among)
            if (const auto at = items_.find(id); at != items_.end())
                few.emplace(at->second.name, &at->second);
        named = &few;
    }
    const bool is_before = after < wanted.prefix;
    auto at = is_before ? named->lower_bound(wanted.prefix) : named->upper_bound(after);
    for (; at != named->end() && items.size() < limit; ++at) {
        const ItemRecord& item = *at->second;
        if (!item.name.starts_with(wanted.prefix)) break;
        if ((!wanted.state || item.state == *wanted.state) &&
            (!wanted.agent || item.agent == *wanted.agent) && (!wanted.takes || wanted.takes(item)))
            items.push_back(item);
    }
    return items;
}

Result<std::optional<ItemRecord>> ItemMemory::find(const ItemId& id) {
    FS_TRY(refresh());
    const std::lock_guard hold(mutex_);
    const auto at = items_.find(id);
    if (at == items_.end()) return std::optional<ItemRecord>();
    return std::optional(at->second);
}

}  // namespace farshore
