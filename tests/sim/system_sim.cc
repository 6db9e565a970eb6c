#include "system_sim.h"

#include <algorithm>
#include <cstdlib>

#include "system.h"

namespace farshore::system_sim {

namespace {

// How many lines of the trace a failure prints.
size_t report_lines() {
    const char* text = std::getenv("FARSHORE_TRACE");
    return text != nullptr ? std::strtoull(text, nullptr, 10) : 80;
}

}  // namespace

// ---- shape

void System::draw_shape() {
    Rng& d = draw_;
    const uint64_t disks = 1 + d.below(3);
    for (uint64_t i = 0; i < disks; ++i) {
        uint64_t size = (i == 0 ? 512u << 10 : 64u << 10) + d.below((i == 0 ? 1200u : 500u) << 10);
        if (d.coin()) size = size / 4096 * 4096;
        if (i == 0 && d.below(6) == 0) size += 2u << 20;
        shape_.disk_bytes.push_back(size);
    }
    shape_.mode = d.below(4) == 0 ? TapMode::kMirror : TapMode::kInPath;
    shape_.spill_bytes = d.below(3) == 0 ? 0 : (128u << 10) << d.below(3);
    shape_.rotate_us = static_cast<uint64_t>(d.between(100'000, 800'000));
    shape_.two_appliances = d.below(4) == 0;
    shape_.two_vaults = d.below(4) == 0;
    shape_.appliance_errors = d.below(3) == 0;
    shape_.appliance_read_errors = shape_.appliance_errors && d.below(3) == 0;
    shape_.source_errors = d.below(4) == 0;
    shape_.guest_ops = 60 + d.below(160);
    Rng compares = world_.fork("compares");
    shape_.compares = compares.below(4) != 0 || plant_ == Plant::kSkippedSum ||
                      plant_ == Plant::kEarlyEnd || plant_ == Plant::kStaleCompare ||
                      plant_ == Plant::kWrongDisk;

    ProcessServerOptions& s = shape_.server;
    s.spool_directory = "spool";
    s.spool_bytes = (256u << 10) << d.below(4);
    s.spool_file_bytes = (32u << 10) << d.below(4);
    s.window_bytes = (64u << 10) << d.below(4);
    s.build_queue_bytes = (32u << 10) << d.below(6);
    s.segment_payload_bytes = (32u << 10) << d.below(4);
    s.segment_age_us = d.between(20'000, 250'000);
    s.segment_max_age_us = d.between(100'000, 1'000'000);
    s.planted.ack_before_sync = plant_ == Plant::kAckBeforeSync;
    s.planted.stored_before_registered = plant_ == Plant::kStoredBeforeRegistered;
    s.planted.swap_segments = plant_ == Plant::kSwapSegments;

    shape_.replica.checkpoint_segments = 2 + d.below(12);
    shape_.replica.checkpoint_entries = 20 + d.below(300);
    shape_.replica.max_manifests = 3 + d.below(6);
    shape_.replica.planted.wrong_disk_set = plant_ == Plant::kWrongDiskSet;
    RetentionPolicy& r = shape_.retention;
    r.window_us = d.between(2'000'000, 12'000'000);
    r.grace_us = d.below(4) == 0 ? 21'000'000 : d.between(200'000, 3'000'000);
    r.rewrite_below_percent = static_cast<uint32_t>(d.below(4) * 30);
    r.rewrite_min_bytes = 0;
    r.rewrite_bytes = (64u << 10) << d.below(6);
    r.small_object_bytes = 64u << 10;
    r.small_objects = 2 + d.below(10);
    r.planted.delete_too_early = plant_ == Plant::kDeleteTooEarly;
}

void System::setup_source() {
    SimProcess& setup = source_host_.add_process("setup");
    setup.start();
    setup.run([&] {
        FileSystem& fs = setup.file_system();
        FS_CHECK(fs.make_directories("disks").has_value());
        FS_CHECK(fs.make_directories("capture").has_value());
        for (size_t i = 0; i < shape_.disk_bytes.size(); ++i) {
            auto file = fs.open(fmt::format("disks/{}", i), OpenMode::kCreate);
            FS_CHECK(file.has_value());
            // Not empty when protection begins.
            for (uint64_t at = 0; at < shape_.disk_bytes[i]; at += 100'000) {
                Bytes piece(
                    std::min<uint64_t>(guest_draw_.below(50'000), shape_.disk_bytes[i] - at));
                guest_draw_.fill(piece);
                FS_CHECK((*file)->write_at(at, piece).has_value());
            }
            FS_CHECK((*file)->truncate(shape_.disk_bytes[i]).has_value());
            FS_CHECK((*file)->sync().has_value());
        }
        FS_CHECK(fs.sync_directory("disks").has_value());
        FS_CHECK(fs.sync_directory("").has_value());
    });
    setup.kill();
}

SystemModel::Disks System::source_content() {
    SystemModel::Disks disks;
    for (size_t i = 0; i < shape_.disk_bytes.size(); ++i) {
        auto content = source_host_.disk().peek(fmt::format("disks/{}", i));
        FS_CHECK(content.has_value());
        content->resize(shape_.disk_bytes[i]);
        disks.push_back(std::move(*content));
    }
    return disks;
}

// ---- oracle

void System::check_stored() {
    if (!oracle_ready()) return;
    const auto state = ledgers_[active_vault_].state();
    if (!state) return;
    if (state->rebuilding) return;
    if (state->stored < seen_stored_[active_vault_])
        breach(fmt::format("stored went back from {} to {}\n", seen_stored_[active_vault_].v,
                           state->stored.v));
    seen_stored_[active_vault_] = state->stored;
    if (state->stored < acked_stored_)
        breach(fmt::format("{} was acknowledged as stored, but the vault has {}\n", acked_stored_.v,
                           state->stored.v));
}

void System::compare(const std::vector<uint64_t>& sequences) {
    model_.replay(sequences, [&](uint64_t sequence, const SystemModel::Disks& disks) {
        if (!broken_.empty()) return;
        ++outcome_.points_compared;
        const auto wrong = [&](const std::string& what) {
            breach(fmt::format("point {}: {}\n", sequence, what));
        };
        const auto reader = ReplicaReader::open(peek_, item_, key_, {sequence});
        if (!reader) return wrong("can't be opened: " + reader.error().to_string());
        for (DiskIndex i = 0; i < disks.size(); ++i) {
            const auto disk = (*reader)->disk(i);
            if (!disk) {
                // A disk that no record was about is all zeroes.
                if (!all_zero(disks[i])) wrong(fmt::format("disk {} is missing", i));
                continue;
            }
            Bytes content(disks[i].size());
            const uint64_t there = std::min<uint64_t>(content.size(), (*disk)->size_bytes());
            const Status read = (*disk)->read(0, MutableByteView(content).first(there));
            if (!read) return wrong("can't be read: " + read.error().to_string());
            outcome_.bytes_compared += content.size();
            if (content == disks[i]) continue;
            const auto at = static_cast<size_t>(
                std::mismatch(content.begin(), content.end(), disks[i].begin()).first -
                content.begin());
            size_t differing = 0;
            for (size_t b = 0; b < content.size(); ++b) differing += content[b] != disks[i][b];
            return wrong(
                fmt::format("disk {} differs from byte {}, {} bytes in all", i, at, differing));
        }
    });
}

void System::check(size_t samples) {
    if (!broken_.empty() || !oracle_ready()) return;
    MemoryLedger& ledger = ledgers_[active_vault_];
    const auto state = ledger.state();
    if (!state || state->rebuilding) return;
    ++outcome_.checks;
    check_stored();
    SimRandom random(world_.fork("oracle"));
    SimClock& clock = vault_hosts_[active_vault_]->clock();
    auto replica = ItemReplica::open(peek_, ledger, clock, random, item_, key_, {});
    if (!replica) return breach("the replica can't be opened: " + replica.error().to_string());
    const auto points = (*replica)->points({});
    if (!points) return breach("points: " + points.error().to_string());
    std::set<uint64_t> wanted;
    for (const OfferedRange& range : points->ranges) {
        if (!model_.knows(range.first.v))
            return breach(fmt::format("sequence {} is offered and never was\n", range.first.v));
        if (const uint64_t lost = model_.dropped_within(range.first.v, range.last.v))
            return breach(fmt::format("{} to {} are offered, but the record {} was never sent\n",
                                      range.first.v, range.last.v, lost));
    }
    if (!points->ranges.empty()) {
        wanted.insert(points->ranges.back().last.v);
        if (removed_since_check_ || samples > 2) wanted.insert(points->ranges.front().first.v);
        for (size_t i = 0; i < samples; ++i) {
            const OfferedRange& range = points->ranges[draw_.below(points->ranges.size())];
            const uint64_t length = range.last.v - range.first.v;
            const uint64_t near = std::min<uint64_t>(length, draw_.below(4));
            switch (draw_.below(3)) {
                case 0:
                    wanted.insert(range.first.v + near);
                    break;
                case 1:
                    wanted.insert(range.last.v - near);
                    break;
                default:
                    wanted.insert(range.first.v + draw_.below(length + 1));
                    break;
            }
        }
    }
    removed_since_check_ = false;
    if (const auto leases = ledger.list_leases())
        for (const LeaseRow& lease : *leases)
            if (lease.expires > clock.now() && !void_leases_.contains(lease.id))
                wanted.insert(lease.sequence.v);
    compare({wanted.begin(), wanted.end()});
}

bool System::protected_again() {
    if (!broken_.empty()) return true;
    const auto not_yet = [this](const char* why) {
        why_not_ = why;
        return false;
    };
    if (!source_host_.up() || !tap_->alive()) return not_yet("the tap is not there");
    if (!pending_.empty() || guest_left_ > 0) return not_yet("the guest waits");
    const auto program = tap_->program<TapProgram>();
    if (program == nullptr || program->tap == nullptr) return not_yet("the tap is not there");
    if (!program->tap->producer().settled()) return not_yet("the tap is not settled");
    if (!oracle_ready()) return not_yet("the vault is not there");
    const auto state = ledgers_[active_vault_].state();
    if (!state || state->rebuilding) return not_yet("the ledger is not there");
    if (state->stored.v < model_.last_change()) return not_yet("changes are not stored");
    const auto gaps = ledgers_[active_vault_].list_gaps();
    if (!gaps || std::ranges::any_of(*gaps, [](const GapRow& gap) { return gap.open(); }))
        return not_yet("a gap is open");
    return true;
}

// What the parts say about themselves, for a failure's report.
std::string System::states() {
    std::string out;
    if (const auto p = tap_->program<TapProgram>(); p != nullptr && p->tap != nullptr) {
        const ProducerState s = p->tap->producer().state();
        const LogUsage usage = p->tap->producer().usage();
        out += fmt::format("tap: next {}, gap {} of {}, todo {}, ring {}, spill {}\n",
                           s.next_sequence, static_cast<uint64_t>(s.gap), s.gap_sequence,
                           p->tap->producer().todo_granules(), usage.ring_bytes, usage.spill_bytes);
    }
    if (const auto p = agent_->program<AgentProgram>(); p != nullptr && p->sender != nullptr) {
        const LogSenderStatus s = p->sender->status();
        out += fmt::format(
            "agent: connected {}, sent {}, received {}, stored {}, released {}, waiting "
            "for a gap {}, {}\n",
            s.connected, s.sent.v, s.received.v, s.stored.v, p->consumer->released().v,
            p->source->waiting_for_gap(), s.last_error);
    }
    for (SimProcess* process : appliances_) {
        const auto p = process->program<ApplianceProgram>();
        if (p == nullptr || p->server == nullptr) continue;
        for (const IntakeStatus& s : p->server->status())
            out +=
                fmt::format("{}: connected {}, received {}, stored {}, spool {}, queued {}, {}\n",
                            process->name(), s.connected, s.received.v, s.stored.v, s.spool_bytes,
                            s.queued_bytes, s.last_error);
    }
    out += fmt::format("network: {} dials, {} failed\n", network_.counters().dials,
                       network_.counters().dials_failed);
    if (const auto s = ledgers_[active_vault_].state())
        out += fmt::format(
            "vault {}: stored {}, epoch {} of {}, floor {}; last change {}, heard: "
            "received {}, stored {}\n",
            active_vault_, s->stored.v, s->epoch.v, s->appliance, s->floor.v, model_.last_change(),
            acked_received_.v, acked_stored_.v);
    return out;
}

SystemOutcome System::run() {
    const bool quiet_start = draw_.coin();
    guest_left_ = shape_.guest_ops;
    for (SimProcess* process : {vaults_[0], appliances_[0], tap_, agent_, guest_}) process->start();
    if (quiet_start) world_.run_until([this] { return protected_again(); }, 4'000'000);
    faults_ = true;
    world_.faults().enable(draw_.below(5) != 0);
    for (SimHost* host : appliance_hosts_) host->disk().allow_errors(shape_.appliance_errors);
    if (!shape_.appliance_read_errors) world_.faults().force("disk.read_error", 0);
    // It bites only what finds no room while it is compared.
    if (plant_ == Plant::kStaleCompare) world_.faults().force("capture.no_room", 50'000);
    store_.allow_errors(draw_.coin());
    // A put that takes effect after its time-out must do so within the grace of deletion, which is
    // ten minutes in production: otherwise a manifest may appear whose shards are gone.
    if (shape_.retention.grace_us < 20'000'000) world_.faults().force("store.late_effect", 0);
    if (!shape_.two_vaults) store_.allow_damaged_reads(draw_.below(4) == 0);

    for (uint64_t strikes = 2 + draw_.below(6); strikes > 0 && broken_.empty(); --strikes) {
        world_.run_for_us(draw_.between(50'000, 2'500'000));
        check(1);
        strike();
    }
    world_.run_for_us(draw_.between(50'000, 1'500'000));
    check(2);
    const auto settle = [&] {
        const int64_t from_us = world_.now_us();
        const bool again =
            world_.run_until([this] { return protected_again(); }, kProtectedAgainUs);
        outcome_.calm_us = std::max(outcome_.calm_us, world_.now_us() - from_us);
        if (!again) breach(std::string("the item is not protected again: ") + why_not_);
        check(4);
        if (!broken_.empty()) return;
        if (model_.latest() != source_content()) {
            breach("the log does not say what the source is\n");
            return;
        }
        compare({ledgers_[active_vault_].state()->stored.v});
    };
    become_calm();
    settle();
    // Everything is stored; a crash of the source now, or in the middle of what it writes next,
    // must lose nothing either.
    if (broken_.empty() && draw_.below(3) == 0) {
        guest_left_ = 3 + draw_.below(10);
        world_.run_for_us(draw_.between(0, 150'000));
        if (source_host_.up()) source_host_.lose_power();
        world_.run_until([this] { return source_host_.up() && tap_->alive(); }, 10'000'000);
        settle();
    }
    outcome_.gaps = 0;
    if (const auto program = tap_->program<TapProgram>();
        program != nullptr && program->tap != nullptr)
        outcome_.gaps = program->tap->producer().state().gaps;
    over_ = true;
    if (!broken_.empty()) {
        outcome_.broken =
            broken_ + broken_states_ +
            fmt::format("{} disks, {}, spill {}, {} appliance(s), {} vault(s), disk errors {}/{}\n",
                        shape_.disk_bytes.size(),
                        shape_.mode == TapMode::kMirror ? "mirror" : "in path", shape_.spill_bytes,
                        shape_.two_appliances ? 2 : 1, shape_.two_vaults ? 2 : 1,
                        shape_.source_errors, shape_.appliance_errors) +
            world_.report(report_lines());
    }
    outcome_.hash = world_.trace_hash();
    outcome_.faults = world_.faults();
    return outcome_;
}

std::string plant_name(Plant plant) {
    switch (plant) {
        case Plant::kNone:
            return "none";
        case Plant::kAckBeforeSync:
            return "ack_before_sync";
        case Plant::kStoredBeforeRegistered:
            return "stored_before_registered";
        case Plant::kSwapSegments:
            return "swap_segments";
        case Plant::kMarkTooLate:
            return "mark_too_late";
        case Plant::kLostGap:
            return "lost_gap";
        case Plant::kWrongOrder:
            return "wrong_order";
        case Plant::kDeleteTooEarly:
            return "delete_too_early";
        case Plant::kSkippedSum:
            return "skipped_sum";
        case Plant::kEarlyEnd:
            return "early_end";
        case Plant::kStaleCompare:
            return "stale_compare";
        case Plant::kUnmarkTooEarly:
            return "unmark_too_early";
        case Plant::kWrongDisk:
            return "wrong_disk";
        case Plant::kWrongDiskSet:
            return "wrong_disk_set";
    }
    return "?";
}

SystemOutcome run_system(uint64_t seed, Plant plant) { return System(seed, plant).run(); }

}  // namespace farshore::system_sim
