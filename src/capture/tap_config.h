// The configuration of our nbdkit plugin: a JSON file of mode 0600 (it may hold a key), written by
// the agent or by recovery, read by the plugin. Fields: docs/design/capture.md, "The plugin".
//
// Plain values; any thread. Decoding refuses unknown modes and missing fields by name: kMalformed.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/secret.h"
#include "capture/capture_files.h"

namespace farshore {

inline constexpr uint64_t kMinTraceRingBytes = 64u << 10;
inline constexpr uint64_t kMaxTraceRingBytes = 1ull << 30;

// Before the index, in the export's name that a disk's one client uses: of its connections the
// newest alone may change the disk (tap/sole_client.h).
inline constexpr std::string_view kSoleExportPrefix = "sole:";
inline std::string sole_export_name(DiskIndex disk) {
    return std::string(kSoleExportPrefix) + std::to_string(disk);
}

enum class ServeMode : uint8_t {
    kInPath,  // serve and write the backing, and put every change into the capture log
    kMirror,  // target of QEMU's mirror: into the capture log only
    kPlain,   // serve the backing, no capture
    kBlock,   // trace the machine's own disks (ebpf/capture_server.h); nothing is served
};

enum class BackingKind : uint8_t {
    kFile,     // a raw file or block device: `path`
    kNbd,      // an NBD export: `uri`
    kReplica,  // a disk of the replica
    kNone,     // the machine does not have it any more; its index stays
};

struct ServedDisk {
    DiskIndex index = 0;      // also the NBD export's name, for clients that share the disk
    uint64_t size_bytes = 0;  // 0: whatever the backing has (plain mode only)
    BackingKind backing = BackingKind::kFile;
    std::string path;
    std::string uri;
    DiskIndex replica_disk = 0;
    // Writes go to this local file instead of the backing; empty: to the backing itself, or refused
    // when it is read-only.
    std::string overlay_path;
    bool read_only = false;
};

struct ServedReplica {
    std::string store_location;       // store/store_settings.h
    std::string store_settings_file;  // empty: none
    ItemId item;
    Secret item_key;
    Sequence sequence;  // UINT64_MAX: the newest point
    uint64_t cache_bytes = 64ull << 20;
};

struct TapConfig {
    ServeMode mode = ServeMode::kInPath;
    // In-path and mirror. disk_bytes and mode follow from the rest and need not be set for
    // encoding.
    CaptureConfig capture;
    std::vector<ServedDisk> disks;  // sorted by index; capture modes: 0, 1, 2, ... without holes
    std::optional<ServedReplica> replica;
    bool test_hooks = false;
    // kBlock: the ring in the kernel, and where the program stays when its process ends.
    uint64_t trace_ring_bytes = 64ull << 20;
    std::string trace_pin_directory;
};

std::string encode_tap_config(const TapConfig& config);
Result<TapConfig> decode_tap_config(std::string_view json);

}  // namespace farshore
