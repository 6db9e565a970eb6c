// Stores beside the vault's own, and which items have a copy in which. Any thread may call.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "meta/records.h"

namespace farshore {

class Database;

inline constexpr size_t kMaxStoreNameBytes = 32;
inline constexpr size_t kMaxStores = 16;

struct StoreRecord {
    std::string name;
    std::string location;       // store/store_settings.h
    std::string settings_file;  // empty: none
    std::string store_id;
    // The vault's newest claim on it: epoch as 16 hex digits, and its id (VaultFence).
    std::string claim_epoch, claim_id;
    TimePoint created;
};

// [a-z0-9-], at most kMaxStoreNameBytes, with a letter: kInvalidArgument.
Status check_store_name(const std::string& name);
// kAlreadyExists: the name, or the store; kLimitReached.
Status add_store(Database& database, const StoreRecord& record);
// kNotFound.
Result<StoreRecord> get_store(Database& database, const std::string& name);
Result<std::vector<StoreRecord>> list_stores(Database& database);  // by name
Status keep_store_claim(Database& database, const std::string& name, const std::string& epoch,
                        const std::string& id);
// kWrongState: items have copies there. kNotFound.
Status remove_store(Database& database, const std::string& name);

struct CopyRecord {
    ItemId item;
    std::string store;  // its name
    uint32_t window_s = 0;
    std::string keep;  // base/retention_grid.h
    uint32_t grace_s = 600;
    TimePoint created;
    bool removing = false;  // its points are being deleted
    // Of its newest scrub.
    TimePoint scrubbed;
    uint64_t damaged = 0;
    std::string damage;  // what, for people
};

// kAlreadyExists, kItemNotFound, kNotFound (the store).
Status add_copy(Database& database, const CopyRecord& record);
// kNotFound.
Result<CopyRecord> get_copy(Database& database, const ItemId& item, const std::string& store);
Result<CopyRecord> change_copy(Database& database, const ItemId& item, const std::string& store,
                               const std::function<Status(CopyRecord&)>& change);
Result<std::vector<CopyRecord>> list_copies(Database& database, const ItemId& item);
Result<std::vector<CopyRecord>> list_copies_in(Database& database, const std::string& store);
// With its ledger. Ok also when there is none.
Status remove_copy(Database& database, const ItemId& item, const std::string& store);

}  // namespace farshore
