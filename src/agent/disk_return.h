// Writes the disks of a source back, as the item's replica has them (docs/design/return.md).
//
// work() goes from the state that the disks have (none that is known: everything is compared, by
// sums) to the one that the order names (what changed between the two), piece by piece. Where it is
// is kept in a file, so that a crash at any point costs the round at most: the file says that the
// disks have a state only after they were flushed with it, and says that they have none before the
// first byte of another one is written.
//
// The disks are this object's alone while it lives (os/disk_lock.h; block devices exclusively).
// One thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/seams.h"
#include "block/block_device.h"
#include "meta/agent_documents.h"
#include "os/disk_lock.h"
#include "record/compare.h"
#include "record/return_question.h"

namespace farshore {

// Whom it asks: at most kMaxCompareQuestions at a time, answers in their order.
struct ReturnPeers {
    std::function<Result<std::vector<CompareAnswer>>(const std::vector<CompareQuestion>&)> compare;
    std::function<Result<std::vector<ReturnAnswer>>(const std::vector<ReturnQuestion>&)> ask;
};

// What is known of the disks' state, in its file.
struct ReturnProgress {
    std::string id;                  // of the order
    std::vector<std::string> paths;  // of the disks that all of this is about
    Sequence have;                   // the state they have; 0: none
    // What they are on the way to. 0: to nothing.
    Sequence to;
    bool comparing = false;  // to it, and up to this place they are there
    DiskIndex disk = 0;
    uint64_t offset_bytes = 0;
    bool accepted = false;  // that something else is on them
    uint64_t compared = 0, differing = 0, written = 0;
};
// The paths of those that there are.
std::vector<std::string> return_paths(const std::vector<DesiredDisk>& disks);
std::string encode_return_progress(const ReturnProgress& progress);
// kMalformed.
Result<ReturnProgress> decode_return_progress(std::string_view json);

class DiskReturn {
  public:
    // `disks`: with the sizes that the replica has; those that were removed are left alone. With
    // order.original each must be there; else a file that is missing is made. kWrongState (in use),
    // kDiskChanged (too small), kNotFound, kForbidden.
    // `wrap`, for tests: stands between it and each disk.
    using Wrap = std::function<std::unique_ptr<BlockDevice>(std::unique_ptr<BlockDevice>)>;
    static Result<std::unique_ptr<DiskReturn>> open(const ReturnOrder& order,
                                                    const std::vector<DesiredDisk>& disks,
                                                    const std::string& progress_path,
                                                    FileSystem& files, Clock& clock, Random& random,
                                                    const Wrap& wrap = {});
    ~DiskReturn();

    // Works for about `budget_us`. `order.to` may only grow while its id stays the same.
    Status work(const ReturnOrder& order, const ReturnPeers& peers, int64_t budget_us);
    ReturnStatus status() const;

  private:
    struct Disk {
        DiskIndex index = 0;
        uint64_t size_bytes = 0;  // of the replica's
        std::unique_ptr<BlockDevice> device;
        std::optional<DiskLock> lock;
    };
    DiskReturn(std::string progress_path, FileSystem& files, Clock& clock, Random& random);

    Status save();
    Status flush_all();
    bool time_is_over() const { return clock_.steady_us() >= until_us_; }
    void begin_round(const ReturnOrder& order);
    Status forget_disks();
    Status finish_round();
    Status look_at_samples(const ReturnPeers& peers);
    Result<bool> compare_on(const ReturnPeers& peers);
    Result<bool> follow_on(const ReturnPeers& peers);
    Status take_comparison(Disk& disk, const CompareQuestion& question, const CompareAnswer& answer,
                           const ReturnPeers& peers);
    Status fetch(Disk& disk, const std::vector<ReturnRange>& ranges, const ReturnPeers& peers);
    Result<std::vector<BlockSum>> sums_of(const Disk& disk, uint64_t offset, uint64_t length);

    const std::string progress_path_;
    FileSystem& files_;
    Clock& clock_;
    Random& random_;
    std::vector<Disk> disks_;
    ReturnProgress progress_;
    ReturnProgress saved_;  // as it is in the file
    bool held_ = false;
    std::string order_id_;  // that it was asked for last
    SumKey key_{};
    int64_t until_us_ = 0;
    uint64_t unsaved_bytes_ = 0;
};

}  // namespace farshore
