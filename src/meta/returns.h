// The way home of an item that runs at its recovery site (docs/design/return.md): where it goes,
// what it was captured by before, and how far that is. One for an item at most, from the
// reprotection to the commit of the failback.
//
// Any thread may call; errors of the database as in database.h.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "meta/records.h"

namespace farshore {

class Database;

struct ReturnRecord {
    ItemId item;
    std::string id;        // of this way: another one for the same item has another
    std::string recovery;  // of the failover whose machine it is
    // Where the disks are written, and who captures them afterwards.
    std::string agent;
    CaptureMode mode = CaptureMode::kInPath;
    std::string qmp_socket;
    std::vector<DesiredDisk> disks;
    std::string appliance;  // through which; empty: whichever asks first
    bool original = true;
    bool accept = false;
    Sequence after;  // states behind this are the recovery site's machine's
    Sequence to;     // the state that the disks are to have; 0: not chosen yet
    TimePoint to_time, chosen;
    uint64_t lease = 0;  // on it
    Sequence base;       // that they have, or had, and its lease
    uint64_t base_lease = 0;
    bool final = false;  // `to` is the last one
    TimePoint begun;
};

// None when it is on no way home.
Result<std::optional<ReturnRecord>> get_return(Database& database, const ItemId& item);
Result<std::vector<ReturnRecord>> list_returns(Database& database);
// In the place of one that there is. kItemNotFound.
Status put_return(Database& database, const ReturnRecord& record);
// Ok also when there is none.
Status drop_return(Database& database, const ItemId& item);

}  // namespace farshore
