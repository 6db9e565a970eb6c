#include "replica/scrub.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>

#include "replica/checkpoint.h"
#include "replica/hold.h"
#include "replica/item_internal.h"
#include "replica/item_key.h"
#include "replica/item_object.h"
#include "replica/log_lease.h"
#include "replica/segment.h"

namespace farshore {

using namespace item_internal;

namespace {

constexpr size_t kListPage = 1000;

// An object that was read, for the segment's reader.
class ReadObject final : public ObjectStore {
  public:
    ReadObject(const std::string& name, const Bytes& bytes) : name_(name), bytes_(bytes) {}
    Status put(const std::string&, ByteView) override { return unsupported(); }
    Status remove(const std::string&) override { return unsupported(); }
    Result<std::vector<ObjectInfo>> list(const std::string&, const std::string&, size_t) override {
        return unsupported();
    }
    Result<Bytes> get(const std::string& name) override {
        return get_range(name, 0, bytes_.size());
    }
    Result<Bytes> get_range(const std::string& name, uint64_t offset, uint64_t length) override {
        if (name != name_) return fail(Code::kNotFound, name);
        const uint64_t from = std::min<uint64_t>(offset, bytes_.size());
        const uint64_t to = from + std::min<uint64_t>(length, bytes_.size() - from);
        return Bytes(bytes_.begin() + static_cast<ptrdiff_t>(from),
                     bytes_.begin() + static_cast<ptrdiff_t>(to));
    }
    Result<ObjectInfo> head(const std::string& name) override {
        return ObjectInfo{name, bytes_.size()};
    }

  private:
    static tl::unexpected<Error> unsupported() {
        return fail(Code::kUnsupported, "one object that was read");
    }
    const std::string& name_;
    const Bytes& bytes_;
};

// Whether an error says that the object is not what was put.
bool is_object_damage(Code code) {
    return (is_damage(code) && code != Code::kNotFound) || code == Code::kForeignStore ||
           code == Code::kNewerVersion || code == Code::kIo;
}

ObjectDamage damage_of(const std::string& name, const Error& error) {
    ObjectDamage damage;
    damage.object_name = name;
    damage.code = error.code();
    damage.what = error.what();
    return damage;
}

// With the wrong key every header's wrapped key fails to open, and so does that of a damaged one.
// Which it is shows by the header's own checksum, which decoding checks before the key is used:
// what is left after it is the key.
Status verify_segment(ObjectStore& store, const ItemId& item, const Secret& key,
                      const std::string& name, std::optional<ObjectDamage>& damage) {
    const auto segment = SegmentReader::open(store, name, item, key);
    if (!segment) {
        if (!is_object_damage(segment.error().code())) return fail(segment.error());
        damage = damage_of(name, segment.error());
        return {};
    }
    const Status whole = (*segment)->verify_all(store);
    if (whole) return {};
    if (!is_object_damage(whole.error().code())) return whole;
    damage = damage_of(name, whole.error());
    const uint32_t chunks = (*segment)->header().chunk_count;
    for (uint32_t chunk = 0; chunk < chunks; ++chunk) {
        const auto plain = (*segment)->read_chunk(store, chunk);
        if (plain) continue;
        if (!is_object_damage(plain.error().code())) return fail(plain.error());
        if (damage->chunks.empty()) damage->what = plain.error().what();
        damage->chunks.push_back(chunk);
    }
    damage->harmless = damage->chunks.empty();
    return {};
}

}  // namespace

Result<ObjectCheck> verify_object(ObjectStore& store, const ItemId& item, const Secret& key,
                                  const std::string& name) {
    ObjectCheck check;
    const bool segment = parse_object_name(item, name).has_value();
    const auto shard = parse_shard_name(item, name);
    const bool manifest =
        parse_manifest_name(item, name).has_value() || parse_kept_name(item, name).has_value();
    const bool description = name == item_object_name(item) || name == item_description_name(item);
    const bool hold = is_hold_name(item, name);
    const auto item_key = parse_item_key_name(item, name);
    const bool lease = parse_log_lease_name(item, name).has_value();
    if (!segment && !shard && !manifest && !description && !hold && !item_key && !lease)
        return check;
    const auto object = store.get(name);
    if (!object) {
        const Error& error = object.error();
        if (error.code() == Code::kNotFound) {
            check.gone = true;
            return check;
        }
        if (!is_object_damage(error.code())) return fail(error);
        // A disk's bad sector: the rest of a segment may be readable.
        if (segment && error.code() == Code::kIo)
            FS_TRY(verify_segment(store, item, key, name, check.damage));
        if (!check.damage || check.damage->harmless) check.damage = damage_of(name, error);
        return check;
    }
    check.bytes = object->size();
    Status good;
    if (segment) {
        ReadObject read(name, *object);
        FS_TRY(verify_segment(read, item, key, name, check.damage));
        return check;
    }
    if (shard) {
        const auto content = decode_shard(item, *shard, *object, key);
        if (!content) good = fail(content.error());
    } else if (manifest) {
        const auto content = decode_manifest(item, name, *object, key);
        if (!content) good = fail(content.error());
    } else if (hold) {
        const auto content = decode_hold(item, name, *object, key);
        if (!content) good = fail(content.error());
    } else if (lease) {
        if (!std::ranges::equal(*object, as_bytes(name)))
            good = fail(Code::kCorrupt, name + " does not hold its name");
    } else if (item_key) {
        const auto content = decode_item_key(*object, item, *item_key);
        if (!content) good = fail(content.error());
    } else {
        const auto content = decode_item_object(*object, item);
        if (!content) good = fail(content.error());
    }
    if (good) return check;
    if (!is_object_damage(good.error().code())) return fail(good.error());
    check.damage = damage_of(name, good.error());
    return check;
}

ItemScrub::ItemScrub(ObjectStore& store, const ItemId& item, const Secret& item_key,
                     ScrubProgress from)
    : store_(store), item_(item), key_(item_key), progress_(std::move(from)) {}

Result<ItemScrub::Step> ItemScrub::step() {
    Step step;
    while (true) {
        if (listed_.empty()) {
            FS_ASSIGN(const auto page, store_.list(item_prefix(item_), progress_.after, kListPage));
            listed_.assign(page.begin(), page.end());
        }
        if (listed_.empty()) {
            step.done = true;
            return step;
        }
        const ObjectInfo next = listed_.front();
        FS_ASSIGN(ObjectCheck check, verify_object(store_, item_, key_, next.name));
        if (check.damage && check.damage->code == Code::kIo) {
            if (++unreadable_ >= kMaxUnreadableInARow)
                return fail(Code::kIo,
                            fmt::format("{} objects in a row could not be read, last {}",
                                        kMaxUnreadableInARow, check.damage->what),
                            "look at the store's disks; the scrub goes on when they can be read");
        } else {
            unreadable_ = 0;
        }
        listed_.pop_front();
        progress_.after = next.name;
        if (check.gone) continue;
        ++progress_.objects;
        progress_.bytes += check.bytes;
        step.object_name = next.name;
        step.bytes = check.bytes;
        step.damage = std::move(check.damage);
        return step;
    }
}

namespace {

// Name to length; 0: any.
Result<std::map<std::string, uint64_t>> named_in_force(ObjectStore& store, ReplicaLedger& ledger,
                                                       const ItemId& item, const Secret& key) {
    std::map<std::string, uint64_t> named;
    FS_ASSIGN(const LedgerState state, ledger.state());
    FS_ASSIGN(const auto rows, segments_between(ledger, state.floor_segment, state.last_segment));
    std::vector<std::string> manifests;
    FS_ASSIGN(const auto window, ledger.list_manifests());
    for (const ManifestRow& row : window) manifests.push_back(row.object_name);
    FS_ASSIGN(const auto kept, ledger.list_kept());
    for (const KeptRow& row : kept) manifests.push_back(row.object_name);
    for (const std::string& name : manifests) {
        named[name] = 0;
        const auto manifest = load_manifest(store, item, key, name);
        if (!manifest) {
            if (is_object_damage(manifest.error().code()) ||
                manifest.error().code() == Code::kNotFound)
                continue;
            return fail(manifest.error());
        }
        for (const ShardRef& shard : manifest->shards)
            named[shard_name(item, shard)] = shard.object_bytes;
        for (const LiveObject& object : manifest->objects)
            named.emplace(object_name(item, object.object), 0);
    }
    for (const SegmentRow& row : rows) named[row.object_name] = row.object_bytes;
    return named;
}

}  // namespace

Result<std::vector<ObjectDamage>> find_missing(ObjectStore& store, ReplicaLedger& ledger,
                                               const ItemId& item, const Secret& item_key) {
    std::vector<ObjectDamage> out;
    FS_ASSIGN(const auto named, named_in_force(store, ledger, item, item_key));
    // What was in force before the listing is in it, or has gone out of force since.
    std::map<std::string, uint64_t> there;
    FS_ASSIGN(const auto infos, list_all(store, item_prefix(item)));
    for (const ObjectInfo& info : infos) there[info.name] = info.size_bytes;
    const auto wrong = [&](const std::string& name, uint64_t bytes) {
        const auto at = there.find(name);
        return at == there.end() || (bytes != 0 && at->second != bytes);
    };
    bool any = false;
    for (const auto& [name, bytes] : named) any = any || wrong(name, bytes);
    if (!any) return out;
    FS_ASSIGN(const auto still, named_in_force(store, ledger, item, item_key));
    for (const auto& [name, bytes] : named) {
        if (!wrong(name, bytes) || !still.contains(name)) continue;
        const auto info = store.head(name);
        if (!info && info.error().code() != Code::kNotFound) return fail(info.error());
        ObjectDamage damage;
        damage.object_name = name;
        if (!info) {
            damage.code = Code::kNotFound;
            damage.what = fmt::format("{} is missing in the store", name);
        } else if (bytes != 0 && info->size_bytes != bytes) {
            damage.code = info->size_bytes < bytes ? Code::kTruncated : Code::kCorrupt;
            damage.what = fmt::format("{} has {} bytes, not {}", name, info->size_bytes, bytes);
        } else {
            continue;
        }
        out.push_back(std::move(damage));
    }
    return out;
}

}  // namespace farshore
