#include "capture/capture_log.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>

namespace farshore {

namespace {
// Slot states in shared memory.
constexpr uint64_t kSlotFree = 0, kSlotTaken = 1;
// Words of in-flight and copy slots.
constexpr size_t kSlotState = 0, kSlotDisk = 1, kSlotOffset = 2, kSlotLength = 3,
                 kSlotStartUs = kInFlightStartWord;
// A clock that was set back by less than this does not turn the times of records back.
constexpr int64_t kMaxHeldBackUs = 5'000'000;

bool overlap(const ByteRange& a, uint64_t offset, uint64_t length) {
    return offset < a.end() && a.offset_bytes < offset + length;
}

uint64_t bytes_of(const AppendRequest& request) {
    uint64_t bytes = request.payload.size();
    for (const ByteView piece : request.more) bytes += piece.size();
    return bytes;
}

void ring_put(const LogMemory& memory, uint64_t at, ByteView bytes) {
    const size_t size = memory.ring.size();
    const size_t from = at % size;
    if (memory.ring_mapped_twice || from + bytes.size() <= size) {
        std::memcpy(memory.ring.data() + from, bytes.data(), bytes.size());
        return;
    }
    const size_t first = size - from;
    std::memcpy(memory.ring.data() + from, bytes.data(), first);
    std::memcpy(memory.ring.data(), bytes.data() + first, bytes.size() - first);
}
}  // namespace

CaptureProducer::CaptureProducer(LogHeader header, Options options)
    : header_(std::move(header)), options_(std::move(options)) {
    FS_CHECK(options_.clock != nullptr);
    FS_CHECK(options_.spill != nullptr || header_.geometry().spill_bytes == 0);
    state_ = header_.producer();
    last_but_idle_ = state_.next_sequence - 1;
    consumer_ = header_.consumer();
    const uint64_t known = ~0ull >> (kMaxDisks - header_.geometry().disk_bytes.size());
    joining_ = header_.word(LogWord::kJoining).load() & known;
    geometry_owed_ = header_.word(LogWord::kGeometryOwed).load() & known;
    if (state_.last_run != 0) in_spill_ = header_.run(state_.last_run).in_spill;
    for (size_t disk = 0; disk < header_.geometry().disk_bytes.size(); ++disk)
        todo_.emplace_back(header_.todo_words(static_cast<DiskIndex>(disk)),
                           header_.geometry().disk_bytes[disk]);
    for (const TodoMap& todo : todo_) {
        const size_t words = (todo.disk_bytes() / kTodoGranuleBytes + 64) / 64;
        // calloc's memory is the kernel's zero page until it is written.
        auto* const zeroed = static_cast<uint64_t*>(std::calloc(words, sizeof(uint64_t)));
        FS_CHECK(zeroed != nullptr);
        unsure_words_.emplace_back(zeroed, std::free);
        unsure_.emplace_back(
            std::span(zeroed, header_.todo_words(static_cast<DiskIndex>(unsure_.size())).size()),
            todo.disk_bytes());
    }
    for (size_t disk = 0; disk < todo_.size(); ++disk) join_unsure(disk);
    for (size_t slot = 0; slot < kCopySlots; ++slot) {
        if (header_.copy_slot(slot, kSlotState).load() != kSlotFree) {
            const auto disk = header_.copy_slot(slot, kSlotDisk).load();
            if (disk < todo_.size())
                todo_[disk].set(header_.copy_slot(slot, kSlotOffset).load(),
                                header_.copy_slot(slot, kSlotLength).load());
            header_.copy_slot(slot, kSlotState).store(kSlotFree);
        }
    }
    for (size_t slot = kInFlightSlots; slot-- > 0;) {
        if (header_.in_flight(slot, kSlotState).load() == kSlotFree) {
            free_slots_.push_back(slot);
            continue;
        }
        InFlight left{slot,
                      static_cast<DiskIndex>(header_.in_flight(slot, kSlotDisk).load()),
                      {header_.in_flight(slot, kSlotOffset).load(),
                       header_.in_flight(slot, kSlotLength).load()}};
        if (left.disk < todo_.size() && left.range.length_bytes > 0) {
            // The watchdog must not take the dead tap's start for ours.
            header_.in_flight(slot, kSlotStartUs)
                .store(static_cast<uint64_t>(options_.clock->steady_us()));
            leftovers_.push_back(left);
        } else {
            header_.in_flight(slot, kSlotState).store(kSlotFree);
            free_slots_.push_back(slot);
        }
    }
    last_append_us_ = options_.clock->steady_us();
    header_.word(LogWord::kTapStarts).fetch_add(1);
    progress_locked();
}

// ---- in-flight slots ----------------------------------------------------------------------------

size_t CaptureProducer::begin(DiskIndex disk, uint64_t offset_bytes, uint64_t length_bytes) {
    size_t slot;
    {
        std::unique_lock lock(slots_mutex_);
        slot_freed_.wait(lock, [&] { return !free_slots_.empty(); });
        slot = free_slots_.back();
        free_slots_.pop_back();
    }
    header_.in_flight(slot, kSlotDisk).store(disk, std::memory_order_relaxed);
    header_.in_flight(slot, kSlotOffset).store(offset_bytes, std::memory_order_relaxed);
    header_.in_flight(slot, kSlotLength).store(length_bytes, std::memory_order_relaxed);
    header_.in_flight(slot, kSlotStartUs)
        .store(static_cast<uint64_t>(options_.clock->steady_us()), std::memory_order_relaxed);
    header_.in_flight(slot, kSlotState).store(kSlotTaken, std::memory_order_release);
    return slot;
}

void CaptureProducer::end(size_t slot) {
    header_.in_flight(slot, kSlotState).store(kSlotFree, std::memory_order_release);
    {
        std::lock_guard lock(slots_mutex_);
        free_slots_.push_back(slot);
    }
    slot_freed_.notify_one();
}

// ---- appending ----------------------------------------------------------------------------------

TimePoint CaptureProducer::stamp_locked() {
    const int64_t now = options_.clock->now().us;
    int64_t& last = state_.last_time_us;
    if (now >= last || last - now > kMaxHeldBackUs) last = now;
    return {last};
}

void CaptureProducer::publish_locked() {
    header_.commit(state_);
    // Pairs with the consumer's fence between announcing its sleep and looking once more.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    auto waiting = header_.word(LogWord::kAgentWaiting);
    if (waiting.load(std::memory_order_relaxed) != 0 && waiting.exchange(0) != 0) {
        auto& bell = header_.futex(LogWord::kAgentDoorbell);
        bell.fetch_add(1);
        if (options_.wake) options_.wake(bell);
    }
}

bool CaptureProducer::below_half_locked() const {
    const LogUsage used = log_usage(state_, header_.consumer());
    const LogGeometry& g = header_.geometry();
    return (used.ring_bytes + used.spill_bytes) * 2 < g.ring_bytes + g.spill_bytes;
}

std::optional<bool> CaptureProducer::place_locked(size_t bytes) {
    if (buggify(options_.buggify, "capture.no_room")) return std::nullopt;
    const LogGeometry& g = header_.geometry();
    const bool full = buggify(options_.buggify, "capture.ring_full") && g.spill_bytes > 0;
    const auto ring_free = [&]() -> uint64_t {
        if (full) return 0;
        return g.ring_bytes - (state_.ring_head - consumer_.ring_tail);
    };
    const auto spill_free = [&] {
        return g.spill_bytes - (state_.spill_head - consumer_.spill_tail);
    };
    // The consumer's words are read only when what was last seen of them is not enough.
    if (!in_spill_ && state_.last_run != 0 && ring_free() >= bytes) return false;
    consumer_ = header_.consumer();
    const bool may_open = state_.last_run + 1 - consumer_.first_run < kRunSlots;
    if (state_.last_run == 0) {
        if (bytes <= g.ring_bytes)
            return open_run_locked(false) ? std::optional(false) : std::nullopt;
        if (bytes <= spill_free())
            return open_run_locked(true) ? std::optional(true) : std::nullopt;
        return std::nullopt;
    }
    if (!in_spill_) {
        if (ring_free() >= bytes) return false;
        if (may_open && spill_free() >= bytes && open_run_locked(true)) return true;
        return std::nullopt;
    }
    if (may_open && ring_free() >= std::max<uint64_t>(g.ring_bytes / 2, bytes) &&
        open_run_locked(false))
        return false;
    if (spill_free() >= bytes) return true;
    return std::nullopt;
}

bool CaptureProducer::open_run_locked(bool in_spill) {
    if (state_.last_run != 0)
        header_.set_run_end(state_.last_run, in_spill_ ? state_.spill_head : state_.ring_head);
    header_.set_run(state_.last_run + 1,
                    {in_spill, in_spill ? state_.spill_head : state_.ring_head, 0});
    ++state_.last_run;
    in_spill_ = in_spill;
    return true;
}

Status CaptureProducer::store_locked(bool in_spill, const RecordHeader& record,
                                     const AppendRequest& request) {
    uint8_t encoded[kRecordHeaderBytes];
    encode_record_header(record, encoded);
    if (!in_spill) {
        ring_put(header_.memory(), state_.ring_head, encoded);
        uint64_t at = state_.ring_head + kRecordHeaderBytes;
        const auto put = [&](ByteView piece) {
            if (!piece.empty()) ring_put(header_.memory(), at, piece);
            at += piece.size();
        };
        put(request.payload);
        for (const ByteView piece : request.more) put(piece);
        state_.ring_head += record.encoded_bytes();
        return {};
    }
    scratch_.assign(encoded, encoded + kRecordHeaderBytes);
    scratch_.insert(scratch_.end(), request.payload.begin(), request.payload.end());
    for (const ByteView piece : request.more)
        scratch_.insert(scratch_.end(), piece.begin(), piece.end());
    const uint64_t size = header_.geometry().spill_bytes;
    const uint64_t from = state_.spill_head % size;
    const size_t first = std::min<uint64_t>(scratch_.size(), size - from);
    FS_TRY(options_.spill->write_at(from, ByteView(scratch_).first(first)));
    if (first < scratch_.size())
        FS_TRY(options_.spill->write_at(0, ByteView(scratch_).subspan(first)));
    state_.spill_head += scratch_.size();
    spill_dirty_ = true;
    header_.word(LogWord::kSpilledBytes).fetch_add(scratch_.size(), std::memory_order_relaxed);
    header_.word(LogWord::kSpillErrno).store(0, std::memory_order_relaxed);
    return {};
}

bool CaptureProducer::write_record_locked(const AppendRequest& request, Sequence sequence) {
    RecordHeader record;
    record.kind = request.kind;
    record.flags = request.flags;
    record.disk = request.disk;
    record.sequence = sequence;
    record.offset_bytes = request.offset_bytes;
    record.length_bytes = request.length_bytes;
    record.payload_crc = request.payload_crc;
    FS_CHECK(record.payload_bytes() == bytes_of(request));
    const ProducerState before = state_;
    const bool before_in_spill = in_spill_;
    record.time = stamp_locked();
    if (const auto in_spill = place_locked(record.encoded_bytes())) {
        if (auto stored = store_locked(*in_spill, record, request); !stored) {
            header_.word(LogWord::kSpillErrors).fetch_add(1, std::memory_order_relaxed);
            header_.word(LogWord::kSpillErrno)
                .store(static_cast<uint64_t>(std::max(1, stored.error().error_number())),
                       std::memory_order_relaxed);
        } else {
            state_.next_sequence = sequence.v + 1;
            if (request.kind != RecordKind::kTime && request.kind != RecordKind::kFlush) {
                last_but_idle_ = sequence.v;
                last_may_be_idle_ = false;
            }
            if (request.source_position) state_.source_position = *request.source_position;
            for (size_t slot = 0; slot < kCopySlots; ++slot)
                if (copy_taken_[slot] && record.changes_disk() &&
                    copy_claims_[slot].disk == request.disk &&
                    overlap(copy_claims_[slot].range, request.offset_bytes, request.length_bytes))
                    copy_overlapped_[slot] = true;
            if (record.changes_disk() && !options_.bugs.stale_compare)
                unsure_[request.disk].clear_touched(request.offset_bytes, request.length_bytes);
            header_.word(LogWord::kAppendedRecords).fetch_add(1, std::memory_order_relaxed);
            header_.word(LogWord::kAppendedBytes)
                .fetch_add(record.encoded_bytes(), std::memory_order_relaxed);
            last_append_us_.store(options_.clock->steady_us(), std::memory_order_relaxed);
            return true;
        }
    }
    state_ = before;
    in_spill_ = before_in_spill;
    return false;
}

void CaptureProducer::drop_locked(const AppendRequest& request) {
    // Bits first: a tap killed in between has them, and its in-flight slot as well.
    todo_[request.disk].set(request.offset_bytes, request.length_bytes);
    if (state_.gap == GapState::kNone) {
        header_.word(LogWord::kCopyDoneGranules).store(0, std::memory_order_relaxed);
        header_.word(LogWord::kCopyTotalGranules).store(0, std::memory_order_relaxed);
    }
    state_.gap = GapState::kDropping;
    last_but_idle_ = state_.next_sequence++;
    last_may_be_idle_ = false;
    if (request.source_position) state_.source_position = *request.source_position;
    header_.word(LogWord::kDroppedRecords).fetch_add(1, std::memory_order_relaxed);
    progress_locked();
}

bool CaptureProducer::settle_gap_locked() {
    if (state_.gap != GapState::kDropping) return true;
    if (!below_half_locked()) return false;
    if (options_.bugs.lost_gap && state_.gaps > 0) {
        state_.gap = GapState::kNone;
        return true;
    }
    // Whoever starts to read here learns how large the disks are. Before the GAP is there: a tap
    // killed in between owes too much, not too little.
    owe_geometry_locked(~0ull >> (kMaxDisks - todo_.size()));
    AppendRequest gap;
    gap.kind = RecordKind::kGap;
    const Sequence sequence{state_.next_sequence};
    if (!write_record_locked(gap, sequence)) return false;
    state_.gap = GapState::kOpen;
    state_.gap_sequence = sequence.v;
    ++state_.gaps;
    publish_locked();
    settle_geometry_locked();
    return true;
}

void CaptureProducer::owe_geometry_locked(uint64_t disks) {
    geometry_owed_ |= disks;
    header_.word(LogWord::kGeometryOwed).store(geometry_owed_);
}

bool CaptureProducer::write_geometry_locked(DiskIndex disk) {
    AppendRequest geometry;
    geometry.kind = RecordKind::kGeometry;
    geometry.flags = joining(disk) && !options_.bugs.joined_at_once ? kGeometryJoining : 0;
    geometry.disk = disk;
    geometry.offset_bytes = header_.geometry().disk_bytes[disk];
    if (!write_record_locked(geometry, {state_.next_sequence})) return false;
    publish_locked();
    return true;
}

bool CaptureProducer::settle_geometry_locked() {
    while (geometry_owed_ != 0) {
        const auto disk = static_cast<DiskIndex>(std::countr_zero(geometry_owed_));
        if (!write_geometry_locked(disk)) return false;
        geometry_owed_ &= geometry_owed_ - 1;
        header_.word(LogWord::kGeometryOwed).store(geometry_owed_);
    }
    return true;
}

bool CaptureProducer::settle_geometry() {
    std::lock_guard lock(mutex_);
    return settle_gap_locked() && settle_geometry_locked();
}

Appended CaptureProducer::append_locked(const AppendRequest& request) {
    Appended result;
    // The GAP that may come first belongs to what was dropped before: with the old position.
    if (settle_gap_locked() && settle_geometry_locked() &&
        write_record_locked(request, {state_.next_sequence})) {
        result.sequence = {state_.next_sequence - 1};
        result.time = {state_.last_time_us};
    } else {
        result.dropped = true;
        const bool changes = request.kind == RecordKind::kWrite ||
                             request.kind == RecordKind::kZero ||
                             request.kind == RecordKind::kDiscard;
        // FLUSH, TIME and POINT that find no room change nothing that could be missed.
        if (!changes) return result;
        result.sequence = {state_.next_sequence};
        drop_locked(request);
    }
    publish_locked();
    if (options_.on_append) options_.on_append(request, result);
    return result;
}

Appended CaptureProducer::append(const AppendRequest& request) {
    if (request.guest)
        header_.word(LogWord::kGuestBytes)
            .fetch_add(request.length_bytes, std::memory_order_relaxed);
    std::lock_guard lock(mutex_);
    if (options_.bugs.wrong_order && request.guest && request.kind == RecordKind::kWrite) {
        if (!held_back_) {
            held_back_.emplace(request, to_bytes(request.payload));
            for (const ByteView piece : request.more)
                held_back_->second.insert(held_back_->second.end(), piece.begin(), piece.end());
            held_back_->first.payload = held_back_->second;
            held_back_->first.more = {};
            return {{state_.next_sequence}, stamp_locked(), false};
        }
        const Appended result = append_locked(request);
        append_locked(held_back_->first);
        held_back_.reset();
        return result;
    }
    return append_locked(request);
}

void CaptureProducer::set_todo(DiskIndex disk, uint64_t offset_bytes, uint64_t length_bytes) {
    std::lock_guard lock(mutex_);
    todo_[disk].set(offset_bytes, length_bytes);
    progress_locked();
}

void CaptureProducer::open_gap(const std::function<void()>& mark, bool compare) {
    std::lock_guard lock(mutex_);
    if (state_.gap == GapState::kNone) {
        header_.word(LogWord::kCopyDoneGranules).store(0, std::memory_order_relaxed);
        header_.word(LogWord::kCopyTotalGranules).store(0, std::memory_order_relaxed);
    }
    // State first: a tap killed between has a GAP too many, not bits without one.
    state_.gap = GapState::kDropping;
    header_.commit(state_);
    if (mark) mark();
    if (compare) begin_compare_locked();
    settle_gap_locked();
    progress_locked();
    publish_locked();
}

bool CaptureProducer::settle_gap() {
    std::lock_guard lock(mutex_);
    return settle_gap_locked();
}

bool CaptureProducer::try_resynced() {
    std::lock_guard lock(mutex_);
    if (state_.gap != GapState::kOpen) return false;
    for (size_t i = 0; i < todo_.size(); ++i) {
        const auto disk = static_cast<DiskIndex>(i);
        if (joining(disk)) continue;
        if (todo_[i].count() != (options_.bugs.early_end ? unsure_[i].count() : 0)) return false;
        if (being_copied_locked(disk)) return false;
    }
    if (!settle_geometry_locked()) return false;
    AppendRequest request;
    request.kind = RecordKind::kResynced;
    if (!write_record_locked(request, {state_.next_sequence})) return false;
    state_.gap = GapState::kNone;
    publish_locked();
    return true;
}

bool CaptureProducer::being_copied_locked(DiskIndex disk) const {
    for (size_t slot = 0; slot < kCopySlots; ++slot)
        if (copy_taken_[slot] && copy_claims_[slot].disk == disk) return true;
    return false;
}

void CaptureProducer::try_joined() {
    std::lock_guard lock(mutex_);
    if (joining_ == 0 || !settle_gap_locked() || !settle_geometry_locked()) return;
    for (size_t i = 0; i < todo_.size(); ++i) {
        const auto disk = static_cast<DiskIndex>(i);
        if (!joining(disk) || todo_[i].count() != 0 || being_copied_locked(disk)) continue;
        const uint64_t before = joining_;
        joining_ = before & ~(1ull << i);
        if (!write_geometry_locked(disk)) {
            joining_ = before;
            return;
        }
        // Last: a tap killed before finds it joining and copied, and says so again.
        header_.word(LogWord::kJoining).store(joining_);
    }
}

// ---- copying ------------------------------------------------------------------------------------

std::optional<CaptureProducer::CopyClaim> CaptureProducer::claim_copy(DiskIndex disk,
                                                                      ByteRange range) {
    std::lock_guard lock(mutex_);
    if (state_.gap == GapState::kDropping) return std::nullopt;
    for (size_t slot = 0; slot < kCopySlots; ++slot) {
        if (copy_taken_[slot]) continue;
        copy_taken_[slot] = true;
        copy_overlapped_[slot] = false;
        copy_claims_[slot] = {slot, disk, range};
        header_.copy_slot(slot, kSlotDisk).store(disk, std::memory_order_relaxed);
        header_.copy_slot(slot, kSlotOffset).store(range.offset_bytes, std::memory_order_relaxed);
        header_.copy_slot(slot, kSlotLength).store(range.length_bytes, std::memory_order_relaxed);
        header_.copy_slot(slot, kSlotState).store(kSlotTaken, std::memory_order_seq_cst);
        // After the slot is there: a tap killed in between has the range in one or the other.
        todo_[disk].clear(range.offset_bytes, range.length_bytes);
        return copy_claims_[slot];
    }
    return std::nullopt;
}

void CaptureProducer::free_copy_slot_locked(size_t slot) {
    copy_taken_[slot] = false;
    header_.copy_slot(slot, kSlotState).store(kSlotFree, std::memory_order_seq_cst);
}

bool CaptureProducer::finish_copy(const CopyClaim& claim,
                                  const std::vector<AppendRequest>& records) {
    std::lock_guard lock(mutex_);
    bool good = !copy_overlapped_[claim.slot] && state_.gap != GapState::kDropping &&
                settle_geometry_locked();
    if (!good) header_.word(LogWord::kCopyDiscarded).fetch_add(1, std::memory_order_relaxed);
    if (good) {
        copy_taken_[claim.slot] = false;  // our own records do not overlap ourselves
        for (const AppendRequest& record : records) {
            if (!write_record_locked(record, {state_.next_sequence})) {
                good = false;
                break;
            }
            publish_locked();
            if (options_.on_append)
                options_.on_append(record,
                                   {{state_.next_sequence - 1}, {state_.last_time_us}, false});
        }
    }
    if (good)
        header_.word(LogWord::kCopyDoneGranules)
            .fetch_add((claim.range.length_bytes + kTodoGranuleBytes - 1) / kTodoGranuleBytes,
                       std::memory_order_relaxed);
    else
        todo_[claim.disk].set(claim.range.offset_bytes, claim.range.length_bytes);
    free_copy_slot_locked(claim.slot);
    progress_locked();
    return good;
}

void CaptureProducer::abandon_copy(const CopyClaim& claim) {
    std::lock_guard lock(mutex_);
    todo_[claim.disk].set(claim.range.offset_bytes, claim.range.length_bytes);
    free_copy_slot_locked(claim.slot);
}

bool CaptureProducer::room_for_copy() const {
    std::lock_guard lock(mutex_);
    const LogUsage used = log_usage(state_, header_.consumer());
    return used.spill_bytes == 0 && used.ring_bytes * 2 <= header_.geometry().ring_bytes;
}

// ---- state --------------------------------------------------------------------------------------

uint64_t CaptureProducer::todo_granules() const {
    uint64_t sum = 0;
    for (const TodoMap& map : todo_) sum += map.count();
    return sum;
}

uint64_t CaptureProducer::member_todo_granules() const {
    uint64_t sum = 0;
    for (size_t i = 0; i < todo_.size(); ++i)
        if (!joining(static_cast<DiskIndex>(i))) sum += todo_[i].count();
    return sum;
}

bool CaptureProducer::copied(DiskIndex disk, ByteRange range) const {
    std::lock_guard lock(mutex_);
    for (size_t slot = 0; slot < kCopySlots; ++slot)
        if (copy_taken_[slot] && copy_claims_[slot].disk == disk &&
            overlap(copy_claims_[slot].range, range.offset_bytes, range.length_bytes))
            return false;
    const auto next = todo_[disk].next(range.offset_bytes, kTodoGranuleBytes);
    return !next || next->offset_bytes >= range.end();
}

bool CaptureProducer::settled() const {
    std::lock_guard lock(mutex_);
    if (state_.gap != GapState::kNone || todo_granules() != 0) return false;
    return std::none_of(copy_taken_.begin(), copy_taken_.end(), [](bool taken) { return taken; });
}

void CaptureProducer::progress_locked() {
    const uint64_t left = todo_granules();
    header_.word(LogWord::kTodoGranules).store(left, std::memory_order_relaxed);
    const uint64_t total =
        header_.word(LogWord::kCopyDoneGranules).load(std::memory_order_relaxed) + left;
    auto known = header_.word(LogWord::kCopyTotalGranules);
    if (known.load(std::memory_order_relaxed) < total)
        known.store(total, std::memory_order_relaxed);
}

ProducerState CaptureProducer::state() const {
    std::lock_guard lock(mutex_);
    return state_;
}

Sequence CaptureProducer::last_but_idle() const {
    std::lock_guard lock(mutex_);
    return {last_but_idle_};
}

LogUsage CaptureProducer::usage() const {
    std::lock_guard lock(mutex_);
    return log_usage(state_, header_.consumer());
}

void CaptureProducer::trim_spill() {
    std::lock_guard lock(mutex_);
    if (!spill_dirty_ || in_spill_ || state_.spill_head != header_.consumer().spill_tail) return;
    // Best effort: space that is not given back now is given back at the next chance.
    if (options_.spill->truncate(0)) spill_dirty_ = false;
}

}  // namespace farshore
