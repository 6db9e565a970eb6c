// What a log lease leaves in the store before it is handed out: its epoch, the number of its first
// segment, and the epoch of the segment before that. With it the store alone says whose segments
// are the log, whatever lands there later. docs/format/names.md §3, docs/design/replica.md §3.
//
// Segments are put side by side, up to kMaxSegmentsAhead of them, so a lease that was lost leaves
// segments that were never registered, some of them behind holes, and a put that was under way may
// end long afterwards. All of them have numbers that the next lease begins with. Values; any
// thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/types.h"
#include "replica/manifest.h"
#include "store/object_store.h"

namespace farshore {

struct LogLeaseMark {
    Epoch epoch;          // of the lease
    SegmentNumber start;  // of its first segment; 1 when there is none before
    Epoch before;         // of segment start-1; 0 when there is none
    friend bool operator==(const LogLeaseMark&, const LogLeaseMark&) = default;
};

std::string log_lease_prefix(const ItemId& item);  // "items/<item>/lease/"
// The object's name says it all; its content is the name again.
std::string log_lease_name(const ItemId& item, const LogLeaseMark& mark);
std::optional<LogLeaseMark> parse_log_lease_name(const ItemId& item, std::string_view name);
// Errors of the store.
Status put_log_lease(ObjectStore& store, const ItemId& item, const LogLeaseMark& mark);

// Which epoch's segment a number of the log is.
class LogOwners {
  public:
    LogOwners() = default;
    // In any order. The newest counts, then the one of the epoch that it names as the one before
    // it, and so on: those in between never appended anything.
    explicit LogOwners(std::vector<LogLeaseMark> marks);
    // Those of a store. Errors of the store.
    static Result<LogOwners> list(ObjectStore& store, const ItemId& item);

    // Whether a segment of that number and epoch can be of the log. Of several that can, the one
    // with the largest epoch is.
    bool may_own(SegmentNumber number, Epoch epoch) const;
    // The log reaches at least up to here: a lease began behind it. 0: nothing is known.
    SegmentNumber registered() const;
    // Of all marks that were listed, those that count for no number behind `floor` any more.
    std::vector<LogLeaseMark> unneeded(SegmentNumber floor) const;
    Epoch newest() const { return marks_.empty() ? Epoch{} : marks_.front().epoch; }

  private:
    std::vector<LogLeaseMark> all_;    // newest first
    std::vector<LogLeaseMark> marks_;  // those that count, newest first
};

}  // namespace farshore
