#include "agent/item_move.h"

namespace farshore {
namespace {

// More than is kept always, and still so little that copying goes on.
constexpr uint64_t kMovingEighths = 3;
constexpr int64_t kPauseAfterUs = 3'000'000;
constexpr int64_t kPauseAgainUs = 30'000'000;

}  // namespace

ItemMove::ItemMove(ItemRoute& route, CaptureSource& source, LogSender& sender, Clock& clock)
    : route_(route), source_(source), sender_(sender), clock_(clock) {}

void ItemMove::go_to(const ApplianceAddress& appliance) {
    const bool changes = route_.appliance() != appliance.name;
    route_.set(appliance);
    const std::string& peer = sender_.peer_name();
    if (appliance.name.empty() || peer == appliance.name || (peer.empty() && !changes)) return;
    // What the one before has received is of no use to this one.
    source_.forget_received();
    sender_.reconnect();
}

void ItemMove::follow(const ApplianceAddress& now, const ApplianceAddress& next) {
    const uint64_t ring = source_.ring_bytes();
    const bool there = next.name.empty() || route_.appliance() == next.name;
    if (!there && source_.has_all_unstored()) {
        go_to(next);
    } else if (!there) {
        source_.keep(ring / 8 * kMovingEighths);
        go_to(now);
        wait_for_store();
        return;
    } else {
        go_to(next.name.empty() ? now : next);
    }
    since_us_ = pause_us_ = 0;
    source_.keep(ring / kKeptPartOfRing);
    source_.pause(false);
    sender_.wake();
}

void ItemMove::wait_for_store() {
    const int64_t now_us = clock_.steady_us();
    if (since_us_ == 0) {
        since_us_ = now_us;
        pause_us_ = now_us + kPauseAfterUs;
    }
    if (source_.paused()) {
        // Rather another attempt than a gap.
        if (!source_.half_full() && !sender_.peer_name().empty()) return;
        source_.pause(false);
        pause_us_ = now_us + kPauseAgainUs;
        sender_.wake();
    } else if (now_us >= pause_us_ && !source_.half_full() && !sender_.peer_name().empty()) {
        source_.pause(true);
    }
}

}  // namespace farshore
