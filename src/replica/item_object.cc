#include "replica/item_object.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "codec/document.h"
#include "codec/envelope.h"
#include "record/record.h"
#include "replica/item_key.h"

namespace farshore {
namespace {

using nlohmann::json;

constexpr uint64_t kFormat = 1;
constexpr uint64_t kKeylessFormat = 2;  // only of descriptions
constexpr size_t kMaxNameBytes = 1024;

auto malformed(std::string_view what) {
    return fail(Code::kMalformed, fmt::format("item object: {}", what));
}

Result<std::string> text_of(const json& from, const char* field) {
    const auto found = from.find(field);
    if (found == from.end() || !found->is_string() ||
        found->get_ref<const std::string&>().size() > kMaxNameBytes)
        return malformed(fmt::format("'{}' is missing or no text", field));
    return found->get<std::string>();
}
Result<uint64_t> number_of(const json& from, const char* field, uint64_t limit) {
    const auto found = from.find(field);
    if (found == from.end() || !found->is_number_unsigned() || found->get<uint64_t>() > limit)
        return malformed(fmt::format("'{}' is missing or out of range", field));
    return found->get<uint64_t>();
}

}  // namespace

std::string item_object_name(const ItemId& item) {
    return fmt::format("items/{}/item", item.to_string());
}

std::string item_description_name(const ItemId& item) {
    return fmt::format("items/{}/description", item.to_string());
}

Result<Bytes> encode_item_object(const ItemObject& object) {
    json disks = json::array();
    for (const ItemObject::Disk& disk : object.disks)
        disks.push_back(
            {{"index", disk.index}, {"name", disk.name}, {"size_bytes", disk.size_bytes}});
    const bool keyless = object.wrapped_key.empty();
    json out = {{"format", keyless ? kKeylessFormat : kFormat},
                {"item", object.item.to_string()},
                {"name", object.name},
                {"created", to_rfc3339(object.created)},
                {"disks", std::move(disks)}};
    if (!keyless) out["key"] = {{"id", object.key_id}, {"wrapped", to_hex(object.wrapped_key)}};
    if (!object.machine_json.empty()) {
        json machine = json::parse(object.machine_json, nullptr, false);
        if (!machine.is_object())
            return fail(Code::kInvalidArgument, "the machine's description is no JSON object");
        out["machine"] = std::move(machine);
    }
    // Names come from other programs: what is not UTF-8 in them is replaced, not thrown at.
    return encode_document(out.dump(-1, ' ', false, json::error_handler_t::replace));
}

Result<ItemObject> decode_item_object(ByteView bytes, const ItemId& expected) {
    FS_ASSIGN(const std::string text, decode_document(bytes, "item object"));
    const json in = json::parse(text, nullptr, false);
    if (!in.is_object()) return malformed("it is no JSON object");
    FS_ASSIGN(const uint64_t format, number_of(in, "format", UINT64_MAX));
    if (format > kKeylessFormat)
        return fail(Code::kNewerVersion, fmt::format("item object of format {}", format),
                    "upgrade this side");
    ItemObject object;
    FS_ASSIGN(const std::string item, text_of(in, "item"));
    FS_ASSIGN(object.item, ItemId::parse(item));
    if (object.item != expected)
        return fail(Code::kForeignStore,
                    fmt::format("the item object describes {}, not {}", item, expected.to_string()),
                    "somebody moved objects between items or stores; put them back");
    FS_ASSIGN(object.name, text_of(in, "name"));
    FS_ASSIGN(const std::string created, text_of(in, "created"));
    FS_ASSIGN(object.created, from_rfc3339(created));
    if (format != kKeylessFormat) {
        const auto key = in.find("key");
        if (key == in.end() || !key->is_object()) return malformed("it has no key");
        FS_ASSIGN(object.key_id, text_of(*key, "id"));
        FS_ASSIGN(const std::string wrapped, text_of(*key, "wrapped"));
        FS_ASSIGN(object.wrapped_key, from_hex(wrapped));
        if (object.wrapped_key.size() != kWrappedKeyBytes) return malformed("its key is too short");
    }
    const auto disks = in.find("disks");
    if (disks == in.end() || !disks->is_array() || disks->size() > kMaxDisks)
        return malformed("it has no list of disks");
    for (const json& from : *disks) {
        if (!from.is_object()) return malformed("a disk is no JSON object");
        ItemObject::Disk disk;
        FS_ASSIGN(const uint64_t index, number_of(from, "index", kMaxDisks - 1));
        disk.index = static_cast<DiskIndex>(index);
        FS_ASSIGN(disk.name, text_of(from, "name"));
        FS_ASSIGN(disk.size_bytes, number_of(from, "size_bytes", kMaxDiskBytes));
        object.disks.push_back(std::move(disk));
    }
    const auto machine = in.find("machine");
    if (machine != in.end()) {
        if (!machine->is_object()) return malformed("its machine is no JSON object");
        object.machine_json = machine->dump();
    }
    return object;
}

Status wrap_item_key(ItemObject& object, const Secret& item_key, const KeyFile& key,
                     Random& random) {
    FS_ASSIGN(object.wrapped_key, wrap_key(key.key, item_key, key_associated(object.item), random));
    object.key_id = key.id;
    return {};
}

Result<Secret> open_item_key(const ItemObject& object, const KeyFile& key) {
    FS_TRY(check_key(key, object.key_id));
    auto item_key = unwrap_key(key.key, object.wrapped_key, key_associated(object.item));
    if (!item_key)
        return fail(item_key.error().with_context(fmt::format("item {}", object.item.to_string())));
    return item_key;
}

}  // namespace farshore
