// One item with its tap, its agent and its appliance against a model of its source, and the driver
// that lets a random guest, kills and crashes loose on them. On one thread unless a test says
// otherwise.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <optional>
#include <vector>

#include "capture/capture_files.h"
#include "capture/capture_test_reader.h"
#include "capture/capture_test_world.h"
#include "capture/compare_board.h"

namespace farshore::capture_test {

struct Change {
    Sequence sequence;
    DiskIndex disk = 0;
    uint64_t offset = 0;
    uint64_t length = 0;
    Bytes bytes;  // empty: zeroes
};

inline void apply(std::vector<Bytes>& disks, DiskIndex disk, uint64_t offset, uint64_t length,
                  ByteView bytes) {
    if (bytes.empty())
        std::fill_n(disks[disk].begin() + static_cast<ptrdiff_t>(offset), length, 0);
    else
        std::copy(bytes.begin(), bytes.end(), disks[disk].begin() + static_cast<ptrdiff_t>(offset));
}

struct Settings {
    uint64_t ring_bytes = kMinRingBytes;
    uint64_t spill_bytes = 512u << 10;
    std::vector<uint64_t> disk_bytes = {(3u << 20) + 777, 1u << 20};
    PlantedBugs bugs;
    TapMode mode = TapMode::kInPath;
    bool compare = false;  // what may differ is compared before it is copied
};

inline Settings drawn(uint64_t seed) {
    Settings settings;
    settings.ring_bytes = kMinRingBytes << (seed % 5);
    settings.spill_bytes = seed % 3 == 0 ? 0 : (128u << 10) << (seed / 3 % 6);
    settings.compare = seed % 2 == 0;
    return settings;
}

// One item, its tap, its agent and its appliance, on one thread unless a test says otherwise.
class World {
  public:
    World(uint64_t seed, Settings settings)
        : settings_(std::move(settings)), random_(seed), replica_(zeroes()), model_(zeroes()) {
        for (uint64_t size : settings_.disk_bytes)
            source_.push_back(std::make_unique<DiskContent>(size));
        // The source is not empty when protection begins.
        for (auto& disk : source_) {
            for (size_t at = 0; at + 70'000 < disk->now.size(); at += 200'000)
                for (size_t i = 0; i < 70'000; ++i)
                    disk->now[at + i] = static_cast<uint8_t>(random_());
            disk->durable = disk->now;
        }
        replica_joining_.resize(replica_.size());
        stored_replica_ = replica_;
        stored_joining_ = replica_joining_;
        new_log();
        start_tap();
        start_agent();
    }

    std::vector<Bytes> zeroes() const {
        std::vector<Bytes> disks;
        for (uint64_t size : settings_.disk_bytes) disks.emplace_back(size);
        return disks;
    }

    // ---- tap ----
    void new_log() {
        LogGeometry geometry;
        geometry.ring_bytes = settings_.ring_bytes;
        geometry.spill_bytes = settings_.spill_bytes;
        geometry.disk_bytes = settings_.disk_bytes;
        memory_ = std::make_unique<TestMemory>(geometry);
        auto dirty = DirtyMap::open(files_, "dirty", {}, settings_.disk_bytes);
        if (!dirty) dirty = DirtyMap::create(files_, "dirty", {}, settings_.disk_bytes);
        ASSERT_TRUE(dirty);
        auto first = first_of_new_log(**dirty, {1});
        ASSERT_TRUE(first);
        EXPECT_GE(first->v, highest_used_ + 1) << "a number is used twice";
        auto header = LogHeader::format(memory_->memory(), geometry, *first);
        ASSERT_TRUE(header);
        fill_new_log(*header, **dirty, settings_.mode);
        header->word(LogWord::kJoining).store(vault_joining_);
        if (first->v > 1)
            header->word(LogWord::kCompareState)
                .store(static_cast<uint64_t>(CompareState::kComparing));
        header->word(LogWord::kRotateUs).store(1'500'000);
        auto spill = files_.open("spill", OpenMode::kCreate);
        spill_ = std::move(*spill);
        journal_.clear();
        // What the source is now is the truth that the numbers from here on continue.
        for (size_t i = 0; i < source_.size(); ++i) truth_at_start_.push_back(source_[i]->now);
        model_.clear();
        for (auto& disk : source_) model_.push_back(disk->now);
        truth_at_start_.clear();
        latest_ = model_;
    }

    void start_tap() {
        // Reopened on the same memory, as another process would.
        for (int attempt = 0;; ++attempt) {
            ASSERT_LT(attempt, 50);
            try {
                auto header = LogHeader::open(memory_->memory());
                ASSERT_TRUE(header) << header.error().to_string();
                TapOptions options;
                options.mode = settings_.mode;
                options.header = *header;
                for (auto& disk : source_)
                    options.devices.push_back(std::make_unique<MemoryDevice>(*disk));
                auto dirty = DirtyMap::open(files_, "dirty", {}, settings_.disk_bytes);
                ASSERT_TRUE(dirty) << dirty.error().to_string();
                options.dirty = std::move(*dirty);
                options.spill = spill_.get();
                options.clock = &clock_;
                if (settings_.compare) options.random = &keys_;
                options.bugs = settings_.bugs;
                options.on_append = [this](const AppendRequest& request, const Appended& result) {
                    note(request, result);
                };
                recovering_ = true;
                auto tap = Tap::start(std::move(options));
                recovering_ = false;
                ASSERT_TRUE(tap) << tap.error().to_string();
                tap_ = std::move(*tap);
                return;
            } catch (const Killed&) {
                recovering_ = false;
            }
        }
    }

    // In the order of the sequence.
    void note(const AppendRequest& request, const Appended& result) {
        if (!result.dropped) highest_used_ = std::max(highest_used_, result.sequence.v);
        const bool changes = request.kind == RecordKind::kWrite ||
                             request.kind == RecordKind::kZero ||
                             request.kind == RecordKind::kDiscard;
        if (changes) {
            highest_used_ = std::max(highest_used_, result.sequence.v);
            Change change{result.sequence, request.disk, request.offset_bytes, request.length_bytes,
                          to_bytes(request.payload)};
            if (!request.guest && !recovering_ && !failing_) {
                // A copy must say what the source was, not change it.
                const uint8_t* at = latest_[change.disk].data() + change.offset;
                const ByteView was(at, change.length);
                const bool same = change.bytes.empty()
                                      ? all_zero(was)
                                      : std::equal(was.begin(), was.end(), change.bytes.begin());
                if (!same) ++copies_that_change_;
            }
            apply(latest_, change.disk, change.offset, change.length, change.bytes);
            journal_.push_back(std::move(change));
        }
        if (kill_after_append_ && *kill_after_append_ == 0) {
            kill_after_append_.reset();
            throw Killed{};
        }
        if (kill_after_append_) --*kill_after_append_;
    }

    void kill_tap() {
        tap_.reset();
        kill_after_append_.reset();
        ++kills_;
        start_tap();
    }

    // ---- agent and appliance ----
    void start_agent() {
        auto header = LogHeader::open(memory_->memory());
        ASSERT_TRUE(header);
        agent_ = std::make_unique<CaptureConsumer>(*header, spill_.get(), nullptr);
        commands_ = std::make_unique<TapCommands>(*header, nullptr);
        Status sought = agent_->seek(next_);
        if (!sought && sought.error().code() == Code::kSequenceHole) {
            // Only after discard_all.
            lose_order();
        } else if (!sought) {
            error_ = sought.error();
        }
    }

    // The appliance takes records as the vault's replica will.
    void receive(const RecordView& record) {
        const RecordHeader& h = record.header;
        if (h.sequence != next_ && !(h.kind == RecordKind::kGap && h.sequence > next_)) {
            error_ = Error(Code::kSequenceHole, "hole");
            return;
        }
        next_ = h.sequence.next();
        if (h.kind == RecordKind::kGeometry) {
            replica_[h.disk].resize(h.offset_bytes);
            replica_joining_[h.disk] = (h.flags & kGeometryJoining) != 0;
        }
        while (!journal_.empty() && journal_.front().sequence <= h.sequence) {
            const Change& change = journal_.front();
            apply(model_, change.disk, change.offset, change.length, change.bytes);
            journal_.pop_front();
        }
        if (h.kind == RecordKind::kGap) in_gap_ = true;
        if (h.changes_disk())
            apply(replica_, h.disk, h.offset_bytes, h.length_bytes, record.payload);
        if (h.kind == RecordKind::kResynced) {
            in_gap_ = false;
            ++resynced_;
        }
        if (in_gap_) return;
        ++offered_;
        if (h.changes_disk() && !replica_joining_[h.disk]) {
            const auto from = static_cast<ptrdiff_t>(h.offset_bytes);
            if (!std::equal(model_[h.disk].begin() + from,
                            model_[h.disk].begin() + from + h.length_bytes,
                            replica_[h.disk].begin() + from))
                ++wrong_;
        }
        if (h.kind == RecordKind::kPoint || h.kind == RecordKind::kResynced ||
            h.kind == RecordKind::kGeometry || offered_ % 50 == 0)
            if (!as_the_model()) ++wrong_;
    }

    // Of the disks that the point has, as large as they are in it.
    bool as_the_model() const {
        for (size_t i = 0; i < replica_.size(); ++i)
            if (!replica_joining_[i] &&
                (model_[i].size() < replica_[i].size() ||
                 !std::equal(replica_[i].begin(), replica_[i].end(), model_[i].begin())))
                return false;
        return true;
    }

    // ---- disks that change ----
    // The agent makes the files fit with the tap away, and starts it again.
    void reshape(const std::vector<uint64_t>& sizes) {
        tap_.reset();
        agent_.reset();
        commands_.reset();
        const std::vector<uint64_t> was = settings_.disk_bytes;
        settings_.disk_bytes = sizes;
        files_.before = nullptr;
        ASSERT_TRUE(DirtyMap::reshape(files_, "dirty", {}, sizes));
        // A host that dies here finds a dirty map of the new disks, and no log.
        auto old = LogHeader::open(memory_->memory());
        ASSERT_TRUE(old);
        LogGeometry geometry = old->geometry();
        geometry.disk_bytes = sizes;
        auto memory = std::make_unique<TestMemory>(geometry);
        auto header = LogHeader::format_like(memory->memory(), geometry, *old);
        ASSERT_TRUE(header) << header.error().to_string();
        reshape_log(*header, was);
        header->publish();
        memory_ = std::move(memory);
        start_tap();
        start_agent();
    }
    void change_disks() {
        std::vector<uint64_t> sizes = settings_.disk_bytes;
        const size_t chosen = random_() % sizes.size();
        const auto filled = [&](uint64_t bytes) {
            Bytes content(bytes);
            for (size_t at = 0; at < bytes; at += 150'000)
                for (size_t i = at; i < std::min<size_t>(bytes, at + 70'000); ++i)
                    content[i] = static_cast<uint8_t>(random_());
            return content;
        };
        for (auto& disk : source_) {
            disk->before_change = nullptr;
            disk->after_read = nullptr;
        }
        kill_after_append_.reset();
        const auto present =
            std::count_if(sizes.begin(), sizes.end(), [](uint64_t b) { return b != 0; });
        if (const uint64_t kind = random_() % 3; kind == 0 && sizes.size() < 6) {
            const Bytes content = filled(1 + random_() % 900'000);
            sizes.push_back(content.size());
            source_.push_back(std::make_unique<DiskContent>(content.size()));
            source_.back()->now = source_.back()->durable = content;
            model_.push_back(content);
            latest_.push_back(content);
            replica_.emplace_back();
            replica_joining_.push_back(true);
            vault_joining_ |= 1ull << (sizes.size() - 1);
        } else if (kind == 1 && present > 1 && sizes[chosen] != 0) {
            sizes[chosen] = 0;
            source_[chosen] = std::make_unique<DiskContent>(0);
            latest_[chosen].clear();
            vault_joining_ &= ~(1ull << chosen);
        } else if (sizes[chosen] != 0) {
            const Bytes tail = filled(1 + random_() % 300'000);
            sizes[chosen] += tail.size();
            for (Bytes* content : {&source_[chosen]->now, &source_[chosen]->durable,
                                   &model_[chosen], &latest_[chosen]})
                content->insert(content->end(), tail.begin(), tail.end());
        } else {
            return;
        }
        ++disk_changes_;
        reshape(sizes);
    }

    void drain(size_t max_bytes) {
        auto last = take_records(*agent_, max_bytes, [this](const RecordView& r) { receive(r); });
        if (!last) error_ = last.error();
    }
    void release() { agent_->release({next_.v - 1}); }
    // Not inside a gap: the vault's replica there would be of no use to go on from; but its log is
    // stored all the same, which the dirty map has to stand.
    void store() {
        stored_replica_ = replica_;
        stored_joining_ = replica_joining_;
        for (size_t i = 0; i < replica_.size(); ++i)
            if (!replica_joining_[i] && !replica_[i].empty()) vault_joining_ &= ~(1ull << i);
        stored_in_gap_ = in_gap_;
        stored_ = {next_.v - 1};
        agent_->set_stored(stored_);
    }

    // The appliance lost its spool: what is not stored is gone, and the log has released it.
    void lose_spool() {
        replica_ = stored_replica_;
        replica_joining_ = stored_joining_;
        // Of those that were added since, the recovery site has heard nothing.
        replica_.resize(source_.size());
        replica_joining_.resize(source_.size(), true);
        in_gap_ = stored_in_gap_;
        next_ = stored_.next();
        lose_order();
    }
    void lose_order() {
        agent_->discard_all();
        auto slot = commands_->post({TapCommandKind::kGapDirty, PointKind::kBookmark, ""});
        if (!slot) {
            error_ = slot.error();
            return;
        }
        std::optional<TapCommandResult> result;
        for (int i = 0; i < 100 && !result; ++i) {
            try {
                tap_->tick();
            } catch (const Killed&) {
                kill_tap();
            }
            result = commands_->take(*slot);
            if (!result) agent_->discard_all();
        }
        ASSERT_TRUE(result && result->ok) << "the tap does not open the gap";
        ASSERT_TRUE(agent_->seek(result->sequence));
    }

    // Power loss of the source host: shared memory, unsynced data and both processes are gone. The
    // appliance goes on with what it received.
    void crash_host() {
        tap_.reset();
        agent_.reset();
        commands_.reset();
        files_.power_loss();
        for (auto& disk : source_) disk->power_loss(random_);
        new_log();
        start_tap();
        start_agent_after_crash();
        ++crashes_;
    }
    void start_agent_after_crash() {
        auto header = LogHeader::open(memory_->memory());
        agent_ = std::make_unique<CaptureConsumer>(*header, spill_.get(), nullptr);
        commands_ = std::make_unique<TapCommands>(*header, nullptr);
        agent_->set_stored(stored_);
    }

    // The recovery site says what its replica has, as far as it is stored.
    void respond() {
        auto header = LogHeader::open(memory_->memory());
        ASSERT_TRUE(header);
        CompareResponder responder(*header);
        for (const auto& asked : responder.asked()) {
            const CompareQuestion& question = asked.question;
            if (stored_ < question.at_least) continue;
            BlockSummer summer(question.key);
            CompareAnswer answer;
            Bytes content;
            if (question.disk < stored_replica_.size()) content = stored_replica_[question.disk];
            content.resize(
                std::max<size_t>(content.size(), question.offset_bytes + question.length_bytes));
            for (uint64_t at = 0; at < question.length_bytes; at += kSumBlockBytes)
                answer.sums.push_back(
                    summer.block(question.disk, question.offset_bytes + at,
                                 ByteView(content).subspan(
                                     question.offset_bytes + at,
                                     std::min(kSumBlockBytes, question.length_bytes - at))));
            answer.verdict =
                summer.run(question.disk, question.offset_bytes, answer.sums) == question.sum
                    ? CompareVerdict::kEqual
                    : CompareVerdict::kSums;
            ++(answer.verdict == CompareVerdict::kEqual ? answered_equal_ : answered_sums_);
            responder.answer(asked, answer);
        }
    }

    // ---- guest ----
    void guest_step() {
        const auto disk = static_cast<DiskIndex>(random_() % source_.size());
        const uint64_t size = settings_.disk_bytes[disk];
        if (size == 0) return;
        uint64_t length = 1 + random_() % (random_() % 100 < big_percent_ ? 1'500'000 : 40'000);
        length = std::min(length, size);
        uint64_t offset = random_() % (size - length + 1);
        if (random_() % 3 == 0) offset = offset / 512 * 512;
        TapDisk& target = tap_->disk(disk);
        Status status;
        switch (random_() % 12) {
            case 0:
                status = target.zero(offset, length, random_() % 2 == 0);
                break;
            case 1:
                status = target.discard(offset, length);
                break;
            case 2:
                status = target.flush();
                break;
            case 3: {
                Bytes got(length);
                status = target.read(offset, got);
                EXPECT_EQ(got, Bytes(source_[disk]->now.begin() + static_cast<ptrdiff_t>(offset),
                                     source_[disk]->now.begin() +
                                         static_cast<ptrdiff_t>(offset + length)));
                break;
            }
            default: {
                Bytes data(length);
                const uint64_t word = random_();
                for (size_t i = 0; i < data.size(); ++i)
                    data[i] = static_cast<uint8_t>((word >> (i % 8 * 8)) + i / 8);
                if (settings_.mode == TapMode::kMirror) source_[disk]->put(offset, data);
                status = random_() % 8 == 0 ? target.write_through(offset, data)
                                            : target.write(offset, data);
            }
        }
        if (!status) {
            EXPECT_EQ(status.error().code(), Code::kIo) << status.error().to_string();
        }
        // What the guest can read now is what the records say, also after an error.
        const auto from = static_cast<ptrdiff_t>(offset);
        if (!std::equal(latest_[disk].begin() + from,
                        latest_[disk].begin() + from + static_cast<ptrdiff_t>(length),
                        source_[disk]->now.begin() + from))
            ++wrong_;
    }

    // Everything to the end: all copied, all received.
    void settle() {
        for (auto& disk : source_) disk->before_change = nullptr;
        if (settings_.mode == TapMode::kInPath)
            for (auto& disk : source_) disk->after_read = nullptr;
        kill_after_append_.reset();
        for (int i = 0; i < 20'000; ++i) {
            clock_.advance_us(50'000);
            tap_->tick();
            const auto outcome = tap_->copier().step();
            drain(1u << 20);
            if (error_) return;
            release();
            if (outcome == Copier::Outcome::kAwaiting) {
                store();
                respond();
            }
            if (outcome == Copier::Outcome::kNothing && tap_->producer().settled() &&
                agent_->at_end())
                break;
        }
        store();
        for (size_t i = 0; i < source_.size(); ++i) {
            EXPECT_EQ(source_[i]->now == latest_[i], true) << "disk " << i << ": order of records";
            if (source_[i]->now != replica_[i]) ++wrong_;
        }
        EXPECT_FALSE(in_gap_);
    }

    std::mt19937_64& random() { return random_; }
    Settings settings_;
    std::mt19937_64 random_;
    SeededKeys keys_;
    uint64_t answered_equal_ = 0, answered_sums_ = 0;
    StillClock clock_;
    TestFiles files_;
    std::vector<std::unique_ptr<DiskContent>> source_;
    std::unique_ptr<TestMemory> memory_;
    std::unique_ptr<File> spill_;
    std::unique_ptr<Tap> tap_;
    std::unique_ptr<CaptureConsumer> agent_;
    std::unique_ptr<TapCommands> commands_;

    std::deque<Change> journal_;  // of the source, not yet in model_
    std::vector<Bytes> latest_;   // the source by the journal's newest change
    std::vector<Bytes> replica_;
    std::vector<Bytes> model_;  // the source as of what was received
    std::vector<Bytes> truth_at_start_;
    std::vector<Bytes> stored_replica_;
    std::vector<bool> replica_joining_, stored_joining_;
    uint64_t vault_joining_ = 0;  // what the vault's record says
    uint64_t disk_changes_ = 0;
    bool stored_in_gap_ = true;
    Sequence next_{1};
    Sequence stored_;
    bool in_gap_ = true;
    bool recovering_ = false;
    uint64_t big_percent_ = 10;
    bool failing_ = false;
    uint64_t highest_used_ = 0;
    std::optional<uint64_t> kill_after_append_;

    std::optional<Error> error_;
    uint64_t wrong_ = 0;
    uint64_t copies_that_change_ = 0;
    uint64_t offered_ = 0;
    uint64_t resynced_ = 0;
    uint64_t kills_ = 0;
    uint64_t crashes_ = 0;
};

// What a whole run is made of; each is drawn per run, so that runs differ in kind.
struct Rates {
    uint64_t kill, backing_error, agent_restart, lose_spool, crash, resync, disks, drain_percent;
};

inline void run(World& w, int steps, bool faults) {
    auto& random = w.random();
    const auto rate = [&](uint64_t one_in) { return faults && random() % 2 == 0 ? one_in : ~0ull; };
    const Rates rates{rate(60),  rate(80),  rate(100), rate(300),
                      rate(150), rate(400), rate(100), random() % 3 == 0 ? 15u : 90u};
    w.big_percent_ = random() % 3 == 0 ? 10 : 0;
    const uint64_t copies_most = random() % 3 == 0 ? 3 : 20;
    // Most runs begin protected.
    if (random() % 4 != 0) w.settle();
    for (int i = 0; i < steps && !w.error_; ++i) {
        try {
            const auto dice = [&](uint64_t one_in) {
                return one_in != ~0ull && random() % one_in == 0;
            };
            if (dice(rates.kill)) {
                switch (random() % 5) {
                    case 0:
                        w.kill_tap();
                        break;
                    case 3: {
                        auto& disk = *w.source_[random() % w.source_.size()];
                        disk.after_read = [&](uint64_t, uint64_t) {
                            disk.after_read = nullptr;
                            throw Killed{};
                        };
                        break;
                    }
                    case 1:
                        w.kill_after_append_ = random() % 4;
                        break;
                    case 2: {
                        auto& disk = *w.source_[random() % w.source_.size()];
                        disk.before_change = [&](uint64_t, uint64_t length,
                                                 uint64_t& part) -> Status {
                            disk.before_change = nullptr;
                            part = random() % (length + 1);
                            throw Killed{};
                        };
                        break;
                    }
                    default:
                        w.files_.before = [&](const std::string&) -> Status {
                            w.files_.before = nullptr;
                            throw Killed{};
                        };
                }
            }
            if (dice(rates.backing_error)) {
                auto& disk = *w.source_[random() % w.source_.size()];
                disk.before_change = [&](uint64_t, uint64_t length, uint64_t& part) -> Status {
                    disk.before_change = nullptr;
                    part = random() % (length + 1);
                    w.failing_ = true;
                    return fail(Code::kIo, "the disk is broken here");
                };
            }
            if (dice(rates.agent_restart)) w.start_agent();
            if (dice(rates.lose_spool)) w.lose_spool();
            if (dice(rates.crash)) {
                for (auto& disk : w.source_) disk->after_read = nullptr;
                w.files_.before = nullptr;
                w.crash_host();
            }
            if (dice(rates.disks)) w.change_disks();
            if (dice(rates.resync))
                (void)w.commands_->post({random() % 2 == 0 || !w.settings_.compare
                                             ? TapCommandKind::kResyncAll
                                             : TapCommandKind::kCompareAll,
                                         PointKind::kBookmark, ""});
            w.guest_step();
            w.failing_ = false;
            if (random() % 100 < rates.drain_percent) w.drain(random() % 300'000);
            if (random() % 4 == 0) w.release();
            if (random() % 20 == 0) w.store();
            if (random() % 3 == 0) w.respond();
            for (uint64_t copies = random() % copies_most; copies > 0; --copies)
                w.tap_->copier().step();
            w.clock_.advance_us(static_cast<int64_t>(random() % 400'000));
            if (random() % 3 == 0) w.tap_->tick();
        } catch (const Killed&) {
            w.failing_ = false;
            w.kill_tap();
        }
    }
    w.files_.before = nullptr;
    if (!w.error_) w.settle();
}

}  // namespace farshore::capture_test
