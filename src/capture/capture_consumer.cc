// The agent's side of the capture log (capture_log.h).
#include <fmt/core.h>

#include <algorithm>

#include "capture/capture_log.h"

namespace farshore {

CaptureConsumer::CaptureConsumer(LogHeader header, File* spill, WakeFunction wake)
    : header_(std::move(header)), spill_(spill), wake_(std::move(wake)) {
    state_ = header_.consumer();
    cursor_.run = state_.first_run;
    const ProducerState producer = header_.producer();
    if (producer.last_run >= cursor_.run)
        cursor_.at = header_.run(cursor_.run).in_spill ? state_.spill_tail : state_.ring_tail;
    expected_ = {state_.released + 1};
    peeked_ = cursor_;
    peeked_expected_ = expected_;
}

Result<std::optional<Run>> CaptureConsumer::settle(Position& position,
                                                   const ProducerState& producer) const {
    if (producer.last_run >= position.run && producer.last_run - position.run >= kRunSlots)
        return fail(Code::kCorrupt, "capture log: more runs than there can be",
                    "the agent asks for a gap");
    for (;;) {
        if (position.run > producer.last_run) return std::optional<Run>();
        Run run = header_.run(position.run);
        // A position made before its run existed.
        if (position.at == 0) position.at = run.from;
        const bool last = position.run == producer.last_run;
        if (last) run.to = run.in_spill ? producer.spill_head : producer.ring_head;
        const uint64_t capacity =
            run.in_spill ? header_.geometry().spill_bytes : header_.geometry().ring_bytes;
        if (position.at < run.from || position.at > run.to || run.to - position.at > capacity ||
            (run.in_spill && spill_ == nullptr))
            return fail(Code::kCorrupt,
                        fmt::format("capture log: run {} of bytes {} to {}, position {}",
                                    position.run, run.from, run.to, position.at),
                        "the agent asks for a gap");
        if (position.at < run.to) return std::optional<Run>(run);
        if (last) return std::optional<Run>();
        ++position.run;
        position.at = header_.run(position.run).from;
    }
}

Result<LogBatch> CaptureConsumer::batch_at(const Position& position, const Run& run,
                                           size_t max_bytes, Sequence expected,
                                           std::vector<Boundary>* boundaries,
                                           Sequence stop_before) {
    // One record always fits into what is looked at.
    const uint64_t want = std::min<uint64_t>(
        run.to - position.at, std::max(max_bytes, kRecordHeaderBytes + kMaxWriteBytes));
    ByteView view;
    if (run.in_spill) {
        const uint64_t size = header_.geometry().spill_bytes;
        const uint64_t from = position.at % size;
        buffer_.resize(want);
        const size_t first = std::min<uint64_t>(want, size - from);
        FS_ASSIGN(size_t got, spill_->read_at(from, MutableByteView(buffer_).first(first)));
        if (first < want) {
            FS_ASSIGN(size_t more, spill_->read_at(0, MutableByteView(buffer_).subspan(first)));
            got += more;
        }
        if (got < want)
            return fail(Code::kCorrupt, "the spill file ends before the log does",
                        "the agent asks for a gap");
        view = buffer_;
    } else {
        const size_t size = header_.memory().ring.size();
        const size_t from = position.at % size;
        if (header_.memory().ring_mapped_twice || from + want <= size) {
            view = {header_.memory().ring.data() + from, want};
        } else {
            const uint8_t* ring = header_.memory().ring.data();
            buffer_.assign(ring + from, ring + size);
            buffer_.insert(buffer_.end(), ring, ring + (want - (size - from)));
            view = buffer_;
        }
    }
    LogBatch batch;
    size_t bytes = 0;
    size_t grain_from = 0;
    Position behind = position;
    while (bytes < view.size()) {
        if (view.size() - bytes < kRecordHeaderBytes) break;
        const auto record = decode_record_header(view.subspan(bytes));
        if (!record) return fail(record.error().with_context("capture log"));
        const size_t size = record->encoded_bytes();
        if (size > view.size() - bytes || (batch.count > 0 && bytes + size > max_bytes)) break;
        if (record->sequence >= stop_before) break;
        if (record->sequence != expected &&
            !(record->kind == RecordKind::kGap && record->sequence > expected))
            return fail(Code::kSequenceHole,
                        fmt::format("capture log: record {} where {} was expected",
                                    record->sequence.v, expected.v),
                        "the agent asks for a gap");
        expected = record->sequence.next();
        if (batch.count == 0) batch.first = record->sequence;
        batch.last = record->sequence;
        batch.last_time = record->time;
        ++batch.count;
        bytes += size;
        behind.at = position.at + bytes;
        if (boundaries != nullptr && bytes - grain_from >= kReleaseGrainBytes) {
            boundaries->push_back({batch.last, behind});
            grain_from = bytes;
        }
    }
    if (batch.count == 0 && stop_before.v == UINT64_MAX)
        return fail(Code::kCorrupt, "capture log: a run ends inside a record",
                    "the agent asks for a gap");
    if (boundaries != nullptr && bytes > grain_from) boundaries->push_back({batch.last, behind});
    batch.records = view.first(bytes);
    return batch;
}

Result<LogBatch> CaptureConsumer::peek(size_t max_bytes) {
    peeked_ = cursor_;
    peeked_expected_ = expected_;
    peeked_boundaries_.clear();
    const ProducerState producer = header_.producer();
    FS_ASSIGN(auto run, settle(peeked_, producer));
    if (!run) return LogBatch{};
    FS_ASSIGN(LogBatch batch,
              batch_at(peeked_, *run, max_bytes, expected_, &peeked_boundaries_, {UINT64_MAX}));
    peeked_.at += batch.records.size();
    peeked_expected_ = batch.last.next();
    return batch;
}

void CaptureConsumer::advance() {
    cursor_ = peeked_;
    expected_ = peeked_expected_;
    boundaries_.insert(boundaries_.end(), peeked_boundaries_.begin(), peeked_boundaries_.end());
    peeked_boundaries_.clear();
}

bool CaptureConsumer::at_end() const {
    const ProducerState producer = header_.producer();
    Position position = cursor_;
    const auto run = settle(position, producer);
    return run && !*run;
}

Status CaptureConsumer::seek(Sequence sequence) {
    if (sequence.v <= state_.released)
        return fail(Code::kSequenceHole,
                    fmt::format("record {} is wanted, the log begins behind {}", sequence.v,
                                state_.released),
                    "the agent asks for a gap over what is not stored");
    const ProducerState producer = header_.producer();
    if (sequence.v > producer.next_sequence)
        return fail(Code::kInvalidArgument,
                    fmt::format("record {} is wanted, the log ends before {}", sequence.v,
                                producer.next_sequence));
    boundaries_.clear();
    peeked_boundaries_.clear();
    Position position{state_.first_run, 0};
    if (producer.last_run >= position.run)
        position.at = header_.run(position.run).in_spill ? state_.spill_tail : state_.ring_tail;
    Sequence expected{state_.released + 1};
    for (;;) {
        FS_ASSIGN(auto run, settle(position, producer));
        if (!run) break;
        std::vector<Boundary> passed;
        FS_ASSIGN(LogBatch batch, batch_at(position, *run, 4u << 20, expected, &passed, sequence));
        if (batch.count == 0) break;
        position.at += batch.records.size();
        expected = batch.last.next();
        boundaries_.insert(boundaries_.end(), passed.begin(), passed.end());
    }
    cursor_ = position;
    // Numbers used up by what was dropped have no record.
    expected_ = expected;
    peeked_ = cursor_;
    peeked_expected_ = expected_;
    return {};
}

ConsumerState CaptureConsumer::behind(const Boundary& boundary) const {
    const ProducerState producer = header_.producer();
    ConsumerState next = state_;
    for (uint64_t number = state_.first_run; number < boundary.behind.run; ++number) {
        const Run run = header_.run(number);
        (run.in_spill ? next.spill_tail : next.ring_tail) = run.to;
    }
    const Run run = header_.run(boundary.behind.run);
    (run.in_spill ? next.spill_tail : next.ring_tail) = boundary.behind.at;
    next.first_run = boundary.behind.run;
    if (boundary.behind.run < producer.last_run && boundary.behind.at == run.to) ++next.first_run;
    next.released = boundary.last.v;
    return next;
}

void CaptureConsumer::begin_at(const ConsumerState& state) {
    state_ = state;
    header_.commit(state_);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    auto wants = header_.word(LogWord::kTapWantsSpace);
    if (wants.load(std::memory_order_relaxed) != 0 && wants.exchange(0) != 0) {
        auto& bell = header_.futex(LogWord::kTapDoorbell);
        bell.fetch_add(1);
        if (wake_) wake_(bell);
    }
}

void CaptureConsumer::release(Sequence sequence) { release(sequence, sequence, 0); }

void CaptureConsumer::release(Sequence received, Sequence stored, uint64_t keep_bytes) {
    const ProducerState producer = header_.producer();
    // The spill is for what has nowhere else to go; while it is used, nothing is copied.
    const auto too_much = [&](const ConsumerState& state) {
        const LogUsage used = log_usage(producer, state);
        return used.spill_bytes > 0 || used.ring_bytes > keep_bytes;
    };
    std::optional<Boundary> to;
    while (!boundaries_.empty() && boundaries_.front().last <= std::max(received, stored)) {
        const Boundary& front = boundaries_.front();
        if (front.last > stored && !too_much(to ? behind(*to) : state_)) break;
        to = front;
        boundaries_.pop_front();
    }
    if (to) begin_at(behind(*to));
}

uint64_t CaptureConsumer::bytes_up_to(Sequence sequence) const {
    const auto after = std::ranges::upper_bound(boundaries_, sequence, {}, &Boundary::last);
    if (after == boundaries_.begin()) return 0;
    const ConsumerState there = behind(*std::prev(after));
    return there.ring_tail - state_.ring_tail + there.spill_tail - state_.spill_tail;
}

void CaptureConsumer::discard_all() {
    const ProducerState producer = header_.producer();
    boundaries_.clear();
    peeked_boundaries_.clear();
    if (producer.last_run != 0) {
        const bool in_spill = header_.run(producer.last_run).in_spill;
        state_.ring_tail = producer.ring_head;
        state_.spill_tail = producer.spill_head;
        state_.first_run = producer.last_run;
        cursor_ = {producer.last_run, in_spill ? producer.spill_head : producer.ring_head};
    }
    state_.released = producer.next_sequence - 1;
    expected_ = {producer.next_sequence};
    peeked_ = cursor_;
    peeked_expected_ = expected_;
    header_.commit(state_);
    auto& bell = header_.futex(LogWord::kTapDoorbell);
    bell.fetch_add(1);
    if (wake_) wake_(bell);
}

void CaptureConsumer::set_stored(Sequence sequence) {
    auto stored = header_.word(LogWord::kStored);
    if (stored.load() < sequence.v) stored.store(sequence.v);
}

}  // namespace farshore
