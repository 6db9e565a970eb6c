// What an agent sends of one item: the capture log as a RecordSource, with the decision what to do
// when the appliance wants records that the log no longer has.
//
// Borrows the consumer, which outlives it. Lives on the sender's executor.
#pragma once

#include <atomic>
#include <functional>
#include <optional>

#include "capture/capture_log.h"
#include "capture/tap.h"
#include "replicate/log_sender.h"

namespace farshore {

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

    Sequence first_available() override;
    Status resume(Sequence next, Sequence stored) override;
    Result<ByteView> next(size_t max_bytes) override;
    void release(Sequence received) override;
    void set_stored(Sequence stored) override;

    // A log whose next record is older than this is dropped for a gap, so that what the disks hold
    // now is sent instead; 0: it is sent in order, however old. Any thread.
    void prefer_newest(int64_t older_than_us) { older_than_us_ = older_than_us; }

    // Whether sending waits for a gap that was ordered.
    bool waiting_for_gap() const { return waiting_; }

  private:
    Status order_gap(bool everything);
    bool too_old(const LogBatch& batch) const;
    Status look_for_gap();

    CaptureConsumer& consumer_;
    const Commands commands_;
    const bool whole_disks_;
    const Clock* const clock_;
    std::atomic<int64_t> older_than_us_{0};
    bool waiting_ = false;
    std::optional<size_t> command_;
    Sequence forgotten_;           // what was stored once and is not any more
    bool everything_due_ = false;  // a gap over all of the disks, for that
    Sequence gap_;                 // the GAP record that was ordered last; 0: none
    bool peeked_ = false;
};

}  // namespace farshore
