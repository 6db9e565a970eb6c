// Use cases over named policies: values that many items share. An item that follows one has the
// same values in its own row, so that whatever reads an item needs nothing else; a change of the
// policy and of all that follow it is one transaction, whole or not at all. Any thread may call;
// errors of the database as in database.h.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "meta/records.h"

namespace farshore {

class Database;

inline constexpr size_t kMaxPolicies = 1000;
inline constexpr size_t kMaxPolicyNameBytes = 64;
// There always; it can be changed and never be removed. Until it is changed it is what ItemPolicy
// says.
inline constexpr std::string_view kDefaultPolicy = "default";

struct PolicyRecord {
    std::string name;
    uint64_t version = 0;  // grows with each change; 0: the built-in values
    ItemPolicy values;
    TimePoint created, updated;  // 0: it is as it was built in
    uint64_t items = 0;          // that follow it
};

// 1 to 64 of a-z, 0-9 and '-', with a letter; "custom" is what items of their own are called.
Status check_policy_name(const std::string& name);

// `version` and times are set. kAlreadyExists, kLimitReached.
Result<PolicyRecord> create_policy(Database& database, const PolicyRecord& policy);
// kNotFound.
Result<PolicyRecord> get_policy(Database& database, const std::string& name);
// In the order of their names, after `after`.
Result<std::vector<PolicyRecord>> list_policies(Database& database, const std::string& after,
                                                size_t limit);

// What the values are checked against: name, way of capturing and id of an item; nothing else of
// the record is filled in.
using PolicyCheck = std::function<Status(const ItemRecord&, const ItemPolicy&)>;

// Lets `change` edit the values, asks `check` of each item that follows, and gives all of them the
// new values. An error of either changes nothing.
Result<PolicyRecord> change_policy(Database& database, const std::string& name,
                                   const std::function<Status(PolicyRecord&)>& change,
                                   const PolicyCheck& check);
// kWrongState while items follow it, naming the first; kForbidden: the built-in one. `may` is asked
// before.
Status remove_policy(Database& database, const std::string& name,
                     const std::function<Status(const PolicyRecord&)>& may);
// The items follow it from now on. kItemNotFound: one of them is gone; then nothing is changed.
Result<PolicyRecord> assign_policy(Database& database, const std::string& name,
                                   const std::vector<ItemId>& items, const PolicyCheck& check);
// Those that follow it, in the order of their names, after `after`: id, name and way of capturing.
Result<std::vector<ItemRecord>> list_items_of_policy(Database& database, const std::string& name,
                                                     const std::string& after, size_t limit);

}  // namespace farshore
