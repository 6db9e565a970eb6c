#include "vault/alarm_watch.h"

#include <algorithm>

namespace farshore {

AlarmWatch::AlarmWatch(const std::vector<AlarmRecord>& standing, int64_t now_us) {
    for (const AlarmRecord& alarm : standing)
        watched_[alarm.code] = {{alarm.severity, alarm.code, alarm.cause, alarm.remedy},
                                now_us,
                                now_us,
                                alarm.id,
                                alarm.severity};
}

std::vector<AlarmChange> AlarmWatch::look(int64_t now_us, const std::vector<Trouble>& troubles) {
    for (const Trouble& trouble : troubles) {
        if (trouble.severity == Severity::kInformation) continue;
        Watched& watched = watched_[trouble.code];
        if (watched.last_us != now_us || watched.trouble.severity < trouble.severity)
            watched.trouble = trouble;  // the worst of those with one code
        if (watched.first_us == 0) watched.first_us = now_us;
        watched.last_us = now_us;
    }
    std::vector<AlarmChange> changes;
    for (auto at = watched_.begin(); at != watched_.end();) {
        Watched& watched = at->second;
        const bool gone = watched.last_us != now_us;
        if (watched.id == 0 && gone) {
            at = watched_.erase(at);
            continue;
        }
        if (watched.id == 0 && now_us - watched.first_us >= kAlarmRaiseUs)
            changes.push_back({AlarmChange::Kind::kRaise, watched.trouble, 0});
        else if (watched.id != 0 && !gone && watched.trouble.severity > watched.raised_as)
            changes.push_back({AlarmChange::Kind::kWorsen, watched.trouble, watched.id});
        else if (watched.id != 0 && now_us - watched.last_us >= kAlarmClearUs)
            changes.push_back({AlarmChange::Kind::kClear, watched.trouble, watched.id});
        ++at;
    }
    return changes;
}

void AlarmWatch::raised(const std::string& code, uint64_t id, Severity severity) {
    Watched& watched = watched_[code];
    watched.id = id;
    watched.raised_as = severity;
}

void AlarmWatch::cleared(const std::string& code) { watched_.erase(code); }

}  // namespace farshore
