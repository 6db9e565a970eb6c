// The tap: what stands in a machine's write path. It serves the machine's disks as BlockDevices and
// puts every change into the capture log. docs/design/capture.md.
//
// In path: owns the backing devices, serves reads from them and writes them. Mirror: QEMU has
// written the source already; the devices are the source, for reading. The disks' functions may be
// called from any thread; tick() and copier().step() each from one thread (not necessarily the
// same). Nothing here waits for the agent or a network; in path, the first write to a region waits
// for an fdatasync of the dirty map.
#pragma once

#include <memory>
#include <vector>

#include "block/block_device.h"
#include "block/range_lock.h"
#include "capture/capture_log.h"
#include "capture/copier.h"
#include "capture/dirty_map.h"
#include "capture/write_gate.h"

namespace farshore {

// kBlock: the kernel tells of the writes (ebpf/block_capture.h puts them into the log); the devices
// are the source, for reading, and the tap serves nothing.
enum class TapMode : uint8_t { kInPath = 1, kMirror = 2, kBlock = 3 };

struct TapOptions {
    TapMode mode = TapMode::kInPath;
    LogHeader header;
    std::vector<std::unique_ptr<BlockDevice>> devices;  // by disk index; sizes as in the header
    std::unique_ptr<DirtyMap> dirty;
    File* spill = nullptr;   // borrowed
    Clock* clock = nullptr;  // borrowed
    // Borrowed; draws the keys of comparisons. Null: what is on todo is copied, never compared.
    Random* random = nullptr;
    WakeFunction wake;
    // False: nothing is marked before it is written, so that the cost of marking can be measured.
    // Everything counts as different then, as in mirror mode: a crash of the host compares all.
    bool marks = true;
    PlantedBugs bugs;
    Buggify* buggify = nullptr;  // borrowed; simulation only
    std::function<void(const AppendRequest&, const Appended&)> on_append;  // tests
};

// A disk of the tap. Overlapping changes are serialised in path.
class TapDisk : public BlockDevice {
  public:
    // As write, and on stable storage when it returns.
    virtual Status write_through(uint64_t offset_bytes, ByteView data) = 0;
};

class Tap {
  public:
    // Puts into the log what the last tap had in flight, before anything new is served.
    // kDiskChanged when a device has another size than the log's disk.
    static Result<std::unique_ptr<Tap>> start(TapOptions options);
    ~Tap();

    TapDisk& disk(DiskIndex index);
    size_t disks() const;
    CaptureProducer& producer();
    Copier& copier();
    // For a source whose writes are told behind our back: what has begun is in the log before a
    // point or a time mark is made. Borrowed, outlives the tap's use; before the first tick.
    void set_barrier(CopyBarrier* barrier);

    // Housekeeping: commands, owed GAP, TIME, POINT, the dirty map's rotation. Returns the time
    // until it should be called again, unless the tap's doorbell rings before.
    int64_t tick();
    // Those commands for which writes wait (kHold, kMark, kLetGo); tick() does them, too, but it
    // may be busy with a disk. Any thread.
    void serve_gate();
    // The agent asked for the end.
    bool quit_requested() const;

  private:
    struct Impl;
    explicit Tap(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

// ---- a new log
// -----------------------------------------------------------------------------------

// The first number of a new log, above every one that was ever used; a block from it is reserved
// when it returns. For LogHeader::format.
// `at_least` above 1: the item had records before. When the map does not know which numbers were
// used, the number is one that `now` gives: 2^24 for each second since 1970.
Result<Sequence> first_of_new_log(DirtyMap& dirty, Sequence at_least, TimePoint now = {});
// What may differ goes on the new log's todo maps: what the dirty map says, everything in mirror
// mode.
void fill_new_log(const LogHeader& header, const DirtyMap& dirty, TapMode mode);

// ---- commands, through slots in shared memory
// ----------------------------------------------------

enum class TapCommandKind : uint64_t {
    kPoint = 1,      // append POINT; kPointInGap while a gap is open
    kResyncAll = 2,  // everything is to be made equal again, in a gap
    kGapDirty = 3,   // a gap over everything that is not known to be stored
    kRotate = 4,     // begin a rotation of the dirty map now
    kQuit = 5,
    kCompareAll = 6,     // everything is compared; a gap opens where something differs
    kCancelCompare = 7,  // ends kCompareAll; kWrongState when the item needs the comparison
    // Of points that several machines share (write_gate.h), each with the number of its hold.
    // Writes that come from now on wait; kUnsupported where the tap is in no write's way,
    // kPointInGap.
    kHold = 8,
    kMark = 9,  // append POINT and let the writes go; kTimeout when they went before
    kLetGo = 10,
};

struct TapCommand {
    TapCommandKind kind = TapCommandKind::kPoint;
    PointKind point = PointKind::kBookmark;
    std::string label;  // at most kMaxLabelBytes
    // Of a point, on the steady clock: it is not made later (kTimeout). 0: whenever. Of a hold:
    // when it ends by itself; kMaxHoldUs after its begin at the latest.
    int64_t not_after_us = 0;
    uint64_t hold = 0;  // never 0 where there is one
};

struct TapCommandResult {
    Code code = Code::kInternal;
    bool ok = false;
    Sequence sequence;  // of the POINT, or of the GAP
    TimePoint time;
};

// The agent's side of the slots; any thread of one process. A command stays posted when the tap
// dies: the next tap does it.
class TapCommands {
  public:
    TapCommands(LogHeader header, WakeFunction wake);
    // The slot. kLimitReached when all are taken, kInvalidArgument (label).
    Result<size_t> post(const TapCommand& command);
    // nullopt: not done yet. A result is taken once.
    std::optional<TapCommandResult> take(size_t slot);

  private:
    LogHeader header_;
    WakeFunction wake_;
    std::mutex mutex_;
    std::array<bool, kCommandSlots> ours_{};
};

}  // namespace farshore
