// What the simulated machine's disks were after every sequence: the truth that a replica is held
// against. Filled from the producer's on_append hook, so in the order of the sequence. One thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "capture/capture_log.h"

namespace farshore::system_sim {

class SystemModel {
  public:
    using Disks = std::vector<Bytes>;

    // A new log begins at `first` (the host has started): what the disks are now is what holds.
    void begin_log(uint64_t first, Disks disks);
    // A change by the guest or a copy, dropped ones too. A copy may not change what the disks were,
    // save where a write of the guest is in doubt; `broken` says so then.
    void note(const AppendRequest& request, const Appended& result, std::string& broken);

    // The guest has begun to change the range; until it is answered, it may be there or not.
    uint64_t begin_change(DiskIndex disk, uint64_t offset_bytes, uint64_t length_bytes);
    void end_change(uint64_t change);

    bool knows(uint64_t sequence) const;
    // Calls back with the disks as of each sequence; `sequences` in rising order.
    void replay(const std::vector<uint64_t>& sequences,
                const std::function<void(uint64_t sequence, const Disks&)>& visit) const;
    // A dropped change in [first, last], or 0.
    uint64_t dropped_within(uint64_t first, uint64_t last) const;
    const Disks& latest() const { return latest_; }
    uint64_t last_change() const { return last_change_; }

  private:
    struct Change {
        uint64_t sequence;
        DiskIndex disk;
        uint64_t offset, length;
        Bytes bytes;  // empty: zeroes
    };
    struct Log {
        uint64_t first;
        Disks base;
        std::vector<Change> changes;
    };
    struct Doubt {
        uint64_t id;
        DiskIndex disk;
        uint64_t offset, end;
    };
    static void apply(Disks& disks, const Change& change);
    bool in_doubt(DiskIndex disk, uint64_t at) const;

    std::vector<Log> logs_;
    Disks latest_;
    uint64_t last_change_ = 0;
    std::vector<uint64_t> dropped_;
    std::vector<Doubt> doubts_;
    uint64_t next_doubt_ = 1;
};

}  // namespace farshore::system_sim
