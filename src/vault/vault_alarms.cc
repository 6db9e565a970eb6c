// Alarms of items: raised, told and cleared by the tender, from what health says.
#include <fmt/core.h>

#include "meta/alarms.h"
#include "meta/parties.h"
#include "os/log.h"
#include "vault/alarm_watch.h"
#include "vault/vault_impl.h"

namespace farshore {
namespace {

constexpr size_t kLookedAtEvents = 100;
constexpr size_t kMaxStanding = 1000;  // of one item

std::string lasted(int64_t us) {
    const int64_t s = us / 1'000'000;
    return s < 120       ? fmt::format("{} s", s)
           : s < 7200    ? fmt::format("{} min", s / 60)
           : s < 172'800 ? fmt::format("{} h", s / 3600)
                         : fmt::format("{} days", s / 86'400);
}

}  // namespace

void Vault::Impl::tend_alarms(Vault& vault, const ItemRecord& record) {
    auto item = runtime(record.id);
    if (!item || fenced || record.state == ItemState::kDisabling) return;
    ItemRuntime& here = **item;
    const int64_t now_us = clock.steady_us();
    if (here.alarms != nullptr && now_us - here.alarms_us < kAlarmLookUs) return;
    here.alarms_us = now_us;
    if (here.alarms == nullptr) {
        auto standing = list_alarms(*database, true, 0, kMaxStanding, record.id);
        if (!standing) return;
        here.alarms = std::make_unique<AlarmWatch>(*standing, now_us);
    }
    for (const AlarmChange& change : here.alarms->look(now_us, report(record).troubles))
        if (Status done = change_alarm(vault, *here.alarms, &record, {}, change); !done)
            log::debug("vault", "an alarm of '{}': {}", record.name, done.error().to_string());
}

Status Vault::Impl::change_alarm(Vault& vault, AlarmWatch& alarms, const ItemRecord* record,
                                 const std::string& component, const AlarmChange& change) {
    const Trouble& trouble = change.trouble;
    if (change.kind == AlarmChange::Kind::kClear) {
        FS_ASSIGN(const AlarmRecord alarm, get_alarm(*database, change.id));
        FS_TRY(clear_alarm(*database, change.id));
        alarms.cleared(trouble.code);
        const std::string code =
            alarm.severity == Severity::kCritical ? "critical-alarm-cleared" : "alarm-cleared";
        vault.event(Severity::kInformation, code, record,
                    fmt::format("{} is over after {}: {}", trouble.code,
                                lasted(clock.now().us - alarm.raised.us), trouble.cause),
                    "");
        return {};
    }
    AlarmRecord alarm;
    if (record != nullptr) {
        alarm.item = record->id;
        alarm.item_name = record->name;
    }
    alarm.component = component;
    alarm.code = trouble.code;
    alarm.severity = trouble.severity;
    alarm.cause = trouble.cause;
    alarm.remedy = trouble.remedy;
    FS_ASSIGN(alarm, raise_alarm(*database, alarm));
    alarms.raised(trouble.code, alarm.id, trouble.severity);
    if (record == nullptr) {
        vault.event(trouble.severity, trouble.code, nullptr, trouble.cause, trouble.remedy);
        return {};
    }
    // What has told of itself since it was over last is not told twice.
    FS_ASSIGN(const auto events, list_events(*database, 0, kLookedAtEvents, {.item = record->id}));
    for (const EventRecord& event : events) {
        if (event.code == trouble.code && event.severity >= trouble.severity) return {};
        if (event.code.ends_with("alarm-cleared") && event.cause.starts_with(trouble.code + " "))
            break;
    }
    vault.event(trouble.severity, trouble.code, record, trouble.cause, trouble.remedy);
    return {};
}

}  // namespace farshore
