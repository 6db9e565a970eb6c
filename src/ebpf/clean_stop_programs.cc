// The programs at both ends of a machine's run: `farshore capture save` and `farshore capture
// early`.
#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>

#include "capture/capture_files.h"
#include "capture/tap_config.h"
#include "capture/tap_runner.h"
#include "ebpf/block_capture.h"
#include "ebpf/block_trace.h"
#include "ebpf/clean_stop.h"
#include "os/log.h"
#include "os/process.h"
#include "os/real.h"
#include "record/record.h"

namespace farshore {
namespace {

constexpr size_t kReadBytes = 4u << 20;
constexpr size_t kInvalidBytes = 4096;  // the header's block

std::string handed_over_path(const ItemId& item) {
    return fmt::format("{}/{}", kEarlyDirectory, item.to_string());
}

// Writes and discards that a disk has completed since the kernel started
// (Documentation/block/stat.rst).
Result<uint64_t> changes_completed(const std::string& disk_name) {
    PosixFileSystem files;
    FS_ASSIGN(const Bytes text, read_whole_file(files, "/sys/block/" + disk_name + "/stat"));
    std::string words(as_text(text));
    char* at = words.data();
    uint64_t sum = 0;
    for (int field = 0; field < 12; ++field) {
        char* end = nullptr;
        const uint64_t value = std::strtoull(at, &end, 10);
        if (end == at) break;
        if (field == 4 || field == 11) sum += value;
        at = end;
    }
    return sum;
}

// A disk under a software RAID is written at the very end, when its array is marked clean.
bool under_an_array(const std::string& disk_name) {
    PosixFileSystem files;
    const std::string block = "/sys/block/" + disk_name;
    const auto held = [&](const std::string& directory) {
        const auto holders = files.list(directory + "/holders");
        return holders && std::any_of(holders->begin(), holders->end(),
                                      [](const auto& name) { return name.starts_with("md"); });
    };
    if (held(block)) return true;
    const auto parts = files.list(block);
    return parts && std::any_of(parts->begin(), parts->end(), [&](const std::string& name) {
               return name.starts_with(disk_name) && held(block + "/" + name);
           });
}

Status start_early(const EarlyItem& item) {
    BlockTraceOptions options;
    options.pin_directory = item.pin_directory;
    options.ring_bytes = item.trace_ring_bytes;
    std::vector<LocalDisk> disks;
    for (const LocalDisk& known : item.disks) {
        FS_ASSIGN(LocalDisk disk, find_disk(known.identity, known.device));
        options.disks.push_back({disk.device, disk.major, disk.minor, disk.size_bytes});
        disks.push_back(std::move(disk));
    }
    FS_ASSIGN(const auto trace, BlockTrace::open(options));
    // Counted after the trace runs: what is counted now may have been before it.
    for (const LocalDisk& disk : disks) {
        FS_ASSIGN(const uint64_t changes, changes_completed(disk.name));
        if (changes != 0)
            return fail(
                Code::kWrongState,
                fmt::format("{} was written {} times before capture began", disk.device, changes));
    }
    const std::string& device = disks[item.blocks.disk].device;
    FS_ASSIGN(const Bytes blocks, read_blocks(device, item.blocks));
    FS_ASSIGN(const CleanStop stop, decode_clean_stop(blocks));
    if (stop.item != item.item) return fail(Code::kForeignStore, "the blocks are another item's");
    // Invalid before anything else is written: a later crash must not find it.
    const Bytes invalid(kInvalidBytes);
    FS_TRY(write_blocks(device, item.blocks, invalid));
    PosixFileSystem files;
    FS_TRY(files.make_directories(kEarlyDirectory));
    return write_file_durably(files, handed_over_path(item.item), encode_clean_stop(stop));
}

// Everything that may differ from what the appliance has received.
Result<CleanStop> collect(const LogHeader& header, File* spill) {
    CleanStop stop;
    stop.item = header.geometry().item;
    stop.disk_bytes = header.geometry().disk_bytes;
    for (size_t i = 0; i < stop.disk_bytes.size(); ++i) {
        const auto disk = static_cast<DiskIndex>(i);
        const TodoMap todo(header.todo_words(disk), stop.disk_bytes[i]);
        uint64_t from = 0;
        while (const auto range = todo.next(from, kMaxZeroBytes)) {
            stop.ranges.push_back({disk, *range});
            from = range->end();
        }
    }
    CaptureConsumer reader(header, spill, {});
    while (true) {
        FS_ASSIGN(const LogBatch batch, reader.peek(kReadBytes));
        if (batch.empty()) return stop;
        RecordCursor records(batch.records, false);
        while (!records.done()) {
            FS_ASSIGN(const RecordView record, records.next());
            if (record.header.changes_disk())
                stop.ranges.push_back(
                    {record.header.disk, {record.header.offset_bytes, record.header.length_bytes}});
        }
        reader.advance();
    }
}

Status save(const EarlyItem& item) {
    for (const LocalDisk& known : item.disks) {
        FS_ASSIGN(const LocalDisk disk, find_disk(known.identity, known.device));
        if (under_an_array(disk.name))
            return fail(
                Code::kUnsupported,
                fmt::format("{} is part of a software RAID, which writes last", disk.device));
    }
    PosixFileSystem files;
    RealClock clock;
    FS_ASSIGN(const Bytes text, read_whole_file(files, item.config_path));
    FS_ASSIGN(const TapConfig config, decode_tap_config(as_text(text)));
    FS_ASSIGN(const bool has_log, files.exists(config.capture.shared_memory_path));
    if (!has_log || !BlockTrace::exists(config.trace_pin_directory))
        return fail(Code::kNotFound, "nothing is captured");
    FS_ASSIGN(const InstanceLock lock, lock_tap(config.capture.shared_memory_path));
    FS_ASSIGN(CaptureFiles capture_files, CaptureFiles::open(config.capture, files));
    CaptureProducer producer(capture_files.header,
                             {&clock, capture_files.spill.get(), real_wake(), {}, {}});
    BlockTraceOptions options;
    options.pin_directory = config.trace_pin_directory;
    options.ring_bytes = config.trace_ring_bytes;
    for (const ServedDisk& served : config.disks) {
        FS_ASSIGN(const LocalDisk disk, inspect_disk(served.path));
        options.disks.push_back({disk.device, disk.major, disk.minor, served.size_bytes});
    }
    FS_ASSIGN(const auto trace, BlockTrace::open(options));
    if (!trace->primed()) return fail(Code::kWrongState, "capture did not run without a break");
    BlockCapture capture(producer, *trace);
    capture.drain();
    FS_ASSIGN(CleanStop stop, collect(capture_files.header, capture_files.spill.get()));
    // The blocks themselves change now, and once more at the next start.
    for (const ByteRange& extent : item.blocks.extents)
        stop.ranges.push_back({static_cast<DiskIndex>(item.blocks.disk), extent});
    if (capture.in_flight() != 0) return fail(Code::kWrongState, "writes are still under way");
    FS_ASSIGN(const LocalDisk disk, find_disk(item.disks[item.blocks.disk].identity,
                                              item.disks[item.blocks.disk].device));
    return write_blocks(disk.device, item.blocks, encode_clean_stop(std::move(stop)));
}

Status for_each_item(const std::string& early_path, const char* what,
                     Status (*step)(const EarlyItem&)) {
    PosixFileSystem files;
    FS_ASSIGN(const Bytes text, read_whole_file(files, early_path));
    FS_ASSIGN(const auto items, decode_early(as_text(text)));
    Status first;
    for (const EarlyItem& item : items) {
        const Status done = step(item);
        if (done) {
            log::info("capture", {.item_id = item.item.to_string()}, "item {}: {}",
                      item.item.to_string().substr(0, 12), what);
        } else {
            log::warn("capture",
                      {.item_id = item.item.to_string(), .code = code_name(done.error().code())},
                      "item {}: its disks are read again after the start: {}",
                      item.item.to_string().substr(0, 12), done.error().to_string());
            if (first) first = done;
        }
    }
    return first;
}

}  // namespace

Status capture_early(const std::string& early_path) {
    FS_TRY(mount_bpf_directory());
    return for_each_item(early_path, "captured from the first write on", start_early);
}

Status capture_save(const std::string& early_path) {
    return for_each_item(early_path, "its state is kept for the next start", save);
}

Result<CleanStop> take_handed_over(const ItemId& item) {
    PosixFileSystem files;
    const std::string path = handed_over_path(item);
    FS_ASSIGN(const Bytes bytes, read_whole_file(files, path));
    auto stop = decode_clean_stop(bytes);
    FS_TRY(files.remove(path));
    return stop;
}

}  // namespace farshore
