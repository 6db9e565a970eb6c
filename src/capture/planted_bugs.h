// Bugs that tests switch on to prove that they would be noticed. All off in production: nothing but
// a test ever makes one of these with a field set.
#pragma once

namespace farshore {

struct PlantedBugs {
    bool mark_too_late = false;     // the dirty map is marked after the backing write
    bool unmark_too_early = false;  // what was appended counts as stored
    bool lost_gap = false;          // payload was dropped, and no GAP says so
    bool wrong_order = false;       // a record is held back and appended after the one that follows
    bool stale_compare = false;     // what is marked while it is compared stays in question
    bool skipped_sum = false;  // one block of each compared run counts as equal, whatever it is
    bool early_end = false;    // what was asked last is not waited for
    bool wrong_disk = false;   // a disk is compared in place of the one before it
    // A disk that was added counts among the points before it is copied.
    bool joined_at_once = false;
};

}  // namespace farshore
