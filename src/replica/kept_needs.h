// What the manifests of kept points need, all together: there may be hundreds of them, and each
// sweep asks. Their union is held (some 70 bytes an object and shard), so that only new ones are
// read. Internal to ItemReplica; one thread at a time.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "replica/manifest.h"
#include "store/object_store.h"

namespace farshore {

class KeptNeeds {
  public:
    // Makes it the union of exactly these manifests (names as listed). Damaged ones that `in_force`
    // does not name are passed over.
    Status update(ObjectStore& store, const ItemId& item, const Secret& key,
                  const std::vector<std::string>& names, const std::set<std::string>& in_force);
    bool needs(const ObjectRef& object) const { return objects_.contains(object); }
    bool needs(const ShardRef& shard) const {
        return shards_.contains({shard.generation, shard.disk, shard.shard});
    }

  private:
    struct Shard {
        Generation generation;
        DiskIndex disk = 0;
        uint32_t shard = 0;
        friend auto operator<=>(const Shard&, const Shard&) = default;
    };
    std::set<std::string> names_;
    std::set<ObjectRef> objects_;
    std::set<Shard> shards_;
};

}  // namespace farshore
