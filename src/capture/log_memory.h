// The shared memory of one replicated item: where things lie in it and how both sides read and
// write it without locks. Layout and rules: docs/format/shared-memory.md.
//
// Two processes map it: the tap (producer) and the agent (consumer). Either may be killed between
// any two instructions and nothing in it is ever "locked": what one side must change atomically and
// is more than a word goes through a CommitCell. The memory itself is borrowed: in production two
// mappings of one file, in tests and in the simulator a plain buffer that outlives both sides.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/types.h"

namespace farshore {

// Changes with every start of the host: memory of another one is from before a crash.
using BootId = Id<struct BootIdTag>;

inline constexpr uint64_t kTodoGranuleBytes = 64u << 10;
inline constexpr uint64_t kMinRingBytes = 256u << 10;
inline constexpr uint64_t kMaxRingBytes = 64ull << 30;
inline constexpr uint64_t kMaxSpillBytes = 64ull << 40;
inline constexpr size_t kInFlightSlots = 256;
inline constexpr size_t kCopySlots = 4;
inline constexpr size_t kCommandSlots = 16;
inline constexpr size_t kRunSlots = 64;
inline constexpr size_t kCompareSlots = 4;
inline constexpr size_t kLogHeaderBytes = 4096;  // enough to read the geometry
inline constexpr size_t kPageBytes = 4096;

// What the memory was made for; never changes during its life.
struct LogGeometry {
    ItemId item;
    BootId boot_id;
    uint64_t ring_bytes = 256ull << 20;  // multiple of kPageBytes
    uint64_t spill_bytes = 0;            // 0: no spill
    std::vector<uint64_t> disk_bytes;    // by disk index; 0: removed
};

// kInvalidArgument, with what is out of range.
Status check_geometry(const LogGeometry& geometry);
// Bytes of everything before the ring; a multiple of kPageBytes.
size_t control_bytes(const LogGeometry& geometry);
// From at least kLogHeaderBytes of memory. kCorrupt, kMalformed, kNewerVersion.
Result<LogGeometry> read_geometry(ByteView header);

// Borrowed memory, 8-byte aligned.
struct LogMemory {
    MutableByteView control;
    MutableByteView ring;
    // The ring's bytes follow themselves in the address space, so that no record wraps.
    bool ring_mapped_twice = false;
};

// A few words that change together. One side writes (it serialises its own threads), any number
// read. A writer killed at any point leaves the old or the new words, never a mixture.
template <size_t kWords>
class CommitCell {
  public:
    static constexpr size_t kSlots = 8;
    static constexpr size_t kBytes = 8 + kSlots * kWords * 8;
    using Words = std::array<uint64_t, kWords>;

    CommitCell() = default;
    explicit CommitCell(uint64_t* at) : at_(at) {}

    void write(const Words& words) {
        const uint64_t next = word(0).load(std::memory_order_relaxed) + 1;
        const size_t base = 1 + (next % kSlots) * kWords;
        // The slot is that of an index 8 commits ago; readers of it notice by the index.
        std::atomic_thread_fence(std::memory_order_release);
        for (size_t i = 0; i < kWords; ++i)
            word(base + i).store(words[i], std::memory_order_relaxed);
        word(0).store(next, std::memory_order_release);
    }
    Words read() const {
        Words words;
        for (;;) {
            const uint64_t index = word(0).load(std::memory_order_acquire);
            const size_t base = 1 + (index % kSlots) * kWords;
            for (size_t i = 0; i < kWords; ++i)
                words[i] = word(base + i).load(std::memory_order_relaxed);
            std::atomic_thread_fence(std::memory_order_acquire);
            // While commit index+8 is being written, the index is index+7.
            if (word(0).load(std::memory_order_relaxed) - index < kSlots - 1) return words;
        }
    }

  private:
    std::atomic_ref<uint64_t> word(size_t i) const { return std::atomic_ref<uint64_t>(at_[i]); }
    uint64_t* at_ = nullptr;
};

enum class GapState : uint64_t {
    kNone = 0,
    kDropping = 1,  // payload is dropped, GAP is owed
    kOpen = 2,      // GAP is in the log, RESYNCED is owed
};

// What the producer changes with every record, together.
struct ProducerState {
    uint64_t ring_head = 0;   // bytes ever written to the ring
    uint64_t spill_head = 0;  // bytes ever written to the spill
    uint64_t last_run = 0;    // runs are numbered from 1; 0: none yet
    uint64_t next_sequence = 1;
    GapState gap = GapState::kDropping;
    uint64_t gap_sequence = 0;  // of the newest GAP record
    int64_t last_time_us = 0;
    uint64_t gaps = 0;  // GAP records ever
    // Up to where the producer's own source was read when the newest record was made, so that a
    // producer that is started again goes on behind it (ebpf/block_capture.h); else 0.
    uint64_t source_position = 0;
};

struct ConsumerState {
    uint64_t first_run = 1;  // the run that the oldest kept record is in (or will be)
    uint64_t ring_tail = 0;
    uint64_t spill_tail = 0;
    uint64_t released = 0;  // sequence
};

struct Run {
    bool in_spill = false;
    uint64_t from = 0;
    uint64_t to = 0;  // of a closed run; the last one ends at its medium's head
};

// Words beside the commit cells, each by itself.
enum class LogWord : size_t {
    // agent -> tap
    kStored,           // sequence
    kPointIntervalUs,  // 0: no periodic points
    kCopyBytesPerS,    // 0: not throttled
    kCopyPaused,
    kRotateUs,       // of the dirty map
    kTapDoorbell,    // futex (low 32 bits)
    kTapWaiting,     // the tap's housekeeping sleeps on the doorbell
    kTapWantsSpace,  // ... and wants to hear of released space
    // tap -> agent
    kAgentDoorbell,  // futex (low 32 bits)
    kAgentWaiting,
    kTapPid,
    kTapStarts,
    kTapHeartbeatUs,  // steady clock of the host
    kTapMode,
    kAppendedRecords,
    kAppendedBytes,
    kGuestBytes,  // payload of writes and extents of zeroes by the guest
    kSpilledBytes,
    kDroppedRecords,
    kSpillErrors,
    kDirtyMapErrors,
    kBackingErrors,
    kTodoGranules,       // still to copy
    kCopyTotalGranules,  // of the copy that runs, for progress
    kCopyDoneGranules,   // of that copy
    kCopiedBytes,        // read or known as hole, ever
    kCopyDiscarded,      // reads thrown away for an overlapping write
    kCopyState,
    kLastPoint,  // sequence
    kCopyErrors,
    kDirtyRegions,
    kSpillErrno,  // of the last write to the spill; 0: it went well
    // The comparison that runs or ran last (comparer.h), in bytes.
    kCompareState,         // CompareState
    kCompareTotalBytes,    // what was to be compared when it began
    kComparedBytes,        // of that
    kDifferingBytes,       // found to differ
    kUnreadableBytes,      // that the replica could not read any more
    kVerifiedBytes,        // of the second look at samples
    kVerifyFailures,       // second looks that found a difference
    kCompareCopiedBefore,  // kCopiedBytes when it began
    kCompareRuns,          // comparisons that came to their end, ever
    kComparedEver,         // bytes read for comparisons, ever
    // Bit by disk index: added while the machine was protected, and not copied yet.
    kJoining,
    // Bit by disk index: the log does not know what has become of it; GEOMETRY is owed.
    kGeometryOwed,
    kHoldCopy,  // agent -> tap: samples are compared first, and nothing is copied
    // Of those samples, when all are compared; 0: not yet.
    kSampledBytes,
    kSampleDifferingBytes,
    // Of the dirty map's file, in units and header pages: damaged in one copy, and in both.
    kDirtyMapMended,
    kDirtyMapLost,
    kDirtyMapSyncs,  // its calls of fdatasync since this tap started
    kCompareHold,    // CompareHold; agent -> tap
    kEnd
};

enum class CompareState : uint64_t {
    kNone = 0,
    kComparing = 1,
    kVerifying = 2,  // everything is equal as far as it was compared; samples are looked at again
    kDone = 3,
};

// Whether a comparison waits. What is known to differ is copied all the same.
enum class CompareHold : uint64_t {
    kNone = 0,
    kWithoutGap = 1,  // one that only checks: the item is protected meanwhile
    kAlways = 2,
};

// A validated view of the memory; cheap to copy.
class LogHeader {
  public:
    LogHeader() = default;
    // Makes the memory an empty log: all of `todo` clear, GAP owed, first sequence to be used next.
    // The memory must be zero. Not visible as a log until it returns.
    static Result<LogHeader> format(LogMemory memory, const LogGeometry& geometry, Sequence first);
    // Makes the memory the log that `old` is, for other disks: each disk's todo map as far as both
    // reach, all else as it is there. Nobody may use `old` meanwhile. Not visible as a log until
    // publish().
    static Result<LogHeader> format_like(LogMemory memory, const LogGeometry& geometry,
                                         const LogHeader& old);
    void publish() const;
    // kCorrupt, kMalformed, kNewerVersion, kTruncated.
    static Result<LogHeader> open(LogMemory memory);

    const LogGeometry& geometry() const { return geometry_; }
    const LogMemory& memory() const { return memory_; }

    std::atomic_ref<uint64_t> word(LogWord which) const;
    std::atomic<uint32_t>& futex(LogWord which) const;

    ProducerState producer() const;
    void commit(const ProducerState& state) const;
    ConsumerState consumer() const;
    void commit(const ConsumerState& state) const;

    Run run(uint64_t number) const;
    void set_run(uint64_t number, const Run& run) const;
    void set_run_end(uint64_t number, uint64_t to) const;

    // Words of slot `index`: the first is the slot's state, 0 when free.
    static constexpr size_t kSlotWords = 8;
    std::atomic_ref<uint64_t> in_flight(size_t index, size_t word) const;
    std::atomic_ref<uint64_t> copy_slot(size_t index, size_t word) const;
    // Command slots are larger: words 0..7 as above, then kMaxLabelBytes of label.
    std::atomic_ref<uint64_t> command(size_t index, size_t word) const;
    MutableByteView command_label(size_t index) const;

    // Compare slots: kCompareSlotWords words, then kMaxCompareBlocks sums. compare_board.h.
    static constexpr size_t kCompareSlotWords = 16;
    std::atomic_ref<uint64_t> compare_slot(size_t index, size_t word) const;
    MutableByteView compare_sums(size_t index) const;

    // Words of a disk's todo map: one bit a granule.
    std::span<uint64_t> todo_words(DiskIndex disk) const;

  private:
    static Result<LogHeader> write_static(LogMemory memory, const LogGeometry& geometry);
    std::atomic_ref<uint64_t> at(size_t offset_bytes) const;

    LogMemory memory_;
    LogGeometry geometry_;
};

// Log bytes that are not released, by producer and consumer state.
struct LogUsage {
    uint64_t ring_bytes = 0;
    uint64_t spill_bytes = 0;
};
LogUsage log_usage(const ProducerState& producer, const ConsumerState& consumer);

}  // namespace farshore
