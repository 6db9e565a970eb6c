#include "meta/agent_documents.h"

#include <array>

#include "meta/json_fields.h"

namespace farshore {
namespace {

constexpr size_t kShortText = 256;
constexpr size_t kLongText = 4096;

constexpr std::array<std::string_view, 8> kItemStates{
    "starting", "copying", "live", "gap", "error", "removed", "standing-by", "returning"};
constexpr std::array<std::string_view, 4> kDesires{"protect", "remove", "stand-by", "return"};

Result<ItemId> read_item_id(const JsonFields& fields) {
    FS_ASSIGN(std::string text, fields.required_text("item_id", 32));
    return ItemId::parse(text);
}

Result<DiskIndex> read_disk_index(const JsonFields& fields) {
    FS_ASSIGN(uint64_t index, fields.u64("index", 0, kMaxDisks - 1));
    return static_cast<DiskIndex>(index);
}

Result<DesiredDisk> read_desired_disk(const Json& json, const std::string& path) {
    FS_ASSIGN(JsonFields fields, JsonFields::of(json, path));
    DesiredDisk disk;
    FS_ASSIGN(disk.index, read_disk_index(fields));
    FS_ASSIGN(disk.path, fields.text("path", kMaxPathBytes));
    FS_ASSIGN(disk.size_bytes, fields.u64("size_bytes", 0, kMaxDiskBytes));
    FS_ASSIGN(disk.removed, fields.boolean("removed", false));
    FS_ASSIGN(disk.joining, fields.boolean("joining", false));
    return disk;
}

Result<BookmarkRequest> read_bookmark_request(const Json& json, const std::string& path) {
    FS_ASSIGN(JsonFields fields, JsonFields::of(json, path));
    BookmarkRequest request;
    FS_ASSIGN(request.request_id, fields.required_text("request_id", kShortText));
    FS_ASSIGN(request.label, fields.text("label", kMaxLabelBytes));
    FS_ASSIGN(std::string kind, fields.text("kind", kShortText, "bookmark"));
    FS_ASSIGN(request.kind, point_kind_from_name(kind));
    return request;
}

Result<ApplianceAddress> read_appliance(const Json& json, std::string path) {
    FS_ASSIGN(JsonFields fields, JsonFields::of(json, std::move(path)));
    ApplianceAddress appliance;
    FS_ASSIGN(appliance.name, fields.required_text("name", kShortText));
    FS_ASSIGN(appliance.address, fields.text("address", kShortText));
    return appliance;
}

Json appliance_json(const ApplianceAddress& appliance) {
    return {{"name", appliance.name}, {"address", appliance.address}};
}

constexpr std::array<std::string_view, 3> kResyncHolds = {"none", "without-gap", "always"};

Result<ReturnOrder> read_return_order(const Json& json, std::string path) {
    FS_ASSIGN(const JsonFields fields, JsonFields::of(json, std::move(path)));
    ReturnOrder order;
    FS_ASSIGN(order.id, fields.required_text("id", kShortText));
    FS_ASSIGN(order.to.v, fields.u64("to"));
    FS_ASSIGN(order.original, fields.boolean("original", true));
    FS_ASSIGN(order.accept, fields.boolean("accept"));
    return order;
}

Result<DesiredItem> read_desired_item(const Json& json, const std::string& path) {
    FS_ASSIGN(JsonFields fields, JsonFields::of(json, path));
    DesiredItem item;
    FS_ASSIGN(item.item, read_item_id(fields));
    FS_ASSIGN(item.name, fields.text("name", kMaxItemNameBytes));
    FS_ASSIGN(std::string mode, fields.required_text("mode", kShortText));
    FS_ASSIGN(item.mode, capture_mode_from_name(mode));
    FS_ASSIGN(item.qmp_socket, fields.text("qmp_socket", kMaxPathBytes));
    FS_ASSIGN(std::string desired, fields.text("desired", kShortText, "protect"));
    const auto wish = std::ranges::find(kDesires, desired);
    if (wish == kDesires.end()) return fields.wrong("desired", "is not known");
    item.desired = static_cast<Desired>(wish - kDesires.begin());
    FS_ASSIGN(item.power_off, fields.boolean("power_off"));
    FS_ASSIGN(item.all_stored, fields.boolean("all_stored"));
    if (const Json* way_home = fields.find("return")) {
        FS_ASSIGN(item.way_home, read_return_order(*way_home, path + ".return"));
    }
    FS_ASSIGN(uint64_t interval, fields.u64("crash_point_interval_s", 300, 86'400));
    item.crash_point_interval_s = static_cast<uint32_t>(interval);
    FS_ASSIGN(item.copy_throttle_bytes_per_s, fields.u64("copy_throttle_bytes_per_s"));
    FS_ASSIGN(item.resync_request_id, fields.text("resync_request_id", kShortText));
    FS_ASSIGN(item.await_seed, fields.boolean("await_seed"));
    FS_ASSIGN(item.hold_copy, fields.boolean("hold_copy"));
    FS_ASSIGN(const uint64_t newest, fields.u64("newest_first_after_s", 0, 604'800));
    item.newest_first_after_s = static_cast<uint32_t>(newest);
    FS_ASSIGN(item.resync_cancel_id, fields.text("resync_cancel_id", kShortText));
    FS_ASSIGN(const std::string hold, fields.text("resync_hold", kShortText, "none"));
    const auto known = std::ranges::find(kResyncHolds, hold);
    if (known == kResyncHolds.end()) return fields.wrong("resync_hold", "is not known");
    item.resync_hold = static_cast<ResyncHold>(known - kResyncHolds.begin());
    FS_ASSIGN(item.stored.v, fields.u64("stored_sequence"));
    FS_ASSIGN(const Json* disks, fields.array("disks", kMaxDisks));
    for (size_t i = 0; disks != nullptr && i < disks->size(); ++i) {
        FS_ASSIGN(DesiredDisk disk,
                  read_desired_disk((*disks)[i], fmt::format("{}.disks[{}]", path, i)));
        item.disks.push_back(std::move(disk));
    }
    FS_ASSIGN(const Json* bookmarks, fields.array("bookmarks", kMaxPendingBookmarks));
    for (size_t i = 0; bookmarks != nullptr && i < bookmarks->size(); ++i) {
        FS_ASSIGN(BookmarkRequest bookmark,
                  read_bookmark_request((*bookmarks)[i], fmt::format("{}.bookmarks[{}]", path, i)));
        item.bookmarks.push_back(std::move(bookmark));
    }
    if (const Json* appliance = fields.find("appliance")) {
        FS_ASSIGN(item.appliance, read_appliance(*appliance, path + ".appliance"));
    }
    if (const Json* next = fields.find("next_appliance")) {
        FS_ASSIGN(item.next_appliance, read_appliance(*next, path + ".next_appliance"));
    }
    return item;
}

Result<AgentItemState> item_state_from_name(const JsonFields& fields, std::string_view name) {
    for (size_t i = 0; i < kItemStates.size(); ++i)
        if (kItemStates[i] == name) return static_cast<AgentItemState>(i);
    return fields.wrong("state", fmt::format("'{}' is not known to this version", name));
}

Result<AgentItemError> read_item_error(const Json& json, const std::string& path) {
    FS_ASSIGN(JsonFields fields, JsonFields::of(json, path));
    AgentItemError error;
    FS_ASSIGN(std::string code, fields.text("code", kShortText, "internal"));
    error.code = code_from_name(code);
    FS_ASSIGN(error.what, fields.text("what", kLongText));
    FS_ASSIGN(error.remedy, fields.text("remedy", kLongText));
    return error;
}

Json item_error_json(const AgentItemError& error) {
    return {{"code", std::string(code_name(error.code))},
            {"what", error.what},
            {"remedy", error.remedy}};
}

Result<AgentDisk> read_agent_disk(const Json& json, const std::string& path) {
    FS_ASSIGN(JsonFields fields, JsonFields::of(json, path));
    AgentDisk disk;
    FS_ASSIGN(disk.index, read_disk_index(fields));
    FS_ASSIGN(disk.size_bytes, fields.u64("size_bytes", 0, kMaxDiskBytes));
    FS_ASSIGN(disk.path, fields.text("path", kMaxPathBytes));
    return disk;
}

Result<BookmarkDone> read_bookmark_done(const Json& json, const std::string& path) {
    FS_ASSIGN(JsonFields fields, JsonFields::of(json, path));
    BookmarkDone done;
    FS_ASSIGN(done.request_id, fields.required_text("request_id", kShortText));
    FS_ASSIGN(done.sequence.v, fields.u64("sequence"));
    FS_ASSIGN(done.time.us, fields.i64("time_us"));
    if (const Json* error = fields.find("error")) {
        FS_ASSIGN(done.error, read_item_error(*error, path + ".error"));
    }
    return done;
}

constexpr std::array<std::string_view, 4> kResyncStates = {"none", "comparing", "verifying",
                                                           "done"};

Json resync_json(const ResyncStatus& resync) {
    return {{"state", std::string(resync_state_name(resync.state))},
            {"total_bytes", resync.total},
            {"compared_bytes", resync.compared},
            {"differing_bytes", resync.differing},
            {"sent_bytes", resync.sent},
            {"unreadable_bytes", resync.unreadable},
            {"verified_bytes", resync.verified},
            {"verify_failures", resync.verify_failures},
            {"sampled_bytes", resync.sampled},
            {"sample_differing_bytes", resync.sample_differing},
            {"held", resync.held},
            {"read_errors", resync.read_errors}};
}

Result<ResyncStatus> read_resync(const Json& json, std::string path) {
    FS_ASSIGN(JsonFields fields, JsonFields::of(json, std::move(path)));
    ResyncStatus resync;
    FS_ASSIGN(const std::string state, fields.text("state", kShortText, "none"));
    const auto known = std::ranges::find(kResyncStates, state);
    if (known == kResyncStates.end()) return fields.wrong("state", "is not known");
    resync.state = static_cast<ResyncState>(known - kResyncStates.begin());
    FS_ASSIGN(resync.total, fields.u64("total_bytes"));
    FS_ASSIGN(resync.compared, fields.u64("compared_bytes"));
    FS_ASSIGN(resync.differing, fields.u64("differing_bytes"));
    FS_ASSIGN(resync.sent, fields.u64("sent_bytes"));
    FS_ASSIGN(resync.unreadable, fields.u64("unreadable_bytes"));
    FS_ASSIGN(resync.verified, fields.u64("verified_bytes"));
    FS_ASSIGN(resync.verify_failures, fields.u64("verify_failures"));
    FS_ASSIGN(resync.sampled, fields.u64("sampled_bytes"));
    FS_ASSIGN(resync.sample_differing, fields.u64("sample_differing_bytes"));
    FS_ASSIGN(resync.held, fields.boolean("held"));
    FS_ASSIGN(resync.read_errors, fields.u64("read_errors"));
    return resync;
}

Json return_json(const ReturnStatus& status) {
    return {{"id", status.id},
            {"have", status.have.v},
            {"held", status.held},
            {"total_bytes", status.total},
            {"compared_bytes", status.compared},
            {"differing_bytes", status.differing},
            {"written_bytes", status.written}};
}

Result<ReturnStatus> read_return(const Json& json, std::string path) {
    FS_ASSIGN(const JsonFields fields, JsonFields::of(json, std::move(path)));
    ReturnStatus status;
    FS_ASSIGN(status.id, fields.text("id", kShortText));
    FS_ASSIGN(status.have.v, fields.u64("have"));
    FS_ASSIGN(status.held, fields.boolean("held"));
    FS_ASSIGN(status.total, fields.u64("total_bytes"));
    FS_ASSIGN(status.compared, fields.u64("compared_bytes"));
    FS_ASSIGN(status.differing, fields.u64("differing_bytes"));
    FS_ASSIGN(status.written, fields.u64("written_bytes"));
    return status;
}

Result<AgentItemStatus> read_item_status(const Json& json, const std::string& path) {
    FS_ASSIGN(JsonFields fields, JsonFields::of(json, path));
    AgentItemStatus item;
    FS_ASSIGN(item.item, read_item_id(fields));
    FS_ASSIGN(std::string state, fields.required_text("state", kShortText));
    FS_ASSIGN(item.state, item_state_from_name(fields, state));
    if (const Json* error = fields.find("error")) {
        FS_ASSIGN(item.error, read_item_error(*error, path + ".error"));
    }
    FS_ASSIGN(item.nbd_socket, fields.text("nbd_socket", kMaxPathBytes));
    FS_ASSIGN(const Json* disks, fields.array("disks", kMaxDisks));
    for (size_t i = 0; disks != nullptr && i < disks->size(); ++i) {
        FS_ASSIGN(AgentDisk disk,
                  read_agent_disk((*disks)[i], fmt::format("{}.disks[{}]", path, i)));
        item.disks.push_back(std::move(disk));
    }
    if (const Json* description = fields.find("machine_description")) {
        if (!description->is_object())
            return fields.wrong("machine_description", "must be an object");
        item.machine_description = dump_json(*description);
        if (item.machine_description.size() > kMaxMachineDescriptionBytes)
            return fail(
                Code::kTooLarge,
                fmt::format("{}.machine_description has {} bytes, at most {} are allowed", path,
                            item.machine_description.size(), kMaxMachineDescriptionBytes));
    }
    FS_ASSIGN(item.ring_used_bytes, fields.u64("ring_used"));
    FS_ASSIGN(item.spill_used_bytes, fields.u64("spill_used"));
    FS_ASSIGN(item.gap_open, fields.boolean("gap_open"));
    FS_ASSIGN(item.copied_bytes, fields.u64("copied_bytes"));
    FS_ASSIGN(item.copy_total_bytes, fields.u64("copy_total_bytes"));
    FS_ASSIGN(item.copy_rate_bytes_per_s, fields.u64("copy_rate"));
    FS_ASSIGN(item.compared_bytes, fields.u64("compared"));
    FS_ASSIGN(item.last.v, fields.u64("last_sequence"));
    FS_ASSIGN(item.last_time.us, fields.i64("last_time_us"));
    FS_ASSIGN(item.received.v, fields.u64("received_sequence"));
    FS_ASSIGN(item.stored.v, fields.u64("stored_sequence"));
    FS_ASSIGN(const Json* bookmarks, fields.array("bookmarks", kMaxPendingBookmarks));
    for (size_t i = 0; bookmarks != nullptr && i < bookmarks->size(); ++i) {
        FS_ASSIGN(BookmarkDone done,
                  read_bookmark_done((*bookmarks)[i], fmt::format("{}.bookmarks[{}]", path, i)));
        item.bookmarks.push_back(std::move(done));
    }
    FS_ASSIGN(item.resync_done_id, fields.text("resync_done_id", kShortText));
    FS_ASSIGN(item.resync_cancel_done_id, fields.text("resync_cancel_done_id", kShortText));
    if (const Json* error = fields.find("resync_cancel_error")) {
        FS_ASSIGN(item.resync_cancel_error, read_item_error(*error, path + ".resync_cancel_error"));
    }
    FS_ASSIGN(item.dirty_regions, fields.u64("dirty_regions"));
    FS_ASSIGN(item.dirty_map_syncs, fields.u64("dirty_map_syncs"));
    if (const Json* resync = fields.find("resync")) {
        FS_ASSIGN(item.resync, read_resync(*resync, path + ".resync"));
    }
    FS_ASSIGN(uint64_t restarts, fields.u64("tap_restarts", 0, UINT32_MAX));
    item.tap_restarts = static_cast<uint32_t>(restarts);
    FS_ASSIGN(item.appliance, fields.text("appliance", kShortText));
    FS_ASSIGN(item.moving, fields.boolean("moving"));
    FS_ASSIGN(item.send_trouble, fields.text("send_trouble", kLongText));
    FS_ASSIGN(item.machine_bytes, fields.u64("machine_bytes"));
    if (const Json* way_home = fields.find("return")) {
        FS_ASSIGN(item.way_home, read_return(*way_home, path + ".return"));
    }
    return item;
}

}  // namespace

std::string_view capture_mode_name(CaptureMode mode) {
    switch (mode) {
        case CaptureMode::kInPath:
            return "in-path";
        case CaptureMode::kMirror:
            return "mirror";
        case CaptureMode::kDevice:
            return "device";
        case CaptureMode::kRecovery:
            return "recovery";
    }
    return "";
}

Result<CaptureMode> capture_mode_from_name(std::string_view name) {
    if (name == "in-path") return CaptureMode::kInPath;
    if (name == "device") return CaptureMode::kDevice;
    if (name == "mirror") return CaptureMode::kMirror;
    if (name == "recovery") return CaptureMode::kRecovery;
    return fail(Code::kMalformed, fmt::format("'{}' is not a capture mode", name.substr(0, 64)),
                "use in-path or mirror");
}

std::string_view point_kind_name(PointKind kind) {
    switch (kind) {
        case PointKind::kCrash:
            return "crash";
        case PointKind::kApplication:
            return "application";
        case PointKind::kBookmark:
            return "bookmark";
    }
    return "crash";
}

Result<PointKind> point_kind_from_name(std::string_view name) {
    for (PointKind kind : {PointKind::kCrash, PointKind::kApplication, PointKind::kBookmark})
        if (name == point_kind_name(kind)) return kind;
    return fail(Code::kMalformed,
                fmt::format("'{}' is not a kind of recovery point", name.substr(0, 64)),
                "use crash, application or bookmark");
}

std::string_view agent_item_state_name(AgentItemState state) {
    return kItemStates.at(static_cast<size_t>(state));
}

std::string_view resync_hold_name(ResyncHold hold) {
    return kResyncHolds.at(static_cast<size_t>(hold));
}

std::string_view resync_state_name(ResyncState state) {
    return kResyncStates.at(static_cast<size_t>(state));
}

std::string encode_instructions(const AgentInstructions& instructions) {
    Json protect_or_remove = Json::array(), others = Json::array();
    for (const DesiredItem& item : instructions.items) {
        const bool known_to_all =
            item.desired == Desired::kProtect || item.desired == Desired::kRemove;
        Json& items = known_to_all ? protect_or_remove : others;
        Json disks = Json::array();
        for (const DesiredDisk& disk : item.disks)
            disks.push_back(
                {{"index", disk.index}, {"path", disk.path}, {"size_bytes", disk.size_bytes}});
        for (size_t i = 0; i < disks.size(); ++i) {
            if (item.disks[i].removed) disks[i]["removed"] = true;
            if (item.disks[i].joining) disks[i]["joining"] = true;
        }
        Json bookmarks = Json::array();
        for (const BookmarkRequest& bookmark : item.bookmarks)
            bookmarks.push_back({{"request_id", bookmark.request_id},
                                 {"label", bookmark.label},
                                 {"kind", std::string(point_kind_name(bookmark.kind))}});
        items.push_back({{"item_id", item.item.to_string()},
                         {"name", item.name},
                         {"mode", std::string(capture_mode_name(item.mode))},
                         {"qmp_socket", item.qmp_socket},
                         {"disks", std::move(disks)},
                         {"desired", std::string(kDesires.at(static_cast<size_t>(item.desired)))},
                         {"crash_point_interval_s", item.crash_point_interval_s},
                         {"copy_throttle_bytes_per_s", item.copy_throttle_bytes_per_s},
                         {"await_seed", item.await_seed},
                         {"hold_copy", item.hold_copy},
                         {"newest_first_after_s", item.newest_first_after_s},
                         {"resync_request_id", item.resync_request_id},
                         {"resync_cancel_id", item.resync_cancel_id},
                         {"resync_hold", std::string(resync_hold_name(item.resync_hold))},
                         {"bookmarks", std::move(bookmarks)},
                         {"stored_sequence", item.stored.v}});
        if (!item.appliance.name.empty())
            items.back()["appliance"] = appliance_json(item.appliance);
        if (!item.next_appliance.name.empty())
            items.back()["next_appliance"] = appliance_json(item.next_appliance);
        if (item.power_off) items.back()["power_off"] = true;
        if (item.all_stored) items.back()["all_stored"] = true;
        const ReturnOrder& order = item.way_home;
        if (!order.id.empty())
            items.back()["return"] = {{"id", order.id},
                                      {"to", order.to.v},
                                      {"original", order.original},
                                      {"accept", order.accept}};
    }
    Json json{{"items", std::move(protect_or_remove)}};
    if (!others.empty()) json["standing"] = std::move(others);
    if (instructions.vault_time.us != 0) json["time_us"] = instructions.vault_time.us;
    if (instructions.sync_interval_us != 0)
        json["sync_interval_us"] = instructions.sync_interval_us;
    if (instructions.grouped) json["grouped"] = true;
    for (const ApplianceAddress& appliance : instructions.appliances)
        json["appliances"].push_back(appliance_json(appliance));
    if (!instructions.appliances_id.empty()) json["appliances_id"] = instructions.appliances_id;
    return dump_json(json);
}

Result<AgentInstructions> decode_instructions(std::string_view text) {
    FS_ASSIGN(Json json, parse_json(text, "instructions", kMaxAgentDocumentBytes));
    FS_ASSIGN(JsonFields fields, JsonFields::of(json, "instructions"));
    FS_ASSIGN(const Json* items, fields.array("items", kMaxAgentItems));
    AgentInstructions instructions;
    FS_ASSIGN(instructions.vault_time.us, fields.i64("time_us"));
    for (size_t i = 0; items != nullptr && i < items->size(); ++i) {
        FS_ASSIGN(DesiredItem item, read_desired_item((*items)[i], fmt::format("items[{}]", i)));
        instructions.items.push_back(std::move(item));
    }
    FS_ASSIGN(const Json* standing, fields.array("standing", kMaxAgentItems));
    for (size_t i = 0; standing != nullptr && i < standing->size(); ++i) {
        FS_ASSIGN(DesiredItem item,
                  read_desired_item((*standing)[i], fmt::format("standing[{}]", i)));
        instructions.items.push_back(std::move(item));
    }
    constexpr uint64_t kMostIntervalUs = 60'000'000;
    FS_ASSIGN(const uint64_t interval, fields.u64("sync_interval_us", 0, kMostIntervalUs));
    instructions.sync_interval_us = static_cast<int64_t>(interval);
    FS_ASSIGN(instructions.grouped, fields.boolean("grouped", false));
    FS_ASSIGN(const Json* appliances, fields.array("appliances", kMaxAppliancesTold));
    for (size_t i = 0; appliances != nullptr && i < appliances->size(); ++i) {
        FS_ASSIGN(ApplianceAddress appliance,
                  read_appliance((*appliances)[i], fmt::format("appliances[{}]", i)));
        instructions.appliances.push_back(std::move(appliance));
    }
    FS_ASSIGN(instructions.appliances_id, fields.text("appliances_id", kShortText));
    return instructions;
}

std::string encode_status(const AgentStatus& status) {
    Json items = Json::array();
    for (const AgentItemStatus& item : status.items) {
        Json disks = Json::array();
        for (const AgentDisk& disk : item.disks)
            disks.push_back(
                {{"index", disk.index}, {"size_bytes", disk.size_bytes}, {"path", disk.path}});
        Json bookmarks = Json::array();
        for (const BookmarkDone& done : item.bookmarks) {
            Json bookmark{{"request_id", done.request_id},
                          {"sequence", done.sequence.v},
                          {"time_us", done.time.us}};
            if (done.error) bookmark["error"] = item_error_json(*done.error);
            bookmarks.push_back(std::move(bookmark));
        }
        Json json{{"item_id", item.item.to_string()},
                  {"state", std::string(agent_item_state_name(item.state))},
                  {"nbd_socket", item.nbd_socket},
                  {"disks", std::move(disks)},
                  {"ring_used", item.ring_used_bytes},
                  {"spill_used", item.spill_used_bytes},
                  {"gap_open", item.gap_open},
                  {"copied_bytes", item.copied_bytes},
                  {"copy_total_bytes", item.copy_total_bytes},
                  {"copy_rate", item.copy_rate_bytes_per_s},
                  {"compared", item.compared_bytes},
                  {"last_sequence", item.last.v},
                  {"last_time_us", item.last_time.us},
                  {"received_sequence", item.received.v},
                  {"stored_sequence", item.stored.v},
                  {"bookmarks", std::move(bookmarks)},
                  {"resync_done_id", item.resync_done_id},
                  {"resync_cancel_done_id", item.resync_cancel_done_id},
                  {"resync", resync_json(item.resync)},
                  {"dirty_regions", item.dirty_regions},
                  {"dirty_map_syncs", item.dirty_map_syncs},
                  {"tap_restarts", item.tap_restarts},
                  {"appliance", item.appliance},
                  {"moving", item.moving},
                  {"send_trouble", item.send_trouble}};
        if (item.error) json["error"] = item_error_json(*item.error);
        if (item.machine_bytes != 0) json["machine_bytes"] = item.machine_bytes;
        if (!item.way_home.id.empty()) json["return"] = return_json(item.way_home);
        if (item.resync_cancel_error)
            json["resync_cancel_error"] = item_error_json(*item.resync_cancel_error);
        if (!item.machine_description.empty()) {
            Json description = Json::parse(item.machine_description, nullptr, false);
            if (description.is_object()) json["machine_description"] = std::move(description);
        }
        items.push_back(std::move(json));
    }
    Json json{{"agent", status.agent},     {"instance", status.instance},
              {"version", status.version}, {"time_us", status.time.us},
              {"items", std::move(items)}, {"process_bytes", status.load.process_bytes}};
    if (status.load.cpu_permille >= 0) json["cpu_permille"] = status.load.cpu_permille;
    if (status.load.memory_permille >= 0) json["memory_permille"] = status.load.memory_permille;
    if (status.clock_ahead_us) json["clock_ahead_us"] = *status.clock_ahead_us;
    if (!status.appliances_id.empty()) json["appliances_id"] = status.appliances_id;
    return dump_json(json);
}

Result<AgentStatus> decode_status(std::string_view text) {
    FS_ASSIGN(Json json, parse_json(text, "status", kMaxAgentDocumentBytes));
    FS_ASSIGN(JsonFields fields, JsonFields::of(json, "status"));
    AgentStatus status;
    FS_ASSIGN(status.agent, fields.text("agent", kShortText));
    FS_ASSIGN(status.instance, fields.required_text("instance", kShortText));
    FS_ASSIGN(status.version, fields.text("version", kShortText));
    FS_ASSIGN(status.appliances_id, fields.text("appliances_id", kShortText));
    FS_ASSIGN(status.time.us, fields.i64("time_us"));
    if (fields.has("clock_ahead_us")) {
        FS_ASSIGN(status.clock_ahead_us, fields.i64("clock_ahead_us"));
    }
    FS_ASSIGN(status.load.process_bytes, fields.u64("process_bytes"));
    for (const auto& [name, to] : {std::pair{"cpu_permille", &status.load.cpu_permille},
                                   std::pair{"memory_permille", &status.load.memory_permille}})
        if (fields.has(name)) {
            FS_ASSIGN(const uint64_t permille, fields.u64(name, 0, 1000));
            *to = static_cast<int32_t>(permille);
        }
    FS_ASSIGN(const Json* items, fields.array("items", kMaxAgentItems));
    for (size_t i = 0; items != nullptr && i < items->size(); ++i) {
        FS_ASSIGN(AgentItemStatus item, read_item_status((*items)[i], fmt::format("items[{}]", i)));
        status.items.push_back(std::move(item));
    }
    return status;
}

}  // namespace farshore
