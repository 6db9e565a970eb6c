#include "replicate/item_intake.h"

#include <fmt/core.h>

#include <algorithm>

#include "record/record.h"

namespace farshore {
namespace {

// For who is fenced again and again: longer than it takes another one to store what it has.
constexpr int64_t kFencedRetryMaxUs = 60'000'000;

// The part of encoded `records` behind `stored`.
ByteView behind(ByteView records, Sequence stored) {
    RecordCursor cursor(records, false);
    size_t skip = 0;
    while (!cursor.done()) {
        auto record = cursor.next();
        if (!record || record->header.sequence > stored) break;
        skip = records.size() - cursor.remaining();
    }
    return records.subspan(skip);
}

}  // namespace

ItemIntake::ItemIntake(ProcessServer& server, ItemId item)
    : server_(server), options_(server.options_), item_(item) {}

ItemIntake::~ItemIntake() = default;

void ItemIntake::note(const Error& error) { last_error_ = error.to_string(); }

void ItemIntake::troubled(Trouble& side, const Error& error) {
    note(error);
    if (!side.error) side.since_us = server_.clock_.steady_us();
    side.error = error;
    report_trouble();
}

void ItemIntake::mended(Trouble& side) {
    if (!side.error) return;
    side.error.reset();
    report_trouble();
}

// People look at the vault, so it has to know. Short troubles mend by themselves and are not told.
void ItemIntake::report_trouble() {
    const int64_t now_us = server_.clock_.steady_us();
    std::optional<Error> worst;
    for (const Trouble* side : {&storing_trouble_, &receiving_trouble_})
        if (side->error && now_us - side->since_us >= kTroubleAfterUs) worst = side->error;
    if (!worst && (!trouble_told_ || receiving_trouble_.error || storing_trouble_.error)) return;
    if (worst && trouble_told_ && now_us - trouble_told_us_ < kTroubleRepeatUs) return;
    trouble_told_ = worst.has_value();
    trouble_told_us_ = now_us;
    server_.executors_.control->post([self = shared_from_this(), worst] {
        // When it is the vault that can't be reached, it will be told once it can.
        (void)self->server_.vault_.report_trouble(self->item_, self->options_.name, worst);
    });
}

void ItemIntake::retry(std::function<void()> what) { retry_after(retry_us_, std::move(what)); }

void ItemIntake::retry_after(int64_t& delay_us, std::function<void()> what, int64_t most_us) {
    const int64_t delay = delay_us;
    delay_us = std::min(delay_us * 2, most_us);
    server_.executors_.home->post_after_us(delay,
                                           [weak = weak_from_this(), what = std::move(what)] {
                                               if (auto self = weak.lock(); self && !self->retired_)
                                                   what();
                                           });
}

void ItemIntake::open() {
    // The newest file stays when it is stored: it must not be all that the spool may hold.
    const uint64_t file_bytes = std::min(options_.spool_file_bytes, options_.spool_bytes / 4);
    run_on(
        *server_.executors_.spool,
        [this, file_bytes]() -> Result<std::shared_ptr<Spool>> {
            FS_ASSIGN(std::shared_ptr<Spool> spool,
                      Spool::open(server_.fs_, options_.spool_directory + "/" + item_.to_string(),
                                  item_, file_bytes, true, options_.buggify));
            return spool;
        },
        [this](Result<std::shared_ptr<Spool>> spool) { opened(std::move(spool)); });
}

void ItemIntake::opened(Result<std::shared_ptr<Spool>> spool) {
    if (!spool) {
        troubled(receiving_trouble_, spool.error());
        drop_peer(spool.error());
        retry([this] { open(); });
        return;
    }
    spool_ = std::move(*spool);
    mended(receiving_trouble_);
    if (!spool_->repaired().empty()) last_error_ = spool_->repaired();
    for (const SpoolRange& range : spool_->recovered()) {
        accepted_ = received_ = range.last;
        received_time_ = range.last_time;
        enqueue({range, nullptr, 0});
    }
    acquire();
}

void ItemIntake::acquire() {
    if (acquiring_ || lease_ || !spool_) return;
    acquiring_ = true;
    run_on(
        *server_.executors_.control,
        [this] { return server_.vault_.acquire_log(item_, options_.name); },
        [this](Result<LogLease> lease) { acquired(std::move(lease)); });
}

void ItemIntake::acquired(Result<LogLease> lease) {
    acquiring_ = false;
    if (!lease) {
        troubled(storing_trouble_, lease.error());
        if (lease.error().retry() == Retry::kNever) drop_peer(lease.error());
        retry([this] { acquire(); });
        return;
    }
    ++generation_;
    lease_ = std::move(*lease);
    next_number_ = lease_->next_segment;
    previous_header_ = lease_->previous_header;
    retry_us_ = kRetryFirstUs;
    if (Status followed = follow_lease(); !followed) {
        note(followed.error());
        lease_.reset();
        retry([this] { acquire(); });
        return;
    }
    last_error_.clear();
    mended(storing_trouble_);
    // So that not even the first object passes it; changes come later (ProcessServer).
    if (auto limit = BandwidthLimit::parse(lease_->bandwidth, lease_->time_zone))
        server_.set_item_bandwidth(item_, std::move(*limit));
    else
        note(limit.error());
    welcome();
    // What a process before this stored and did not come to free.
    trim();
    maybe_cut();
}

// Brings the spool's content in line with what the vault says is stored.
Status ItemIntake::follow_lease() {
    // A vault that was rebuilt may have less than the one before it said. The sender is told so,
    // and what is behind that is of no use.
    if (lease_->stored < stored_) starting_over_ = true;
    stored_ = lease_->stored;
    std::deque<Batch> rest;
    std::swap(rest, queue_);
    queue_memory_bytes_ = queue_payload_bytes_ = queue_records_ = 0;
    oldest_work_us_ = 0;
    queue_has_point_ = false;
    for (Batch& batch : rest)
        if (batch.range.last > lease_->stored) enqueue(std::move(batch));
    const bool behind_vault = received_ < lease_->stored;
    const bool hole = !queue_.empty() && queue_.front().range.first.v > lease_->stored.v + 1 &&
                      !queue_.front().range.begins_with_gap;
    if (!behind_vault && !hole && !starting_over_) return {};
    // The spool's content is useless: it is all stored, or does not follow what is stored. Waiting
    // for the spool's executor is bounded by one sync; nothing is queued there for this item.
    if (syncing_) return fail(Code::kUnavailable, "the spool is busy");
    // The same for what is on its way.
    drop_peer(Error(Code::kUnavailable, "what was received does not follow what is stored"));
    FS_TRY(spool_->clear());
    queue_.clear();
    unsynced_.clear();
    unsynced_bytes_ = queue_memory_bytes_ = queue_payload_bytes_ = queue_records_ = 0;
    accepted_ = received_ = lease_->stored;
    starting_over_ = false;
    return {};
}

// Everything that was sealed or is being built goes back into the queue, to be sealed again under
// the next lease.
void ItemIntake::give_up_lease(const Error& why) {
    note(why);
    ++generation_;
    lease_.reset();
    building_ = false;
    stop_uploading();
    put_back(building_ranges_);
    building_ranges_.clear();
    for (auto sealed = sealed_.rbegin(); sealed != sealed_.rend(); ++sealed)
        put_back((*sealed)->ranges);
    sealed_.clear();
}

void ItemIntake::lose_lease(const Error& why) {
    give_up_lease(why);
    // Two that take the lease from each other would else do so for ever, in step.
    retry_after(
        fenced_retry_us_, [this] { acquire(); }, kFencedRetryMaxUs);
}

// What was received can't be read back: nothing behind `stored` is trusted, nor what a sync that is
// under way adds to it. The sender finds that its log no longer reaches back, and opens a gap.
void ItemIntake::start_over(const Error& why) {
    note(why);
    drop_peer(why);
    ++generation_;
    starting_over_ = true;
    building_ = false;
    stop_uploading();
    building_ranges_.clear();
    sealed_.clear();
    queue_.clear();
    unsynced_.clear();
    unsynced_bytes_ = queue_memory_bytes_ = queue_payload_bytes_ = queue_records_ = 0;
    lease_.reset();
    received_ = accepted_ = Sequence{};
    retry([this] { acquire(); });
}

void ItemIntake::attach(Peer peer, const HelloFrame& hello) {
    const int64_t now_us = server_.clock_.steady_us();
    if (peer_ && peer_->instance != hello.instance && now_us - peer_heard_us_ < kSessionSilenceUs) {
        peer.end(
            Error(Code::kDuplicateIdentity,
                  fmt::format("item {} is being replicated by another agent that calls itself '{}'",
                              item_.to_string(), peer_->agent),
                  "stop one of the two, or enrol it under a name of its own"));
        return;
    }
    if (peer_) drop_peer(Error(Code::kConnectionLost, "replaced by a newer session"));
    peer_ = std::move(peer);
    peer_->instance = hello.instance;
    peer_heard_us_ = now_us;
    // It knows of more that is stored than we do: another appliance has had the item since our
    // lease began. Whoever is welcomed under that one is asked for what he has let go of.
    if (lease_ && hello.first_unstored > stored_.next()) {
        give_up_lease(Error(Code::kFenced, "another appliance has had the item meanwhile"));
        acquire();
    }
    if (lease_) welcome();
}

void ItemIntake::detach(uint64_t session) {
    if (peer_ && peer_->session == session) peer_.reset();
}

void ItemIntake::drop_peer(const Error& why) {
    if (!peer_) return;
    Peer peer = std::move(*peer_);
    peer_.reset();
    peer.end(why);
}

void ItemIntake::welcome() {
    // A valid certificate says who an agent is, not that this machine is its own.
    if (peer_ && lease_ && !lease_->agent.empty() && peer_->agent != lease_->agent) {
        drop_peer(Error(Code::kForbidden,
                        fmt::format("item {} belongs to agent '{}', not to '{}'", item_.to_string(),
                                    lease_->agent, peer_->agent),
                        "protect the machine through the agent that runs beside it"));
        return;
    }
    if (!peer_ || !lease_) return;
    peer_->send(encode(WelcomeFrame{accepted_.next(), stored_, window()}));
    send_ack();
}

uint64_t ItemIntake::window() const {
    if (buggify(options_.buggify, "intake.small_window")) return 1;
    const uint64_t used = spool_ ? spool_->bytes() : 0;
    const uint64_t high = options_.spool_bytes / 100 * kSpoolHighPercent;
    if (used <= high) return options_.window_bytes;
    if (used >= options_.spool_bytes) return 0;
    const double free_part = static_cast<double>(options_.spool_bytes - used) /
                             static_cast<double>(options_.spool_bytes - high);
    return static_cast<uint64_t>(static_cast<double>(options_.window_bytes) * free_part);
}

void ItemIntake::send_ack() {
    if (!peer_ || !lease_) return;
    Sequence stored = stored_;
    if (options_.planted.foreign_ack) {
        for (const auto& [item, other] : server_.intakes_)
            stored = std::max(stored, other->stored_);
        stored = std::min(stored, received_);
    }
    peer_->send(encode(AckFrame{received_, stored, window()}));
}

// Checks records from the wire and cuts off what was received before.
Result<ItemIntake::Batch> ItemIntake::take_new(ByteView records) {
    RecordCursor cursor(records, true);
    Sequence expected = accepted_.next();
    size_t skip = 0;
    bool fresh = false;
    while (!cursor.done()) {
        FS_ASSIGN(RecordView record, cursor.next());
        const RecordHeader& header = record.header;
        if (header.sequence < expected) {
            if (fresh)
                return fail(Code::kSequenceHole, fmt::format("record {} comes after record {}",
                                                             header.sequence.v, expected.v - 1));
            skip = records.size() - cursor.remaining();
            continue;
        }
        if (header.sequence > expected && header.kind != RecordKind::kGap)
            return fail(Code::kSequenceHole, fmt::format("record {} was sent where {} is due",
                                                         header.sequence.v, expected.v));
        fresh = true;
        expected = header.sequence.next();
    }
    Batch batch;
    if (!fresh) return batch;
    batch.bytes = std::make_shared<const Bytes>(records.begin() + static_cast<ptrdiff_t>(skip),
                                                records.end());
    batch.range.last = {expected.v - 1};
    return batch;
}

void ItemIntake::on_data(uint64_t session, ByteView records) {
    if (!peer_ || peer_->session != session) return;
    if (!lease_) {
        // It was welcomed under a lease that is lost. What is left out here must be missed: a GAP
        // that is on its way behind it would be taken to say that the source left it out.
        drop_peer(Error(Code::kUnavailable, "the lease of the item's log was lost"));
        return;
    }
    peer_heard_us_ = server_.clock_.steady_us();
    auto batch = take_new(records);
    if (!batch) {
        note(batch.error());
        drop_peer(batch.error());
        return;
    }
    if (!batch->bytes) {
        send_ack();
        return;
    }
    if (unsynced_bytes_ > 2 * options_.window_bytes + kMaxFrameBytes) {
        drop_peer(Error(Code::kLimitReached, "the sender ignores its window"));
        return;
    }
    accepted_ = batch->range.last;
    received_bytes_ += batch->bytes->size();
    unsynced_bytes_ += batch->bytes->size();
    unsynced_.push_back(std::move(*batch));
    if (options_.planted.ack_before_sync) {
        received_ = accepted_;
        send_ack();
    }
    schedule_sync();
}

void ItemIntake::schedule_sync() {
    if (syncing_ || unsynced_.empty()) return;
    syncing_ = true;
    auto batches = std::make_shared<std::vector<Batch>>(std::move(unsynced_));
    unsynced_.clear();
    // Everything that arrives while this sync runs shares the next one.
    run_on(
        *server_.executors_.spool,
        [spool = spool_, batches]() -> Status {
            for (Batch& batch : *batches) FS_TRY(spool->append(*batch.bytes, batch.range));
            return spool->sync();
        },
        [this, batches](Status status) { synced(std::move(status), std::move(*batches)); });
}

void ItemIntake::synced(Status status, std::vector<Batch> batches) {
    syncing_ = false;
    if (starting_over_) return;  // it goes with the rest
    uint64_t bytes = 0;
    for (const Batch& batch : batches) bytes += batch.bytes->size();
    unsynced_bytes_ -= std::min(unsynced_bytes_, bytes);
    if (!status) {
        troubled(receiving_trouble_, status.error());
        unsynced_.clear();
        unsynced_bytes_ = 0;
        if (!options_.planted.ack_before_sync) accepted_ = received_;
        drop_peer(status.error());
        // What is stored and was kept for its file's sake may be what fills the disk.
        if (status.error().code() == Code::kNoSpace) trim();
        return;
    }
    mended(receiving_trouble_);
    for (Batch& batch : batches) {
        received_ = std::max(received_, batch.range.last);
        received_time_ = std::max(received_time_, batch.range.last_time);
        enqueue(std::move(batch));
    }
    send_ack();
    maybe_cut();
    schedule_sync();
}

void ItemIntake::enqueue(Batch batch) {
    if (batch.bytes && (queue_memory_bytes_ + batch.bytes->size() > options_.build_queue_bytes ||
                        buggify(options_.buggify, "intake.queue_full")))
        batch.bytes.reset();
    if (batch.bytes) queue_memory_bytes_ += batch.bytes->size();
    if (batch.since_us == 0) batch.since_us = server_.clock_.steady_us();
    queue_payload_bytes_ += batch.range.payload_bytes;
    queue_records_ += batch.range.records;
    queue_has_point_ = queue_has_point_ || batch.range.has_point;
    if (!batch.range.only_idle && oldest_work_us_ == 0) oldest_work_us_ = batch.since_us;
    if (!join_idle(batch)) queue_.push_back(std::move(batch));
}

// An idle source sends a mark each second, and an appliance may have thousands of such: those that
// lie one behind the other in the spool are one batch, and it is read from there when it is due.
bool ItemIntake::join_idle(const Batch& batch) {
    if (queue_.empty()) return false;
    Batch& last = queue_.back();
    SpoolRange& range = last.range;
    const SpoolRange& more = batch.range;
    const bool behind = range.file == more.file &&
                        range.offset_bytes + range.length_bytes == more.offset_bytes &&
                        range.last.next() == more.first;
    if (!range.only_idle || !more.only_idle || more.begins_with_gap || !behind ||
        range.records + more.records > kMaxIdleRecords)
        return false;
    for (const SharedBytes& bytes : {last.bytes, batch.bytes})
        if (bytes) queue_memory_bytes_ -= bytes->size();
    last.bytes.reset();
    range.last = more.last;
    range.last_time = std::max(range.last_time, more.last_time);
    range.length_bytes += more.length_bytes;
    range.payload_bytes += more.payload_bytes;
    range.records += more.records;
    range.has_point = range.has_point || more.has_point;
    return true;
}

void ItemIntake::maybe_cut() {
    if (!lease_ || building_ || queue_.empty() || sealed_.size() >= kMaxSegmentsAhead) return;
    // Incompressible, the next one has all of its payload.
    const uint64_t sealed = sealed_bytes();
    if (sealed != 0 && sealed + segment_bytes() > options_.sealed_bytes) return;
    if (oldest_work_us_ == 0) {
        // A full spool takes nothing in that would end the wait.
        const bool full = spool_->bytes() >= options_.spool_bytes;
        if (queue_records_ >= kMaxIdleRecords || full)
            cut();
        else
            maybe_mark_idle();
        return;
    }
    const int64_t age_us = server_.clock_.steady_us() - oldest_work_us_;
    const bool worth = queue_payload_bytes_ >= kSegmentWorthBytes || queue_has_point_;
    const int64_t due_us = worth ? options_.segment_age_us : options_.segment_max_age_us;
    if (queue_payload_bytes_ >= segment_bytes() || age_us >= due_us ||
        buggify(options_.buggify, "intake.cut_now"))
        cut();
    else
        arm_cut_timer(due_us - age_us);
}

void ItemIntake::arm_cut_timer(int64_t delay_us) {
    if (cut_timer_) server_.executors_.home->cancel(*cut_timer_);
    cut_timer_ = server_.executors_.home->post_after_us(delay_us, [weak = weak_from_this()] {
        auto self = weak.lock();
        if (!self || self->retired_) return;
        self->cut_timer_.reset();
        self->maybe_cut();
    });
}

void ItemIntake::cut() {
    building_ = true;
    auto batches = std::make_shared<std::vector<Batch>>();
    std::vector<SpoolRange> ranges;
    uint64_t payload = 0;
    // What waits for the line is worth the processor's time.
    const bool limited = wanting_ && server_.gate_.rate(item_) != kUnlimited;
    const Haste haste = limited                                             ? Haste::kNone
                        : queue_payload_bytes_ >= options_.hurry_more_bytes ? Haste::kMost
                        : queue_payload_bytes_ >= options_.hurry_bytes      ? Haste::kSome
                                                                            : Haste::kNone;
    const uint64_t most = segment_bytes();
    while (!queue_.empty() && payload < most) {
        Batch& batch = queue_.front();
        payload += batch.range.payload_bytes;
        if (batch.bytes) queue_memory_bytes_ -= batch.bytes->size();
        queue_payload_bytes_ -= batch.range.payload_bytes;
        queue_records_ -= batch.range.records;
        ranges.push_back(batch.range);
        batches->push_back(std::move(batch));
        queue_.pop_front();
        if (buggify(options_.buggify, "intake.small_segment")) break;
    }
    // What is left came after what was taken, but when is not kept: at worst it is cut early.
    queue_has_point_ = false;
    oldest_work_us_ = 0;
    for (const Batch& batch : queue_) {
        queue_has_point_ = queue_has_point_ || batch.range.has_point;
        if (!batch.range.only_idle && oldest_work_us_ == 0)
            oldest_work_us_ = server_.clock_.steady_us();
    }
    if (options_.planted.swap_segments && batches->size() > 1)
        std::swap((*batches)[0].bytes, (*batches)[1].bytes);

    building_ranges_ = ranges;
    struct Job {
        Secret key;
        Epoch epoch;
        SegmentNumber number;
        Digest previous;
        Sequence stored;
    };
    Job job{lease_->item_key, lease_->epoch, next_number_, previous_header_, stored_};
    const uint64_t generation = generation_;
    run_on(
        *server_.executors_.build,
        [this, batches, ranges, job, haste, spool = spool_]() -> Result<Sealed> {
            SegmentWriter writer;
            for (Batch& batch : *batches) {
                if (!batch.bytes) {
                    FS_ASSIGN(Bytes read, spool->read(batch.range));
                    batch.bytes = std::make_shared<const Bytes>(std::move(read));
                }
                const ByteView fresh = behind(*batch.bytes, job.stored);
                if (!fresh.empty()) FS_TRY(writer.add(fresh));
                batch.bytes.reset();
            }
            SegmentWriter::BuildOptions build;
            build.item = item_;
            build.epoch = job.epoch;
            build.number = job.number;
            build.previous_header = job.previous;
            build.item_key = &job.key;
            build.random = &server_.random_;
            build.haste = haste;
            build.parallel_for = options_.parallel_for;
            Sealed sealed;
            FS_ASSIGN(sealed.segment, writer.build(build));
            sealed.ranges = ranges;
            sealed.since_us = batches->front().since_us;
            sealed.written_bytes = changed_bytes(ranges);
            return sealed;
        },
        [this, generation](Result<Sealed> sealed) {
            if (generation == generation_) built(std::move(sealed));
        });
}

// Ranges that were taken from the queue stand at its front again.
void ItemIntake::put_back(const std::vector<SpoolRange>& ranges) {
    for (auto range = ranges.rbegin(); range != ranges.rend(); ++range) {
        queue_.push_front({*range, nullptr, server_.clock_.steady_us()});
        queue_payload_bytes_ += range->payload_bytes;
        queue_records_ += range->records;
        queue_has_point_ = queue_has_point_ || range->has_point;
        if (!range->only_idle && oldest_work_us_ == 0) oldest_work_us_ = server_.clock_.steady_us();
    }
}

void ItemIntake::built(Result<Sealed> sealed) {
    building_ = false;
    const std::vector<SpoolRange> ranges = std::move(building_ranges_);
    building_ranges_.clear();
    if (!sealed) {
        const Error& error = sealed.error();
        if (error.retry() == Retry::kNever) {
            start_over(error.with_context("what was received can't be read back from the spool"));
            return;
        }
        troubled(storing_trouble_, error);
        put_back(ranges);
        retry([this] { maybe_cut(); });
        return;
    }
    next_number_ = next_number_.next();
    previous_header_ = sealed->segment.header.header_hash;
    sealed_.push_back(std::make_shared<Sealed>(std::move(*sealed)));
    schedule_upload();
    maybe_cut();
}

// Frees what is stored. A full spool stops the sender, so this is tried until it succeeds.
void ItemIntake::trim() {
    if (trimming_) return;
    trimming_ = true;
    run_on(
        *server_.executors_.spool,
        [spool = spool_, stored = stored_] { return spool->trim(stored); },
        [this, stored = stored_](Status trimmed) {
            trimming_ = false;
            if (!trimmed) {
                note(trimmed.error());
                retry([this] { trim(); });
                return;
            }
            if (stored < stored_) trim();
            send_ack();
        });
}

void ItemIntake::maybe_mark_idle() {
    // Idle marks are all there is behind what is stored: the source is known to have been quiet.
    if (marking_ || !sealed_.empty() || received_time_ <= marked_time_ || stored_.v == 0) return;
    marking_ = true;
    const TimePoint time = received_time_;
    run_on(
        *server_.executors_.control,
        [this, epoch = lease_->epoch, stored = stored_, time] {
            return server_.vault_.mark_idle(item_, epoch, stored, time);
        },
        [this, time, generation = generation_](Status status) {
            marking_ = false;
            if (generation != generation_) return;
            if (status) {
                marked_time_ = time;
                stored_time_ = std::max(stored_time_, time);
            } else if (status.error().code() == Code::kFenced) {
                lose_lease(status.error());
            } else {
                note(status.error());
            }
        });
}

void ItemIntake::retire() {
    retired_ = true;
    server_.withdraw_upload(item_);
    drop_peer(Error(Code::kForbidden, "this appliance does not take the item's records any more"));
    if (!spool_) return;
    // Behind what uses it now, and before another intake of the item opens it. What is left of it
    // only takes room.
    server_.executors_.spool->post([spool = spool_] { (void)spool->clear(); });
}

IntakeStatus ItemIntake::status() const {
    IntakeStatus status;
    status.item = item_;
    status.connected = peer_.has_value();
    if (peer_) status.agent = peer_->agent;
    status.received = received_;
    status.stored = stored_;
    status.received_time = received_time_;
    status.stored_time = stored_time_;
    status.spool_bytes = spool_ ? spool_->bytes() : 0;
    status.queued_bytes = queue_payload_bytes_;
    status.received_bytes = received_bytes_;
    status.uploaded_bytes = uploaded_bytes_;
    status.segments = segments_;
    status.upload = upload_status();
    status.last_error = last_error_;
    return status;
}

}  // namespace farshore
