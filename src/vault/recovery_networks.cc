// Networks and addresses of the machines that the recovery desk starts.
#include <fmt/core.h>

#include "compute/cloud_seed.h"
#include "meta/compute_hosts.h"
#include "meta/item_nics.h"
#include "meta/items.h"
#include "meta/json_fields.h"
#include "os/real.h"
#include "recovery/compute_choice.h"
#include "vault/log_about.h"
#include "vault/recovery_desk.h"

namespace farshore {
namespace {

// So long a guest has from its start on until its agent answers and its addresses are set.
constexpr int64_t kAddressPatienceUs = 600'000'000;

// What cannot be given is refused later on, by name: check_place().
bool is_given(const GuestAddress& address, NetworkKind kind, const std::string& compute) {
    switch (address.by) {
        case AddressBy::kAgent:
            // QEMU's own networks have addresses of their own.
            return kind == NetworkKind::kSegment || kind == NetworkKind::kBridge ||
                   kind == NetworkKind::kLibvirt;
        case AddressBy::kDhcp:
            // Alone on a network of libvirt's nobody gives one, and nobody would see it.
            return compute.empty() || kind != NetworkKind::kIsolated;
        case AddressBy::kCloudInit:
            return true;
    }
    return false;
}

}  // namespace

// A guest may take minutes until its agent answers, and each question to it a second: one thread of
// its own asks, and what is left when it ends is taken up by the next vault.
void RecoveryDesk::tend_addresses() {
    constexpr int64_t kAgainUs = 3'000'000;
    const int64_t now_us = clock_.steady_us();
    std::map<std::string, Addressing> still;
    const std::lock_guard hold(mutex_);
    for (const RecoveryState& state : recoveries_->list()) {
        if (state.address_stage != AddressStage::kWaiting || state.stage != RecoveryStage::kRunning)
            continue;
        const auto known = addressing_.find(state.id);
        Addressing next = known == addressing_.end() ? Addressing{now_us, now_us} : known->second;
        if (!next.busy && now_us >= next.again_us) {
            next.busy = true;
            next.again_us = now_us + kAgainUs;
            const bool is_last = now_us - next.since_us >= kAddressPatienceUs;
            addresser_->post([this, state, is_last] {
                set_addresses(state, is_last);
                const std::lock_guard hold_end(mutex_);
                if (const auto at = addressing_.find(state.id); at != addressing_.end())
                    at->second.busy = false;
            });
        }
        still.emplace(state.id, next);
    }
    addressing_ = std::move(still);
}

void RecoveryDesk::set_addresses(const RecoveryState& state, bool is_last) {
    constexpr int kConnectMs = 1'000, kTimeoutMs = 10'000;
    const auto set = [&]() -> Status {
        FS_ASSIGN(GuestAgent agent, recoveries_->guest_agent(state.id, kConnectMs));
        for (const auto& [nic, address] : state.addresses)
            if (nic < state.machine.nics.size() && address.by == AddressBy::kAgent)
                FS_TRY(set_guest_address(agent, state.machine.nics[nic].mac, address, kTimeoutMs));
        return {};
    };
    const Status done = set();
    // An agent that may run no programs says so for ever.
    if (!done && !is_last && done.error().code() != Code::kUnsupported) return;
    const AddressStage stage = done ? AddressStage::kSet : AddressStage::kFailed;
    if (const Status noted = recoveries_->note_addresses(
            state.id, stage, done ? std::string() : done.error().what());
        !noted) {
        log::warn("vault", about(noted.error()), "addresses of {}: {}", state.id,
                  noted.error().to_string());
        return;
    }
    const auto item = get_item(vault_.database(), state.item);
    const ItemRecord* whose = item ? &*item : nullptr;
    if (done)
        vault_.event(Severity::kInformation, "addresses-set", whose,
                     fmt::format("the guest of {} has its addresses", state.id));
    else
        vault_.event(Severity::kWarning, "addresses-not-set", whose,
                     fmt::format("the guest of {} has not been given its addresses: {}", state.id,
                                 done.error().what()),
                     done.error().remedy());
}

Status RecoveryDesk::plug_in(RecoveryRequest& request, const std::optional<NetworkChoice>& network,
                             const std::optional<NetworkChoice>& usual) {
    const bool real = request.kind == RecoveryKind::kFailover;
    request.networks.clear();
    request.addresses.clear();
    request.network = {real ? NetworkKind::kUser : NetworkKind::kIsolated};
    if (usual) request.network = *usual;
    if (network) request.network = *network;
    FS_ASSIGN(const auto all, nic_settings(vault_.database(), request.item));
    for (uint32_t i = 0; i < request.machine.nics.size(); ++i) {
        const auto at = all.find(i);
        const NicSettings settings = at == all.end() ? NicSettings{} : at->second;
        std::string& mac = request.machine.nics[i].mac;
        mac = recovery_mac(settings, mac, request.id, i);
        const std::optional<NetworkChoice>& own = real ? settings.failover : settings.test;
        request.networks.push_back(network || !own ? request.network : *own);
        if (settings.address &&
            is_given(*settings.address, request.networks.back().kind, request.compute))
            request.addresses.emplace(i, *settings.address);
    }
    return {};
}

Result<std::map<uint32_t, NicSettings>> nic_settings(Database& database, const ItemId& item) {
    FS_ASSIGN(const auto documents, item_nics(database, item));
    std::map<uint32_t, NicSettings> all;
    for (const auto& [nic, document] : documents) {
        FS_ASSIGN(const Json json, parse_json(document, "a network card", kMaxNicSettingsBytes));
        FS_ASSIGN(NicSettings settings, nic_settings_from_json(json));
        all.emplace(nic, std::move(settings));
    }
    return all;
}

Result<MachineDescription> known_machine(const ItemRecord& item) {
    if (item.machine.empty()) return describe_plain_machine(item.name, {});
    return decode_machine(item.machine);
}

Result<std::vector<MachineNic>> nics_of(const ItemRecord& item) {
    FS_ASSIGN(const MachineDescription machine, known_machine(item));
    return machine.nics;
}

Status RecoveryDesk::check_place(const RecoveryRequest& request) {
    std::vector<NetworkChoice> networks;
    for (size_t i = 0; i < request.machine.nics.size(); ++i)
        networks.push_back(i < request.networks.size() ? request.networks[i] : request.network);
    for (const auto& [nic, address] : request.addresses)
        if (address.by == AddressBy::kCloudInit) {
            FS_TRY(seed_disk(request.machine));
            FS_TRY(check_seed_maker());
            break;
        }
    FS_ASSIGN(const auto compute, recoveries_->compute_named(request.compute));
    FS_TRY(compute->check(request.machine, networks));
    return compute->check_addresses(request.machine, networks, request.addresses);
}

Status RecoveryDesk::check_unused(const std::string& host, bool but_for_what_was_left) {
    for (const RecoveryState& state : recoveries_->list())
        if (state.compute == host &&
            !(but_for_what_was_left && state.stage == RecoveryStage::kCleaning))
            return fail(
                Code::kWrongState,
                fmt::format("the {} {} of '{}' is on compute host '{}'",
                            recovery_kind_name(state.kind), state.id, state.item_name, host),
                state.stage == RecoveryStage::kCleaning
                    ? "wait until the host is back; one that is gone for good is removed with "
                      "--force"
                    : "clean it up, move it (`farshore failover move`) or bring it home, before");
    return {};
}

void RecoveryDesk::say_left(const RecoveryState& state) {
    const auto item = get_item(vault_.database(), state.item);
    vault_.event(
        Severity::kWarning, "machine-left-at-host", item ? &*item : nullptr,
        fmt::format("the machine {} was given up while compute host '{}' cannot be reached: "
                    "it has no disks any more, and is removed when the host is back",
                    state.id, state.compute),
        "see that it does not answer on the network: end it at the host, or cut the host "
        "off");
}

// Ends it for good. A host that cannot be reached does not hold up what is done elsewhere: its
// machine has no disks any more, and is taken away when the host is back (Recoveries::tick).
Status RecoveryDesk::give_up(const RecoveryState& state, Recoveries::CleanUp how) {
    const Status ended = recoveries_->clean_up(state.id, how);
    if (ended || state.compute.empty() || ended.error().code() != Code::kUnavailable) return ended;
    const auto now = recoveries_->get(state.id);
    if (!now || now->stage != RecoveryStage::kCleaning) return ended;
    say_left(*now);
    return {};
}

// Of a recovery: empty is this machine.
Result<std::string> RecoveryDesk::place_of(const ItemId& item, const std::string& compute) {
    std::string name = compute;
    if (name.empty()) {
        FS_ASSIGN(const ComputeChoice set, compute_choice(vault_.database(), item));
        name = set.host;
    }
    if (name == kLocalHost) name.clear();
    if (!name.empty()) FS_TRY(get_compute_host(vault_.database(), name));
    return name;
}

}  // namespace farshore
