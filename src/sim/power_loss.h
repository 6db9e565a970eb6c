// How power loss treats what is not durable on a simulated disk.
#pragma once

#include <cstdint>

#include "sim/rng.h"

namespace farshore {

// Each is drawn per power loss unless set.
struct PowerLossPolicy {
    enum class Fate : uint8_t {
        kDrawn,    // one of the others, per file
        kDropped,  // nothing that is not durable survives
        kKept,     // everything survives, as if synced
        kMixed,    // each sector and each entry on its own
    };
    Fate data = Fate::kDrawn;
    Fate entries = Fate::kDrawn;
    uint32_t torn_sector_ppm = 50'000;  // of sectors that are kept in a mixed file
};

// What `wanted` means this time: itself, or one drawn.
inline PowerLossPolicy::Fate draw_fate(PowerLossPolicy::Fate wanted, Rng& rng) {
    using Fate = PowerLossPolicy::Fate;
    if (wanted != Fate::kDrawn) return wanted;
    const uint64_t n = rng.below(10);
    return n < 2 ? Fate::kDropped : n < 4 ? Fate::kKept : Fate::kMixed;
}

}  // namespace farshore
