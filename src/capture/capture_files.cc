#include "capture/capture_files.h"

#include <fmt/core.h>

#include <algorithm>

#include "os/real.h"

namespace farshore {

namespace {

Status map(CaptureFiles& files, const LogGeometry& geometry) {
    const uint64_t control = control_bytes(geometry);
    FS_TRY(files.memory.map_ring({control, geometry.ring_bytes}));
    return {};
}

// For the agent, which says it in its log.
void count_damage(const LogHeader& header, const DirtyMap& dirty) {
    header.word(LogWord::kDirtyMapMended) += dirty.damage().mended;
    header.word(LogWord::kDirtyMapLost) += dirty.damage().lost;
}

LogMemory view(const SharedMemory& memory, const LogGeometry& geometry) {
    return {{memory.data(), control_bytes(geometry)}, {memory.ring(), geometry.ring_bytes}, true};
}

// A log of this start of the host, or the reason why there is none to go on with.
Result<CaptureFiles> open_existing(const CaptureConfig& config, const BootId& boot) {
    CaptureFiles files;
    FS_ASSIGN(files.memory, SharedMemory::open(config.shared_memory_path));
    FS_ASSIGN(const LogGeometry geometry,
              read_geometry({files.memory.data(), files.memory.size_bytes()}));
    if (geometry.boot_id != boot)
        return fail(Code::kNotFound, "the capture log is from before the host's last start");
    if (geometry.item != config.item)
        return fail(Code::kForeignStore,
                    fmt::format("'{}' is another item's", config.shared_memory_path));
    if (geometry.disk_bytes != config.disk_bytes)
        return fail(
            Code::kDiskChanged,
            fmt::format("'{}' was made for other disks or other sizes", config.shared_memory_path),
            "the agent makes it fit when it starts the capture");
    FS_TRY(map(files, geometry));
    FS_ASSIGN(files.header, LogHeader::open(view(files.memory, geometry)));
    return files;
}

Result<CaptureFiles> create(const CaptureConfig& config, FileSystem& fs, const BootId& boot) {
    FS_ASSIGN(const auto dirty,
              DirtyMap::open_or_create(fs, config.dirty_map_path, config.item, config.disk_bytes));
    FS_ASSIGN(const Sequence first,
              first_of_new_log(*dirty, config.first_at_least, RealClock().now()));

    LogGeometry geometry;
    geometry.item = config.item;
    geometry.boot_id = boot;
    geometry.ring_bytes = config.ring_bytes;
    geometry.spill_bytes = config.spill_bytes;
    geometry.disk_bytes = config.disk_bytes;
    FS_TRY(check_geometry(geometry));

    const std::string fresh = config.shared_memory_path + ".new";
    if (auto removed = fs.remove(fresh); !removed && removed.error().code() != Code::kNotFound)
        return fail(removed.error());
    CaptureFiles files;
    FS_ASSIGN(files.memory,
              SharedMemory::create(fresh, control_bytes(geometry) + geometry.ring_bytes));
    FS_TRY(map(files, geometry));
    FS_ASSIGN(files.header, LogHeader::format(view(files.memory, geometry), geometry, first));
    fill_new_log(files.header, *dirty, config.mode);
    files.header.word(LogWord::kJoining).store(config.joining);
    count_damage(files.header, *dirty);
    // An item that had records before has a replica: most of it may be what is there.
    if (first.v > 1)
        files.header.word(LogWord::kCompareState)
            .store(static_cast<uint64_t>(CompareState::kComparing));
    FS_TRY(fs.rename(fresh, config.shared_memory_path));
    return files;
}

}  // namespace

WakeFunction real_wake() {
    return [](std::atomic<uint32_t>& word) { futex_wake(word); };
}

Result<CaptureFiles> CaptureFiles::open(const CaptureConfig& config, FileSystem& fs) {
    FS_ASSIGN(const BootId boot, host_boot_id());
    auto files = open_existing(config, boot);
    if (!files) {
        switch (files.error().code()) {
            case Code::kNotFound:
            case Code::kCorrupt:
            case Code::kMalformed:
            case Code::kTruncated:
                break;
            default:
                return fail(files.error());
        }
        files = create(config, fs, boot);
        if (!files) return fail(files.error());
    }
    if (files->header.geometry().spill_bytes > 0) {
        FS_ASSIGN(files->spill, fs.open(config.spill_path, OpenMode::kCreate));
    }
    return files;
}

Result<std::unique_ptr<DirtyMap>> CaptureFiles::open_dirty_map(const CaptureConfig& config,
                                                               FileSystem& fs,
                                                               const LogHeader& header) {
    FS_ASSIGN(auto dirty,
              DirtyMap::open_or_create(fs, config.dirty_map_path, config.item, config.disk_bytes));
    count_damage(header, *dirty);
    // A new one: the log goes on with the numbers that it has.
    if (dirty->reserved_until() <= 1)
        FS_TRY(dirty->reserve(header.producer().next_sequence + kSequenceBlock));
    return dirty;
}

Status CaptureFiles::remove(const CaptureConfig& config, FileSystem& fs) {
    for (const std::string& path :
         {config.shared_memory_path, config.shared_memory_path + ".new", config.spill_path,
          config.dirty_map_path, config.dirty_map_path + ".broken",
          config.dirty_map_path + ".new"}) {
        if (path.empty()) continue;
        if (auto removed = fs.remove(path); !removed && removed.error().code() != Code::kNotFound)
            return removed;
    }
    return {};
}

}  // namespace farshore
