#include "capture/log_memory.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "codec/crc32c.h"
#include "record/compare.h"
#include "record/record.h"

namespace farshore {

// docs/format/shared-memory.md fixes these places.
namespace {
constexpr uint8_t kMagic[8] = {'F', 'S', 'C', 'A', 'P', 'L', 'O', 'G'};
constexpr uint32_t kVersion = 3;

// The part that never changes.
constexpr size_t kVersionAt = 8, kCrcAt = 12, kBootIdAt = 16, kItemAt = 32, kRingBytesAt = 48,
                 kSpillBytesAt = 56, kControlBytesAt = 64, kDiskCountAt = 72, kDisksAt = 128,
                 kDiskEntryBytes = 16;
constexpr size_t kStaticBytes = kDisksAt + kMaxDisks * kDiskEntryBytes;
static_assert(kStaticBytes <= kLogHeaderBytes);

// The part that does.
constexpr size_t kProducerWords = 9, kConsumerWords = 4;
constexpr size_t kProducerAt = 4096;
constexpr size_t kConsumerAt = 5120;
constexpr size_t kWordsAt = 6144;
constexpr size_t kRunsAt = 10240, kRunBytes = 32;
constexpr size_t kCopySlotsAt = 12288;
constexpr size_t kInFlightAt = 16384;
constexpr size_t kSlotBytes = LogHeader::kSlotWords * 8;
constexpr size_t kCommandsAt = kInFlightAt + kInFlightSlots * kSlotBytes;
constexpr size_t kCommandBytes = 512;
constexpr size_t kComparesAt = 65536;
constexpr size_t kCompareBytes =
    LogHeader::kCompareSlotWords * 8 + kMaxCompareBlocks * sizeof(BlockSum);
constexpr size_t kTodoAt = kComparesAt + kCompareSlots * kCompareBytes;

static_assert(kProducerAt + CommitCell<kProducerWords>::kBytes <= kConsumerAt);
static_assert(kConsumerAt + CommitCell<kConsumerWords>::kBytes <= kWordsAt);
static_assert(kWordsAt + 64 * static_cast<size_t>(LogWord::kEnd) <= kRunsAt);
static_assert(kRunsAt + kRunSlots * kRunBytes <= kCopySlotsAt);
static_assert(kCopySlotsAt + kCopySlots * kSlotBytes <= kInFlightAt);
static_assert(kCommandsAt + kCommandSlots * kCommandBytes <= kComparesAt);
static_assert(kSlotBytes + kMaxLabelBytes <= kCommandBytes);
static_assert(kTodoAt % 8 == 0 && kTodoGranuleBytes == kSumBlockBytes);

uint64_t round_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

uint64_t todo_words_of(uint64_t disk_bytes) {
    const uint64_t granules = (disk_bytes + kTodoGranuleBytes - 1) / kTodoGranuleBytes;
    return (granules + 63) / 64;
}

// Checksum of the static part, with the places of magic and checksum as zeroes.
uint32_t static_crc(ByteView header) {
    uint8_t copy[kStaticBytes];
    std::memcpy(copy, header.data(), kStaticBytes);
    std::memset(copy, 0, sizeof kMagic);
    std::memset(copy + kCrcAt, 0, 4);
    return crc32c(copy);
}
}  // namespace

Status check_geometry(const LogGeometry& g) {
    const auto bad = [](std::string what) { return fail(Code::kInvalidArgument, std::move(what)); };
    if (g.ring_bytes < kMinRingBytes || g.ring_bytes > kMaxRingBytes || g.ring_bytes % kPageBytes)
        return bad(fmt::format("a ring of {} bytes: it must be a multiple of {} from {} to {}",
                               g.ring_bytes, kPageBytes, kMinRingBytes, kMaxRingBytes));
    if (g.spill_bytes > kMaxSpillBytes)
        return bad(fmt::format("a spill of {} bytes is above {}", g.spill_bytes, kMaxSpillBytes));
    if (g.disk_bytes.empty() || g.disk_bytes.size() > kMaxDisks)
        return bad(fmt::format("{} disks: from 1 to {}", g.disk_bytes.size(), kMaxDisks));
    for (uint64_t bytes : g.disk_bytes)
        if (bytes > kMaxDiskBytes)
            return bad(fmt::format("a disk of {} bytes: at most {}", bytes, kMaxDiskBytes));
    if (std::ranges::all_of(g.disk_bytes, [](uint64_t bytes) { return bytes == 0; }))
        return bad("no disk has a size");
    return {};
}

size_t control_bytes(const LogGeometry& g) {
    uint64_t at = kTodoAt;
    for (uint64_t bytes : g.disk_bytes) at += todo_words_of(bytes) * 8;
    return round_up(at, kPageBytes);
}

Result<LogGeometry> read_geometry(ByteView header) {
    if (header.size() < kLogHeaderBytes)
        return fail(Code::kTruncated, fmt::format("shared memory of {} bytes", header.size()));
    const uint8_t* p = header.data();
    if (std::memcmp(p, kMagic, sizeof kMagic) != 0)
        return fail(Code::kMalformed, "not a capture log: wrong magic in shared memory",
                    "remove the file; protection continues from the dirty map");
    if (load_u32(p + kVersionAt) != kVersion)
        return fail(Code::kNewerVersion,
                    fmt::format("capture log of version {}, this program knows {}",
                                load_u32(p + kVersionAt), kVersion),
                    "tap and agent must be of one version");
    if (load_u32(p + kCrcAt) != static_crc(header))
        return fail(Code::kCorrupt, "header of the capture log does not match its checksum",
                    "remove the file; protection continues from the dirty map");
    LogGeometry g;
    std::memcpy(g.boot_id.raw.data(), p + kBootIdAt, 16);
    std::memcpy(g.item.raw.data(), p + kItemAt, 16);
    g.ring_bytes = load_u64(p + kRingBytesAt);
    g.spill_bytes = load_u64(p + kSpillBytesAt);
    const uint64_t disks = load_u64(p + kDiskCountAt);
    if (disks > kMaxDisks) return fail(Code::kMalformed, "capture log with too many disks");
    for (size_t i = 0; i < disks; ++i)
        g.disk_bytes.push_back(load_u64(p + kDisksAt + i * kDiskEntryBytes));
    if (auto checked = check_geometry(g); !checked)
        return fail(Code::kMalformed, "capture log: " + checked.error().what());
    if (load_u64(p + kControlBytesAt) != control_bytes(g))
        return fail(Code::kMalformed, "capture log with another layout than its geometry's");
    return g;
}

Result<LogHeader> LogHeader::write_static(LogMemory memory, const LogGeometry& geometry) {
    FS_TRY(check_geometry(geometry));
    if (memory.control.size() != control_bytes(geometry) ||
        memory.ring.size() != geometry.ring_bytes)
        return fail(Code::kInvalidArgument, "memory of another size than the geometry's");
    uint8_t* p = memory.control.data();
    store_u32(p + kVersionAt, kVersion);
    std::memcpy(p + kBootIdAt, geometry.boot_id.raw.data(), 16);
    std::memcpy(p + kItemAt, geometry.item.raw.data(), 16);
    store_u64(p + kRingBytesAt, geometry.ring_bytes);
    store_u64(p + kSpillBytesAt, geometry.spill_bytes);
    store_u64(p + kControlBytesAt, memory.control.size());
    store_u64(p + kDiskCountAt, geometry.disk_bytes.size());
    for (size_t i = 0; i < geometry.disk_bytes.size(); ++i)
        store_u64(p + kDisksAt + i * kDiskEntryBytes, geometry.disk_bytes[i]);
    store_u32(p + kCrcAt, static_crc(memory.control));

    LogHeader header;
    header.memory_ = memory;
    header.geometry_ = geometry;
    return header;
}

void LogHeader::publish() const {
    std::atomic_thread_fence(std::memory_order_release);
    std::memcpy(memory_.control.data(), kMagic, sizeof kMagic);
}

Result<LogHeader> LogHeader::format(LogMemory memory, const LogGeometry& geometry, Sequence first) {
    FS_CHECK(first.v > 0);
    FS_ASSIGN(LogHeader header, write_static(memory, geometry));
    ProducerState producer;
    producer.next_sequence = first.v;
    header.commit(producer);
    ConsumerState consumer;
    consumer.released = first.v - 1;
    header.commit(consumer);
    header.word(LogWord::kPointIntervalUs).store(300'000'000);
    header.word(LogWord::kRotateUs).store(15'000'000);
    header.publish();
    return header;
}

Result<LogHeader> LogHeader::format_like(LogMemory memory, const LogGeometry& geometry,
                                         const LogHeader& old) {
    const LogGeometry& was = old.geometry_;
    if (was.ring_bytes != geometry.ring_bytes || was.spill_bytes != geometry.spill_bytes)
        return fail(Code::kInvalidArgument, "a capture log keeps its ring and its spill");
    FS_ASSIGN(LogHeader header, write_static(memory, geometry));
    std::memcpy(memory.control.data() + kProducerAt, old.memory_.control.data() + kProducerAt,
                kTodoAt - kProducerAt);
    const size_t disks = std::min(geometry.disk_bytes.size(), was.disk_bytes.size());
    for (size_t i = 0; i < disks; ++i) {
        const auto from = old.todo_words(static_cast<DiskIndex>(i));
        const auto to = header.todo_words(static_cast<DiskIndex>(i));
        std::copy_n(from.begin(), std::min(from.size(), to.size()), to.begin());
    }
    // What the ring holds, and not the rest of its memory.
    const uint64_t from = old.consumer().ring_tail, to = old.producer().ring_head;
    for (uint64_t at = from; at < to;) {
        const size_t place = at % geometry.ring_bytes;
        const size_t n = std::min<uint64_t>(to - at, geometry.ring_bytes - place);
        std::memcpy(memory.ring.data() + place, old.memory_.ring.data() + place, n);
        at += n;
    }
    return header;
}

Result<LogHeader> LogHeader::open(LogMemory memory) {
    FS_ASSIGN(LogGeometry geometry, read_geometry(memory.control));
    if (memory.control.size() != control_bytes(geometry) ||
        memory.ring.size() != geometry.ring_bytes)
        return fail(Code::kTruncated, "shared memory is smaller than its header says");
    LogHeader header;
    header.memory_ = memory;
    header.geometry_ = std::move(geometry);
    const ProducerState p = header.producer();
    const ConsumerState c = header.consumer();
    const auto bad = [](std::string_view what) {
        return fail(Code::kCorrupt, fmt::format("capture log: {}", what),
                    "remove the file; protection continues from the dirty map");
    };
    if (p.ring_head - c.ring_tail > header.geometry_.ring_bytes)
        return bad("ring use out of range");
    if (p.spill_head - c.spill_tail > header.geometry_.spill_bytes)
        return bad("spill use out of range");
    if (p.next_sequence == 0 || c.released >= p.next_sequence) return bad("sequences out of range");
    if (p.gap > GapState::kOpen) return bad("unknown state of the gap");
    if (c.first_run == 0 || c.first_run > p.last_run + 1 ||
        p.last_run + 1 - c.first_run > kRunSlots)
        return bad("run list out of range");
    return header;
}

std::atomic_ref<uint64_t> LogHeader::at(size_t offset_bytes) const {
    return std::atomic_ref<uint64_t>(
        *reinterpret_cast<uint64_t*>(memory_.control.data() + offset_bytes));
}

// Words lie a cache line apart: different sides and threads write them.
std::atomic_ref<uint64_t> LogHeader::word(LogWord which) const {
    return at(kWordsAt + 64 * static_cast<size_t>(which));
}

std::atomic<uint32_t>& LogHeader::futex(LogWord which) const {
    return *reinterpret_cast<std::atomic<uint32_t>*>(memory_.control.data() + kWordsAt +
                                                     64 * static_cast<size_t>(which));
}

ProducerState LogHeader::producer() const {
    const auto w = CommitCell<kProducerWords>(
                       reinterpret_cast<uint64_t*>(memory_.control.data() + kProducerAt))
                       .read();
    return {w[0], w[1], w[2], w[3], static_cast<GapState>(w[4]), w[5], static_cast<int64_t>(w[6]),
            w[7], w[8]};
}

void LogHeader::commit(const ProducerState& s) const {
    CommitCell<kProducerWords>(reinterpret_cast<uint64_t*>(memory_.control.data() + kProducerAt))
        .write({s.ring_head, s.spill_head, s.last_run, s.next_sequence,
                static_cast<uint64_t>(s.gap), s.gap_sequence, static_cast<uint64_t>(s.last_time_us),
                s.gaps, s.source_position});
}

ConsumerState LogHeader::consumer() const {
    const auto w = CommitCell<kConsumerWords>(
                       reinterpret_cast<uint64_t*>(memory_.control.data() + kConsumerAt))
                       .read();
    return {w[0], w[1], w[2], w[3]};
}

void LogHeader::commit(const ConsumerState& s) const {
    CommitCell<kConsumerWords>(reinterpret_cast<uint64_t*>(memory_.control.data() + kConsumerAt))
        .write({s.first_run, s.ring_tail, s.spill_tail, s.released});
}

Run LogHeader::run(uint64_t number) const {
    const size_t base = kRunsAt + (number % kRunSlots) * kRunBytes;
    return {at(base).load(std::memory_order_relaxed) != 0,
            at(base + 8).load(std::memory_order_relaxed),
            at(base + 16).load(std::memory_order_relaxed)};
}

void LogHeader::set_run(uint64_t number, const Run& run) const {
    const size_t base = kRunsAt + (number % kRunSlots) * kRunBytes;
    at(base).store(run.in_spill, std::memory_order_relaxed);
    at(base + 8).store(run.from, std::memory_order_relaxed);
    at(base + 16).store(run.to, std::memory_order_relaxed);
}

void LogHeader::set_run_end(uint64_t number, uint64_t to) const {
    at(kRunsAt + (number % kRunSlots) * kRunBytes + 16).store(to, std::memory_order_relaxed);
}

std::atomic_ref<uint64_t> LogHeader::in_flight(size_t index, size_t word) const {
    return at(kInFlightAt + index * kSlotBytes + word * 8);
}

std::atomic_ref<uint64_t> LogHeader::copy_slot(size_t index, size_t word) const {
    return at(kCopySlotsAt + index * kSlotBytes + word * 8);
}

std::atomic_ref<uint64_t> LogHeader::command(size_t index, size_t word) const {
    return at(kCommandsAt + index * kCommandBytes + word * 8);
}

MutableByteView LogHeader::command_label(size_t index) const {
    return memory_.control.subspan(kCommandsAt + index * kCommandBytes + kSlotBytes,
                                   kMaxLabelBytes);
}

std::atomic_ref<uint64_t> LogHeader::compare_slot(size_t index, size_t word) const {
    return at(kComparesAt + index * kCompareBytes + word * 8);
}

MutableByteView LogHeader::compare_sums(size_t index) const {
    return memory_.control.subspan(kComparesAt + index * kCompareBytes + kCompareSlotWords * 8,
                                   kMaxCompareBlocks * sizeof(BlockSum));
}

std::span<uint64_t> LogHeader::todo_words(DiskIndex disk) const {
    uint64_t at_bytes = kTodoAt;
    for (DiskIndex i = 0; i < disk; ++i) at_bytes += todo_words_of(geometry_.disk_bytes[i]) * 8;
    return {reinterpret_cast<uint64_t*>(memory_.control.data() + at_bytes),
            todo_words_of(geometry_.disk_bytes[disk])};
}

LogUsage log_usage(const ProducerState& producer, const ConsumerState& consumer) {
    return {producer.ring_head - consumer.ring_tail, producer.spill_head - consumer.spill_tail};
}

}  // namespace farshore
