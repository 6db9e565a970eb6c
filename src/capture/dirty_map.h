// The dirty map: which regions of a machine's disks may differ from what is stored at the recovery
// site, on stable storage, so that a crash of the host (which takes the shared memory) leaves a
// known set. One file an item, for all of its disks, with all of it twice (dirty_map_file.h).
// Reasons: docs/design/capture.md.
//
// It also reserves sequence numbers in blocks, so that numbers after a host crash are above every
// one ever used; and says whether the whole disk counts as different (initial copy not finished,
// or a source whose writes we cannot mark before they happen).
//
// Any thread of the tap may call; mark() waits for an fdatasync the first time that a region is
// written (waiting threads share one), every other call but rotate() and the header's is in memory.
// A map that cannot be written stops being waited for (broken()): the file is removed, so that
// after a host crash everything counts as different.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/seams.h"
#include "capture/dirty_map_file.h"
#include "capture/todo_map.h"

namespace farshore {

inline constexpr uint64_t kSequenceBlock = 1ull << 32;

// What protected disks may become while they are protected: new ones behind the others, 0 bytes for
// one that is gone, more bytes. kDiskChanged, with what is in the way, for all else.
Status check_disk_change(const std::vector<uint64_t>& from, const std::vector<uint64_t>& to);

class DirtyMap {
  public:
    // Keeps a region from being dropped by a rotation until the write's record is in the log.
    // Movable; lives at most as long as the map.
    class Mark {
      public:
        Mark() = default;
        Mark(DirtyMap* map, int parity) : map_(map), parity_(parity) {}
        Mark(Mark&& other) noexcept
            : map_(std::exchange(other.map_, nullptr)), parity_(other.parity_) {}
        Mark& operator=(Mark&& other) noexcept {
            reset();
            map_ = std::exchange(other.map_, nullptr);
            parity_ = other.parity_;
            return *this;
        }
        ~Mark() { reset(); }

      private:
        void reset();
        DirtyMap* map_ = nullptr;
        int parity_ = 0;
    };

    // A new map in which everything counts as different and no number is reserved. Replaces a file
    // that is there.
    static Result<std::unique_ptr<DirtyMap>> create(FileSystem& files, const std::string& path,
                                                    const ItemId& item,
                                                    const std::vector<uint64_t>& disk_bytes);
    // kNotFound; kCorrupt, kMalformed, kNewerVersion (header); kDiskChanged (other disks or sizes).
    // Damage of one copy is mended and costs nothing; what is damaged in both counts as all
    // different. Neither is an error, see damage().
    static Result<std::unique_ptr<DirtyMap>> open(FileSystem& files, const std::string& path,
                                                  const ItemId& item,
                                                  const std::vector<uint64_t>& disk_bytes);

    // open(), or create() when there is none that can be read.
    static Result<std::unique_ptr<DirtyMap>> open_or_create(
        FileSystem& files, const std::string& path, const ItemId& item,
        const std::vector<uint64_t>& disk_bytes);

    // Makes the map that is there one of other disks: its marks and its numbers stay; disks at the
    // end that are new, and what one has gained, are marked; 0 bytes: it was removed. A crash in
    // between leaves the old map. Ok, and nothing done, when there is none that can be read or it
    // is of these disks. kDiskChanged as check_disk_change(). Nobody has the map open.
    static Status reshape(FileSystem& files, const std::string& path, const ItemId& item,
                          const std::vector<uint64_t>& disk_bytes);

    // No number is reserved here, but an earlier map of the item (broken or damaged) had reserved
    // some: nobody knows which.
    bool numbers_lost() const { return numbers_lost_; }

    // The regions are durably marked when it returns.
    Mark mark(DiskIndex disk, uint64_t offset_bytes, uint64_t length_bytes);

    // One step of the rotation, called now and then by one thread. `begin` starts a new one
    // when none runs. `settled`: no gap is open and nothing is on todo; `last`: the newest sequence
    // used, read *after* `settled` was: what a gap dropped has its records behind its own number.
    // `stored`: the newest stored one.
    // `durable`, asked when every write that marked before the rotation is done: whether the
    // backing disks have these writes on stable storage. Without that a host crash takes back what
    // is stored already. An error: a flush has failed, nothing is dropped any more. Null: they
    // have.
    void rotate(bool begin, bool settled, Sequence last, Sequence stored,
                const std::function<Result<bool>()>& durable = {});

    // The same for a copy under way, called instead while not all is settled: forgets region by
    // region what the copy has done, so that a host crash in the middle of it does not begin it
    // again. `copied`: nothing in the range is on todo or being copied now. `last`, called when all
    // of these answers are there, `stored` and `durable` as for rotate().
    void settle_copies(bool begin, const std::function<bool(DiskIndex, ByteRange)>& copied,
                       const std::function<Sequence()>& last, Sequence stored,
                       const std::function<Result<bool>()>& durable = {});
    // The log was dropped up to a gap, and what may differ is on todo: what a rotation under way
    // waits for says nothing any more.
    void log_was_dropped();

    bool all_dirty() const;
    // Durable when it returns.
    Status set_all_dirty();
    uint64_t reserved_until() const;
    // Numbers below `until` may be used when it returns.
    Status reserve(uint64_t until);

    // Ranges that may differ, in order of disk and offset.
    void for_each_dirty(const std::function<void(DiskIndex, ByteRange)>& visit) const;
    uint64_t dirty_regions() const;
    bool broken() const;
    // What open() found.
    const DirtyMapFile::Damage& damage() const { return damage_; }
    // Calls of fdatasync since the map was opened or made.
    uint64_t syncs() const;
    // For tests only, before the first mark (dirty_map_file.h).
    void plant_late_copy() { file_.plant_late_copy(); }

  private:
    struct Disk {
        uint64_t size_bytes = 0;
        uint64_t region_bytes = 0;
        uint64_t units = 0;
        std::vector<uint64_t> current;  // since the last rotation
        std::vector<uint64_t> old;      // of the rotation under way
        // Not known to be stored since the map was opened or everything counted as different.
        std::vector<uint64_t> uncopied;
        std::vector<uint64_t> durable;  // what the file says
        std::vector<uint64_t> copied;   // of `uncopied`, those that wait to be stored
        uint64_t regions() const { return (size_bytes + region_bytes - 1) / region_bytes; }
        uint64_t word(size_t w) const { return current[w] | old[w] | uncopied[w]; }
    };
    enum class Rotation { kIdle, kDraining, kDrained, kAwaitStored };
    enum class CopyRound { kIdle, kAwaitDurable, kAwaitStored };

    DirtyMap(FileSystem& files, const std::string& path, const ItemId& item,
             const std::vector<uint64_t>& disk_bytes);
    void lead_commit(std::unique_lock<std::mutex>& lock);
    void forget(std::unique_lock<std::mutex>& lock);
    bool find_copied(const std::function<bool(DiskIndex, ByteRange)>& copied);
    void drop_copied(std::unique_lock<std::mutex>& lock);
    Status write_header(std::unique_lock<std::mutex>& lock);
    void break_locked();

    FileSystem& files_;
    std::string path_;
    DirtyMapFile file_;  // of whoever has set io_busy_

    mutable std::mutex mutex_;
    mutable std::condition_variable changed_;
    std::vector<Disk> disks_;
    DirtyMapFile::Header header_;
    DirtyMapFile::Damage damage_;
    bool broken_ = false;
    bool numbers_lost_ = false;
    bool disks_unsafe_ = false;  // a flush failed: nobody knows what of the disks is durable
    bool io_busy_ = false;       // somebody writes the file, without the mutex
    std::set<std::pair<DiskIndex, uint64_t>> pending_units_;
    uint64_t requested_ = 0;
    uint64_t committed_ = 0;
    Rotation rotation_ = Rotation::kIdle;
    int parity_ = 0;
    uint64_t in_use_[2] = {0, 0};
    Sequence rotation_sequence_;
    CopyRound copy_round_ = CopyRound::kIdle;
    Sequence copy_sequence_;
};

}  // namespace farshore
