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
    by_agent_[item.agent][item.name] = item.id;
    items_[item.id] = std::move(item);
}

void ItemMemory::drop(const ItemId& id) {
    const auto at = items_.find(id);
    if (at == items_.end()) return;
    const auto agent = by_agent_.find(at->second.agent);
    // Another one may have its name by now.
    if (const auto name = agent->second.find(at->second.name);
        name != agent->second.end() && name->second == id)
        agent->second.erase(name);
    if (agent->second.empty()) by_agent_.erase(agent);
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
        by_agent_.clear();
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
    std::map<std::string, const ItemRecord*> found;
    const std::lock_guard hold(mutex_);
    for (const std::string& whose : {agent, std::string()})
        if (const auto its = by_agent_.find(whose); its != by_agent_.end())
            for (const auto& [name, id] : its->second) found[name] = &items_.at(id);
    std::vector<ItemRecord> items;
    items.reserve(found.size());
    for (const auto& [name, item] : found) items.push_back(*item);
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
