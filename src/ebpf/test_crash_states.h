// For tests: what the sectors of some disks may hold after a crash at a moment, by what their
// device was told and did. A sector's content is one number.
//
// While no write to a sector is in flight it holds what the device did last, exactly. From the
// first write that is issued until none is in flight any more, it may hold what it really holds, or
//   - any content that a write in flight has had since its issue,
//   - what a write that has ended left there, unless another one that ended well was issued after
//     that; of one that failed, what the device did of it,
//   - what was there before all of these, as long as none of them has ended well.
// All sectors are asked about the same moment: the whole is then a state that a crash could leave.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "base/types.h"

namespace farshore {

class CrashStates {
  public:
    enum class What : uint8_t { kIssue, kChange, kApply, kEnd, kFail };
    struct Happening {
        uint64_t at = 0;  // grows from one to the next
        What what = What::kIssue;
        DiskIndex disk = 0;
        uint64_t sector = 0;
        uint64_t write = 0;
        uint64_t content = 0;  // of kIssue, kChange, kApply
    };
    struct Place {
        DiskIndex disk = 0;
        uint64_t sector = 0;
    };

    explicit CrashStates(const std::vector<std::vector<uint64_t>>& contents) {
        for (const auto& disk : contents) {
            auto& sectors = disks_.emplace_back(disk.size());
            for (size_t i = 0; i < disk.size(); ++i) sectors[i].actual = disk[i];
        }
    }

    void add(const Happening& happening) { to_come_.push_back(happening); }
    // To the moment; never back. `touched` gets the places of which the answer may have changed.
    void advance(uint64_t moment, std::vector<Place>& touched) {
        while (!to_come_.empty() && to_come_.front().at <= moment) {
            const Happening& h = to_come_.front();
            happen(h);
            touched.push_back({h.disk, h.sector});
            to_come_.pop_front();
        }
    }
    bool legal(const Place& place, uint64_t content) const {
        const Sector& sector = disks_[place.disk][place.sector];
        if (content == sector.actual) return true;
        bool none_ended = !sector.writes.empty();
        for (const Write& write : sector.writes) {
            if (write.ended != 0 && !write.failed) none_ended = false;
            if (superseded(sector, write)) continue;
            for (const uint64_t own : write.contents)
                if (own == content) return true;
        }
        return none_ended && content == sector.before;
    }
    uint64_t actual(const Place& place) const { return disks_[place.disk][place.sector].actual; }

  private:
    struct Write {
        uint64_t number = 0;
        uint64_t issued = 0, ended = 0;  // 0: it has not
        bool failed = false;
        std::vector<uint64_t> contents;
        std::vector<uint64_t> done;  // those of them that the device put there
    };
    struct Sector {
        uint64_t actual = 0, before = 0;
        std::vector<Write> writes;  // since none was in flight
    };

    static bool superseded(const Sector& sector, const Write& write) {
        if (write.ended == 0) return false;
        for (const Write& other : sector.writes)
            if (other.ended != 0 && !other.failed && other.issued > write.ended) return true;
        return false;
    }
    void happen(const Happening& h) {
        Sector& sector = disks_[h.disk][h.sector];
        if (h.what == What::kApply) {
            sector.actual = h.content;
            for (Write& write : sector.writes)
                if (write.number == h.write) write.done.push_back(h.content);
            return;
        }
        if (h.what == What::kIssue) {
            if (sector.writes.empty()) sector.before = sector.actual;
            sector.writes.push_back({h.write, h.at, 0, false, {h.content}, {}});
            return;
        }
        bool in_flight = false;
        for (Write& write : sector.writes) {
            if (write.number == h.write && h.what == What::kChange)
                write.contents.push_back(h.content);
            if (write.number == h.write && h.what != What::kChange) {
                write.ended = h.at;
                write.failed = h.what == What::kFail;
                if (write.failed) write.contents = write.done;
            }
            if (write.ended == 0) in_flight = true;
        }
        if (!in_flight) sector.writes.clear();
    }

    std::vector<std::vector<Sector>> disks_;
    std::deque<Happening> to_come_;
};

}  // namespace farshore
