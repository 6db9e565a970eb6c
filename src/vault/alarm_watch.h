// Which alarms of one item are raised, grow worse and clear, by what is wrong with it from time to
// time. Pure: time and troubles come as arguments. One thread.
//
// A trouble that passes within kAlarmRaiseUs is none; an alarm clears when its trouble has been
// gone for kAlarmClearUs, so one that comes and goes is one alarm.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "meta/alarms.h"
#include "vault/item_drive.h"

namespace farshore {

inline constexpr int64_t kAlarmLookUs = 5'000'000;  // how often an item is looked at
inline constexpr int64_t kAlarmRaiseUs = 5'000'000;
inline constexpr int64_t kAlarmClearUs = 30'000'000;

struct AlarmChange {
    enum class Kind : uint8_t { kRaise, kWorsen, kClear };
    Kind kind = Kind::kRaise;
    Trouble trouble;  // of kClear: the last one
    uint64_t id = 0;  // of the alarm, but for kRaise
};

class AlarmWatch {
  public:
    // Those that stand already, as the database has them.
    AlarmWatch(const std::vector<AlarmRecord>& standing, int64_t now_us);

    // What has to be done, in order of code. Asked for again until it is told of by raised(),
    // cleared(): the database may be full.
    std::vector<AlarmChange> look(int64_t now_us, const std::vector<Trouble>& troubles);
    void raised(const std::string& code, uint64_t id, Severity severity);
    void cleared(const std::string& code);
    // Nothing is raised, and nothing is about to be.
    bool quiet() const { return watched_.empty(); }

  private:
    struct Watched {
        Trouble trouble;
        int64_t first_us = 0, last_us = 0;  // when it was seen
        uint64_t id = 0;                    // 0: not raised
        Severity raised_as = Severity::kInformation;
    };
    std::map<std::string, Watched> watched_;  // by code
};

}  // namespace farshore
