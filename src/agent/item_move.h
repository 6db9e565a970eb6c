// Which appliance an item's records go to, and when they may go to another one: as soon as the log
// still has all that is not stored, so that whoever takes over can have it from there, and nothing
// is missed. Until then the appliance from which the item moves goes on; where more is written than
// the log may keep, it is given time to store what it has, and new records wait in ring and spill.
//
// On the sender's executor; everything borrowed outlives it.
#pragma once

#include <cstdint>

#include "agent/appliance_routes.h"
#include "agent/capture_source.h"
#include "base/seams.h"
#include "replicate/log_sender.h"

namespace farshore {

class ItemMove {
  public:
    ItemMove(ItemRoute& route, CaptureSource& source, LogSender& sender, Clock& clock);

    // What the vault wants: the item's appliance (name empty: any), and the one that it shall have
    // (name empty: the same). Often.
    void follow(const ApplianceAddress& now, const ApplianceAddress& next);
    // To the next one, since when, steady; 0: none is under way, or it is there.
    int64_t waits_since_us() const { return since_us_; }

  private:
    void go_to(const ApplianceAddress& appliance);
    void wait_for_store();

    ItemRoute& route_;
    CaptureSource& source_;
    LogSender& sender_;
    Clock& clock_;
    int64_t since_us_ = 0;
    int64_t pause_us_ = 0;  // not before that
};

}  // namespace farshore
