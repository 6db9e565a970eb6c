#include "capture/tap_config.h"

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace farshore {

namespace {
using Json = nlohmann::json;

struct Name {
    std::string_view name;
    uint8_t value;
};
constexpr Name kModes[] = {{"tap-inpath", static_cast<uint8_t>(ServeMode::kInPath)},
                           {"tap-mirror", static_cast<uint8_t>(ServeMode::kMirror)},
                           {"plain", static_cast<uint8_t>(ServeMode::kPlain)},
                           {"trace", static_cast<uint8_t>(ServeMode::kBlock)}};
constexpr Name kBackings[] = {{"file", static_cast<uint8_t>(BackingKind::kFile)},
                              {"nbd", static_cast<uint8_t>(BackingKind::kNbd)},
                              {"replica", static_cast<uint8_t>(BackingKind::kReplica)},
                              {"none", static_cast<uint8_t>(BackingKind::kNone)}};

template <size_t n>
std::string name_of(const Name (&names)[n], uint8_t value) {
    for (const Name& name : names)
        if (name.value == value) return std::string(name.name);
    return "";
}

// Reads fields of one object; the first failure sticks.
class Fields {
  public:
    Fields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
        if (!object_.is_object()) bad("", "an object");
    }
    std::string text(const char* key, bool required) {
        const Json* value = find(key, required);
        if (value == nullptr) return {};
        if (!value->is_string()) return bad(key, "a string"), std::string();
        return value->get<std::string>();
    }
    uint64_t number(const char* key, bool required, uint64_t otherwise = 0) {
        const Json* value = find(key, required);
        if (value == nullptr) return otherwise;
        if (!value->is_number_unsigned()) return bad(key, "a number from 0"), 0;
        return value->get<uint64_t>();
    }
    bool flag(const char* key) {
        const Json* value = find(key, false);
        if (value == nullptr) return false;
        if (!value->is_boolean()) return bad(key, "true or false"), false;
        return value->get<bool>();
    }
    template <size_t n>
    uint8_t choice(const char* key, const Name (&names)[n]) {
        const std::string got = text(key, true);
        for (const Name& name : names)
            if (name.name == got) return name.value;
        bad(key, "a known name, not '" + got.substr(0, 40) + "'");
        return 0;
    }
    template <typename Id>
    Id id(const char* key) {
        auto parsed = Id::parse(text(key, true));
        if (!parsed) return bad(key, "an id"), Id();
        return *parsed;
    }
    const Json* find(const char* key, bool required) {
        if (!object_.is_object()) return nullptr;
        const auto at = object_.find(key);
        if (at != object_.end()) return &*at;
        if (required) bad(key, "there");
        return nullptr;
    }
    void bad(const char* key, const std::string& wanted) {
        if (status_)
            status_ = fail(Code::kMalformed,
                           fmt::format("tap configuration: {}{} must be {}", where_, key, wanted));
    }
    const Status& status() const { return status_; }

  private:
    const Json& object_;
    std::string where_;
    Status status_;
};

TapMode tap_mode_of(ServeMode mode) {
    if (mode == ServeMode::kMirror) return TapMode::kMirror;
    return mode == ServeMode::kBlock ? TapMode::kBlock : TapMode::kInPath;
}

}  // namespace

std::string encode_tap_config(const TapConfig& config) {
    Json root;
    root["mode"] = name_of(kModes, static_cast<uint8_t>(config.mode));
    if (config.mode != ServeMode::kPlain) {
        const CaptureConfig& c = config.capture;
        root["capture"] = {{"item", c.item.to_string()},
                           {"shared_memory", c.shared_memory_path},
                           {"spill", c.spill_path},
                           {"dirty_map", c.dirty_map_path},
                           {"ring_bytes", c.ring_bytes},
                           {"spill_bytes", c.spill_bytes},
                           {"first_at_least", c.first_at_least.v},
                           {"joining", c.joining}};
    }
    root["disks"] = Json::array();
    for (const ServedDisk& disk : config.disks) {
        Json one = {{"index", disk.index},
                    {"size_bytes", disk.size_bytes},
                    {"backing", name_of(kBackings, static_cast<uint8_t>(disk.backing))}};
        if (!disk.path.empty()) one["path"] = disk.path;
        if (!disk.uri.empty()) one["uri"] = disk.uri;
        if (disk.backing == BackingKind::kReplica) one["replica_disk"] = disk.replica_disk;
        if (!disk.overlay_path.empty()) one["overlay"] = disk.overlay_path;
        if (disk.read_only) one["read_only"] = true;
        root["disks"].push_back(std::move(one));
    }
    if (config.replica)
        root["replica"] = {{"store", config.replica->store_location},
                           {"store_settings", config.replica->store_settings_file},
                           {"item", config.replica->item.to_string()},
                           {"item_key", to_hex(config.replica->item_key.reveal())},
                           {"sequence", config.replica->sequence.v},
                           {"cache_bytes", config.replica->cache_bytes}};
    if (config.mode == ServeMode::kBlock)
        root["trace"] = {{"ring_bytes", config.trace_ring_bytes},
                         {"pin_directory", config.trace_pin_directory}};
    if (config.test_hooks) root["test_hooks"] = true;
    return root.dump(2) + "\n";
}

Result<TapConfig> decode_tap_config(std::string_view text) {
    const Json root = Json::parse(text, nullptr, false);
    if (root.is_discarded()) return fail(Code::kMalformed, "tap configuration: not JSON");
    TapConfig config;
    Fields top(root, "");
    config.mode = static_cast<ServeMode>(top.choice("mode", kModes));
    config.test_hooks = top.flag("test_hooks");
    FS_TRY(top.status());
    const bool captures = config.mode != ServeMode::kPlain;

    const Json* disks = top.find("disks", true);
    FS_TRY(top.status());
    if (!disks->is_array() || disks->empty() || disks->size() > kMaxDisks)
        return fail(Code::kMalformed,
                    fmt::format("tap configuration: disks must be a list of 1 to {}", kMaxDisks));
    for (const Json& one : *disks) {
        Fields fields(one, "disks[].");
        ServedDisk disk;
        const uint64_t index = fields.number("index", true);
        if (index >= kMaxDisks) fields.bad("index", fmt::format("below {}", kMaxDisks));
        disk.index = static_cast<DiskIndex>(index);
        disk.size_bytes = fields.number("size_bytes", captures);
        disk.backing = static_cast<BackingKind>(fields.choice("backing", kBackings));
        disk.path = fields.text("path", disk.backing == BackingKind::kFile);
        disk.uri = fields.text("uri", disk.backing == BackingKind::kNbd);
        disk.replica_disk =
            static_cast<DiskIndex>(fields.number("replica_disk", false, disk.index) & 0xffff);
        disk.overlay_path = fields.text("overlay", false);
        disk.read_only = fields.flag("read_only");
        if (captures && (disk.size_bytes == 0) != (disk.backing == BackingKind::kNone))
            fields.bad("size_bytes", "0 for a disk that was removed, and for no other");
        FS_TRY(fields.status());
        if (disk.backing == BackingKind::kReplica && root.find("replica") == root.end())
            return fail(Code::kMalformed, "tap configuration: a replica's disk without a replica");
        config.disks.push_back(std::move(disk));
    }
    std::sort(config.disks.begin(), config.disks.end(),
              [](const ServedDisk& a, const ServedDisk& b) { return a.index < b.index; });
    for (size_t i = 0; i < config.disks.size(); ++i) {
        if (i > 0 && config.disks[i].index == config.disks[i - 1].index)
            return fail(Code::kMalformed, "tap configuration: two disks of one index");
        if (captures && config.disks[i].index != i)
            return fail(Code::kMalformed,
                        "tap configuration: captured disks are numbered 0, 1, 2, ...");
    }
    if (captures) {
        const Json* capture = top.find("capture", true);
        FS_TRY(top.status());
        Fields fields(*capture, "capture.");
        CaptureConfig& c = config.capture;
        c.mode = tap_mode_of(config.mode);
        c.item = fields.id<ItemId>("item");
        c.shared_memory_path = fields.text("shared_memory", true);
        c.spill_bytes = fields.number("spill_bytes", true);
        c.spill_path = fields.text("spill", c.spill_bytes != 0);
        c.dirty_map_path = fields.text("dirty_map", true);
        c.ring_bytes = fields.number("ring_bytes", true);
        c.first_at_least = {std::max<uint64_t>(1, fields.number("first_at_least", false, 1))};
        c.joining = fields.number("joining", false);
        FS_TRY(fields.status());
        for (const ServedDisk& disk : config.disks) c.disk_bytes.push_back(disk.size_bytes);
    }
    if (config.mode == ServeMode::kBlock) {
        const Json* trace = top.find("trace", true);
        FS_TRY(top.status());
        Fields fields(*trace, "trace.");
        config.trace_ring_bytes = fields.number("ring_bytes", true);
        if (config.trace_ring_bytes < kMinTraceRingBytes ||
            config.trace_ring_bytes > kMaxTraceRingBytes ||
            (config.trace_ring_bytes & (config.trace_ring_bytes - 1)) != 0)
            fields.bad("ring_bytes", fmt::format("a power of two from {} to {}", kMinTraceRingBytes,
                                                 kMaxTraceRingBytes));
        config.trace_pin_directory = fields.text("pin_directory", false);
        FS_TRY(fields.status());
    }
    if (const Json* replica = top.find("replica", false)) {
        Fields fields(*replica, "replica.");
        ServedReplica r;
        r.store_location = fields.text("store", true);
        r.store_settings_file = fields.text("store_settings", false);
        r.item = fields.id<ItemId>("item");
        auto key = from_hex(fields.text("item_key", true));
        if (!key || key->empty())
            fields.bad("item_key", "hexadecimal digits");
        else
            r.item_key = Secret(std::move(*key));
        r.sequence = {fields.number("sequence", true)};
        r.cache_bytes = fields.number("cache_bytes", false, r.cache_bytes);
        FS_TRY(fields.status());
        config.replica = std::move(r);
    }
    return config;
}

}  // namespace farshore
