#include "recovery/recovery_state.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "compute/json_read.h"

namespace farshore {

using Json = nlohmann::json;

namespace {

constexpr uint64_t kVersion = 1;
// With files of its own: a Farshore that does not know them would start the machine on overlays
// that are old.
constexpr uint64_t kVersionOfOwnFiles = 2;
constexpr size_t kMaxTextBytes = 4096;
constexpr std::string_view kKindNames[] = {"test", "failover", "export"};
constexpr std::string_view kStageNames[] = {
    "preparing", "starting-disks", "starting-machine", "running",  "stopped", "changing-point",
    "moving",    "arriving",       "failed",           "cleaning", "gone"};
constexpr std::string_view kAddressStageNames[] = {"", "waiting", "set", "failed"};
constexpr std::string_view kOwnStageNames[] = {"copying", "switching", "held", "switched"};
constexpr std::array<std::string_view, 3> kUndecidedNames{"", "commit", "roll-back"};

template <size_t N>
Result<size_t> find_name(const std::string_view (&names)[N], std::string_view name,
                         const char* what) {
    for (size_t i = 0; i < N; ++i)
        if (names[i] == name) return i;
    return fail(Code::kMalformed,
                fmt::format("'{}' is not a {} of recovery", name.substr(0, 64), what));
}

Result<std::string> text_of(const Json& json, const char* key) {
    const Json& value = json_at(json, key);
    if (value.is_null()) return std::string();
    if (!value.is_string())
        return fail(Code::kMalformed, fmt::format("recovery state: {} must be text", key));
    auto text = value.get<std::string>();
    if (text.size() > kMaxTextBytes)
        return fail(Code::kTooLarge, fmt::format("recovery state: {} is too long", key));
    return text;
}

}  // namespace

std::string_view recovery_kind_name(RecoveryKind kind) {
    return kKindNames[static_cast<size_t>(kind)];
}
Result<RecoveryKind> recovery_kind_from_name(std::string_view name) {
    FS_ASSIGN(const size_t at, find_name(kKindNames, name, "kind"));
    return static_cast<RecoveryKind>(at);
}
std::string_view recovery_stage_name(RecoveryStage stage) {
    return kStageNames[static_cast<size_t>(stage)];
}
Result<RecoveryStage> recovery_stage_from_name(std::string_view name) {
    FS_ASSIGN(const size_t at, find_name(kStageNames, name, "stage"));
    return static_cast<RecoveryStage>(at);
}

std::string_view address_stage_name(AddressStage stage) {
    return kAddressStageNames[static_cast<size_t>(stage)];
}

std::string_view undecided_name(Undecided what) {
    return kUndecidedNames.at(static_cast<size_t>(what));
}
Result<Undecided> undecided_from_name(std::string_view name) {
    const auto found = std::ranges::find(kUndecidedNames, name);
    if (found == kUndecidedNames.end())
        return fail(Code::kInvalidArgument,
                    fmt::format("'{}' is nothing that becomes of a failover", name.substr(0, 64)),
                    "commit or roll-back, or leave it out");
    return static_cast<Undecided>(found - kUndecidedNames.begin());
}

bool is_own(const RecoveryState& state, DiskIndex disk) {
    const auto at = state.own.find(disk);
    return at != state.own.end() && at->second.stage >= OwnStage::kHeld;
}

bool stands_alone(const RecoveryState& state) {
    return !state.machine.disks.empty() &&
           std::ranges::all_of(state.machine.disks, [&](const MachineDisk& disk) {
               const auto at = state.own.find(disk.index);
               return at != state.own.end() && at->second.stage == OwnStage::kSwitched;
           });
}

const NetworkChoice& network_of(const RecoveryState& state, size_t nic) {
    return nic < state.networks.size() ? state.networks[nic] : state.network;
}

std::string encode_recovery_state(const RecoveryState& state) {
    Json networks = Json::array();
    for (const NetworkChoice& network : state.networks) networks.push_back(network_word(network));
    Json json = {{"version", state.own.empty() ? kVersion : kVersionOfOwnFiles},
                 {"id", state.id},
                 {"kind", recovery_kind_name(state.kind)},
                 {"stage", recovery_stage_name(state.stage)},
                 {"committed", state.committed},
                 {"hydrated", state.hydrated},
                 {"captured", state.captured},
                 {"item", state.item.to_string()},
                 {"item_name", state.item_name},
                 {"compute", state.compute},
                 {"compute_where", state.compute_where},
                 {"tried", state.tried},
                 {"copy", state.copy},
                 {"note", state.note},
                 {"undecided", undecided_name(state.undecided)},
                 {"decide_at_us", state.decide_at.us},
                 {"sequence", state.sequence.v},
                 {"point_time_us", state.point_time.us},
                 {"lease", state.lease},
                 {"old_lease", state.old_lease},
                 {"machine", Json::parse(encode_machine(state.machine), nullptr, false)},
                 {"network", network_word(state.network)},
                 {"networks", std::move(networks)},
                 {"export_disk", state.export_disk},
                 {"export_socket", state.export_socket},
                 {"accelerator", accelerator_name(state.accelerator)},
                 {"on_trial", state.on_trial},
                 {"accelerator_words", state.accelerator_words},
                 {"requested_us", state.timings.requested.us},
                 {"disks_ready_ms", state.timings.disks_ready_ms},
                 {"machine_started_ms", state.timings.machine_started_ms},
                 {"first_read_ms", state.timings.first_read_ms},
                 {"disk_server_restarts", state.disk_server_restarts},
                 {"boot", state.boot}};
    if (!state.addresses.empty()) {
        Json addresses = Json::array();
        for (const auto& [nic, address] : state.addresses)
            addresses.push_back({{"nic", nic},
                                 {"address", address.address},
                                 {"gateway", address.gateway},
                                 {"dns", address.name_servers},
                                 {"by", address_by_name(address.by)}});
        json["addresses"] = std::move(addresses);
        json["address_stage"] = address_stage_name(state.address_stage);
        json["address_words"] = state.address_words;
    }
    if (!state.own.empty()) {
        Json disks = Json::array();
        for (const auto& [index, disk] : state.own)
            disks.push_back({{"disk", index},
                             {"path", disk.path},
                             {"stage", kOwnStageNames[static_cast<size_t>(disk.stage)]}});
        json["own"] = {{"directory", state.own_directory},
                       {"format", std::string(disk_format_name(state.own_format))},
                       {"disks", std::move(disks)}};
    }
    if (state.own_files != 0) json["own_files"] = state.own_files;
    if (state.let_go) json["let_go"] = true;
    if (!state.moved_to.empty()) json["moved_to"] = state.moved_to;
    if (!state.moved_from.empty()) json["moved_from"] = state.moved_from;
    if (state.error)
        json["error"] = {{"code", code_name(state.error->code)},
                         {"what", state.error->what},
                         {"remedy", state.error->remedy}};
    return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

// Written since cards are given addresses.
static Status read_addresses(const Json& json, RecoveryState& state) {
    const Json& addresses = json_at(json, "addresses");
    if (!addresses.is_array() || addresses.empty()) return {};
    if (addresses.size() > kMaxMachineNics)
        return fail(Code::kTooLarge, "recovery state: addresses is too long");
    for (const Json& one : addresses) {
        GuestAddress address{json_text(one, "address"), json_text(one, "gateway"), {}};
        if (const Json& servers = json_at(one, "dns"); servers.is_array())
            for (const Json& server : servers)
                if (server.is_string()) address.name_servers.push_back(server.get<std::string>());
        // Written since others than the agent give them.
        if (const std::string by = json_text(one, "by"); !by.empty()) {
            auto known = address_by_from_name(by);
            if (!known) return fail(Code::kMalformed, "recovery state: " + known.error().what());
            address.by = *known;
        }
        FS_TRY(check_guest_address(address));
        const uint64_t nic = json_u64(one, "nic");
        if (nic >= kMaxMachineNics)
            return fail(Code::kMalformed, "recovery state: addresses.nic is too large");
        state.addresses.emplace(static_cast<uint32_t>(nic), std::move(address));
    }
    FS_ASSIGN(const size_t stage,
              find_name(kAddressStageNames, json_text(json, "address_stage"), "stage"));
    state.address_stage = static_cast<AddressStage>(stage);
    FS_ASSIGN(state.address_words, text_of(json, "address_words"));
    return {};
}

static Status read_own(const Json& json, RecoveryState& state) {
    state.own_files =
        static_cast<uint32_t>(std::min<uint64_t>(json_u64(json, "own_files"), UINT32_MAX));
    state.let_go = json_bool(json, "let_go");
    const Json& own = json_at(json, "own");
    if (!own.is_object()) return {};
    FS_ASSIGN(state.own_directory, text_of(own, "directory"));
    auto format = disk_format_from_name(json_text(own, "format"));
    if (!format) return fail(Code::kMalformed, "recovery state: " + format.error().what());
    state.own_format = *format;
    const Json& disks = json_at(own, "disks");
    if (!disks.is_array() || disks.size() > kMaxMachineDisks)
        return fail(Code::kMalformed, "recovery state: own.disks is no list of disks");
    for (const Json& one : disks) {
        const uint64_t index = json_u64(one, "disk");
        if (index >= kMaxMachineDisks)
            return fail(Code::kMalformed, "recovery state: own.disks.disk is too large");
        FS_ASSIGN(const size_t stage, find_name(kOwnStageNames, json_text(one, "stage"), "stage"));
        OwnDisk disk{static_cast<OwnStage>(stage), {}};
        FS_ASSIGN(disk.path, text_of(one, "path"));
        if (!disk.path.starts_with('/'))
            return fail(Code::kMalformed, "recovery state: own.disks.path is not absolute");
        state.own.emplace(static_cast<DiskIndex>(index), std::move(disk));
    }
    return {};
}

Result<RecoveryState> decode_recovery_state(std::string_view text) {
    if (text.size() > kMaxRecoveryStateBytes)
        return fail(Code::kTooLarge, fmt::format("a recovery state of {} bytes", text.size()));
    const Json json = Json::parse(text, nullptr, false);
    if (!json.is_object()) return fail(Code::kMalformed, "the recovery state is not a JSON object");
    if (const uint64_t version = json_u64(json, "version");
        version < kVersion || version > kVersionOfOwnFiles)
        return fail(version > kVersionOfOwnFiles ? Code::kNewerVersion : Code::kMalformed,
                    fmt::format("recovery state of version {}, this Farshore knows {} to {}",
                                version, kVersion, kVersionOfOwnFiles));
    RecoveryState state;
    FS_ASSIGN(state.id, text_of(json, "id"));
    FS_ASSIGN(state.kind, recovery_kind_from_name(json_text(json, "kind")));
    FS_ASSIGN(state.stage, recovery_stage_from_name(json_text(json, "stage")));
    state.committed = json_bool(json, "committed");
    state.hydrated = json_bool(json, "hydrated");  // written since there is hydration
    state.captured = json_bool(json, "captured");  // written since a way home was known
    FS_ASSIGN(state.item, ItemId::parse(json_text(json, "item")));
    FS_ASSIGN(state.item_name, text_of(json, "item_name"));
    FS_ASSIGN(state.compute, text_of(json, "compute"));  // written since there are such hosts
    FS_ASSIGN(state.compute_where, text_of(json, "compute_where"));
    state.tried = json_bool(json, "tried");
    FS_ASSIGN(state.moved_to, text_of(json, "moved_to"));  // written since machines are moved
    FS_ASSIGN(state.moved_from, text_of(json, "moved_from"));
    state.copy = json_text(json, "copy");  // written since there are copies
    FS_ASSIGN(state.note, text_of(json, "note"));
    FS_ASSIGN(state.undecided, undecided_from_name(json_text(json, "undecided")));
    state.decide_at = {json_i64(json, "decide_at_us")};
    state.sequence = {json_u64(json, "sequence")};
    state.point_time = {json_i64(json, "point_time_us")};
    state.lease = json_u64(json, "lease");
    state.old_lease = json_u64(json, "old_lease");
    FS_ASSIGN(state.machine,
              decode_machine(
                  json_at(json, "machine").dump(-1, ' ', false, Json::error_handler_t::replace)));
    FS_ASSIGN(state.network, network_from_word(json_text(json, "network")));
    // Written since cards have networks of their own.
    if (const Json& networks = json_at(json, "networks"); networks.is_array()) {
        if (networks.size() > kMaxMachineNics)
            return fail(Code::kTooLarge, "recovery state: networks is too long");
        for (const Json& word : networks) {
            if (!word.is_string())
                return fail(Code::kMalformed, "recovery state: networks must be texts");
            FS_ASSIGN(NetworkChoice network, network_from_word(word.get<std::string>()));
            state.networks.push_back(std::move(network));
        }
    }
    FS_TRY(read_addresses(json, state));
    FS_TRY(read_own(json, state));
    const uint64_t disk = json_u64(json, "export_disk");
    if (disk >= kMaxMachineDisks)
        return fail(Code::kMalformed, "recovery state: export_disk is too large");
    state.export_disk = static_cast<DiskIndex>(disk);
    FS_ASSIGN(state.export_socket, text_of(json, "export_socket"));
    auto accelerator = accelerator_from_name(json_text(json, "accelerator"));
    if (!accelerator) return fail(Code::kMalformed, accelerator.error().what());
    state.accelerator = *accelerator;
    state.on_trial = json_bool(json, "on_trial");
    FS_ASSIGN(state.accelerator_words, text_of(json, "accelerator_words"));
    state.timings.requested = {json_i64(json, "requested_us")};
    state.timings.disks_ready_ms = json_i64(json, "disks_ready_ms", -1);
    state.timings.machine_started_ms = json_i64(json, "machine_started_ms", -1);
    state.timings.first_read_ms = json_i64(json, "first_read_ms", -1);
    state.disk_server_restarts = static_cast<uint32_t>(
        std::min<uint64_t>(json_u64(json, "disk_server_restarts"), UINT32_MAX));
    FS_ASSIGN(state.boot, text_of(json, "boot"));
    if (const Json& error = json_at(json, "error"); error.is_object()) {
        state.error.emplace();
        state.error->code = code_from_name(json_text(error, "code"));
        FS_ASSIGN(state.error->what, text_of(error, "what"));
        FS_ASSIGN(state.error->remedy, text_of(error, "remedy"));
    }
    return state;
}

}  // namespace farshore
