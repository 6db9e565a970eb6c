#include "agent/capture_source.h"

#include <fmt/core.h>

#include <algorithm>

namespace farshore {

namespace {
constexpr uint64_t kLittleBytes = 1u << 20;
}  // namespace

CaptureSource::CaptureSource(CaptureConsumer& consumer, Commands commands, bool whole_disks,
                             const Clock* clock)
    : consumer_(consumer),
      commands_(std::move(commands)),
      whole_disks_(whole_disks),
      clock_(clock) {}

Sequence CaptureSource::first_unstored() { return stored().next(); }

Status CaptureSource::resume(Sequence next, Sequence stored) {
    peeked_ = false;
    const Sequence ahead = std::max(next, stored.next());
    if (ahead.v > consumer_.header().producer().next_sequence) {
        must_begin_at_ = ahead.v;
        return fail(Code::kSequenceHole,
                    "the recovery site has records that come behind all of this log",
                    "the log is made anew, and everything is compared");
    }
    // What is stored was let go of everywhere, in the dirty map as well. When it is not stored any
    // more (the recovery site lost objects together with its ledger), nobody knows where it was.
    const Sequence told{consumer_.header().word(LogWord::kStored).load()};
    if (stored < told && forgotten_ < told) {
        forgotten_ = told;
        everything_due_ = true;
    }
    // Another one may have less than the one before.
    received_ = 0;
    set_stored(stored);
    if (waiting_) return {};
    if (everything_due_) return order_gap(true);
    if (next > consumer_.released()) return consumer_.seek(next);
    // The log no longer has `next`. When nothing was ever released from it, it was made after that
    // record was lost, and begins with a GAP that covers it.
    const ConsumerState state = consumer_.header().consumer();
    const bool untouched = state.first_run == 1 && state.ring_tail == 0 && state.spill_tail == 0;
    if (untouched) return consumer_.seek(consumer_.released().next());
    // A gap that was ordered for this, and that the appliance has not received yet.
    if (gap_ > consumer_.released() && gap_ >= next) return consumer_.seek(gap_);
    return order_gap(whole_disks_);
}

Status CaptureSource::order_gap(bool everything) {
    TapCommand command;
    command.kind = everything ? TapCommandKind::kResyncAll : TapCommandKind::kGapDirty;
    FS_ASSIGN(command_, commands_.post(command));
    if (everything) everything_due_ = false;
    waiting_ = true;
    // Room for the GAP; what is dropped here is not stored, so the gap covers it.
    consumer_.discard_all();
    return {};
}

Status CaptureSource::look_for_gap() {
    auto result = commands_.take(*command_);
    if (!result) {
        // What came into the log since may leave no room for the GAP, and nobody else frees it.
        if (consumer_.header().producer().gap == GapState::kDropping) consumer_.discard_all();
        return {};
    }
    command_.reset();
    waiting_ = false;
    if (!result->ok)
        return fail(result->code, "the tap could not open a gap over what is not stored");
    gap_ = result->sequence;
    if (everything_due_) return order_gap(true);
    return consumer_.seek(gap_);
}

Result<ByteView> CaptureSource::next(size_t max_bytes) {
    if (waiting_) {
        FS_TRY(look_for_gap());
        if (waiting_) return ByteView{};
    }
    if (paused_) return ByteView{};
    if (peeked_) consumer_.advance();
    peeked_ = false;
    auto batch = consumer_.peek(max_bytes);
    if (!batch) {
        // The log itself is damaged: only a gap helps.
        FS_TRY(order_gap(whole_disks_));
        return ByteView{};
    }
    if (too_old(*batch)) {
        FS_TRY(order_gap(whole_disks_));
        return ByteView{};
    }
    peeked_ = !batch->empty();
    return batch->records;
}

bool CaptureSource::half_full() const {
    const LogHeader& log = consumer_.header();
    const LogUsage used = log_usage(log.producer(), log.consumer());
    const LogGeometry& all = log.geometry();
    return (used.ring_bytes + used.spill_bytes) * 2 >= all.ring_bytes + all.spill_bytes;
}

// Not inside a gap: what closes it is behind, and would never come. Nor for a little, which is sent
// sooner than it is compared: a clock that jumps makes every record old.
bool CaptureSource::too_old(const LogBatch& batch) const {
    const int64_t older_than_us = older_than_us_;
    if (older_than_us == 0 || clock_ == nullptr || batch.empty() ||
        clock_->now().us - batch.last_time.us <= older_than_us)
        return false;
    const LogHeader& log = consumer_.header();
    const ProducerState producer = log.producer();
    const LogUsage used = log_usage(producer, log.consumer());
    return producer.gap == GapState::kNone && used.ring_bytes + used.spill_bytes > kLittleBytes;
}

void CaptureSource::keep(uint64_t log_bytes) {
    keep_bytes_ = log_bytes;
    let_go();
}

Sequence CaptureSource::stored() const {
    return {consumer_.header().word(LogWord::kStored).load()};
}

void CaptureSource::release(Sequence received) {
    received_ = std::max(received_.load(), received.v);
    let_go();
}

void CaptureSource::set_stored(Sequence stored) {
    consumer_.set_stored(stored);
    let_go();
}

void CaptureSource::let_go() {
    if (peeked_) {
        consumer_.advance();
        peeked_ = false;
    }
    consumer_.release({received_}, stored(), keep_bytes_);
    kept_bytes_ = consumer_.bytes_up_to({received_});
}

}  // namespace farshore
