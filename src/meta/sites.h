// Sites: where appliances stand, and so whose machines are where. An appliance says its own; what
// is kept here is what people say of a site. An item is of the site of the appliance that its
// records go to; while that is the recovery site's own, of the site that it came from.
//
// Any thread may call; errors of the database as in database.h.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"

namespace farshore {

class Database;

inline constexpr size_t kMaxSites = 10'000;
inline constexpr size_t kMaxSiteNameBytes = 64;
inline constexpr size_t kMaxSiteDescriptionBytes = 4096;
// Before a site's name, among the items of a scope (people.h): all items of that site.
inline constexpr std::string_view kSitePrefix = "site:";

struct SiteRecord {
    std::string name;
    uint64_t version = 0;  // grows with each change; 0: only an appliance names it
    std::string description;
    TimePoint created, updated;
};

// kInvalidArgument.
Status check_site_name(std::string_view name);
// Those that somebody described, and those that appliances name, by name.
Result<std::vector<SiteRecord>> list_sites(Database& database);
// kNotFound.
Result<SiteRecord> get_site(Database& database, const std::string& name);
// Described anew, or for the first time. kInvalidArgument, kLimitReached.
Result<SiteRecord> put_site(Database& database, const std::string& name,
                            const std::string& description);
// kNotFound; kWrongState while an appliance names it.
Status remove_site(Database& database, const std::string& name);

// Empty: not known.
Result<std::string> site_of_item(Database& database, const ItemId& item);
// Items of one of these sites.
Result<std::vector<ItemId>> items_of_sites(Database& database,
                                           const std::vector<std::string>& sites);

}  // namespace farshore
