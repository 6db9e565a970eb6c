// Capture files that were made for other disks, made to fit those that there are now: disks that
// were added, removed, or have grown.
#include <fmt/core.h>

#include "capture/capture_files.h"
#include "capture/tap_runner.h"
#include "os/process.h"
#include "os/real.h"

namespace farshore {

namespace {

struct MappedLog {
    SharedMemory memory;
    LogHeader header;
};

LogMemory view(const SharedMemory& memory, const LogGeometry& geometry) {
    return {{memory.data(), control_bytes(geometry)}, {memory.ring(), geometry.ring_bytes}, true};
}

Result<MappedLog> open_log(const CaptureConfig& config) {
    MappedLog log;
    FS_ASSIGN(log.memory, SharedMemory::open(config.shared_memory_path));
    FS_ASSIGN(const LogGeometry geometry,
              read_geometry({log.memory.data(), log.memory.size_bytes()}));
    FS_ASSIGN(const BootId boot, host_boot_id());
    if (geometry.item != config.item)
        return fail(Code::kForeignStore,
                    fmt::format("'{}' is another item's", config.shared_memory_path));
    if (geometry.boot_id != boot)
        return fail(Code::kNotFound, "no log of this item since the host's start");
    FS_TRY(log.memory.map_ring({control_bytes(geometry), geometry.ring_bytes}));
    FS_ASSIGN(log.header, LogHeader::open(view(log.memory, geometry)));
    return log;
}

}  // namespace

void reshape_log(const LogHeader& log, const std::vector<uint64_t>& was) {
    const auto& is = log.geometry().disk_bytes;
    uint64_t joining = log.word(LogWord::kJoining).load();
    uint64_t owed = log.word(LogWord::kGeometryOwed).load();
    bool grown = false;
    for (size_t i = 0; i < is.size(); ++i) {
        const uint64_t bit = 1ull << i;
        if (i < was.size() && is[i] == was[i]) continue;
        owed |= bit;
        if (is[i] == 0) {
            joining &= ~bit;
            continue;
        }
        const bool added = i >= was.size();
        if (added) joining |= bit;
        if (!added && (joining & bit) == 0) grown = true;
        TodoMap todo(log.todo_words(static_cast<DiskIndex>(i)), is[i]);
        const uint64_t from = added ? 0 : was[i];
        todo.set(from, is[i] - from);
    }
    log.word(LogWord::kJoining).store(joining);
    log.word(LogWord::kGeometryOwed).store(owed);
    ProducerState producer = log.producer();
    if (producer.gap != GapState::kNone) return;
    // What is copied from here on is shown by itself.
    log.word(LogWord::kCopyDoneGranules).store(0);
    log.word(LogWord::kCopyTotalGranules).store(0);
    if (!grown) return;
    producer.gap = GapState::kDropping;
    log.commit(producer);
}

Result<bool> CaptureFiles::fits(const CaptureConfig& config) {
    const auto log = open_log(config);
    if (!log) {
        switch (log.error().code()) {
            case Code::kNotFound:
            case Code::kCorrupt:
            case Code::kMalformed:
            case Code::kTruncated:
                return false;  // it is made anew by whoever opens it
            default:
                return fail(log.error());
        }
    }
    const auto& was = log->header.geometry().disk_bytes;
    FS_TRY(check_disk_change(was, config.disk_bytes));
    return was == config.disk_bytes;
}

Status CaptureFiles::reshape(const CaptureConfig& config, FileSystem& fs) {
    const auto old = open_log(config);
    const bool log_fits = !old || old->header.geometry().disk_bytes == config.disk_bytes;
    if (!log_fits) FS_TRY(check_disk_change(old->header.geometry().disk_bytes, config.disk_bytes));
    FS_ASSIGN(const InstanceLock lock, lock_tap(config.shared_memory_path));
    // First: with marks too many, everything is still known when what follows does not happen.
    FS_TRY(DirtyMap::reshape(fs, config.dirty_map_path, config.item, config.disk_bytes));
    if (log_fits) return {};

    const std::string fresh = config.shared_memory_path + ".new";
    if (auto removed = fs.remove(fresh); !removed && removed.error().code() != Code::kNotFound)
        return fail(removed.error());
    LogGeometry geometry = old->header.geometry();
    const std::vector<uint64_t> was = geometry.disk_bytes;
    geometry.disk_bytes = config.disk_bytes;
    FS_TRY(check_geometry(geometry));
    const uint64_t control = control_bytes(geometry);
    FS_ASSIGN(const SharedMemory memory, SharedMemory::create(fresh, control + geometry.ring_bytes,
                                                              {control, geometry.ring_bytes}));
    FS_ASSIGN(const LogHeader header,
              LogHeader::format_like(view(memory, geometry), geometry, old->header));
    reshape_log(header, was);
    header.publish();
    return fs.rename(fresh, config.shared_memory_path);
}

}  // namespace farshore
