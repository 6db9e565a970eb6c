// Items that were deleted a short while ago. What was on its way to the store when the item's
// objects were deleted may land behind that, so somebody has to look again until nothing can come
// any more; this says for which items, and when.
//
// Any thread may call; errors of the database as in database.h.
#pragma once

#include <vector>

#include "base/types.h"

namespace farshore {

class Database;

struct DeletedItem {
    ItemId item;
    TimePoint next_look;
    uint32_t looks = 0;  // that were made
};

// In the place of one that there is.
Status put_deleted_item(Database& database, const DeletedItem& deleted);
// Ok also when there is none.
Status drop_deleted_item(Database& database, const ItemId& item);
// Whose next look is not behind `now`: at most `most`, those that have waited longest first.
Result<std::vector<DeletedItem>> deleted_items_due(Database& database, TimePoint now, size_t most);

}  // namespace farshore
