// A disk's one client that may change it, for clients that come again when their connection breaks
// and then send once more what was not answered: what an older connection of theirs still holds
// must not come behind what the newer one writes. So the newest connection takes the place of the
// one before, whose changes are refused from then on, once those under way have ended.
//
// Any thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "base/error.h"

namespace farshore {

class SoleClient {
  public:
    // The number of the connection that has just taken the place. Waits for the changes under way
    // of those before. kTimeout: they have not ended, so nobody may change anything until one comes
    // again; kFenced: a newer one has come meanwhile.
    Result<uint64_t> enter(int64_t patience_us);
    // A change by connection `number`, which ends with end(). kFenced: it is not the newest.
    Status begin(uint64_t number);
    void end();

  private:
    std::mutex mutex_;
    std::condition_variable ended_;
    uint64_t newest_ = 0;
    uint64_t under_way_ = 0;  // of whichever connection
};

}  // namespace farshore
