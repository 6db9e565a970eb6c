// The nbdkit plugin: nbdkit speaks NBD, Server (serve.h) does the rest.
//
//   nbdkit -f -U SOCKET nbdkit-farshore-plugin.so config=FILE
//
// docs/design/capture.md, "The plugin". nbdkit calls the data functions from many threads at once.
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>
#include <sys/prctl.h>

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "os/real.h"
#include "os/waiting.h"
#include "tap/serve.h"
#include "tap/sole_client.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

namespace {

using namespace farshore;

std::string config_path;
std::unique_ptr<Server> server;
bool marks = true;
// A file; while it is there, writes hang. Only with test_hooks in the configuration.
const char* hang_file = nullptr;

// A reconnecting client asks for as long as its machine may stand still.
constexpr int64_t kSolePatienceUs = 20'000'000;

struct Connection {
    BlockDevice* device;
    SoleClient* sole = nullptr;  // null: one client of several
    uint64_t number = 0;         // with sole
};

std::mutex soles_mutex;
std::map<BlockDevice*, SoleClient> soles;  // never erased from

int errno_of(const Error& error) {
    if (error.error_number() != 0) return error.error_number();
    switch (error.code()) {
        case Code::kInvalidArgument:
            return EINVAL;
        case Code::kForbidden:
            return EPERM;
        case Code::kNoSpace:
            return ENOSPC;
        case Code::kUnsupported:
            return EOPNOTSUPP;
        case Code::kFenced:
            return ESHUTDOWN;
        default:
            return EIO;
    }
}

int failed(const Error& error) {
    nbdkit_error("%s", error.to_string().c_str());
    nbdkit_set_error(errno_of(error));
    return -1;
}
int done(const Status& status) { return status ? 0 : failed(status.error()); }

BlockDevice& device_of(void* handle) { return *static_cast<Connection*>(handle)->device; }

// Runs what changes the disk, unless another connection has taken this one's place.
template <typename Change>
int change(void* handle, Change&& run) {
    const auto& connection = *static_cast<Connection*>(handle);
    if (connection.sole == nullptr) return run(*connection.device);
    if (auto begun = connection.sole->begin(connection.number); !begun)
        return failed(begun.error());
    const int result = run(*connection.device);
    connection.sole->end();
    return result;
}

int farshore_config(const char* key, const char* value) {
    // On the command line only: what the agent writes can't ask for it (bench/README.md, M3).
    if (std::string(key) == "bench-without-dirty-map" && std::string(value) == "true") {
        marks = false;
        return 0;
    }
    if (std::string(key) != "config") {
        nbdkit_error("unknown parameter '%s': only config=FILE is known", key);
        return -1;
    }
    char* absolute = nbdkit_realpath(value);
    if (absolute == nullptr) return -1;
    config_path = absolute;
    std::free(absolute);
    return 0;
}

int farshore_config_complete() {
    if (config_path.empty()) {
        nbdkit_error("config=FILE is missing");
        return -1;
    }
    return 0;
}

int farshore_get_ready() {
    struct stat info {};
    if (::stat(config_path.c_str(), &info) == 0 && (info.st_mode & 077) != 0) {
        nbdkit_error("'%s' may be read by others; it must have mode 0600", config_path.c_str());
        return -1;
    }
    PosixFileSystem files;
    auto text = read_whole_file(files, config_path, 1u << 20);
    if (!text) return failed(text.error());
    auto config = decode_tap_config(as_text(*text));
    if (!config) return failed(config.error());
    if (config->test_hooks) hang_file = std::getenv("FARSHORE_TAP_HANG_FILE");
    auto opened = Server::open(std::move(*config));
    if (!opened) return failed(opened.error());
    server = std::move(*opened);
    return 0;
}

int farshore_after_fork() {
    // nbdkit 1.32 of Debian 12 asks for SIGTERM when its parent ends, with -f and without
    // --exit-with-parent (seen with strace). A tap is the guest's disk: it outlives the agent.
    ::prctl(PR_SET_PDEATHSIG, 0);
    return done(server->start([] { nbdkit_shutdown(); }, marks));
}

void farshore_cleanup() { server.reset(); }

void* farshore_open(int) {
    std::string name = nbdkit_export_name();
    const bool sole = name.starts_with(kSoleExportPrefix);
    if (sole) name.erase(0, kSoleExportPrefix.size());
    auto connection = std::make_unique<Connection>();
    connection->device = server->device(name);
    if (connection->device == nullptr) {
        nbdkit_error("no disk '%s'", name.c_str());
        nbdkit_set_error(ENOENT);
        return nullptr;
    }
    if (sole) {
        {
            const std::lock_guard lock(soles_mutex);
            connection->sole = &soles[connection->device];
        }
        auto number = connection->sole->enter(kSolePatienceUs);
        if (!number) {
            failed(number.error());
            return nullptr;
        }
        connection->number = *number;
    }
    return connection.release();
}
void farshore_close(void* handle) { delete static_cast<Connection*>(handle); }

int farshore_list_exports(int, int, struct nbdkit_exports* exports) {
    for (const ServedDisk& disk : server->config().disks)
        if (nbdkit_add_export(exports, std::to_string(disk.index).c_str(), nullptr) == -1)
            return -1;
    return 0;
}

int64_t farshore_get_size(void* handle) {
    return static_cast<int64_t>(device_of(handle).size_bytes());
}
int farshore_can_write(void* handle) { return device_of(handle).read_only() ? 0 : 1; }
int yes(void*) { return 1; }
int farshore_can_fua(void*) { return NBDKIT_FUA_NATIVE; }

int farshore_block_size(void*, uint32_t* minimum, uint32_t* preferred, uint32_t* maximum) {
    *minimum = 1;
    *preferred = 4096;
    *maximum = 0xffffffff;
    return 0;
}

void hang_if_told() {
    if (hang_file == nullptr || ::access(hang_file, F_OK) != 0) return;
    Tap* tap = server->tap();
    const size_t slot = tap != nullptr ? tap->producer().begin(0, 0, 0) : 0;
    while (::access(hang_file, F_OK) == 0) pause_ms(10);
    if (tap != nullptr) tap->producer().end(slot);
}

int farshore_pread(void* handle, void* buf, uint32_t count, uint64_t offset, uint32_t) {
    return done(device_of(handle).read(offset, {static_cast<uint8_t*>(buf), count}));
}
int farshore_pwrite(void* handle, const void* buf, uint32_t count, uint64_t offset,
                    uint32_t flags) {
    return change(handle, [&](BlockDevice& device) {
        hang_if_told();
        return done(server->write(device, offset, {static_cast<const uint8_t*>(buf), count},
                                  (flags & NBDKIT_FLAG_FUA) != 0));
    });
}
int farshore_flush(void* handle, uint32_t) { return done(device_of(handle).flush()); }
int flush_if(void* handle, uint32_t flags) {
    return (flags & NBDKIT_FLAG_FUA) != 0 ? farshore_flush(handle, 0) : 0;
}
int farshore_trim(void* handle, uint32_t count, uint64_t offset, uint32_t flags) {
    return change(handle, [&](BlockDevice& device) {
        if (auto status = device.discard(offset, count); !status) return failed(status.error());
        return flush_if(handle, flags);
    });
}
int farshore_zero(void* handle, uint32_t count, uint64_t offset, uint32_t flags) {
    return change(handle, [&](BlockDevice& device) {
        hang_if_told();
        if (auto status = device.zero(offset, count, (flags & NBDKIT_FLAG_MAY_TRIM) != 0); !status)
            return failed(status.error());
        return flush_if(handle, flags);
    });
}
int farshore_can_cache(void*) { return NBDKIT_CACHE_NATIVE; }
int farshore_cache(void* handle, uint32_t count, uint64_t offset, uint32_t) {
    return done(device_of(handle).cache(offset, count));
}
int farshore_extents(void* handle, uint32_t count, uint64_t offset, uint32_t flags,
                     struct nbdkit_extents* extents) {
    auto found = device_of(handle).extents(offset, count);
    if (!found) return failed(found.error());
    for (const BlockExtent& extent : *found) {
        const uint32_t type =
            (extent.hole ? NBDKIT_EXTENT_HOLE : 0u) | (extent.zero ? NBDKIT_EXTENT_ZERO : 0u);
        if (nbdkit_add_extent(extents, extent.offset_bytes, extent.length_bytes, type) == -1)
            return -1;
        if ((flags & NBDKIT_FLAG_REQ_ONE) != 0) break;
    }
    return 0;
}

struct nbdkit_plugin make_plugin() {
    struct nbdkit_plugin plugin {};
    plugin.name = "farshore";
    plugin.longname = "Farshore tap and replica";
    plugin.version = "0.1.0";
    plugin.description = "Serves the disks of a protected machine, or a replica of them";
    plugin.config = farshore_config;
    plugin.config_complete = farshore_config_complete;
    plugin.config_help = "config=FILE  (required) JSON, mode 0600";
    plugin.magic_config_key = "config";
    plugin.get_ready = farshore_get_ready;
    plugin.after_fork = farshore_after_fork;
    plugin.cleanup = farshore_cleanup;
    plugin.open = farshore_open;
    plugin.close = farshore_close;
    plugin.list_exports = farshore_list_exports;
    plugin.get_size = farshore_get_size;
    plugin.can_write = farshore_can_write;
    plugin.can_flush = yes;
    plugin.can_trim = yes;
    plugin.can_zero = yes;
    plugin.can_fua = farshore_can_fua;
    plugin.can_multi_conn = yes;
    plugin.can_extents = yes;
    plugin.block_size = farshore_block_size;
    plugin.pread = farshore_pread;
    plugin.pwrite = farshore_pwrite;
    plugin.flush = farshore_flush;
    plugin.trim = farshore_trim;
    plugin.zero = farshore_zero;
    plugin.extents = farshore_extents;
    plugin.can_cache = farshore_can_cache;
    plugin.cache = farshore_cache;
    return plugin;
}
struct nbdkit_plugin plugin = make_plugin();

}  // namespace

NBDKIT_REGISTER_PLUGIN(plugin)
