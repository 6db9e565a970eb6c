// Appliances: what they say of themselves, which of them has each item, and how items change from
// one to another. docs/design/appliances.md.
#include <fmt/core.h>

#include <algorithm>
#include <map>

#include "base/party_names.h"
#include "codec/hash.h"
#include "meta/appliances.h"
#include "meta/items.h"
#include "meta/sites.h"
#include "vault/group_desk.h"
#include "vault/vault_impl.h"

namespace farshore {
namespace {

constexpr int64_t kSaveUs = 60'000'000;
// One that was not heard of for so long is away: it takes nothing new.
constexpr int64_t kApplianceAwayUs = 15'000'000;
constexpr int64_t kUnsentUs = 10'000'000;
constexpr int64_t kMovePatienceUs = 60'000'000;

}  // namespace

Status Vault::Impl::load_appliances() {
    FS_ASSIGN(const auto known, list_appliances(*database));
    const std::lock_guard hold(mutex);
    for (const ApplianceRecord& record : known) appliances[record.name].record = record;
    told_appliances.reset();
    return {};
}

Result<ItemAppliance> Vault::Impl::appliance_of(ItemRuntime& item) {
    {
        const std::lock_guard hold(item.mutex);
        if (item.appliance) return *item.appliance;
    }
    FS_ASSIGN(const ItemAppliance there, get_item_appliance(*database, item.id));
    const std::lock_guard hold(item.mutex);
    if (!item.appliance) item.appliance = there;
    return *item.appliance;
}

Status Vault::Impl::let_take(const ItemRecord& record, const std::string& appliance, Vault& vault) {
    FS_ASSIGN(const ItemAppliance before, get_item_appliance(*database, record.id));
    FS_ASSIGN(const bool fresh, take_item(*database, record.id, appliance));
    if (!fresh) return {};
    FS_ASSIGN(const std::shared_ptr<ItemRuntime> item, runtime(record.id));
    {
        const std::lock_guard hold(item->mutex);
        item->appliance.reset();
    }
    if (!before.now.empty())
        vault.event(
            Severity::kInformation, "item-moved", &record,
            fmt::format("appliance '{}' has taken it over from '{}'", appliance, before.now));
    return {};
}

ApplianceAddress Vault::Impl::address_of(const std::string& appliance) {
    if (appliance.empty()) return {};
    const std::lock_guard hold(mutex);
    const auto known = appliances.find(appliance);
    return {appliance, known == appliances.end() ? std::string() : known->second.record.address};
}

std::shared_ptr<const Vault::Impl::ToldAppliances> Vault::Impl::appliances_to_tell() {
    const std::lock_guard hold(mutex);
    if (told_appliances) return told_appliances;
    ToldAppliances told;
    Sha256 sum;
    for (const auto& [name, contact] : appliances) {
        // The vault's own is told to those alone whose items it has.
        if (name == kRecoveryAppliance || contact.record.address.empty() ||
            told.appliances.size() >= kMaxAppliancesTold)
            continue;
        told.appliances.push_back({name, contact.record.address});
        // Neither of them has a line in it.
        sum.update(as_bytes(fmt::format("{}\n{}\n", name, contact.record.address)));
    }
    told.id = to_hex(sum.finish()).substr(0, 32);
    return told_appliances = std::make_shared<const ToldAppliances>(std::move(told));
}

Result<ApplianceOrders> Vault::sync_appliance(const std::string& appliance,
                                              const ApplianceStatus& status) {
    ApplianceOrders orders;
    orders.time_zone = impl_->options.time_zone;
    const int64_t now_us = impl_->clock.steady_us();
    ApplianceRecord record{appliance, status.address, status.site, status.version,
                           impl_->clock.now()};
    bool save = false;
    {
        const std::lock_guard hold(impl_->mutex);
        ApplianceContact& contact = impl_->appliances[appliance];
        const ApplianceRecord& known = contact.record;
        save = known.address != record.address || known.site != record.site ||
               known.version != record.version || contact.saved_us == 0 ||
               now_us - contact.saved_us > kSaveUs;
        if (save) contact.saved_us = now_us;
        if (known.address != record.address) impl_->told_appliances.reset();
        contact.record = record;
        contact.status = status;
        contact.heard_us = now_us;
    }
    if (save) {
        if (const Status kept = appliance_seen(*impl_->database, record); !kept) {
            const std::lock_guard hold(impl_->mutex);
            // Again with the next word, unless it was removed meanwhile.
            if (const auto known = impl_->appliances.find(appliance);
                known != impl_->appliances.end())
                known->second.saved_us = 0;
            return tl::unexpected(kept.error());
        }
    }
    for (const UploadStatus& upload : status.uploads) {
        auto item = remembered_item(*impl_->database, upload.item);
        if (!item && item.error().code() == Code::kItemNotFound) continue;
        if (!item) return tl::unexpected(item.error());
        // One that was set aside has no runtime.
        auto runtime = impl_->runtime(upload.item);
        FS_ASSIGN(const ItemAppliance has, runtime
                                               ? impl_->appliance_of(**runtime)
                                               : get_item_appliance(*impl_->database, upload.item));
        if (!has.now.empty() && has.now != appliance && has.next != appliance) {
            orders.gone.push_back(upload.item);
            continue;
        }
        // One that has an empty spool ready for an item that is still another's says nothing of it.
        if (!has.now.empty() && has.now != appliance) continue;
        FS_ASSIGN(const auto policy, impl_->take_upload(*this, appliance, *item, upload));
        if (policy) orders.items.push_back(*policy);
    }
    orders.points = impl_->groups->offered();
    FS_TRY(impl_->tell_scripts(appliance, status, orders));
    return orders;
}

Result<std::vector<ApplianceReport>> Vault::appliances(const std::string& after, size_t limit) {
    FS_ASSIGN(const auto loads, appliance_loads(*impl_->database));
    const int64_t now_us = impl_->clock.steady_us();
    std::vector<ApplianceReport> out;
    const std::lock_guard hold(impl_->mutex);
    // One that has items and was never heard of is shown, too.
    auto heard = impl_->appliances.upper_bound(after);
    auto loaded = loads.upper_bound(after);
    while (out.size() < limit && (heard != impl_->appliances.end() || loaded != loads.end())) {
        const bool has_contact = heard != impl_->appliances.end() &&
                                 (loaded == loads.end() || heard->first <= loaded->first);
        const bool has_load = loaded != loads.end() &&
                              (heard == impl_->appliances.end() || loaded->first <= heard->first);
        ApplianceReport report;
        if (has_contact) {
            const auto& [name, contact] = *heard++;
            report.record = contact.record;
            report.record.name = name;
            if (const auto known = impl_->component_troubles.find("appliance " + name);
                known != impl_->component_troubles.end())
                report.troubles = known->second;
            if (contact.heard_us) {
                report.connected = now_us - *contact.heard_us < kApplianceAwayUs;
                report.status = contact.status;
            }
        }
        if (has_load) {
            const auto& [name, load] = *loaded++;
            report.record.name = name;
            report.items = load.items;
            report.coming = load.coming;
        }
        out.push_back(std::move(report));
    }
    return out;
}

Status Vault::Impl::check_can_take(const std::string& appliance) {
    const std::lock_guard hold(mutex);
    const auto known = appliances.find(appliance);
    if (known == appliances.end())
        return fail(Code::kNotFound, fmt::format("there is no appliance '{}'", appliance),
                    "`farshore appliances` lists them");
    const ApplianceContact& contact = known->second;
    if (!contact.heard_us || clock.steady_us() - *contact.heard_us > kApplianceAwayUs)
        return fail(Code::kWrongState, fmt::format("appliance '{}' is away", appliance),
                    "start it, or name another one");
    if (contact.record.address.empty())
        return fail(Code::kWrongState,
                    fmt::format("nobody knows where agents reach appliance '{}'", appliance),
                    "give it --advertise HOST:PORT");
    return {};
}

Result<ItemAppliance> Vault::Impl::give_item(Vault& vault, const ItemRecord& record,
                                             const std::string& appliance, bool lost) {
    FS_ASSIGN(const ItemAppliance before, get_item_appliance(*database, record.id));
    // To stay where it is needs nothing of anybody.
    if (before.now != appliance) FS_TRY(check_can_take(appliance));
    FS_ASSIGN(const ItemAppliance after,
              farshore::move_item(*database, record.id, appliance, lost));
    if (auto item = runtime(record.id)) {
        const std::lock_guard hold((*item)->mutex);
        (*item)->appliance = after;
    }
    if (after.next != before.next || after.now != before.now)
        vault.event(
            lost ? Severity::kWarning : Severity::kInformation, "item-moves", &record,
            lost ? fmt::format("it is given to appliance '{}'; '{}' counts as lost", appliance,
                               before.now)
            : before.now.empty() ? fmt::format("it goes to appliance '{}'", appliance)
            : after.next.empty() && before.now == appliance
                ? fmt::format("it stays with appliance '{}'", appliance)
                : fmt::format("it moves from appliance '{}' to '{}'", before.now, appliance));
    notify();
    return after;
}

Result<ItemReport> Vault::move_item(const std::string& name_or_id, const std::string& appliance,
                                    bool lost) {
    FS_ASSIGN(const ItemRecord record, find_item(*impl_->database, name_or_id));
    FS_TRY(check_action(record.state, ItemAction::kReplicate));
    FS_TRY(impl_->give_item(*this, record, appliance, lost));
    return item(record.id.to_string());
}

Result<std::vector<Vault::ApplianceMove>> Vault::evacuate_appliance(const std::string& appliance,
                                                                    const std::string& to,
                                                                    bool lost) {
    FS_ASSIGN(const auto all, appliances());
    const auto own = std::ranges::find(all, appliance,
                                       [](const ApplianceReport& one) { return one.record.name; });
    if (own == all.end())
        return fail(Code::kNotFound, fmt::format("there is no appliance '{}'", appliance),
                    "`farshore appliances` lists them");
    if (to == appliance)
        return fail(Code::kInvalidArgument, "the items are to leave that appliance");
    // How many each has, or will have.
    std::map<std::string, uint64_t> load;
    for (const ApplianceReport& one : all)
        if (one.record.name != appliance &&
            (to.empty() ? one.record.site == own->record.site : one.record.name == to) &&
            impl_->check_can_take(one.record.name))
            load[one.record.name] = one.items + one.coming;
    if (!to.empty()) FS_TRY(impl_->check_can_take(to));
    if (load.empty())
        return fail(Code::kLimitReached,
                    fmt::format("no other appliance of site '{}' is there", own->record.site),
                    "start one with --site, or name one with --to");
    FS_ASSIGN(const auto items, list_item_appliances(*impl_->database));
    std::vector<ApplianceMove> moves;
    for (const auto& [id, has] : items) {
        if (has.now != appliance || (!has.next.empty() && !lost)) continue;
        auto record = get_item(*impl_->database, id);
        if (!record || !check_action(record->state, ItemAction::kReplicate)) continue;
        const auto least =
            std::ranges::min_element(load, {}, [](const auto& one) { return one.second; });
        FS_TRY(impl_->give_item(*this, *record, least->first, lost));
        ++least->second;
        moves.push_back({record->name, appliance, least->first});
    }
    return moves;
}

Result<std::vector<Vault::ApplianceMove>> Vault::balance_appliances(const std::string& site) {
    FS_ASSIGN(const auto all, appliances());
    FS_ASSIGN(const auto items, list_item_appliances(*impl_->database));
    std::vector<ApplianceMove> moves;
    std::set<std::string> sites;
    for (const ApplianceReport& one : all)
        if (site.empty() || one.record.site == site) sites.insert(one.record.site);
    if (sites.empty())
        return fail(Code::kNotFound, fmt::format("site '{}' has no appliance", site),
                    "`farshore appliances` lists them");
    for (const std::string& name : sites) {
        std::map<std::string, std::vector<ItemId>> load;
        for (const ApplianceReport& one : all)
            if (one.record.site == name && impl_->check_can_take(one.record.name))
                load[one.record.name];
        for (const auto& [id, has] : items)
            if (auto there = load.find(has.next.empty() ? has.now : has.next); there != load.end())
                there->second.push_back(id);
        const auto size = [](const auto& one) { return one.second.size(); };
        while (!load.empty()) {
            const auto most = std::ranges::max_element(load, {}, size);
            const auto least = std::ranges::min_element(load, {}, size);
            if (most->second.size() < least->second.size() + 2) break;
            const ItemId id = most->second.back();
            most->second.pop_back();
            auto record = get_item(*impl_->database, id);
            if (!record || !check_action(record->state, ItemAction::kReplicate)) continue;
            FS_TRY(impl_->give_item(*this, *record, least->first, false));
            least->second.push_back(id);
            moves.push_back({record->name, most->first, least->first});
        }
    }
    return moves;
}

Status Vault::check_appliance_script(const std::string& appliance, const std::string& program) {
    const std::lock_guard hold(impl_->mutex);
    const auto known = impl_->appliances.find(appliance);
    if (known == impl_->appliances.end())
        return fail(Code::kNotFound,
                    fmt::format("no appliance is called '{}'", appliance.substr(0, 64)),
                    "`farshore appliances` shows them");
    const ApplianceContact& contact = known->second;
    if (!contact.heard_us || impl_->clock.steady_us() - *contact.heard_us > kApplianceAwayUs)
        return fail(Code::kUnavailable, fmt::format("appliance '{}' is not connected", appliance),
                    "start it, or look at its network");
    const auto& programs = contact.status.programs;
    if (programs.size() < kMaxScriptsTold && std::ranges::find(programs, program) == programs.end())
        return fail(
            Code::kNotFound,
            fmt::format("appliance '{}' has no script '{}' that it may run", appliance, program),
            "put it into the scripts directory of its data directory, and chmod 755 it");
    return {};
}

void Vault::Impl::report_appliance(ItemRuntime& item, const ItemRecord& record,
                                   ItemReport& report) {
    auto has = appliance_of(item);
    if (!has) return;
    report.appliance = *has;
    if (has->now == kRecoveryAppliance) {
        if (auto site = site_of_item(*database, item.id)) report.site = std::move(*site);
    } else if (!has->now.empty()) {
        const std::lock_guard hold(mutex);
        if (const auto known = appliances.find(has->now); known != appliances.end())
            report.site = known->second.record.site;
    }
    if (!is_replicating(record.state)) return;
    const int64_t now_us = clock.steady_us();
    const std::lock_guard hold(item.mutex);
    const std::string& name = has->next.empty() ? has->now : has->next;
    if (item.agent && item.unsent_us && now_us - *item.unsent_us > kUnsentUs)
        report.troubles.push_back(
            {Severity::kWarning, "appliance-unreachable",
             fmt::format("agent '{}' has no connection to appliance '{}': {}", record.agent, name,
                         item.agent->send_trouble),
             "look at the appliance and the line; one that is lost for good is replaced with "
             "`farshore appliance evacuate NAME --lost`"});
    if (!has->next.empty() && clock.now().us - has->since.us > kMovePatienceUs)
        report.troubles.push_back(
            {Severity::kWarning, "move-waits",
             fmt::format("it does not get from appliance '{}' to '{}': what '{}' has received is "
                         "not stored yet, and is not in the source's log any more",
                         has->now, has->next, has->now),
             "wait, or mend that appliance; if it is lost for good, move the item with --lost: "
             "what only it has is copied again"});
}

}  // namespace farshore
