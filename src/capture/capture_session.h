// What the agent needs of one item's capture, in one place: the files, the log to drain, commands
// to the tap, settings, and what to show. The tap itself is a process (nbdkit with our plugin) that
// the agent starts; nothing here depends on whether it runs.
//
// One session for an item at a time. log() and wait() belong to one thread (or executor);
// everything else may be called from any. No call waits for the tap but wait().
//
//   CaptureSession::open(config, files, clock)      also makes the files, before the tap is started
//   session->write_tap_config(path, ...)            tap_config.h: the plugin's configuration
//   session->log().seek(next), peek, advance, release, set_stored
//   session->post(command) -> ticket; session->poll(ticket)
#pragma once

#include <memory>
#include <optional>

#include "base/seams.h"
#include "capture/capture_files.h"
#include "capture/tap.h"

namespace farshore {

struct CaptureStatus {
    TapMode mode = TapMode::kInPath;
    uint64_t ring_bytes = 0, ring_used_bytes = 0;
    uint64_t spill_bytes = 0, spill_used_bytes = 0;
    GapState gap = GapState::kNone;  // kNone: every sequence is a point
    Sequence last;                   // newest number used
    TimePoint last_time;             // of the newest record
    Sequence released;               // received by the appliance
    Sequence stored;
    Sequence last_point;
    uint64_t gaps = 0;
    // The copy that runs or ran last.
    uint64_t copy_total_bytes = 0;
    uint64_t copy_done_bytes = 0;
    bool copy_paused = false;
    // The comparison that runs or ran last (comparer.h).
    CompareState compare = CompareState::kNone;
    bool compare_held = false;  // one that runs waits (CompareHold)
    uint64_t compare_total_bytes = 0, compared_bytes = 0, differing_bytes = 0;
    uint64_t unreadable_bytes = 0, verified_bytes = 0, verify_failures = 0;
    uint64_t compare_sent_bytes = 0;  // copied since it began
    // Of the samples that are compared while the copy is held; 0: not yet.
    uint64_t sampled_bytes = 0, sample_differing_bytes = 0;
    uint64_t compared_ever_bytes = 0;
    uint64_t copied_bytes = 0;    // read from the source, ever
    uint64_t copy_discarded = 0;  // reads thrown away
    uint64_t copy_errors = 0;     // reads that failed
    uint64_t appended_records = 0;
    uint64_t appended_bytes = 0;  // encoded
    uint64_t guest_bytes = 0;
    uint64_t spilled_bytes = 0;
    uint64_t dropped_records = 0;
    uint64_t spill_errors = 0;
    uint64_t backing_errors = 0;
    uint64_t dirty_regions = 0;
    int spill_errno = 0;            // of the last write to the spill; 0: it went well
    bool dirty_map_broken = false;  // after a host crash everything is compared
    // Pieces of its file that were damaged in one copy and mended, and that were in both.
    uint64_t dirty_map_mended = 0, dirty_map_lost = 0;
    uint64_t dirty_map_syncs = 0;  // since the tap started
    uint32_t in_flight = 0;
    // Age of the oldest write in flight: the watchdog's measure. 0: none.
    int64_t oldest_in_flight_us = 0;
    uint64_t tap_pid = 0;  // 0: none has started yet
    uint64_t tap_starts = 0;
    // Since the tap's housekeeping last ran; a second is long. INT64_MAX: never.
    int64_t tap_heartbeat_age_us = 0;
};

class CaptureSession {
  public:
    static Result<std::unique_ptr<CaptureSession>> open(const CaptureConfig& config,
                                                        FileSystem& files, const Clock& clock);
    ~CaptureSession();

    const CaptureConfig& config() const;
    CaptureConsumer& log();
    // Sleeps until the log has something behind the cursor, a command was done, poke() was called,
    // or the time is over. True when the log has something.
    bool wait(int64_t timeout_us);
    // Ends wait() early; any thread.
    void poke();

    // Tickets are slots: few. See TapCommands.
    Result<size_t> post(const TapCommand& command);
    std::optional<TapCommandResult> poll(size_t ticket);
    // Posts and waits for the answer: kTimeout when the tap did not answer (the command stays
    // posted and the ticket is lost until then), else the command's own error.
    Result<TapCommandResult> run(const TapCommand& command, int64_t timeout_us);

    void set_point_interval_us(uint64_t interval_us);  // 0: none; at least 1 s
    void set_copy_bytes_per_s(uint64_t bytes_per_s);   // 0: not throttled
    void set_copy_paused(bool paused);
    // Samples are compared first, and nothing is copied.
    void set_copy_held(bool held);
    void set_compare_hold(CompareHold hold);
    void set_rotate_us(uint64_t rotate_us);

    CaptureStatus status() const;
    // The disk joins, and all of it is still to be copied. Says nothing of what a tap that runs and
    // is not paused has under way.
    bool all_to_copy(DiskIndex disk) const;

  private:
    struct Impl;
    explicit CaptureSession(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace farshore
