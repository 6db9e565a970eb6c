// Items as the database has them, kept for those who ask for them many times a second: heartbeats
// of agents and appliances. An answer is never older than what was committed before the question:
// whoever changes items says so when the commit has returned, however it ended, and before it
// tells anybody. Only one process changes items at a time (database.h; nodes.h says what becomes of
// one that was overtaken).
//
// About 1.5 KiB an item. Any thread may call. Private to src/meta; items.h offers it to others.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
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
    std::map<std::string, std::map<std::string, ItemId>> by_agent_;  // names to ids
};

// Over the items of `database`, which must outlive it.
std::unique_ptr<ItemMemory> memory_of_items(Database& database);

}  // namespace farshore
