// One item's way through the process server: spool, segments, store, registration. Made and called
// by ProcessServer only, on its home executor; see there.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/seams.h"
#include "replica/segment.h"
#include "replicate/frames.h"
#include "replicate/process_server.h"
#include "replicate/spool.h"

namespace farshore {

inline uint64_t changed_bytes(const std::vector<SpoolRange>& ranges) {
    uint64_t total = 0;
    for (const SpoolRange& range : ranges) total += range.payload_bytes;
    return total;
}

class ItemIntake : public std::enable_shared_from_this<ItemIntake> {
  public:
    ItemIntake(ProcessServer& server, ItemId item);
    ~ItemIntake();

    // Opens the spool, then asks the vault for the log lease; both go on behind the caller's back.
    void open();
    // A session's HELLO. `send` queues a frame to it, `end` closes it; both may be called until
    // detach(session).
    struct Peer {
        uint64_t session = 0;
        std::string agent;
        PartyId instance;
        std::function<void(Bytes)> send;
        std::function<void(const Error&)> end;
    };
    void attach(Peer peer, const HelloFrame& hello);
    void detach(uint64_t session);
    void on_data(uint64_t session, ByteView records);
    // What it wanted to send may go, on `put` (ProcessServer::want_upload). False: there is nothing
    // any more.
    bool upload(Executor& put);
    // No task of this touches the server any more; the spool is removed.
    void retire();
    IntakeStatus status() const;

  private:
    struct Batch {
        SpoolRange range;
        SharedBytes bytes;     // null: read it from the spool
        int64_t since_us = 0;  // when it was queued, steady
    };
    struct Sealed {
        BuiltSegment segment;
        std::vector<SpoolRange> ranges;
        uint64_t written_bytes = 0;
        int64_t since_us = 0;  // of its oldest batch
        enum class State : uint8_t {
            kWaiting,
            kPutting,
            kFailed,  // waits to be tried again
            kPut,
        } state = State::kWaiting;
        int64_t retry_us = kRetryFirstUs;
        uint64_t bytes() const { return segment.object.size(); }
    };

    void opened(Result<std::shared_ptr<Spool>> spool);
    void acquire();
    void acquired(Result<LogLease> lease);
    Status follow_lease();
    void give_up_lease(const Error& why);
    void lose_lease(const Error& why);  // which another one has; ours comes again later
    void start_over(const Error& why);
    void welcome();
    void drop_peer(const Error& why);
    void send_ack();
    uint64_t window() const;
    Result<Batch> take_new(ByteView records);
    void schedule_sync();
    void synced(Status status, std::vector<Batch> batches);
    void enqueue(Batch batch);
    bool join_idle(const Batch& batch);
    void maybe_cut();
    void arm_cut_timer(int64_t delay_us);
    void cut();
    void built(Result<Sealed> sealed);
    void put_back(const std::vector<SpoolRange>& ranges);
    void schedule_upload();
    void stop_uploading();
    uint64_t sealed_bytes() const;
    void put(const std::shared_ptr<Sealed>& sealed, Status status);
    void schedule_registration();
    uint64_t segment_bytes() const;
    UploadStatus upload_status() const;
    void registered(Status status);
    void trim();
    void maybe_mark_idle();
    void retry(std::function<void()> what);
    void retry_after(int64_t& delay_us, std::function<void()> what, int64_t most_us = kRetryMaxUs);
    // What goes wrong on one side of the queue, since when. The two sides fail and mend apart.
    struct Trouble {
        std::optional<Error> error;
        int64_t since_us = 0;
    };
    void note(const Error& error);
    void troubled(Trouble& side, const Error& error);
    void mended(Trouble& side);
    void report_trouble();
    template <typename Work, typename Done>
    void run_on(Executor& executor, Work work, Done done);

    ProcessServer& server_;
    const ProcessServerOptions& options_;
    const ItemId item_;
    bool retired_ = false;

    std::shared_ptr<Spool> spool_;
    std::optional<LogLease> lease_;
    bool acquiring_ = false;
    // Counts leases: what was begun under an earlier one is ignored when it comes back.
    uint64_t generation_ = 0;

    std::optional<Peer> peer_;
    int64_t peer_heard_us_ = 0;

    Sequence accepted_;  // highest taken from the wire
    Sequence received_;  // highest that is durable in the spool
    Sequence stored_;
    TimePoint received_time_, stored_time_;
    std::vector<Batch> unsynced_;
    uint64_t unsynced_bytes_ = 0;
    bool syncing_ = false;
    bool starting_over_ = false;  // nothing that the spool holds is trusted, until it is cleared

    std::deque<Batch> queue_;  // durable, in no segment yet
    uint64_t queue_memory_bytes_ = 0;
    uint64_t queue_payload_bytes_ = 0;
    uint64_t queue_records_ = 0;
    int64_t oldest_work_us_ = 0;  // when the first batch with more than idle marks came; 0: none
    bool queue_has_point_ = false;
    std::optional<Executor::TimerId> cut_timer_;

    bool building_ = false;
    std::vector<SpoolRange> building_ranges_;
    SegmentNumber next_number_;
    Digest previous_header_{};
    // In the order of their numbers; the first is the one that is registered next. They are put in
    // any order.
    std::deque<std::shared_ptr<Sealed>> sealed_;
    uint64_t putting_bytes_ = 0;  // under way, also what a lost lease left
    size_t puts_ = 0;             // of those
    bool wanting_ = false;        // to send the next one: no executor is free, or a limit holds it
    bool registering_ = false;
    uint64_t uploaded_payload_bytes_ = 0;
    bool trimming_ = false;
    int64_t retry_us_ = kRetryFirstUs;
    int64_t fenced_retry_us_ = kRetryFirstUs;  // grows until something is stored

    bool marking_ = false;
    TimePoint marked_time_;

    uint64_t received_bytes_ = 0, uploaded_bytes_ = 0, segments_ = 0;
    std::string last_error_;
    Trouble receiving_trouble_, storing_trouble_;
    bool trouble_told_ = false;
    int64_t trouble_told_us_ = 0;
};

// Runs `work` on `executor`, then `done` with its result on home, unless this was retired
// meanwhile.
template <typename Work, typename Done>
void ItemIntake::run_on(Executor& executor, Work work, Done done) {
    executor.post([self = shared_from_this(), work = std::move(work), done = std::move(done)] {
        auto result = std::make_shared<decltype(work())>(work());
        Executor* home = self->server_.executors_.home;
        home->post([self, result, done] {
            if (!self->retired_) done(std::move(*result));
        });
    });
}

}  // namespace farshore
