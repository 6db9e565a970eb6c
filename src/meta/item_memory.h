// Items as the database has them, kept for those who ask for them many times a second: heartbeats
// of agents and appliances, people who look at lists. An answer is never older than what was
// committed before the question: whoever changes items says so when the commit has returned,
// however it ended, and before it tells anybody. Only one process changes items at a time
// (database.h; nodes.h says what becomes of one that was overtaken).
//
// About 1.5 KiB an item. Any thread may call. Private to src/meta; items.h offers it to others.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "meta/records.h"

namespace farshore {

class Database;

class ItemMemory {
  public:
    // All items, or those of `ids` that there are; behind every change of them that has begun, also
    // one whose commit has lost its answer.
    using Read = std::function<Result<std::vector<ItemRecord>>(const std::vector<ItemId>* ids)>;
    explicit ItemMemory(Read read) : read_(std::move(read)) {}
    ItemMemory(const ItemMemory&) = delete;
    ItemMemory& operator=(const ItemMemory&) = delete;

    // Those that it captures, and those that nobody captures yet, by name. Errors of `read`.
    Result<std::vector<ItemRecord>> of_agent(const std::string& agent);
    // Which ones; what is empty says nothing.
    struct Wanted {
        std::string prefix;  // of the name
        std::optional<std::string> agent;
        std::optional<ItemState> state;
        std::optional<std::set<ItemId>> among;
        std::function<bool(const ItemRecord&)> takes;  // called under a lock: it asks nobody
    };
    // In the order of their names, at most `limit` behind `after`. Errors of `read`.
    Result<std::vector<ItemRecord>> list(const std::string& after, size_t limit,
                                         const Wanted& wanted);
    // None: there is none. Errors of `read`.
    Result<std::optional<ItemRecord>> find(const ItemId& id);

    // They were changed, made or deleted; or it is not known whether they were.
    void changed(const std::vector<ItemId>& ids);

    // Everything, before others ask.
    void forget_all();

  private:
    Status refresh();
    void put(ItemRecord item);
    void drop(const ItemId& id);

    const Read read_;
    std::mutex reading_;  // one reads at a time, so that what is older never comes in last
    std::mutex mutex_;    // the rest
    bool complete_ = false;
    uint64_t changes_ = 0;
    std::map<ItemId, uint64_t> stale_;  // and which of the changes that was
    std::map<ItemId, ItemRecord> items_;
    // Into items_, by name.
    using Named = std::map<std::string, const ItemRecord*>;
    Named by_name_;
    std::map<std::string, Named> by_agent_;
    std::map<ItemState, Named> by_state_;
};

// Over the items of `database`, which must outlive it.
std::unique_ptr<ItemMemory> memory_of_items(Database& database);

}  // namespace farshore
