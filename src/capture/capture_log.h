// The log of one machine's writes between tap and agent: ring in shared memory, spill file behind
// it, and past both the gap. docs/design/capture.md says how; docs/format/shared-memory.md and
// spill.md fix the bytes.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "base/buggify.h"
#include "base/seams.h"
#include "capture/log_memory.h"
#include "capture/planted_bugs.h"
#include "capture/todo_map.h"
#include "record/record.h"

namespace farshore {

// Wakes whoever sleeps on the futex word; a system call in production, nothing or a posted task in
// the simulator.
using WakeFunction = std::function<void(std::atomic<uint32_t>& word)>;

struct AppendRequest {
    RecordKind kind = RecordKind::kWrite;
    uint8_t flags = 0;
    DiskIndex disk = 0;
    uint64_t offset_bytes = 0;
    uint32_t length_bytes = 0;
    ByteView payload;
    std::span<const ByteView> more;  // the payload's other pieces, where it lies in several
    uint32_t payload_crc = 0;        // of all; the caller computes it without our lock
    bool guest = false;              // for the counters
    // Becomes ProducerState::source_position together with the record, also when it is dropped.
    std::optional<uint64_t> source_position;
};

struct Appended {
    Sequence sequence;  // 0: dropped and no number was used
    TimePoint time;
    // The log was full: only *where* is remembered (todo bits); GAP follows when there is room.
    bool dropped = false;
};

// The word of an in-flight slot that holds its start, steady microseconds.
inline constexpr size_t kInFlightStartWord = 4;

// A write of the guest that has begun and not ended.
struct InFlight {
    size_t slot = 0;
    DiskIndex disk = 0;
    ByteRange range;
};

// The tap's side; one for a log at a time. Any thread of the tap may call any function: one mutex
// of this process (nothing in the shared memory is ever locked). No function waits for the agent,
// the network or an fsync; a write into the spill goes to the page cache.
class CaptureProducer {
  public:
    struct Options {
        Clock* clock = nullptr;  // borrowed
        File* spill = nullptr;   // borrowed; null: the log has no spill
        WakeFunction wake;
        PlantedBugs bugs;
        Buggify* buggify = nullptr;  // borrowed; simulation only
        // Tests: called in the order of the sequence, under the lock, also for dropped requests.
        std::function<void(const AppendRequest&, const Appended&)> on_append;
    };

    // Takes up where the last tap stopped: its copy slots go back to the todo map at once; what it
    // had in flight stays in its slots until the caller has dealt with it (leftovers()).
    CaptureProducer(LogHeader header, Options options);

    const LogHeader& header() const { return header_; }
    TodoMap& todo(DiskIndex disk) { return todo_[disk]; }
    size_t disks() const { return todo_.size(); }
    const PlantedBugs& bugs() const { return options_.bugs; }
    Buggify* buggify_sites() const { return options_.buggify; }
    // In-flight slots of a tap that died. end() each of them when its range is in the log or on
    // todo.
    const std::vector<InFlight>& leftovers() const { return leftovers_; }

    // Claims an in-flight slot, waiting for one when all are taken.
    size_t begin(DiskIndex disk, uint64_t offset_bytes, uint64_t length_bytes);
    void end(size_t slot);

    Appended append(const AppendRequest& request);
    // What is in flight or may differ is to be copied; outside a gap too.
    void set_todo(DiskIndex disk, uint64_t offset_bytes, uint64_t length_bytes);

    // From here on the log is in a gap: `mark` (called under the lock) sets todo bits, GAP is
    // appended as soon as the log is less than half full. `compare`: all that is on todo then is
    // compared first, see begin_compare().
    void open_gap(const std::function<void()>& mark, bool compare = false);
    // Appends an owed GAP when there is room. True when none is owed afterwards.
    bool settle_gap();
    // Closes an open gap when nothing is left to copy of the disks that do not join. True when
    // RESYNCED was appended.
    bool try_resynced();

    // A disk that was added is no part of the points until it is copied.
    bool joining(DiskIndex disk) const { return (joining_.load() >> disk & 1) != 0; }
    bool any_joining() const { return joining_.load() != 0; }
    // Appends the GEOMETRY that is owed for disks that changed. False: no room yet.
    bool settle_geometry();
    // Disks that are copied have joined: GEOMETRY says so. Nothing that has begun may be missing in
    // the log.
    void try_joined();

    // ---- for the copier (copier.h) ----
    struct CopyClaim {
        size_t slot = 0;
        DiskIndex disk = 0;
        ByteRange range;
    };
    // nullopt: no slot is free, or payload is being dropped.
    std::optional<CopyClaim> claim_copy(DiskIndex disk, ByteRange range);
    // Appends `records` (their extents lie in the claim's range), unless a record for an
    // overlapping range was appended since the claim: then the range is on todo again. False: on
    // todo again.
    bool finish_copy(const CopyClaim& claim, const std::vector<AppendRequest>& records);
    // The range goes back to todo.
    void abandon_copy(const CopyClaim& claim);
    // Whether live writes leave room for copying: ring at most half full and no spill in use.
    bool room_for_copy() const;

    // ---- for the comparison (comparer.h) ----
    // All that is on todo now may be what the replica has already: it is compared first. What is
    // written or marked from here on is copied without a question.
    void begin_compare();
    // Counts the calls of begin_compare() and end_compare(): answers to what was asked before
    // another one say nothing.
    uint64_t compare_generation() const { return compare_generation_.load(); }
    // What the replica has is asked of its state after this or later.
    Sequence compare_after() const;
    // The next run at or after `offset_bytes` that waits for an answer.
    std::optional<ByteRange> unsure(DiskIndex disk, uint64_t offset_bytes,
                                    uint64_t limit_bytes) const;
    uint64_t unsure_granules() const;
    // Whether all that is on this disk's todo is unsure. Costs nothing, and may err towards true
    // while a granule under copy became unsure, until its answer is there.
    bool all_unsure(DiskIndex disk) const;
    // The answer for `range`, by granule. What is still unsure there comes off todo where it is
    // equal, else it is copied, in a gap. Nothing of an earlier generation.
    struct Compared {
        uint64_t equal = 0, differing = 0;  // granules
    };
    Compared settle_compare(uint64_t generation, DiskIndex disk, ByteRange range,
                            const std::function<bool(size_t granule)>& equal);
    // Puts ranges on todo, to be compared (begin_compare()), though nothing is known against them.
    void compare_again(const std::vector<std::pair<DiskIndex, ByteRange>>& ranges);
    // What is unsure is copied.
    void end_compare();
    // Everything is compared, though nothing is known against it; a gap opens at the first
    // difference.
    void begin_check();
    // Ends such a comparison as if it had never begun. False, and it goes on, when the item needs
    // it: a gap is open, something was to be copied when it began, or a tap before this began it.
    bool cancel_check();
    // The agent has something to do.
    void ring_agent();

    ProducerState state() const;
    // The newest number used but for idle marks and flushes: alone, those may wait long until they
    // are stored.
    Sequence last_but_idle() const;
    LogUsage usage() const;
    uint64_t todo_granules() const;
    // Of the disks that do not join.
    uint64_t member_todo_granules() const;
    // Nothing in the range is on todo or being copied: what it holds is in the log, or was dropped
    // by a write that came later and is marked.
    bool copied(DiskIndex disk, ByteRange range) const;
    // No gap is open and nothing is left to copy.
    bool settled() const;
    // Since the last call of append that was not dropped, by the steady clock.
    int64_t last_append_steady_us() const { return last_append_us_.load(); }
    // Frees the spill file's space when nothing is in it. Housekeeping.
    void trim_spill();

  private:
    Appended append_locked(const AppendRequest& request);
    std::optional<bool> place_locked(size_t bytes);  // in spill?; nullopt: no room
    bool open_run_locked(bool in_spill);
    Status store_locked(bool in_spill, const RecordHeader& header, const AppendRequest& request);
    bool write_record_locked(const AppendRequest& request, Sequence sequence);
    bool settle_gap_locked();
    bool settle_geometry_locked();
    bool write_geometry_locked(DiskIndex disk);
    void owe_geometry_locked(uint64_t disks);
    bool being_copied_locked(DiskIndex disk) const;
    void drop_locked(const AppendRequest& request);
    void publish_locked();
    void free_copy_slot_locked(size_t slot);
    void progress_locked();
    bool below_half_locked() const;
    TimePoint stamp_locked();
    void begin_compare_locked();
    void join_unsure(size_t disk);
    void note_compare_start_locked();

    LogHeader header_;
    Options options_;
    std::vector<TodoMap> todo_;
    // Of todo, what waits for an answer. Their words are this process's own, and cost no memory
    // until they are used.
    std::vector<std::unique_ptr<uint64_t[], void (*)(void*)>> unsure_words_;
    std::vector<TodoMap> unsure_;
    std::atomic<uint64_t> compare_generation_{0};
    Sequence compare_after_;
    uint64_t last_but_idle_ = 0;
    bool last_may_be_idle_ = true;
    bool only_a_check_ = false;  // of the comparison that runs: it can be cancelled
    std::vector<InFlight> leftovers_;

    mutable std::mutex mutex_;
    ProducerState state_;     // what is committed, and the next commit while appending
    ConsumerState consumer_;  // last seen; may be behind
    bool in_spill_ = false;   // medium of the last run
    Bytes scratch_;           // a record on its way to the spill
    std::array<bool, kCopySlots> copy_overlapped_{};
    std::array<CopyClaim, kCopySlots> copy_claims_{};
    std::array<bool, kCopySlots> copy_taken_{};
    std::optional<std::pair<AppendRequest, Bytes>> held_back_;  // PlantedBugs::wrong_order
    bool spill_dirty_ = false;
    std::atomic<uint64_t> joining_{0};  // LogWord::kJoining
    uint64_t geometry_owed_ = 0;        // LogWord::kGeometryOwed

    std::atomic<int64_t> last_append_us_{0};
    std::mutex slots_mutex_;
    std::condition_variable slot_freed_;
    std::vector<size_t> free_slots_;
};

struct LogBatch {
    ByteView records;  // encoded, whole
    Sequence first;
    Sequence last;
    TimePoint last_time;
    uint32_t count = 0;
    bool empty() const { return count == 0; }
};

// The agent's side; one for a log at a time, on one thread. What it reads comes from another
// process and is checked: kCorrupt, kSequenceHole; then only a gap helps (discard_all, and the
// command).
class CaptureConsumer {
  public:
    // Starts at the oldest record that is not released. `spill` is borrowed, null when there is
    // none.
    CaptureConsumer(LogHeader header, File* spill, WakeFunction wake);

    // The next whole records, about `max_bytes` at most but at least one; empty when there are
    // none. The view is good until the records are released (ring) or until the next peek (spill),
    // to be safe: until the next call of either.
    Result<LogBatch> peek(size_t max_bytes);
    // Moves the cursor behind what the last peek returned.
    void advance();
    // The cursor goes to the first record at or above `sequence`. kSequenceHole when the log no
    // longer has what it asks for; kInvalidArgument when it lies ahead of the log.
    Status seek(Sequence sequence);
    // Everything up to `sequence` is received (fsynced in the appliance's spool) and its space may
    // be used again. Freed in pieces of at least kReleaseGrainBytes or whole batches.
    void release(Sequence sequence);
    // The same of what is `stored`; of what is only received as much as must be so that the ring
    // holds no more than `keep_bytes`, and the spill nothing: whoever takes over from that
    // appliance can have the rest again.
    void release(Sequence received, Sequence stored, uint64_t keep_bytes);
    // Drops all that is in the log now, unread as well. For a log whose reader needs a gap.
    void discard_all();
    // Everything up to `sequence` is durable in the object store. Never goes back.
    void set_stored(Sequence sequence);

    Sequence released() const { return {state_.released}; }
    // Of what is in the log and was read, how much is not above `sequence`.
    uint64_t bytes_up_to(Sequence sequence) const;
    // The cursor's: the next record has this number, or is a GAP above it.
    Sequence next_expected() const { return expected_; }
    bool at_end() const;
    const LogHeader& header() const { return header_; }

    static constexpr size_t kReleaseGrainBytes = 64u << 10;

  private:
    struct Position {
        uint64_t run = 1;
        uint64_t at = 0;
    };
    struct Boundary {
        Sequence last;
        Position behind;
    };
    // Bounds of the run at the position, by the producer's state; moves to the next run at the end
    // of a closed one. nullopt: nothing there.
    Result<std::optional<Run>> settle(Position& position, const ProducerState& producer) const;
    // Whole records from the position; moves nothing.
    Result<LogBatch> batch_at(const Position& position, const Run& run, size_t max_bytes,
                              Sequence expected, std::vector<Boundary>* boundaries,
                              Sequence stop_before);
    // Where the log begins from then on.
    ConsumerState behind(const Boundary& boundary) const;
    void begin_at(const ConsumerState& state);

    LogHeader header_;
    File* spill_;
    WakeFunction wake_;
    ConsumerState state_;
    Position cursor_;
    Sequence expected_;
    // Of the last peek.
    Position peeked_;
    Sequence peeked_expected_;
    std::vector<Boundary> peeked_boundaries_;
    std::deque<Boundary> boundaries_;  // where release may stop; bounded by the log / its grain
    Bytes buffer_;
};

}  // namespace farshore
