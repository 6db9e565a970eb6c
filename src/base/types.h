// The strong types that keep one kind of number from being passed as another, and ids.
#pragma once

#include <array>
#include <chrono>
#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"

namespace farshore {

// A 64-bit count of one kind. `v` is public: arithmetic is spelt out where it happens.
template <typename Tag>
struct Counter {
    uint64_t v = 0;
    friend constexpr auto operator<=>(Counter, Counter) = default;
    constexpr Counter next() const { return {v + 1}; }
};

// Position of a record in the one order of a machine's writes, from 1. 0 is "before the first".
using Sequence = Counter<struct SequenceTag>;
// Position of a segment in an item's log, from 1. 0 is "before the first".
using SegmentNumber = Counter<struct SegmentNumberTag>;
// Fencing epoch: who holds a larger one wins. 0 is never handed out.
using Epoch = Counter<struct EpochTag>;

// Index of a disk within its machine.
using DiskIndex = uint16_t;

// Wall-clock time, microseconds since 1970-01-01T00:00:00Z. May step; never used for time-outs.
struct TimePoint {
    int64_t us = 0;
    friend constexpr auto operator<=>(TimePoint, TimePoint) = default;
};

// RFC 3339 in UTC with microseconds, "2026-01-31T08:00:00.000000Z".
std::string to_rfc3339(TimePoint time);
// Accepts any RFC 3339 offset and 0 to 9 fractional digits; kMalformed otherwise.
Result<TimePoint> from_rfc3339(std::string_view text);

// 128-bit identifier, printed as 32 lower-case hexadecimal digits.
template <typename Tag>
struct Id {
    std::array<uint8_t, 16> raw{};
    friend constexpr auto operator<=>(const Id&, const Id&) = default;
    bool is_nil() const { return *this == Id{}; }
    std::string to_string() const { return to_hex(raw); }
    ByteView view() const { return raw; }
    static Result<Id> parse(std::string_view text) {
        auto bytes = from_hex(text);
        if (!bytes || bytes->size() != 16)
            return fail(Code::kMalformed, "an id is 32 hexadecimal digits, not '" +
                                              std::string(text.substr(0, 64)) + "'");
        Id id;
        std::copy(bytes->begin(), bytes->end(), id.raw.begin());
        return id;
    }
};

// A replicated item: one protected machine.
using ItemId = Id<struct ItemIdTag>;
// An agent, an appliance or a vault: whatever has a certificate of its own.
using PartyId = Id<struct PartyIdTag>;

// SHA-256.
using Digest = std::array<uint8_t, 32>;

}  // namespace farshore

template <typename Tag>
struct std::hash<farshore::Id<Tag>> {
    size_t operator()(const farshore::Id<Tag>& id) const noexcept {
        return static_cast<size_t>(farshore::load_u64(id.raw.data()));
    }
};
template <typename Tag>
struct std::hash<farshore::Counter<Tag>> {
    size_t operator()(farshore::Counter<Tag> counter) const noexcept {
        return std::hash<uint64_t>{}(counter.v);
    }
};
