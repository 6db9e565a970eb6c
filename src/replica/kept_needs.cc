#include "replica/kept_needs.h"

#include <algorithm>

#include "replica/item_internal.h"

namespace farshore {

Status KeptNeeds::update(ObjectStore& store, const ItemId& item, const Secret& key,
                         const std::vector<std::string>& names,
                         const std::set<std::string>& in_force) {
    const std::set<std::string> wanted(names.begin(), names.end());
    // What one that is gone needed cannot be told from what others need: all are read again.
    if (!std::ranges::includes(wanted, names_)) {
        names_.clear();
        objects_.clear();
        shards_.clear();
    }
    for (const std::string& name : wanted) {
        if (names_.contains(name)) continue;
        auto manifest = item_internal::load_manifest(store, item, key, name);
        if (!manifest) {
            if (in_force.contains(name) || !item_internal::is_damage(manifest.error().code())) {
                names_.clear();
                objects_.clear();
                shards_.clear();
                return fail(manifest.error());
            }
            continue;
        }
        for (const LiveObject& object : manifest->objects) objects_.insert(object.object);
        for (const ShardRef& shard : manifest->shards)
            shards_.insert({shard.generation, shard.disk, shard.shard});
        names_.insert(name);
    }
    return {};
}

}  // namespace farshore
