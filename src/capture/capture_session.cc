#include "capture/capture_session.h"

#include <fmt/core.h>

#include <algorithm>

namespace farshore {

struct CaptureSession::Impl {
    CaptureConfig config;
    CaptureFiles files;
    const Clock& clock;
    CaptureConsumer consumer;
    TapCommands commands;

    Impl(CaptureConfig given, CaptureFiles opened, const Clock& the_clock)
        : config(std::move(given)),
          files(std::move(opened)),
          clock(the_clock),
          consumer(files.header, files.spill.get(), real_wake()),
          commands(files.header, real_wake()) {}
};

CaptureSession::CaptureSession(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
CaptureSession::~CaptureSession() = default;

Result<std::unique_ptr<CaptureSession>> CaptureSession::open(const CaptureConfig& config,
                                                             FileSystem& files,
                                                             const Clock& clock) {
    FS_ASSIGN(CaptureFiles opened, CaptureFiles::open(config, files));
    return std::unique_ptr<CaptureSession>(
        new CaptureSession(std::make_unique<Impl>(config, std::move(opened), clock)));
}

const CaptureConfig& CaptureSession::config() const { return impl_->config; }
CaptureConsumer& CaptureSession::log() { return impl_->consumer; }

bool CaptureSession::all_to_copy(DiskIndex disk) const {
    const LogHeader& header = impl_->files.header;
    if ((header.word(LogWord::kJoining).load() & (1ull << disk)) == 0) return false;
    uint64_t granules =
        (impl_->config.disk_bytes[disk] + kTodoGranuleBytes - 1) / kTodoGranuleBytes;
    for (uint64_t& word : header.todo_words(disk)) {
        const uint64_t all = granules >= 64 ? ~0ull : (1ull << granules) - 1;
        if ((std::atomic_ref<uint64_t>(word).load() & all) != all) return false;
        granules -= std::min<uint64_t>(granules, 64);
    }
    return true;
}

bool CaptureSession::wait(int64_t timeout_us) {
    const LogHeader& header = impl_->files.header;
    auto& bell = header.futex(LogWord::kAgentDoorbell);
    const uint32_t seen = bell.load();
    if (!impl_->consumer.at_end()) return true;
    header.word(LogWord::kAgentWaiting).store(1);
    // The tap looks at the word after it published: either it sees us or we see its record.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (impl_->consumer.at_end()) futex_wait(bell, seen, timeout_us);
    header.word(LogWord::kAgentWaiting).store(0);
    return !impl_->consumer.at_end();
}

void CaptureSession::poke() {
    auto& bell = impl_->files.header.futex(LogWord::kAgentDoorbell);
    bell.fetch_add(1);
    futex_wake(bell);
}

Result<size_t> CaptureSession::post(const TapCommand& command) {
    return impl_->commands.post(command);
}

std::optional<TapCommandResult> CaptureSession::poll(size_t ticket) {
    return impl_->commands.take(ticket);
}

Result<TapCommandResult> CaptureSession::run(const TapCommand& command, int64_t timeout_us) {
    FS_ASSIGN(const size_t ticket, post(command));
    auto& bell = impl_->files.header.futex(LogWord::kAgentDoorbell);
    const int64_t until = impl_->clock.steady_us() + timeout_us;
    for (;;) {
        const uint32_t seen = bell.load();
        if (auto result = poll(ticket)) {
            if (!result->ok)
                return fail(
                    result->code, fmt::format("the tap refused: {}", code_name(result->code)),
                    result->code == Code::kPointInGap ? "wait until the machine is protected again"
                                                      : "");
            return *result;
        }
        const int64_t left = until - impl_->clock.steady_us();
        if (left <= 0)
            return fail(Code::kTimeout, "the tap does not answer",
                        "it is restarted when it does not run");
        futex_wait(bell, seen, left);
    }
}

void CaptureSession::set_point_interval_us(uint64_t interval_us) {
    impl_->files.header.word(LogWord::kPointIntervalUs).store(interval_us);
}
void CaptureSession::set_copy_bytes_per_s(uint64_t bytes_per_s) {
    impl_->files.header.word(LogWord::kCopyBytesPerS).store(bytes_per_s);
}
void CaptureSession::set_copy_paused(bool paused) {
    impl_->files.header.word(LogWord::kCopyPaused).store(paused ? 1 : 0);
}
void CaptureSession::set_copy_held(bool held) {
    impl_->files.header.word(LogWord::kHoldCopy).store(held ? 1 : 0);
}
void CaptureSession::set_compare_hold(CompareHold hold) {
    impl_->files.header.word(LogWord::kCompareHold).store(static_cast<uint64_t>(hold));
}
void CaptureSession::set_rotate_us(uint64_t rotate_us) {
    impl_->files.header.word(LogWord::kRotateUs).store(rotate_us);
}

CaptureStatus CaptureSession::status() const {
    const LogHeader& header = impl_->files.header;
    const auto word = [&](LogWord which) { return header.word(which).load(); };
    CaptureStatus status;
    status.mode = static_cast<TapMode>(word(LogWord::kTapMode));
    const ConsumerState consumer = header.consumer();
    const ProducerState producer = header.producer();
    const LogUsage used = log_usage(producer, consumer);
    status.ring_bytes = header.geometry().ring_bytes;
    status.spill_bytes = header.geometry().spill_bytes;
    // The two states are not of one instant.
    status.ring_used_bytes = std::min(used.ring_bytes, status.ring_bytes);
    status.spill_used_bytes = std::min(used.spill_bytes, status.spill_bytes);
    status.gap = producer.gap;
    status.last = {producer.next_sequence - 1};
    status.last_time = {producer.last_time_us};
    status.released = {consumer.released};
    status.stored = {word(LogWord::kStored)};
    status.last_point = {word(LogWord::kLastPoint)};
    status.gaps = producer.gaps;
    status.copy_total_bytes = word(LogWord::kCopyTotalGranules) * kTodoGranuleBytes;
    const uint64_t left = word(LogWord::kTodoGranules) * kTodoGranuleBytes;
    status.copy_done_bytes = status.copy_total_bytes - std::min(left, status.copy_total_bytes);
    status.copy_paused = word(LogWord::kCopyPaused) != 0;
    status.copied_bytes = word(LogWord::kCopiedBytes);
    status.compare = static_cast<CompareState>(word(LogWord::kCompareState));
    const auto hold = static_cast<CompareHold>(word(LogWord::kCompareHold));
    status.compare_held = (status.compare == CompareState::kComparing ||
                           status.compare == CompareState::kVerifying) &&
                          (hold == CompareHold::kAlways ||
                           (hold == CompareHold::kWithoutGap && producer.gap == GapState::kNone));
    status.compare_total_bytes = word(LogWord::kCompareTotalBytes);
    status.compared_bytes = word(LogWord::kComparedBytes);
    status.differing_bytes = word(LogWord::kDifferingBytes);
    status.unreadable_bytes = word(LogWord::kUnreadableBytes);
    status.verified_bytes = word(LogWord::kVerifiedBytes);
    status.verify_failures = word(LogWord::kVerifyFailures);
    status.compare_sent_bytes = status.copied_bytes - word(LogWord::kCompareCopiedBefore);
    status.compared_ever_bytes = word(LogWord::kComparedEver);
    status.sampled_bytes = word(LogWord::kSampledBytes);
    status.sample_differing_bytes = word(LogWord::kSampleDifferingBytes);
    status.copy_discarded = word(LogWord::kCopyDiscarded);
    status.copy_errors = word(LogWord::kCopyErrors);
    status.appended_records = word(LogWord::kAppendedRecords);
    status.appended_bytes = word(LogWord::kAppendedBytes);
    status.guest_bytes = word(LogWord::kGuestBytes);
    status.spilled_bytes = word(LogWord::kSpilledBytes);
    status.dropped_records = word(LogWord::kDroppedRecords);
    status.spill_errors = word(LogWord::kSpillErrors);
    status.spill_errno = static_cast<int>(word(LogWord::kSpillErrno));
    status.backing_errors = word(LogWord::kBackingErrors);
    status.dirty_regions = word(LogWord::kDirtyRegions);
    status.dirty_map_broken = word(LogWord::kDirtyMapErrors) != 0;
    status.dirty_map_mended = word(LogWord::kDirtyMapMended);
    status.dirty_map_lost = word(LogWord::kDirtyMapLost);
    status.dirty_map_syncs = word(LogWord::kDirtyMapSyncs);
    const int64_t now = impl_->clock.steady_us();
    for (size_t slot = 0; slot < kInFlightSlots; ++slot) {
        const auto start = static_cast<int64_t>(header.in_flight(slot, kInFlightStartWord).load());
        if (header.in_flight(slot, 0).load(std::memory_order_acquire) == 0) continue;
        ++status.in_flight;
        status.oldest_in_flight_us = std::max(status.oldest_in_flight_us, now - start);
    }
    status.tap_pid = word(LogWord::kTapPid);
    status.tap_starts = word(LogWord::kTapStarts);
    const uint64_t beat = word(LogWord::kTapHeartbeatUs);
    status.tap_heartbeat_age_us = beat == 0 ? INT64_MAX : now - static_cast<int64_t>(beat);
    return status;
}

}  // namespace farshore
