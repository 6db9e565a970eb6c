// ReplicaLedger in memory, for tests and the simulator: what was committed is what a reopened vault
// finds. A hook runs before and after each commit, so that a test can fail or crash at any of them.
// Any thread may call.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <tuple>
#include <utility>

#include "replica/ledger.h"

namespace farshore {

class MemoryLedger : public ReplicaLedger {
  public:
    // Called before a commit (`after` false) and after it. An error from it is what the commit
    // returns; one from `after` is a commit that happened and was not heard of. It may throw.
    using Hook = std::function<Status(const char* commit, bool after)>;
    void set_hook(Hook hook) { hook_ = std::move(hook); }

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
    struct Tables {
        LedgerState state;
        uint64_t tick = 0;
        std::map<SegmentNumber, SegmentRow> segments;
        std::map<Sequence, PointRow> points;
        std::map<Sequence, GapRow> gaps;
        std::map<std::pair<DiskIndex, Sequence>, GeometryRow> geometry;
        std::map<std::string, ManifestRow> manifests;
        std::map<std::string, KeptRow> kept;
        std::map<std::tuple<int64_t, int64_t, DiskIndex>, ChangeRow> changes;
        std::map<std::string, DeadRow> dead;
        std::map<uint64_t, LeaseRow> leases;
    };
    template <typename Work>
    Status transaction(const char* name, Work work);

    std::mutex mutex_;
    Tables tables_;
    Hook hook_;
};

}  // namespace farshore
