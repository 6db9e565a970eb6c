#include "capture/tap.h"

#include <fmt/core.h>

#include <algorithm>
#include <mutex>

#include "codec/crc32c.h"

namespace farshore {

namespace {
constexpr int64_t kIdleMarkUs = 1'000'000;
constexpr int64_t kMinPointIntervalUs = 1'000'000;
constexpr int64_t kTickUs = 250'000;
constexpr int64_t kBusyTickUs = 20'000;
constexpr int64_t kTrimUs = 10'000'000;
constexpr int64_t kForcedFlushUs = 60'000'000;

constexpr uint64_t kCommandFree = 0, kCommandFilling = 1, kCommandPosted = 2, kCommandDone = 3;
constexpr size_t kWordState = 0, kWordKind = 1, kWordPoint = 2, kWordLabelBytes = 3, kWordCode = 4,
                 kWordSequence = 5, kWordTime = 6, kWordNotAfter = 7;
// What a command of the gate is about; the answer's sequence takes its place.
constexpr size_t kWordHold = kWordSequence;
constexpr uint64_t kCodeOk = ~0ull;

bool is_of_gate(TapCommandKind kind) {
    return kind == TapCommandKind::kHold || kind == TapCommandKind::kMark ||
           kind == TapCommandKind::kLetGo;
}
}  // namespace

struct Tap::Impl {
    class Disk;

    TapOptions options;
    CaptureProducer producer;
    std::vector<std::unique_ptr<RangeLock>> locks;
    std::vector<std::unique_ptr<Disk>> disks;
    std::unique_ptr<Copier> copier;
    CopyBarrier* barrier = nullptr;
    std::atomic<bool> quit{false};
    WriteGate gate;
    std::mutex gate_commands;  // one thread serves them at a time

    // Orders changes and flushes of the backing disks: numbers of events, one count for all.
    struct DiskEvents {
        std::atomic<uint64_t> last_change{0};  // counted when it was done
        std::atomic<uint64_t> last_flush{0};   // counted when it began; good ones only
    };
    static void raise(std::atomic<uint64_t>& to, uint64_t value) {
        uint64_t before = to;
        while (before < value && !to.compare_exchange_weak(before, value)) {
        }
    }
    std::atomic<uint64_t> events{0};
    std::vector<std::unique_ptr<DiskEvents>> disk_events;
    std::atomic<bool> flush_failed{false};
    Status flush_device(DiskIndex disk);

    // Housekeeping only.
    int64_t next_point_us = 0;
    int64_t next_rotation_us = 0;
    int64_t next_trim_us = 0;
    bool rotate_now = false;
    GapState last_gap = GapState::kNone;
    uint64_t last_compare_runs = 0;
    bool last_joining = false;
    uint64_t point_interval_us = 0;
    std::array<bool, kCommandSlots> gap_opened{};

    explicit Impl(TapOptions given)
        : options(std::move(given)),
          producer(options.header, {options.clock, options.spill, options.wake, options.bugs,
                                    options.buggify, options.on_append}),
          gate(*options.clock) {}

    const LogHeader& header() const { return producer.header(); }
    bool in_path() const { return options.mode == TapMode::kInPath; }

    // Whether everything that was written before the rotation's first question is on stable
    // storage. The guest's own flushes usually see to it.
    struct DurableQuestion {
        int64_t asked_us = -1;  // -1: not yet
        uint64_t event = 0;
    };
    Result<bool> backing_is_durable(DurableQuestion& question, int64_t now_us);
    DurableQuestion rotation_question, copies_question;
    // Appends what the device has in the range now, as ordinary records.
    void capture_present(DiskIndex disk, ByteRange range);
    void recover();
    // Everything that has begun is in the log; false: not yet.
    bool settle() { return barrier == nullptr || barrier->settle(); }
    void run_commands();
    bool run_command(size_t slot);
    bool run_gate_commands();
    void run_gate_command(size_t slot);
    void answer(size_t slot, std::optional<Code> error, Sequence sequence = {},
                TimePoint time = {});
    void ring_agent();
    Result<Appended> append_point(size_t slot, PointKind kind);
    Appended append_plain(RecordKind kind, uint8_t flags = 0, std::string_view label = {});
};

class Tap::Impl::Disk final : public TapDisk {
  public:
    Disk(Impl& tap, DiskIndex index)
        : tap_(tap),
          index_(index),
          device_(*tap.options.devices[index]),
          lock_(*tap.locks[index]) {}

    uint64_t size_bytes() const override { return device_.size_bytes(); }
    bool read_only() const override { return false; }

    Status read(uint64_t offset, MutableByteView out) override {
        FS_TRY(check(offset, out.size()));
        return device_.read(offset, out);
    }
    Status write(uint64_t offset, ByteView data) override { return put(offset, data, false); }
    Status write_through(uint64_t offset, ByteView data) override {
        return put(offset, data, true);
    }
    Status zero(uint64_t offset, uint64_t length, bool may_unmap) override {
        return clear(RecordKind::kZero, offset, length, may_unmap);
    }
    Status discard(uint64_t offset, uint64_t length) override {
        return clear(RecordKind::kDiscard, offset, length, true);
    }
    Status flush() override {
        if (tap_.in_path()) FS_TRY(tap_.flush_device(index_));
        AppendRequest record;
        record.kind = RecordKind::kFlush;
        record.disk = index_;
        record.guest = true;
        tap_.producer.append(record);
        return {};
    }
    Result<std::vector<BlockExtent>> extents(uint64_t offset, uint64_t length) override {
        FS_TRY(check(offset, length));
        return device_.extents(offset, length);
    }
    Status cache(uint64_t offset, uint64_t length) override {
        FS_TRY(check(offset, length));
        return device_.cache(offset, length);
    }

  private:
    Status check(uint64_t offset, uint64_t length) const {
        if (offset > size_bytes() || length > size_bytes() - offset)
            return fail(Code::kInvalidArgument,
                        fmt::format("bytes {} to {} of disk {}, which has {}", offset,
                                    offset + length, index_, size_bytes()));
        return {};
    }

    // The backing disk has changed, or may have.
    void changed() { raise(tap_.disk_events[index_]->last_change, ++tap_.events); }

    // What every change does around the change itself. `change` changes the backing device;
    // `append` puts the records into the log.
    template <typename Change, typename Append>
    Status around(ByteRange range, Change change, Append append) {
        tap_.gate.pass();
        if (!tap_.in_path()) {
            const size_t slot = tap_.producer.begin(index_, range.offset_bytes, range.length_bytes);
            append();
            tap_.producer.end(slot);
            return {};
        }
        DirtyMap::Mark mark;
        if (!tap_.options.bugs.mark_too_late && tap_.options.marks)
            mark = tap_.options.dirty->mark(index_, range.offset_bytes, range.length_bytes);
        const auto held = lock_.acquire(range.offset_bytes, range.length_bytes);
        const size_t slot = tap_.producer.begin(index_, range.offset_bytes, range.length_bytes);
        Status status = change();
        if (status) {
            append();
        } else {
            // The device may have done any part of it: what it has now is what the guest can read.
            tap_.header().word(LogWord::kBackingErrors).fetch_add(1);
            tap_.capture_present(index_, range);
        }
        tap_.producer.end(slot);
        if (tap_.options.bugs.mark_too_late)
            mark = tap_.options.dirty->mark(index_, range.offset_bytes, range.length_bytes);
        return status;
    }

    Status put(uint64_t offset, ByteView data, bool through) {
        FS_TRY(check(offset, data.size()));
        if (data.empty()) return {};
        // Checksums first: nobody waits for us yet.
        const size_t pieces = (data.size() + kMaxWriteBytes - 1) / kMaxWriteBytes;
        std::vector<uint32_t> crcs(pieces);
        for (size_t i = 0; i < pieces; ++i) crcs[i] = crc32c(piece(data, i));
        return around(
            {offset, data.size()},
            [&]() -> Status {
                const Status written = device_.write(offset, data);
                changed();
                FS_TRY(written);
                if (through) FS_TRY(tap_.flush_device(index_));
                return {};
            },
            [&] {
                for (size_t i = 0; i < pieces; ++i) {
                    AppendRequest record;
                    record.kind = RecordKind::kWrite;
                    record.disk = index_;
                    record.offset_bytes = offset + i * kMaxWriteBytes;
                    record.payload = piece(data, i);
                    record.length_bytes = static_cast<uint32_t>(record.payload.size());
                    record.payload_crc = crcs[i];
                    record.guest = true;
                    tap_.producer.append(record);
                }
            });
    }
    static ByteView piece(ByteView data, size_t i) {
        const size_t from = i * kMaxWriteBytes;
        return data.subspan(from, std::min<size_t>(kMaxWriteBytes, data.size() - from));
    }

    Status clear(RecordKind kind, uint64_t offset, uint64_t length, bool may_unmap) {
        FS_TRY(check(offset, length));
        // In pieces of one record, each a change of its own: what a crash leaves in flight is read
        // back before anything else is served, and must not be a whole disk.
        while (length > 0) {
            const uint64_t n = std::min<uint64_t>(length, kMaxZeroBytes);
            FS_TRY(around(
                {offset, n},
                [&] {
                    const Status cleared = kind == RecordKind::kDiscard
                                               ? device_.discard(offset, n)
                                               : device_.zero(offset, n, may_unmap);
                    changed();
                    return cleared;
                },
                [&] {
                    AppendRequest record;
                    record.kind = kind;
                    record.disk = index_;
                    record.offset_bytes = offset;
                    record.length_bytes = static_cast<uint32_t>(n);
                    record.guest = true;
                    tap_.producer.append(record);
                }));
            offset += n;
            length -= n;
        }
        return {};
    }

    Impl& tap_;
    const DiskIndex index_;
    BlockDevice& device_;
    RangeLock& lock_;
};

Status Tap::Impl::flush_device(DiskIndex disk) {
    const uint64_t begun = ++events;
    Status flushed = options.devices[disk]->flush();
    if (!flushed) {
        flush_failed = true;
        return flushed;
    }
    raise(disk_events[disk]->last_flush, begun);
    return flushed;
}

Result<bool> Tap::Impl::backing_is_durable(DurableQuestion& question, int64_t now_us) {
    if (flush_failed) return fail(Code::kIo, "a flush of the backing disk failed");
    if (question.asked_us < 0) question = {now_us, ++events};
    for (size_t i = 0; i < disk_events.size(); ++i) {
        const uint64_t flushed = disk_events[i]->last_flush;
        if (flushed > question.event || flushed > disk_events[i]->last_change) continue;
        // A guest that does not flush: by now the kernel has written most of it back by itself.
        if (now_us - question.asked_us < kForcedFlushUs &&
            !buggify(options.buggify, "tap.forced_flush"))
            return false;
        FS_TRY(flush_device(static_cast<DiskIndex>(i)));
    }
    question.asked_us = -1;  // the next one asks anew
    return true;
}

void Tap::Impl::capture_present(DiskIndex disk, ByteRange range) {
    BlockDevice& device = *options.devices[disk];
    Bytes buffer;
    uint64_t at = range.offset_bytes;
    while (at < range.end()) {
        if (auto extents = device.extents(at, range.end() - at);
            extents && !extents->empty() && extents->front().zero) {
            const uint64_t n = std::min<uint64_t>(
                {extents->front().length_bytes, range.end() - at, kMaxZeroBytes});
            AppendRequest record;
            record.kind = RecordKind::kZero;
            record.disk = disk;
            record.offset_bytes = at;
            record.length_bytes = static_cast<uint32_t>(n);
            producer.append(record);
            at += n;
            continue;
        }
        const uint64_t n = std::min<uint64_t>(range.end() - at, kMaxWriteBytes);
        buffer.resize(n);
        if (!device.read(at, buffer)) {
            // Not readable now either; the copier keeps trying.
            producer.set_todo(disk, at, n);
        } else {
            for (const AppendRequest& record : records_for(disk, at, buffer))
                producer.append(record);
        }
        at += n;
    }
}

void Tap::Impl::recover() {
    for (const InFlight& left : producer.leftovers()) {
        ByteRange range = left.range;
        const uint64_t size = options.devices[left.disk]->size_bytes();
        if (range.offset_bytes < size) {
            range.length_bytes = std::min(range.length_bytes, size - range.offset_bytes);
            // In path the guest may read what the dead tap wrote, and act on it: it must be in the
            // log before anything newer. In mirror mode QEMU sends it again.
            if (in_path()) {
                auto mark = options.dirty->mark(left.disk, range.offset_bytes, range.length_bytes);
                capture_present(left.disk, range);
            } else {
                producer.set_todo(left.disk, range.offset_bytes, range.length_bytes);
            }
        }
        producer.end(left.slot);
    }
}

Appended Tap::Impl::append_plain(RecordKind kind, uint8_t flags, std::string_view label) {
    AppendRequest record;
    record.kind = kind;
    record.flags = flags;
    record.payload = as_bytes(label);
    if (!label.empty()) {
        record.length_bytes = static_cast<uint32_t>(label.size());
        record.payload_crc = crc32c(record.payload);
    }
    return producer.append(record);
}

void Tap::Impl::answer(size_t slot, std::optional<Code> error, Sequence sequence, TimePoint time) {
    const LogHeader& log = header();
    log.command(slot, kWordCode).store(error ? static_cast<uint64_t>(*error) : kCodeOk);
    log.command(slot, kWordSequence).store(sequence.v);
    log.command(slot, kWordTime).store(static_cast<uint64_t>(time.us));
    log.command(slot, kWordState).store(kCommandDone, std::memory_order_release);
}

void Tap::Impl::ring_agent() {
    auto& bell = header().futex(LogWord::kAgentDoorbell);
    bell.fetch_add(1);
    if (options.wake) options.wake(bell);
}

// With the label that stands in the slot. kPointInGap, kLimitReached.
Result<Appended> Tap::Impl::append_point(size_t slot, PointKind kind) {
    if (producer.state().gap != GapState::kNone) return fail(Code::kPointInGap, "in a gap");
    const LogHeader& log = header();
    const size_t bytes =
        std::min<size_t>(log.command(slot, kWordLabelBytes).load(), kMaxLabelBytes);
    const Appended point = append_plain(RecordKind::kPoint, static_cast<uint8_t>(kind),
                                        as_text(log.command_label(slot).first(bytes)));
    if (point.dropped) return fail(Code::kLimitReached, "the log is full");
    log.word(LogWord::kLastPoint).store(point.sequence.v);
    return point;
}

// Holds are only given by whoever serves the writes; what they were for is forgotten by a tap that
// dies, so a point that is marked later is refused.
void Tap::Impl::run_gate_command(size_t slot) {
    const LogHeader& log = header();
    const uint64_t hold = log.command(slot, kWordHold).load();
    const auto not_after = static_cast<int64_t>(log.command(slot, kWordNotAfter).load());
    switch (static_cast<TapCommandKind>(log.command(slot, kWordKind).load())) {
        case TapCommandKind::kHold: {
            if (options.mode == TapMode::kBlock) return answer(slot, Code::kUnsupported);
            if (producer.state().gap != GapState::kNone) return answer(slot, Code::kPointInGap);
            // A mirror's source has the writes that wait here already: a copy would take them in.
            if (!in_path() && !producer.settled()) return answer(slot, Code::kPointInGap);
            const Status held = gate.hold(hold, not_after);
            return answer(slot, held ? std::nullopt : std::optional(held.error().code()));
        }
        case TapCommandKind::kMark: {
            const uint64_t kind = log.command(slot, kWordPoint).load();
            if (kind < 1 || kind > 3) return answer(slot, Code::kInvalidArgument);
            Appended point;
            const Status marked = gate.mark(hold, [&]() -> Status {
                FS_ASSIGN(point, append_point(slot, static_cast<PointKind>(kind)));
                return {};
            });
            if (!marked) return answer(slot, marked.error().code());
            return answer(slot, std::nullopt, point.sequence, point.time);
        }
        default:
            gate.let_go(hold);
            return answer(slot, std::nullopt);
    }
}

bool Tap::Impl::run_gate_commands() {
    const std::lock_guard one_at_a_time(gate_commands);
    bool answered = false;
    const LogHeader& log = header();
    // Slots are in no order: whoever lets go has held before, so a hold goes first.
    for (const bool let_go : {false, true})
        for (size_t slot = 0; slot < kCommandSlots; ++slot) {
            if (log.command(slot, kWordState).load(std::memory_order_acquire) != kCommandPosted)
                continue;
            const auto kind = static_cast<TapCommandKind>(log.command(slot, kWordKind).load());
            if (!is_of_gate(kind) || (kind == TapCommandKind::kLetGo) != let_go) continue;
            run_gate_command(slot);
            answered = true;
        }
    return answered;
}

bool Tap::Impl::run_command(size_t slot) {
    const LogHeader& log = header();
    const auto done = [&](std::optional<Code> error, Sequence sequence = {}, TimePoint time = {}) {
        answer(slot, error, sequence, time);
        return true;
    };
    switch (static_cast<TapCommandKind>(log.command(slot, kWordKind).load())) {
        case TapCommandKind::kPoint: {
            // Who asks for a point has written before, perhaps behind this round's settling.
            if (!settle()) return false;
            const uint64_t kind = log.command(slot, kWordPoint).load();
            if (kind < 1 || kind > 3) return done(Code::kInvalidArgument);
            // Asked last: settling may have taken long.
            const auto not_after = static_cast<int64_t>(log.command(slot, kWordNotAfter).load());
            if (not_after != 0 && options.clock->steady_us() > not_after)
                return done(Code::kTimeout);
            const auto point = append_point(slot, static_cast<PointKind>(kind));
            if (!point) return done(point.error().code());
            return done(std::nullopt, point->sequence, point->time);
        }
        case TapCommandKind::kHold:
        case TapCommandKind::kMark:
        case TapCommandKind::kLetGo:
            return false;  // run_gate_commands()
        case TapCommandKind::kResyncAll:
        case TapCommandKind::kGapDirty: {
            if (!gap_opened[slot]) {
                const bool all = !in_path() ||
                                 static_cast<TapCommandKind>(log.command(slot, kWordKind).load()) ==
                                     TapCommandKind::kResyncAll;
                if (all && !options.dirty->broken() && !options.dirty->set_all_dirty()) {
                    // The map is gone then, which says the same.
                }
                producer.open_gap(
                    [&] {
                        if (all) {
                            for (size_t i = 0; i < producer.disks(); ++i)
                                producer.todo(static_cast<DiskIndex>(i)).set_all();
                        } else {
                            options.dirty->log_was_dropped();
                            options.dirty->for_each_dirty([&](DiskIndex disk, ByteRange range) {
                                producer.todo(disk).set(range.offset_bytes, range.length_bytes);
                            });
                        }
                    },
                    copier->compares());
                gap_opened[slot] = true;
            }
            // Done when GAP is in the log: the agent reads from there.
            if (!producer.settle_gap()) return false;
            gap_opened[slot] = false;
            const ProducerState state = producer.state();
            return done(std::nullopt, {state.gap_sequence}, {state.last_time_us});
        }
        case TapCommandKind::kCompareAll: {
            if (!copier->compares()) return done(Code::kUnsupported);
            // A crash of the host must not end it.
            if (!options.dirty->broken() && !options.dirty->set_all_dirty()) {
                // The map is gone then, which says the same.
            }
            producer.begin_check();
            return done(std::nullopt, producer.compare_after());
        }
        case TapCommandKind::kCancelCompare:
            if (!producer.cancel_check()) return done(Code::kWrongState);
            return done(std::nullopt);
        case TapCommandKind::kRotate:
            rotate_now = true;
            return done(std::nullopt);
        case TapCommandKind::kQuit:
            quit = true;
            return done(std::nullopt);
    }
    return done(Code::kUnsupported);
}

void Tap::Impl::run_commands() {
    if (buggify(options.buggify, "tap.late_command")) return;
    bool answered = run_gate_commands();
    for (size_t slot = 0; slot < kCommandSlots; ++slot)
        if (header().command(slot, kWordState).load(std::memory_order_acquire) == kCommandPosted)
            answered |= run_command(slot);
    if (answered) ring_agent();
}

Tap::Tap(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tap::~Tap() = default;

Result<std::unique_ptr<Tap>> Tap::start(TapOptions options) {
    FS_CHECK(options.dirty != nullptr);
    const auto& sizes = options.header.geometry().disk_bytes;
    if (options.devices.size() != sizes.size())
        return fail(Code::kDiskChanged, fmt::format("{} disks, the log is of {}",
                                                    options.devices.size(), sizes.size()));
    for (size_t i = 0; i < sizes.size(); ++i)
        if (options.devices[i]->size_bytes() != sizes[i])
            return fail(Code::kDiskChanged,
                        fmt::format("disk {} had {} bytes when it was protected, now {}", i,
                                    sizes[i], options.devices[i]->size_bytes()),
                        "the agent starts the capture anew with a disk that has grown; a smaller "
                        "one needs its old size again, or is removed and added");
    auto impl = std::make_unique<Impl>(std::move(options));
    std::vector<Copier::Source> sources;
    for (size_t i = 0; i < impl->options.devices.size(); ++i) {
        impl->locks.push_back(std::make_unique<RangeLock>());
        impl->disk_events.push_back(std::make_unique<Impl::DiskEvents>());
        // What an earlier tap wrote and did not flush.
        impl->disk_events.back()->last_change = ++impl->events;
        sources.push_back(
            {impl->options.devices[i].get(), impl->in_path() ? impl->locks.back().get() : nullptr});
    }
    for (size_t i = 0; i < impl->options.devices.size(); ++i)
        impl->disks.push_back(std::make_unique<Impl::Disk>(*impl, static_cast<DiskIndex>(i)));
    impl->copier = std::make_unique<Copier>(impl->producer, std::move(sources),
                                            *impl->options.clock, impl->options.random);
    const uint64_t next = impl->producer.state().next_sequence;
    if (!impl->options.dirty->broken() &&
        impl->options.dirty->reserved_until() < next + kSequenceBlock / 2)
        FS_TRY(impl->options.dirty->reserve(next + kSequenceBlock));
    if (!impl->options.marks) FS_TRY(impl->options.dirty->set_all_dirty());
    impl->header().word(LogWord::kTapMode).store(static_cast<uint64_t>(impl->options.mode));
    impl->recover();
    const int64_t now = impl->options.clock->steady_us();
    impl->next_rotation_us = now;
    impl->next_trim_us = now + kTrimUs;
    impl->last_gap = impl->producer.state().gap;
    impl->last_joining = impl->producer.any_joining();
    impl->last_compare_runs = impl->header().word(LogWord::kCompareRuns).load();
    impl->header().word(LogWord::kTapHeartbeatUs).store(static_cast<uint64_t>(now));
    return std::unique_ptr<Tap>(new Tap(std::move(impl)));
}

TapDisk& Tap::disk(DiskIndex index) { return *impl_->disks.at(index); }
size_t Tap::disks() const { return impl_->disks.size(); }
CaptureProducer& Tap::producer() { return impl_->producer; }
Copier& Tap::copier() { return *impl_->copier; }
bool Tap::quit_requested() const { return impl_->quit; }

void Tap::set_barrier(CopyBarrier* barrier) {
    impl_->barrier = barrier;
    impl_->copier->set_barrier(barrier);
}

void Tap::serve_gate() {
    if (impl_->run_gate_commands()) impl_->ring_agent();
}

int64_t Tap::tick() {
    Impl& tap = *impl_;
    const bool known = tap.settle();
    CaptureProducer& producer = tap.producer;
    DirtyMap& dirty = *tap.options.dirty;
    const LogHeader& log = tap.header();
    const int64_t now = tap.options.clock->steady_us();
    log.word(LogWord::kTapHeartbeatUs).store(static_cast<uint64_t>(now));

    tap.run_commands();
    const bool owed = buggify(tap.options.buggify, "tap.late_gap") || !producer.settle_geometry();

    // Points: on their interval, at once when a gap was closed, never inside one.
    const ProducerState state = producer.state();
    const uint64_t wanted = log.word(LogWord::kPointIntervalUs).load();
    const uint64_t interval = wanted == 0 ? 0 : std::max<uint64_t>(wanted, kMinPointIntervalUs);
    if (interval != tap.point_interval_us) {
        tap.point_interval_us = interval;
        tap.next_point_us = now + static_cast<int64_t>(interval);
    }
    const uint64_t compare_runs = log.word(LogWord::kCompareRuns).load();
    const bool joining = producer.any_joining();
    const bool closed = (tap.last_gap != GapState::kNone || compare_runs != tap.last_compare_runs ||
                         tap.last_joining != joining) &&
                        state.gap == GapState::kNone;
    if (known) {
        tap.last_gap = state.gap;
        tap.last_joining = joining;
        if (closed) tap.last_compare_runs = compare_runs;
    }
    if (known && state.gap == GapState::kNone &&
        (closed || (interval != 0 && now >= tap.next_point_us))) {
        const Appended point =
            tap.append_plain(RecordKind::kPoint, static_cast<uint8_t>(PointKind::kCrash));
        if (!point.dropped) log.word(LogWord::kLastPoint).store(point.sequence.v);
        tap.next_point_us = now + static_cast<int64_t>(interval);
    }
    if (known && !owed && now - producer.last_append_steady_us() >= kIdleMarkUs)
        tap.append_plain(RecordKind::kTime);

    // The dirty map; a mirror cannot mark before QEMU writes, so there everything stays different.
    if (!dirty.broken()) {
        if (state.next_sequence + kSequenceBlock / 2 > dirty.reserved_until())
            (void)dirty.reserve(state.next_sequence + kSequenceBlock);
        if (tap.in_path() && tap.options.marks) {
            const bool begin = tap.rotate_now || now >= tap.next_rotation_us ||
                               buggify(tap.options.buggify, "tap.rotate_now");
            if (begin) {
                tap.rotate_now = false;
                tap.next_rotation_us =
                    now + static_cast<int64_t>(log.word(LogWord::kRotateUs).load());
            }
            const bool settled = producer.settled();
            // Read after `settled`, see rotate().
            const Sequence last = producer.last_but_idle();
            const Sequence stored = tap.options.bugs.unmark_too_early
                                        ? last
                                        : Sequence{log.word(LogWord::kStored).load()};
            dirty.rotate(begin, settled, last, stored,
                         [&] { return tap.backing_is_durable(tap.rotation_question, now); });
            if (!settled)
                dirty.settle_copies(
                    begin,
                    [&](DiskIndex disk, ByteRange range) { return producer.copied(disk, range); },
                    [&] { return producer.last_but_idle(); }, stored,
                    [&] { return tap.backing_is_durable(tap.copies_question, now); });
            log.word(LogWord::kDirtyRegions).store(dirty.dirty_regions());
            log.word(LogWord::kDirtyMapSyncs).store(dirty.syncs());
        }
    } else {
        log.word(LogWord::kDirtyMapErrors).store(1);
    }
    if (now >= tap.next_trim_us) {
        tap.next_trim_us = now + kTrimUs;
        producer.trim_spill();
    }
    if (owed) {
        log.word(LogWord::kTapWantsSpace).store(1);
        return kBusyTickUs;
    }
    return kTickUs;
}

// ---- a new log ----------------------------------------------------------------------------------

Result<Sequence> first_of_new_log(DirtyMap& dirty, Sequence at_least, TimePoint now) {
    Sequence first = std::max(at_least, Sequence{dirty.reserved_until()});
    // An appliance may have received more than what is known to be stored.
    if (dirty.reserved_until() <= 1 && (dirty.numbers_lost() || at_least.v > 1))
        first = std::max(first, Sequence{static_cast<uint64_t>(now.us / 1'000'000) << 24});
    FS_TRY(dirty.reserve(first.v + kSequenceBlock));
    return first;
}

void fill_new_log(const LogHeader& header, const DirtyMap& dirty, TapMode mode) {
    const auto& sizes = header.geometry().disk_bytes;
    std::vector<TodoMap> todo;
    const bool all = mode == TapMode::kMirror || dirty.all_dirty();
    for (size_t disk = 0; disk < sizes.size(); ++disk) {
        todo.emplace_back(header.todo_words(static_cast<DiskIndex>(disk)), sizes[disk]);
        if (all) todo.back().set_all();
    }
    if (!all)
        dirty.for_each_dirty([&](DiskIndex disk, ByteRange range) {
            todo[disk].set(range.offset_bytes, range.length_bytes);
        });
    uint64_t granules = 0;
    for (const TodoMap& one : todo) granules += one.count();
    header.word(LogWord::kTodoGranules).store(granules);
    header.word(LogWord::kCopyTotalGranules).store(granules);
}

// ---- commands -----------------------------------------------------------------------------------

TapCommands::TapCommands(LogHeader header, WakeFunction wake)
    : header_(std::move(header)), wake_(std::move(wake)) {
    // What an agent before us had begun or never fetched. What it posted is done, and freed at its
    // end by whoever looks for a slot.
    for (size_t slot = 0; slot < kCommandSlots; ++slot) {
        const uint64_t state = header_.command(slot, kWordState).load();
        if (state == kCommandFilling || state == kCommandDone)
            header_.command(slot, kWordState).store(kCommandFree);
    }
}

Result<size_t> TapCommands::post(const TapCommand& command) {
    if (command.label.size() > kMaxLabelBytes)
        return fail(Code::kInvalidArgument, fmt::format("a label of {} bytes; at most {}",
                                                        command.label.size(), kMaxLabelBytes));
    std::lock_guard lock(mutex_);
    for (size_t slot = 0; slot < kCommandSlots; ++slot) {
        const uint64_t state = header_.command(slot, kWordState).load(std::memory_order_acquire);
        if (ours_[slot] || (state != kCommandFree && state != kCommandDone)) continue;
        ours_[slot] = true;
        header_.command(slot, kWordState).store(kCommandFilling);
        header_.command(slot, kWordKind).store(static_cast<uint64_t>(command.kind));
        header_.command(slot, kWordPoint).store(static_cast<uint64_t>(command.point));
        header_.command(slot, kWordLabelBytes).store(command.label.size());
        header_.command(slot, kWordNotAfter).store(static_cast<uint64_t>(command.not_after_us));
        header_.command(slot, kWordHold).store(command.hold);
        std::copy(command.label.begin(), command.label.end(), header_.command_label(slot).begin());
        header_.command(slot, kWordState).store(kCommandPosted, std::memory_order_release);
        auto& bell = header_.futex(LogWord::kTapDoorbell);
        bell.fetch_add(1);
        if (wake_) wake_(bell);
        return slot;
    }
    return fail(Code::kLimitReached, "too many commands wait for the tap");
}

std::optional<TapCommandResult> TapCommands::take(size_t slot) {
    std::lock_guard lock(mutex_);
    FS_CHECK(slot < kCommandSlots && ours_[slot]);
    if (header_.command(slot, kWordState).load(std::memory_order_acquire) != kCommandDone)
        return std::nullopt;
    TapCommandResult result;
    const uint64_t code = header_.command(slot, kWordCode).load();
    result.ok = code == kCodeOk;
    if (!result.ok) result.code = static_cast<Code>(code);
    result.sequence = {header_.command(slot, kWordSequence).load()};
    result.time = {static_cast<int64_t>(header_.command(slot, kWordTime).load())};
    header_.command(slot, kWordState).store(kCommandFree);
    ours_[slot] = false;
    return result;
}

}  // namespace farshore
