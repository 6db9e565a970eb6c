// Finds out which of the blocks on todo the replica has already, so that only the others are
// copied: resynchronisation. docs/design/resync.md.
//
// The copier's thread calls it (copier.h). It reads the source, sums its blocks, asks the recovery
// site by way of the agent (compare_board.h) and takes what is equal off todo. When all that was
// found to differ has been copied, samples are compared once more with another key; a difference
// there means that something is wrong with the comparison, and all is done again.
#pragma once

#include <array>
#include <functional>
#include <set>
#include <utility>
#include <vector>

#include "base/seams.h"
#include "capture/capture_log.h"
#include "capture/compare_board.h"

namespace farshore {

class CopyBarrier;
class BlockDevice;
class RangeLock;

class Comparer {
  public:
    struct Source {
        BlockDevice* device = nullptr;  // borrowed
        RangeLock* lock = nullptr;      // borrowed, held while it is read; null but in path
    };
    enum class Outcome {
        kNothing,  // nothing is compared
        kWorked,
        kWaiting,   // for answers; the agent rings when there is one
        kNotQuiet,  // a sample is being written: look again soon
        kFailed,    // the source could not be read
    };

    // Borrowed: all; the sources by disk index. Goes on with what an earlier tap had begun.
    Comparer(CaptureProducer& producer, std::vector<Source> sources, Random& random);
    void set_barrier(CopyBarrier* barrier) { barrier_ = barrier; }

    // One that runs is to wait (CompareHold): no step is due.
    bool held() const;
    Outcome step();
    // Bytes read by the last step.
    uint64_t bytes_read() const { return bytes_read_; }
    // To be asked when nothing is left on todo: whether what was compared is also looked at a
    // second time by now. Begins that when it was not.
    bool verified();

  private:
    struct Slot {
        bool used = false;
        bool sample = false;  // of those that are compared before anything is copied
        DiskIndex disk = 0;
        ByteRange range;
        std::vector<BlockSum> sums;
    };

    CompareState state() const;
    void begin_generation();
    void forget_questions();
    // Nothing is believed or asked any more: what is on todo is copied.
    void give_up();
    bool take_answers();
    void settle(const Slot& slot, const CompareAnswer& answer);
    void settle_zeroes(const Slot& slot, const CompareAnswer& answer);
    bool find_run();
    bool find_sample();
    void begin_samples();
    void end_samples();
    DiskIndex disk_to_look_at() const;
    ByteRange widened(DiskIndex disk, const ByteRange& run);
    Outcome read_some();
    void start_over();
    std::vector<std::pair<DiskIndex, ByteRange>> samples();

    CaptureProducer& producer_;
    std::vector<Source> sources_;
    Random& random_;
    CopyBarrier* barrier_ = nullptr;
    CompareAsker asker_;
    uint64_t generation_ = 0;
    SumKey key_{};
    std::unique_ptr<BlockSummer> summer_;
    std::array<Slot, kCompareSlots> slots_;
    // The run that is being read, and how far.
    Slot reading_;
    uint64_t reading_done_ = 0;
    DiskIndex disk_ = 0;
    uint64_t offset_ = 0;
    uint64_t bytes_read_ = 0;
    // Where runs of kMaxCompareBytes begin that were in a long hole here and are none there.
    std::set<std::pair<DiskIndex, uint64_t>> read_there_;
    uint64_t sample_differences_ = 0;
    // Places that are compared before all others while the copy is held, and what came of them.
    bool sampling_ = false;
    std::vector<std::pair<DiskIndex, ByteRange>> ahead_;
    uint64_t sampled_bytes_ = 0, sampled_differing_bytes_ = 0;
    unsigned failures_ = 0;
    Bytes buffer_;
};

}  // namespace farshore
