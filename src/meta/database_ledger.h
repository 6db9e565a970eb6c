// One item's ledger (replica/ledger.h) in the vault's database, which holds those of all items.
//
// Borrows the database. Any thread may call; every commit is one durable transaction. The row of an
// item is made by its first commit and goes with remove_ledger().
#pragma once

#include "base/types.h"
#include "replica/ledger.h"

namespace farshore {

class Database;

class DatabaseLedger final : public ReplicaLedger {
  public:
    // `copy`: the name of the store that a copy is in; empty: the item's own replica.
    DatabaseLedger(Database& database, const ItemId& item, const std::string& copy = {});

    Result<LedgerState> state() override;
    Status commit_epoch(Epoch epoch, const std::string& appliance) override;
    Status commit_registration(const RegistrationCommit& commit) override;
    Status commit_idle(Epoch epoch, Sequence sequence, TimePoint time) override;
    Result<uint64_t> reserve_generation() override;
    Status commit_manifest(const ManifestCommit& commit, TimePoint now) override;
    Status commit_dead(const std::vector<DeadRow>& dead) override;
    Status commit_removed(const std::vector<std::string>& names, bool revived) override;
    Result<LeaseRow> commit_lease(const LeaseRow& lease) override;
    Status renew_lease(uint64_t id, TimePoint expires) override;
    Status release_lease(uint64_t id) override;
    Result<std::vector<SegmentRow>> list_segments(SegmentNumber after, size_t limit) override;
    Result<SegmentRow> segment_with(Sequence sequence) override;
    Result<SegmentRow> segment_before(TimePoint time) override;
    Result<SegmentRow> segment_ended(Sequence sequence, TimePoint time) override;
    Result<std::vector<PointRow>> list_points(const PointQuery& query) override;
    Result<std::vector<GapRow>> list_gaps() override;
    Result<std::vector<GeometryRow>> list_geometry() override;
    Result<std::vector<ManifestRow>> list_manifests() override;
    Result<std::vector<KeptRow>> list_kept() override;
    Result<std::vector<KeptRow>> find_kept(const PointQuery& query) override;
    Result<std::vector<ChangeRow>> list_changes() override;
    Result<std::vector<DeadRow>> list_dead(const std::string& after, size_t limit) override;
    Result<std::vector<LeaseRow>> list_leases() override;
    Status begin_rebuild(const RebuildStart& start) override;
    Status finish_rebuild(const LedgerState& state) override;

  private:
    Database& database_;
    const std::string item_;
};

// What the ledger of an item's copy in a store is called in the database.
std::string copy_ledger_name(const ItemId& item, const std::string& store);

// Everything that the database knows of the item's replica and its copies; ok also when there is
// nothing.
Status remove_ledger(Database& database, const ItemId& item);
// Items whose own ledger was begun to be rebuilt, and is not usable until that has ended.
Result<std::vector<ItemId>> unfinished_rebuilds(Database& database);

}  // namespace farshore
