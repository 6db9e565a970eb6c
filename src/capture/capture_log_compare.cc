// The producer's part in a comparison (comparer.h): what is in question, and what an answer
// settles.
#include "capture/capture_log.h"

#include <algorithm>

namespace farshore {

void CaptureProducer::join_unsure(size_t disk) {
    if (!options_.bugs.stale_compare) todo_[disk].set_unsure(&unsure_[disk]);
}

// Marks and flushes alone may wait long until they are stored. What an earlier producer appended
// last may be one: then something that is stored soon has to come behind it. Without room for it
// now it stays owed, and comes before the next mark.
void CaptureProducer::note_compare_start_locked() {
    if (last_may_be_idle_ && state_.gap != GapState::kDropping) {
        // Any disk's size says nothing new.
        owe_geometry_locked(1);
        settle_geometry_locked();
    }
    compare_after_ = {last_but_idle_};
}

void CaptureProducer::begin_compare_locked() {
    only_a_check_ = false;
    uint64_t bytes = 0;
    for (size_t disk = 0; disk < todo_.size(); ++disk) {
        unsure_[disk].clear(0, unsure_[disk].disk_bytes());
        // Of a disk that joins, what is on todo was never sent.
        if (joining(static_cast<DiskIndex>(disk))) continue;
        uint64_t at = 0;
        while (const auto run = todo_[disk].next(at, kMaxDiskBytes)) {
            unsure_[disk].set(run->offset_bytes, run->length_bytes);
            bytes += run->length_bytes;
            at = behind(*run);
        }
    }
    note_compare_start_locked();
    ++compare_generation_;
    header_.word(LogWord::kCompareTotalBytes).store(bytes);
    for (const LogWord word : {LogWord::kComparedBytes, LogWord::kDifferingBytes,
                               LogWord::kUnreadableBytes, LogWord::kVerifiedBytes})
        header_.word(word).store(0);
    header_.word(LogWord::kCompareCopiedBefore).store(header_.word(LogWord::kCopiedBytes).load());
    // Last: who sees it finds the counts of this comparison.
    header_.word(LogWord::kCompareState).store(static_cast<uint64_t>(CompareState::kComparing));
}

void CaptureProducer::begin_compare() {
    std::lock_guard lock(mutex_);
    begin_compare_locked();
}

Sequence CaptureProducer::compare_after() const {
    std::lock_guard lock(mutex_);
    return compare_after_;
}

std::optional<ByteRange> CaptureProducer::unsure(DiskIndex disk, uint64_t offset_bytes,
                                                 uint64_t limit_bytes) const {
    return unsure_[disk].next(offset_bytes, limit_bytes);
}

bool CaptureProducer::all_unsure(DiskIndex disk) const {
    // What is unsure is on todo, too, so that the counts tell.
    return unsure_[disk].count() == todo_[disk].count();
}

uint64_t CaptureProducer::unsure_granules() const {
    uint64_t sum = 0;
    for (const TodoMap& map : unsure_) sum += map.count();
    return sum;
}

CaptureProducer::Compared CaptureProducer::settle_compare(
    uint64_t generation, DiskIndex disk, ByteRange range,
    const std::function<bool(size_t granule)>& equal) {
    std::lock_guard lock(mutex_);
    Compared result;
    if (generation != compare_generation_) return result;
    TodoMap& unsure = unsure_[disk];
    for (uint64_t at = range.offset_bytes; at < range.end(); at += kTodoGranuleBytes) {
        if (!unsure.test(at)) continue;
        unsure.clear_touched(at, 1);
        const size_t block = (at - range.offset_bytes) / kTodoGranuleBytes;
        if (equal(block) || (options_.bugs.skipped_sum && block == 0)) {
            todo_[disk].clear(at, kTodoGranuleBytes);
            ++result.equal;
        } else {
            ++result.differing;
        }
    }
    header_.word(LogWord::kCopyDoneGranules).fetch_add(result.equal, std::memory_order_relaxed);
    // That there is a difference means that nobody knows since when.
    if (result.differing != 0 && state_.gap == GapState::kNone) {
        state_.gap = GapState::kDropping;
        header_.commit(state_);
        settle_gap_locked();
        publish_locked();
    }
    progress_locked();
    return result;
}

void CaptureProducer::compare_again(const std::vector<std::pair<DiskIndex, ByteRange>>& ranges) {
    std::lock_guard lock(mutex_);
    for (const auto& [disk, range] : ranges) {
        // The copier must not find it on todo alone.
        todo_[disk].set_unsure(nullptr);
        unsure_[disk].set(range.offset_bytes, range.length_bytes);
        todo_[disk].set(range.offset_bytes, range.length_bytes);
        join_unsure(disk);
    }
    note_compare_start_locked();
    ++compare_generation_;
    progress_locked();
}

void CaptureProducer::end_compare() {
    std::lock_guard lock(mutex_);
    for (TodoMap& map : unsure_)
        if (map.count() != 0) map.clear(0, map.disk_bytes());
    ++compare_generation_;
    if (member_todo_granules() != 0 && state_.gap == GapState::kNone) {
        state_.gap = GapState::kDropping;
        header_.commit(state_);
        settle_gap_locked();
        publish_locked();
    }
}

void CaptureProducer::begin_check() {
    std::lock_guard lock(mutex_);
    const bool needless = state_.gap == GapState::kNone && member_todo_granules() == 0 &&
                          std::ranges::none_of(copy_taken_, [](bool taken) { return taken; });
    for (size_t disk = 0; disk < todo_.size(); ++disk) {
        if (joining(static_cast<DiskIndex>(disk))) continue;
        // The copier must not find it on todo alone.
        todo_[disk].set_unsure(nullptr);
        unsure_[disk].set_all();
        todo_[disk].set_all();
        join_unsure(disk);
    }
    begin_compare_locked();
    only_a_check_ = needless;
    progress_locked();
}

bool CaptureProducer::cancel_check() {
    std::lock_guard lock(mutex_);
    auto word = header_.word(LogWord::kCompareState);
    const auto compare = static_cast<CompareState>(word.load());
    if (compare != CompareState::kComparing && compare != CompareState::kVerifying) return true;
    if (!only_a_check_ || state_.gap != GapState::kNone) return false;
    // What was written meanwhile is not unsure any more, and is copied still.
    for (size_t disk = 0; disk < todo_.size(); ++disk) {
        uint64_t at = 0;
        while (const auto run = unsure_[disk].next(at, kMaxDiskBytes)) {
            unsure_[disk].clear(run->offset_bytes, run->length_bytes);
            todo_[disk].clear(run->offset_bytes, run->length_bytes);
            at = behind(*run);
        }
    }
    ++compare_generation_;
    word.store(static_cast<uint64_t>(CompareState::kNone));
    progress_locked();
    return true;
}

void CaptureProducer::ring_agent() {
    auto& bell = header_.futex(LogWord::kAgentDoorbell);
    bell.fetch_add(1);
    if (options_.wake) options_.wake(bell);
}

}  // namespace farshore
