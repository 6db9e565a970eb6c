// What an agent sends of one item: the capture log as a RecordSource, with the decision what to do
// when the appliance wants records that the log no longer has.
//
// Borrows the consumer, which outlives it. Lives on the sender's executor.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>

#include "capture/capture_log.h"
#include "capture/tap.h"
#include "replicate/log_sender.h"

namespace farshore {

// Of the ring, for what is received and not stored: copying stops when half of it is used.
inline constexpr uint64_t kKeptPartOfRing = 4;

class CaptureSource final : public RecordSource {
  public:
    // How the tap is told; TapCommands' functions (capture/tap.h).
    struct Commands {
        std::function<Result<size_t>(const TapCommand&)> post;
        std::function<std::optional<TapCommandResult>(size_t)> take;
    };
    // `whole_disks`: there is no dirty map (mirror mode), so a lost order means everything.
    // `clock`, borrowed: the tap's; null: nothing is ever too old.
    CaptureSource(CaptureConsumer& consumer, Commands commands, bool whole_disks,
                  const Clock* clock = nullptr);

    Sequence first_unstored() override;
    Status resume(Sequence next, Sequence stored) override;
    Result<ByteView> next(size_t max_bytes) override;
    void release(Sequence received) override;
    void set_stored(Sequence stored) override;

    // A log whose next record is older than this is dropped for a gap, so that what the disks hold
    // now is sent instead; 0: it is sent in order, however old. Any thread.
    void prefer_newest(int64_t older_than_us) { older_than_us_ = older_than_us; }

    // What the appliance has received and not stored is kept in the log as well, as long as that
    // holds no more than this: then an appliance can be lost, or exchanged for another one, and
    // nothing with it. On the sender's executor.
    void keep(uint64_t log_bytes);
    // Whom the records go to now may have none of what the one before has received: until it says
    // what it has, only what is stored is let go of. On the sender's executor.
    void forget_received() { received_ = 0; }
    // Whether the log still has all that is not stored.
    bool has_all_unstored() const { return consumer_.released() <= stored(); }
    // Gives nothing more until it is told to go on; what is released goes on.
    void pause(bool paused) { paused_ = paused; }
    bool paused() const { return paused_; }
    uint64_t ring_bytes() const { return consumer_.header().geometry().ring_bytes; }
    // Ring and spill together.
    bool half_full() const;
    // Of what is in the log, bytes that were received: they wait for nobody. Any thread.
    uint64_t kept_bytes() const { return kept_bytes_; }
    Sequence received() const { return {received_}; }  // any thread
    // The recovery site has records with numbers that this log has not come to yet: its own would
    // be taken for those. From where on a new one must count; 0: it is well. Any thread.
    Sequence must_begin_at() const { return {must_begin_at_}; }

    // Whether sending waits for a gap that was ordered.
    bool waiting_for_gap() const { return waiting_; }

  private:
    Status order_gap(bool everything);
    bool too_old(const LogBatch& batch) const;
    Status look_for_gap();
    Sequence stored() const;
    void let_go();

    CaptureConsumer& consumer_;
    const Commands commands_;
    const bool whole_disks_;
    const Clock* const clock_;
    std::atomic<int64_t> older_than_us_{0};
    std::atomic<uint64_t> received_{0}, kept_bytes_{0}, must_begin_at_{0};
    uint64_t keep_bytes_ = 0;
    bool paused_ = false;
    bool waiting_ = false;
    std::optional<size_t> command_;
    Sequence forgotten_;           // what was stored once and is not any more
    bool everything_due_ = false;  // a gap over all of the disks, for that
    Sequence gap_;                 // the GAP record that was ordered last; 0: none
    bool peeked_ = false;
};

}  // namespace farshore
