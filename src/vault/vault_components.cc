// The health of components: what each says of itself, as troubles and alarms.
#include <fmt/core.h>

#include "meta/alarms.h"
#include "meta/groups.h"
#include "meta/parties.h"
#include "os/log.h"
#include "vault/group_desk.h"
#include "vault/second_stores.h"
#include "vault/vault_impl.h"

namespace farshore {
namespace {
constexpr const char* kLimitsSetting = "health_limits";
}  // namespace

Result<HealthLimits> Vault::health_limits() {
    FS_ASSIGN(const std::string text, get_setting(*impl_->database, kLimitsSetting));
    if (text.empty()) return HealthLimits();
    return decode_limits(text);
}

Status Vault::set_health_limits(const HealthLimits& limits) {
    FS_TRY(check_limits(limits));
    return set_setting(*impl_->database, kLimitsSetting, encode_limits(limits));
}

std::vector<ComponentReading> Vault::Impl::read_components() {
    std::vector<ComponentReading> readings;
    const int64_t now_us = clock.steady_us();
    {
        const std::lock_guard hold(mutex);
        for (const auto& [name, contact] : appliances) {
            ComponentReading reading;
            reading.name = "appliance " + name;
            reading.silent_us = now_us - contact.heard_us.value_or(started_us);
            if (contact.heard_us) {
                const ApplianceStatus& status = contact.status;
                reading.load = status.load;
                reading.spool_free_permille = status.spool_free_permille;
                reading.certificate_until = status.certificate_until;
                for (const UploadStatus& upload : status.uploads)
                    reading.upload_eta_s = std::max(reading.upload_eta_s, upload.eta_s);
            }
            readings.push_back(std::move(reading));
        }
        for (const auto& [name, contact] : contacts) {
            // Whether it is silent, its items say.
            if (now_us - contact.heard_us > kAgentLostUs) continue;
            ComponentReading reading;
            reading.name = "agent " + name;
            reading.load = contact.load;
            readings.push_back(std::move(reading));
        }
    }
    ComponentReading own;
    own.name = "vault";
    own.load = load.look();
    if (const auto trouble = database->trouble()) own.trouble = trouble_of(*trouble, "database");
    readings.push_back(std::move(own));
    const auto store_reading = [&](const std::string& name, const StoreCounts& counts) {
        ComponentReading reading;
        reading.name = "store " + name;
        uint64_t requests = 0;
        for (const uint64_t count : counts.requests) requests += count;
        reading.trouble = components[reading.name].store.look(now_us, requests, counts.failed);
        return reading;
    };
    readings.push_back(store_reading("primary", bare_store->counts()));
    for (const auto& second : all_second_stores()) {
        ComponentReading reading = second->bare != nullptr
                                       ? store_reading(second->name, second->bare->counts())
                                       : ComponentReading{};
        reading.name = "store " + second->name;
        const std::lock_guard hold(second->mutex);
        if (second->error) reading.trouble = trouble_of(*second->error, reading.name);
        readings.push_back(std::move(reading));
    }
    if (auto known = list_groups(*database, {}, kMaxGroups))
        for (const GroupRecord& group : *known) {
            ComponentReading reading;
            reading.name = "group " + group.name;
            if (auto trouble = groups->trouble(group); trouble && *trouble)
                reading.trouble = Trouble{
                    Severity::kWarning, "shared-points-failing",
                    fmt::format("its newest shared point was not made: {}", (*trouble)->what),
                    (*trouble)->remedy};
            readings.push_back(std::move(reading));
        }
    for (ComponentReading& reading : readings) reading.now = clock.now();
    return readings;
}

void Vault::Impl::tend_components(Vault& vault) {
    const int64_t now_us = clock.steady_us();
    if (fenced || (components_us != 0 && now_us - components_us < kAlarmLookUs)) return;
    components_us = now_us;
    auto limits = vault.health_limits();
    if (!limits) {
        log::warn("vault", "the limits of health are those of the field: {}",
                  limits.error().to_string());
        limits = HealthLimits();
    }
    std::set<std::string> seen;
    for (const ComponentReading& reading : read_components()) {
        seen.insert(reading.name);
        ComponentRuntime& component = components[reading.name];
        const std::vector<Trouble> troubles = component.watch.look(now_us, reading, *limits);
        watch_component(vault, reading.name, component, troubles);
        const std::lock_guard hold(mutex);
        component_troubles[reading.name] = troubles;
    }
    // Those that are gone trouble nobody.
    for (auto at = components.begin(); at != components.end();) {
        if (seen.contains(at->first)) {
            ++at;
            continue;
        }
        watch_component(vault, at->first, at->second, {});
        const bool over = at->second.alarms == nullptr || at->second.alarms->quiet();
        const std::lock_guard hold(mutex);
        component_troubles.erase(at->first);
        at = over ? components.erase(at) : std::next(at);
    }
}

void Vault::Impl::watch_component(Vault& vault, const std::string& name,
                                  ComponentRuntime& component,
                                  const std::vector<Trouble>& troubles) {
    const int64_t now_us = clock.steady_us();
    if (component.alarms == nullptr) {
        auto standing = list_component_alarms(*database, name);
        if (!standing) return;
        component.alarms = std::make_unique<AlarmWatch>(*standing, now_us);
    }
    for (const AlarmChange& change : component.alarms->look(now_us, troubles))
        if (Status done = change_alarm(vault, *component.alarms, nullptr, name, change); !done)
            log::debug("vault", "an alarm of {}: {}", name, done.error().to_string());
}

}  // namespace farshore
