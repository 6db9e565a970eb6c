#include "ebpf/block_capture.h"

#include <algorithm>
#include <cstring>

#include "codec/crc32c.h"

namespace farshore {
namespace {

// Space of the ring is given back in pieces of this size at least, and at the end of each drain.
constexpr uint64_t kReleaseBytes = 1u << 20;

// A place in the ring is filled within microseconds, unless its CPU is taken away meanwhile. So
// many looks take about a tenth of a millisecond.
constexpr int kSettleLooks = 1000;

ByteRange range_of(const fs_event& event) { return {event.offset, event.length}; }

bool overlap(const ByteRange& a, const ByteRange& b) {
    return a.offset_bytes < b.end() && b.offset_bytes < a.end();
}

void add_to_sum(fs_sum& sum, ByteView data) {
    uint64_t words[4];
    for (size_t at = 0; at + sizeof words <= data.size(); at += sizeof words) {
        std::memcpy(words, data.data() + at, sizeof words);
        FS_SUM_STEP(&sum, words[0], 0);
        FS_SUM_STEP(&sum, words[1], 1);
        FS_SUM_STEP(&sum, words[2], 2);
        FS_SUM_STEP(&sum, words[3], 3);
    }
}

}  // namespace

BlockCapture::BlockCapture(CaptureProducer& producer, TraceSource& source)
    : producer_(producer), source_(source), taken_before_(producer.state().source_position) {}

size_t BlockCapture::drain(size_t max_events) {
    const std::lock_guard hold(mutex_);
    return drain_locked(max_events);
}

BlockCapture::Counters BlockCapture::counters() const {
    const std::lock_guard hold(mutex_);
    return counters_;
}

size_t BlockCapture::in_flight() const {
    const std::lock_guard hold(mutex_);
    return requests_.size();
}

bool BlockCapture::quiet(DiskIndex disk, ByteRange range) {
    const std::lock_guard hold(mutex_);
    drain_locked();
    for (const auto& [id, request] : requests_)
        if (request.disk == disk)
            for (const ByteRange& own : request.ranges)
                if (overlap(own, range)) return false;
    return true;
}

bool BlockCapture::settle() {
    const std::lock_guard hold(mutex_);
    const uint64_t to = source_.reserved();
    for (int i = 0; i < kSettleLooks; ++i) {
        drain_locked();
        if (source_.passed() >= to) return true;
    }
    return false;
}

size_t BlockCapture::drain_locked(size_t max_events) {
    size_t events = 0;
    uint64_t released = releasable_;
    while (events < max_events) {
        const auto event = source_.next();
        if (!event) break;
        take(*event);
        ++events;
        if (pending_.empty()) releasable_ = event->position;
        if (releasable_ - released >= kReleaseBytes) {
            source_.release(releasable_);
            released = releasable_;
        }
    }
    flush_pending();
    if (releasable_ != released) source_.release(releasable_);
    note_drops(source_.drops());
    return events;
}

// A disk that grew while it is protected has bytes behind those that are protected.
bool BlockCapture::within(const fs_event& event) {
    const auto& sizes = producer_.header().geometry().disk_bytes;
    if (event.disk >= sizes.size()) return false;
    const uint64_t size = sizes[event.disk];
    if (event.offset <= size && event.length <= size - event.offset) return true;
    if (event.offset < size && event.kind != kFsEventComplete)
        copy_again(event.disk, {{event.offset, size - event.offset}});
    return event.kind == kFsEventComplete;
}

void BlockCapture::take(const TraceEvent& event) {
    if (!drops_seen_ || event.head.drops > *drops_seen_) {
        flush_pending();
        note_drops(event.head.drops);
    }
    const bool continues = event.head.kind == kFsEventData && !pending_.empty() &&
                           event.head.request == pending_head_.request &&
                           !(event.head.flags & kFsFirst) &&
                           event.head.offset == pending_head_.offset + pending_bytes_ &&
                           pending_bytes_ + event.payload.size() <= kMaxWriteBytes;
    if (!continues) flush_pending();
    if (!within(event.head)) return;
    switch (event.head.kind) {
        case kFsEventData:
        case kFsEventZero:
        case kFsEventDiscard:
            begin(event);
            break;
        case kFsEventFlush:
            append(RecordKind::kFlush, event.head, event.position);
            break;
        case kFsEventComplete:
            end(event);
            break;
        default:
            break;
    }
}

void BlockCapture::begin(const TraceEvent& event) {
    const fs_event& head = event.head;
    if (head.flags & kFsFirst) {
        // One that was put back and issued again begins anew.
        Request request;
        request.disk = head.disk;
        request.has_sum = head.kind == kFsEventData && (head.flags & kFsUnstable);
        if (request.has_sum) fs_sum_begin(&request.sum, source_.sum_key());
        requests_[head.request] = std::move(request);
        ++counters_.requests;
    }
    if (const auto found = requests_.find(head.request); found != requests_.end()) {
        Request& request = found->second;
        // All of a write at once; of a discard, one range after the other.
        const bool data = head.kind == kFsEventData;
        if (!data || request.ranges.empty()) {
            const ByteRange range =
                data ? ByteRange{head.request_offset, head.request_length} : range_of(head);
            request.ranges.push_back(range);
            if (overlaps_others(head.disk, range, head.request) && !request.overlapped) {
                request.overlapped = true;
                ++counters_.overlaps;
            }
        }
        if (request.has_sum) add_to_sum(request.sum, event.payload);
    }
    if (event.position <= taken_before_) return;
    if (head.kind == kFsEventData)
        add_payload(event);
    else
        append(head.kind == kFsEventZero ? RecordKind::kZero : RecordKind::kDiscard, head,
               event.position);
}

// Both sides of an overlap are marked: which of them the disk does last is its own affair.
bool BlockCapture::overlaps_others(DiskIndex disk, const ByteRange& range, uint64_t request) {
    bool found = false;
    for (auto& [id, other] : requests_) {
        if (id == request || other.disk != disk) continue;
        for (const ByteRange& taken : other.ranges)
            if (overlap(taken, range)) {
                other.overlapped = true;
                found = true;
            }
    }
    return found;
}

void BlockCapture::end(const TraceEvent& event) {
    const fs_event& head = event.head;
    const auto found = requests_.find(head.request);
    if (head.flags & kFsLost) {
        if (found != requests_.end()) requests_.erase(found);
        return;
    }
    if (found == requests_.end()) {
        const uint64_t size = producer_.header().geometry().disk_bytes[head.disk];
        // Wholly behind what is protected, so its beginning was left out.
        if (!(head.flags & kFsRanges) && head.offset >= size) return;
        ++counters_.unknown;
        // Its ranges were told at its issue, which nobody remembers.
        copy_again(head.disk, {head.flags & kFsRanges ? ByteRange{0, size} : range_of(head)});
        return;
    }
    const Request request = std::move(found->second);
    requests_.erase(found);
    bool good = true;
    if (head.flags & kFsFailed) {
        // The device may have done any part of it.
        ++counters_.failed;
        good = false;
    }
    if (head.flags & kFsSummed && (!request.has_sum || fs_sum_end(&request.sum) != head.sum)) {
        ++counters_.changed;
        good = false;
    }
    if (!good || request.overlapped) copy_again(request.disk, request.ranges);
}

void BlockCapture::add_payload(const TraceEvent& event) {
    if (pending_.empty()) {
        pending_head_ = event.head;
        pending_bytes_ = pending_crc_ = 0;
    }
    pending_.push_back(event.payload);
    pending_bytes_ += static_cast<uint32_t>(event.payload.size());
    pending_crc_ = crc32c(event.payload, pending_crc_);
    pending_position_ = event.position;
    if (event.head.flags & kFsLast) flush_pending();
}

void BlockCapture::flush_pending() {
    if (pending_.empty()) return;
    AppendRequest record;
    record.kind = RecordKind::kWrite;
    record.disk = pending_head_.disk;
    record.guest = true;
    record.source_position = pending_position_;
    record.offset_bytes = pending_head_.offset;
    record.length_bytes = pending_bytes_;
    record.payload = pending_.front();
    record.more = std::span(pending_).subspan(1);
    record.payload_crc = pending_crc_;
    producer_.append(record);
    pending_.clear();
    releasable_ = pending_position_;
}

void BlockCapture::append(RecordKind kind, const fs_event& event, uint64_t position) {
    // In the log since before this process began.
    if (position <= taken_before_) return;
    AppendRequest record;
    record.kind = kind;
    record.disk = event.disk;
    record.guest = true;
    if (kind == RecordKind::kFlush) {
        record.source_position = position;
        producer_.append(record);
        return;
    }
    record.offset_bytes = event.offset;
    uint64_t left = event.length;
    // Only the last of its records says that the event is in the log: a process that dies before
    // that lets the next one say it all again, which changes nothing.
    while (left > 0) {
        record.length_bytes = static_cast<uint32_t>(std::min<uint64_t>(left, kMaxZeroBytes));
        if (record.length_bytes == left) record.source_position = position;
        producer_.append(record);
        record.offset_bytes += record.length_bytes;
        left -= record.length_bytes;
    }
}

void BlockCapture::note_drops(uint64_t drops) {
    if (drops_seen_ && drops <= *drops_seen_) return;
    drops_seen_ = drops;
    // Ends that found no room are never told.
    std::erase_if(requests_, [&](const auto& one) { return !source_.in_flight(one.first); });
    // Marks come before the count that tells of them: they may have been handed over already.
    if (!source_.marked()) return;
    ++counters_.drops;
    producer_.open_gap([&] {
        source_.harvest([&](DiskIndex disk, ByteRange range) {
            const auto& sizes = producer_.header().geometry().disk_bytes;
            if (disk >= sizes.size() || range.offset_bytes >= sizes[disk]) return;
            range.length_bytes = std::min(range.length_bytes, sizes[disk] - range.offset_bytes);
            producer_.todo(disk).set(range.offset_bytes, range.length_bytes);
        });
    });
}

void BlockCapture::copy_again(DiskIndex disk, const std::vector<ByteRange>& ranges) {
    producer_.open_gap([&] {
        for (const ByteRange& range : ranges)
            producer_.todo(disk).set(range.offset_bytes, range.length_bytes);
    });
}

}  // namespace farshore
