#include "replica/hold.h"

#include <fmt/core.h>

#include <algorithm>

#include "replica/compact.h"
#include "replica/manifest.h"
#include "replica/sealed_object.h"

namespace farshore {
namespace {

constexpr size_t kIdDigits = 16;
constexpr std::string_view kHolder = "hold ";

bool is_hex(std::string_view text) {
    return std::ranges::all_of(
        text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

Bytes encode_body(const Hold& hold) {
    Bytes body;
    CompactWriter out(body);
    out.text(hold.id);
    out.number(hold.sequence.v);
    out.signed_number(hold.time.us);
    out.signed_number(hold.since.us);
    out.text(hold.reason);
    return body;
}

}  // namespace

std::string hold_prefix(const ItemId& item) { return item_prefix(item) + "hold/"; }

std::string hold_name(const ItemId& item, const Hold& hold) {
    return fmt::format("{}{:016x}-{}", hold_prefix(item), hold.sequence.v, hold.id);
}

bool is_hold_name(const ItemId& item, std::string_view name) {
    const std::string prefix = hold_prefix(item);
    if (!name.starts_with(prefix)) return false;
    name.remove_prefix(prefix.size());
    return name.size() == 16 + 1 + kIdDigits && name[16] == '-' && is_hex(name.substr(0, 16)) &&
           is_hex(name.substr(17));
}

Result<Bytes> encode_hold(const ItemId& item, const Hold& hold, const Secret& item_key,
                          Random& random) {
    return seal_object(kHoldMagic, hold_name(item, hold), item, encode_body(hold), item_key,
                       random);
}

Result<Hold> decode_hold_body(ByteView body) {
    CompactReader in(body, "hold");
    Hold hold;
    FS_ASSIGN(hold.id, in.text(kIdDigits));
    if (hold.id.size() != kIdDigits || !is_hex(hold.id))
        return fail(Code::kMalformed, "hold: its id is none");
    FS_ASSIGN(hold.sequence.v, in.number());
    FS_ASSIGN(hold.time.us, in.signed_number());
    FS_ASSIGN(hold.since.us, in.signed_number());
    FS_ASSIGN(hold.reason, in.text(kMaxHoldReasonBytes));
    FS_TRY(in.finish());
    return hold;
}

Result<Hold> decode_hold(const ItemId& item, const std::string& name, ByteView object,
                         const Secret& item_key) {
    FS_ASSIGN(const Bytes body, open_object(kHoldMagic, name, item, object, item_key));
    auto hold = decode_hold_body(body);
    if (!hold) return fail(hold.error().with_context(name));
    if (hold_name(item, *hold) != name)
        return fail(Code::kMalformed, name + " holds a hold of another name");
    return hold;
}

std::string hold_holder(const Hold& hold) {
    return std::string(kHolder) + to_hex(encode_body(hold));
}

std::optional<Hold> hold_of_holder(std::string_view holder) {
    if (!holder.starts_with(kHolder)) return std::nullopt;
    const auto body = from_hex(holder.substr(kHolder.size()));
    if (!body) return std::nullopt;
    auto hold = decode_hold_body(*body);
    if (!hold) return std::nullopt;
    return std::move(*hold);
}

}  // namespace farshore
