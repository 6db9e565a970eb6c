// A replica held against the model of its machine. Only for tests.
#pragma once

#include <gtest/gtest.h>

#include "replica/item_internal.h"
#include "replica/log_lease.h"
#include "replica/replica_test_model.h"

namespace farshore::replica_test {

// Every byte of every disk of the reader against the model.
inline void expect_equal(ReplicaReader& reader, const std::vector<Machine::Disk>& disks) {
    for (size_t d = 0; d < disks.size(); ++d) {
        const Machine::Disk& model = disks[d];
        auto disk = reader.disk(static_cast<DiskIndex>(d));
        // Before its GEOMETRY record a disk is not there.
        if (!disk && disk.error().code() == Code::kNotFound && all_zero(model.bytes)) continue;
        ASSERT_TRUE(disk) << disk.error().to_string();
        ASSERT_EQ((*disk)->size_bytes(), model.size);
        Bytes bytes(model.bytes.size(), 0xee);
        const Status read = (*disk)->read(model.region, bytes);
        ASSERT_TRUE(read) << read.error().to_string();
        ASSERT_TRUE(bytes == model.bytes)
            << "disk " << d << " differs from byte "
            << std::mismatch(bytes.begin(), bytes.end(), model.bytes.begin()).first - bytes.begin();
        // Outside of the region nothing is ever written.
        const auto expect_zero = [&](uint64_t from, uint64_t to) {
            if (from >= to) return;
            auto extents = (*disk)->extents(from, to - from);
            ASSERT_TRUE(extents) << extents.error().to_string();
            ASSERT_EQ(extents->size(), 1u);
            ASSERT_TRUE(extents->front().zero);
            ASSERT_EQ(extents->front().length_bytes, to - from);
        };
        expect_zero(0, model.region);
        expect_zero(model.region + model.bytes.size(), model.size);
    }
}

// The store holds what the ledger's manifests and log need, and nothing else of the item.
inline void expect_nothing_left_over(ObjectStore& store, ReplicaLedger& ledger,
                                     const ItemId& item = test_item()) {
    std::set<std::string> needed;
    const auto use = [&](const std::string& name) {
        needed.insert(name);
        const auto manifest = item_internal::load_manifest(store, item, test_key(), name);
        ASSERT_TRUE(manifest) << manifest.error().to_string();
        for (const ShardRef& shard : manifest->shards) needed.insert(shard_name(item, shard));
        for (const LiveObject& object : manifest->objects)
            needed.insert(object_name(item, object.object));
    };
    const auto manifests = *ledger.list_manifests();
    for (const ManifestRow& row : manifests) use(row.object_name);
    const auto kept = *ledger.list_kept();
    for (const KeptRow& row : kept) use(row.object_name);
    const auto segments = *ledger.list_segments({0}, 100'000);
    for (const SegmentRow& row : segments) needed.insert(row.object_name);
    const auto infos = *list_all(store, item_prefix(item));
    // Of the log leases, the newest and those that a number behind the floor may have.
    std::vector<LogLeaseMark> marks;
    for (const ObjectInfo& info : infos)
        if (const auto mark = parse_log_lease_name(item, info.name)) marks.push_back(*mark);
    const auto floor = ledger.state()->floor_segment;
    for (const LogLeaseMark& mark : marks) needed.insert(log_lease_name(item, mark));
    for (const LogLeaseMark& mark : LogOwners(marks).unneeded(floor))
        needed.erase(log_lease_name(item, mark));
    for (const ObjectInfo& info : infos)
        EXPECT_TRUE(needed.contains(info.name)) << info.name << " is left over";
    EXPECT_EQ(infos.size(), needed.size());
}

}  // namespace farshore::replica_test
