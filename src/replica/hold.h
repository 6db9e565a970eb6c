// A legal hold: a point that stays whatever the policy says, until somebody releases it. The object
// `items/<item>/hold/<sequence:16>-<id:16>` says so durably, that a lost database does not end it;
// the ledger has a lease of its own for it. Bytes: docs/format/hold.md. Values; any thread may
// call.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/seams.h"
#include "base/secret.h"
#include "base/types.h"

namespace farshore {

inline constexpr size_t kMaxHoldReasonBytes = 512;

struct Hold {
    std::string id;  // 16 hexadecimal digits
    Sequence sequence;
    TimePoint time;  // of the point
    TimePoint since;
    std::string reason;
    friend bool operator==(const Hold&, const Hold&) = default;
};

std::string hold_prefix(const ItemId& item);
std::string hold_name(const ItemId& item, const Hold& hold);
// Whether `name` is a hold's.
bool is_hold_name(const ItemId& item, std::string_view name);

// The whole object, sealed under its name.
Result<Bytes> encode_hold(const ItemId& item, const Hold& hold, const Secret& item_key,
                          Random& random);
// The errors of open_object() and of the body: kTruncated, kMalformed.
Result<Hold> decode_hold(const ItemId& item, const std::string& name, ByteView object,
                         const Secret& item_key);
// The body alone, for the fuzzer.
Result<Hold> decode_hold_body(ByteView body);

// The holder of its lease, and back.
std::string hold_holder(const Hold& hold);
std::optional<Hold> hold_of_holder(std::string_view holder);

}  // namespace farshore
