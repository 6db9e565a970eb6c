// For tests: the kernel's side of the in-guest capture without a kernel. It does with the requests
// of some disks what block_trace.bpf.c does, in the same order, and is the TraceSource that
// block_trace.cc is over it. A change of either belongs here as well.
//
// On one thread. Between any two of its steps that another CPU could see it calls `kernel_step`,
// and in each call of the consumer's `consumer_step`, so that a test can run the one side in the
// middle of the other; consumer_step may throw, as a process dies.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <unordered_map>
#include <vector>

#include "ebpf/trace_source.h"

namespace farshore {

// A request of the block layer. Borrowed during a call; its pages may change at any step.
struct FakeKernelRequest {
    uint64_t id = 0;  // its address: used again when it has ended
    uint8_t kind = kFsEventData;
    DiskIndex disk = 0;
    std::vector<ByteRange> bios;  // more than one: a merged discard
    Bytes pages;                  // of a write
    bool stable = false;          // every page is under write-back of its own file

    uint64_t offset() const { return bios.front().offset_bytes; }
    uint32_t length() const {
        uint64_t sum = 0;
        for (const ByteRange& bio : bios) sum += bio.length_bytes;
        return static_cast<uint32_t>(sum);
    }
};

class FakeKernel final : public TraceSource {
  public:
    explicit FakeKernel(std::vector<uint64_t> disk_bytes, uint64_t ring_bytes = 64u << 20,
                        size_t most_in_flight = kFsInFlightRequests)
        : disk_bytes_(std::move(disk_bytes)),
          ring_bytes_(ring_bytes),
          most_in_flight_(most_in_flight),
          whole_(disk_bytes_.size()),
          whole_taken_(disk_bytes_.size()) {
        for (uint64_t size : disk_bytes_)
            marks_.emplace_back((size + kGranuleBytes - 1) / kGranuleBytes);
    }

    std::function<void()> kernel_step, consumer_step;
    // Each release of space; before it is done.
    std::function<void(uint64_t position)> on_release;
    // Whether the program is attached already.
    bool attached = true;
    // Planted bug: what was lost is not marked again when the request has ended.
    bool forgets_marks_at_end = false;

    // ---- the block layer ----
    // block_rq_issue: a request is handed to its driver; also one that was put back, once more.
    void issue(const FakeKernelRequest& rq) {
        if (!attached) return;
        step();
        fs_in_flight entry{};
        entry.offset = rq.offset();
        entry.length = rq.length();
        entry.disk = rq.disk;
        if (in_flight_.size() >= most_in_flight_ && !in_flight_.contains(rq.id)) {
            lost_bios(rq);
            return;
        }
        in_flight_[rq.id] = entry;
        step();
        fs_event event = event_of(rq);
        event.flags = kFsFirst;
        bool failed = false;
        if (rq.kind == kFsEventData) {
            failed = !copy_pieces(rq, event);
            entry.summed = !rq.stable;
        } else if (rq.kind == kFsEventZero) {
            event.kind = kFsEventZero;
            failed = !emit(event, {});
        } else {
            event.kind = kFsEventDiscard;
            entry.ranges = rq.bios.size() > 1;
            failed = !copy_ranges(rq, event);
        }
        if (failed) {
            lost_bios(rq);
            entry.lost = 1;
        }
        step();
        in_flight_[rq.id] = entry;
    }

    // block_rq_complete, of all of it.
    void complete(const FakeKernelRequest& rq, bool error = false) {
        if (!attached) return;
        step();
        const auto found = in_flight_.find(rq.id);
        if (found == in_flight_.end()) {
            lost_bios(rq);
            return;
        }
        const fs_in_flight entry = found->second;
        in_flight_.erase(found);
        step();
        fs_event event = event_of(rq);
        event.kind = kFsEventComplete;
        event.offset = event.request_offset = entry.offset;
        event.length = event.request_length = entry.length;
        if (error) event.flags |= kFsFailed;
        if (entry.ranges) event.flags |= kFsRanges;
        if (entry.lost) event.flags |= kFsLost;
        if (entry.lost || (entry.ranges && error)) {
            if (!forgets_marks_at_end) lost_bios(rq);
        } else if (entry.summed && !error) {
            event.sum = sum_of(rq);
            event.flags |= kFsSummed;
        }
        if (emit(event, {})) return;
        if (entry.ranges)
            lost_bios(rq);
        else
            lost(entry.disk, entry.offset, entry.length);
    }

    // block_rq_complete, of a part: the rest is issued again, as a request of its own.
    void complete_part(const FakeKernelRequest& rq) {
        step();
        const auto found = in_flight_.find(rq.id);
        if (found != in_flight_.end()) found->second.lost = 1;
        lost(rq.disk, rq.offset(), rq.length());
    }

    void complete_flush(uint64_t id, DiskIndex disk) {
        fs_event event{};
        event.request = id;
        event.disk = disk;
        event.kind = kFsEventFlush;
        emit(event, {});
    }

    // A command that its sender wrote by hand.
    void pass_command(DiskIndex disk) { lost_whole(disk); }

    // ---- the process that reads ----
    // It ended; the next one begins at what was not released.
    void restart_consumer() { read_ = 0; }

    std::optional<TraceEvent> next() override {
        consume();
        if (read_ == ring_.size() || ring_[read_].busy) return std::nullopt;
        const Slot& slot = ring_[read_++];
        settled_at_ = std::max(settled_at_, made_at(slot.end));
        return TraceEvent{slot.head, slot.payload, slot.end};
    }
    uint64_t reserved() override {
        consume();
        settled_at_ = now_;
        return produced_;
    }
    uint64_t passed() override {
        consume();
        return read_ == 0 ? released_ : ring_[read_ - 1].end;
    }
    void release(uint64_t position) override {
        consume();
        if (on_release) on_release(position);
        if (position <= released_) return;
        ASSERT_GT(read_, 0u);
        ASSERT_LE(position, ring_[read_ - 1].end) << "released before it was read";
        while (!ring_.empty() && ring_.front().end <= position) {
            ring_.pop_front();
            --read_;
        }
        ASSERT_TRUE(ring_.empty() || ring_.front().begin == position) << "released in an event";
        released_ = position;
    }
    uint64_t drops() override {
        consume();
        return drops_;
    }
    bool marked() override {
        consume();
        for (size_t disk = 0; disk < marks_.size(); ++disk)
            if (whole_[disk] != whole_taken_[disk] ||
                std::find(marks_[disk].begin(), marks_[disk].end(), true) != marks_[disk].end())
                return true;
        return false;
    }
    void harvest(const std::function<void(DiskIndex, ByteRange)>& marked) override {
        for (size_t i = 0; i < marks_.size(); ++i) {
            const auto disk = static_cast<DiskIndex>(i);
            consume();
            if (const uint64_t whole = whole_[i]; whole != whole_taken_[i]) {
                marked(disk, {0, disk_bytes_[i]});
                consume();
                whole_taken_[i] = whole;
            }
            for (size_t at = 0; at < marks_[i].size(); ++at) {
                if (!marks_[i][at]) continue;
                const uint64_t offset = at * kGranuleBytes;
                marked(disk, {offset, std::min(kGranuleBytes, disk_bytes_[i] - offset)});
                consume();
                marks_[i][at] = false;
            }
        }
    }
    bool in_flight(uint64_t request) override {
        consume();
        return in_flight_.contains(request);
    }
    uint64_t sum_key() override { return 0x1234'5678'9abc'def0; }

    // ---- what a test wants to know ----
    // Moments; one for each event, and as many more as the test asks for.
    uint64_t now() const { return now_; }
    uint64_t tick() { return ++now_; }
    // When the event that ends there took its place.
    uint64_t made_at(uint64_t position) const { return made_at_.at(position); }
    // The last moment of which the consumer may know everything, once it has settled.
    uint64_t settled_at() const { return settled_at_; }
    // A CPU has taken a place and not filled it.
    bool filling() const { return filling_ > 0; }
    uint64_t released() const { return released_; }
    uint64_t produced() const { return produced_; }
    uint64_t losses() const { return losses_; }

    static constexpr uint64_t kGranuleBytes = 1ull << kFsDirtyShift;

  private:
    struct Slot {
        fs_event head;
        Bytes payload;
        uint64_t begin, end;
        bool busy = true;
    };

    void step() {
        if (kernel_step) kernel_step();
    }
    void consume() {
        if (consumer_step) consumer_step();
    }

    static fs_event event_of(const FakeKernelRequest& rq) {
        fs_event event{};
        event.request = rq.id;
        event.offset = event.request_offset = rq.offset();
        event.length = event.request_length = rq.length();
        event.disk = rq.disk;
        return event;
    }

    // Space is taken as in the kernel's ring: a header of 8 bytes, the slot's size of the three
    // that the program reserves, and never all of the ring.
    bool emit(fs_event event, ByteView data) {
        uint64_t bytes = sizeof(fs_event);
        if (!data.empty())
            bytes += data.size() <= kFsSmallPieceBytes ? kFsSmallPieceBytes : kFsPieceBytes;
        bytes = (bytes + 8 + 7) & ~7ull;
        if (produced_ + bytes - released_ > ring_bytes_ - 1) return false;
        ring_.push_back({event, {}, produced_, produced_ + bytes});
        produced_ += bytes;
        made_at_[produced_] = tick();
        Slot& slot = ring_.back();
        ++filling_;
        step();
        slot.head.drops = drops_;
        slot.payload = to_bytes(data);
        step();
        --filling_;
        slot.busy = false;
        return true;
    }

    bool copy_pieces(const FakeKernelRequest& rq, fs_event event) {
        event.kind = kFsEventData;
        if (!rq.stable) event.flags |= kFsUnstable;
        const uint32_t length = rq.length();
        uint32_t at = 0;
        for (int piece = 0; piece < kFsMaxPieces && at < length; ++piece) {
            const uint32_t n = std::min<uint32_t>(kFsPieceBytes, length - at);
            if (at + n == length) event.flags |= kFsLast;
            event.offset = rq.offset() + at;
            event.length = n;
            if (!emit(event, ByteView(rq.pages).subspan(at, n))) return false;
            event.flags &= static_cast<uint8_t>(~kFsFirst);
            at += n;
            step();
        }
        return at == length;
    }

    bool copy_ranges(const FakeKernelRequest& rq, fs_event event) {
        for (size_t i = 0; i < rq.bios.size(); ++i) {
            if (i == kFsMaxRanges) return false;
            event.offset = rq.bios[i].offset_bytes;
            event.length = static_cast<uint32_t>(rq.bios[i].length_bytes);
            if (!emit(event, {})) return false;
            event.flags &= static_cast<uint8_t>(~kFsFirst);
            step();
        }
        return true;
    }

    void lost_whole(DiskIndex disk) {
        ++losses_;
        ++whole_[disk];
        step();
        ++drops_;
    }
    void lost(DiskIndex disk, uint64_t offset, uint64_t length) {
        ++losses_;
        const uint64_t from = offset >> kFsDirtyShift;
        const uint64_t to = length == 0 ? from : (offset + length - 1) >> kFsDirtyShift;
        for (uint64_t at = from; at <= to && at < marks_[disk].size(); ++at) {
            marks_[disk][at] = true;
            step();
        }
        ++drops_;
        step();
    }
    void lost_bios(const FakeKernelRequest& rq) {
        for (size_t i = 0; i < rq.bios.size(); ++i) {
            if (i == kFsMaxRanges) return lost_whole(rq.disk);
            lost(rq.disk, rq.bios[i].offset_bytes, rq.bios[i].length_bytes);
        }
    }

    uint64_t sum_of(const FakeKernelRequest& rq) {
        fs_sum sum;
        fs_sum_begin(&sum, sum_key());
        for (size_t at = 0; at + 32 <= rq.pages.size(); at += 32)
            for (size_t lane = 0; lane < 4; ++lane)
                FS_SUM_STEP(&sum, load_u64(rq.pages.data() + at + lane * 8), lane);
        return fs_sum_end(&sum);
    }

    const std::vector<uint64_t> disk_bytes_;
    const uint64_t ring_bytes_;
    const size_t most_in_flight_;
    std::deque<Slot> ring_;
    size_t read_ = 0;
    uint64_t produced_ = 0, released_ = 0;
    std::map<uint64_t, fs_in_flight> in_flight_;
    std::vector<std::vector<bool>> marks_;
    std::vector<uint64_t> whole_, whole_taken_;
    uint64_t drops_ = 0, losses_ = 0;
    uint64_t now_ = 0, settled_at_ = 0;
    int filling_ = 0;
    std::unordered_map<uint64_t, uint64_t> made_at_;
};

}  // namespace farshore
