// What must hold for a machine, whatever strikes.
#include <algorithm>

#include "replica/chunk_cache.h"
#include "system.h"

namespace farshore::system_sim {

namespace {
constexpr size_t kCacheBytes = 64u << 20;
}

void Machine::check_stored() {
    if (!system_.oracle_ready()) return;
    const auto state = system_.ledger(index_).state();
    if (!state) return;
    if (state->rebuilding) return;
    if (state->stored < seen_stored_[system_.database()])
        breach(fmt::format("stored went back from {} to {}\n", seen_stored_[system_.database()].v,
                           state->stored.v));
    seen_stored_[system_.database()] = state->stored;
    if (state->stored < acked_stored_)
        breach(fmt::format("{} was acknowledged as stored, but the vault has {}\n", acked_stored_.v,
                           state->stored.v));
}

void Machine::compare(const std::vector<uint64_t>& sequences) {
    // Chunks are decoded once for all points; nothing is removed meanwhile.
    ReplicaReaderOptions options;
    options.cache = std::make_shared<ChunkCache>(kCacheBytes);
    model_.replay(sequences, [&](uint64_t sequence, const SystemModel::Disks& disks) {
        if (system_.broken()) return;
        ++outcome_.points_compared;
        const auto wrong = [&](const std::string& what) {
            breach(fmt::format("point {}: {}\n", sequence, what));
        };
        const auto reader = ReplicaReader::open(system_.peek(), item_, key_, {sequence}, options);
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

void Machine::check(size_t samples) {
    if (system_.broken() || !system_.oracle_ready()) return;
    MemoryLedger& ledger = system_.ledger(index_);
    const auto state = ledger.state();
    if (!state || state->rebuilding) return;
    ++outcome_.checks;
    check_stored();
    SimRandom random(world_.fork("oracle"));
    SimClock& clock = system_.vault_host().clock();
    auto replica = ItemReplica::open(system_.peek(), ledger, clock, random, item_, key_, {});
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
    if (!points->kept.empty()) {
        for (const KeptRow& row :
             {points->kept.front(), points->kept[points->kept.size() / 2], points->kept.back()}) {
            if (!model_.knows(row.sequence.v) ||
                model_.dropped_within(row.sequence.v, row.sequence.v) != 0)
                return breach(fmt::format("{} is kept and never was\n", row.sequence.v));
            wanted.insert(row.sequence.v);
        }
        outcome_.points_kept += points->kept.size();
    }
    removed_since_check_ = false;
    newest_checked_ = points->ranges.empty() ? Sequence{} : points->ranges.back().last;
    if (const auto leases = ledger.list_leases())
        for (const LeaseRow& lease : *leases)
            if (!system_.expired(lease) && !void_leases_.contains(lease.id))
                wanted.insert(lease.sequence.v);
    compare({wanted.begin(), wanted.end()});
}

bool Machine::protected_again() {
    if (system_.broken()) return true;
    const auto not_yet = [this](const char* why) {
        why_not_ = why;
        return false;
    };
    if (!host_.up() || !tap_->alive()) return not_yet("the tap is not there");
    if (!pending_.empty() || guest_left_ > 0) return not_yet("the guest waits");
    const auto program = tap_->program<TapProgram>();
    if (program == nullptr || program->tap == nullptr) return not_yet("the tap is not there");
    if (!program->tap->producer().settled()) return not_yet("the tap is not settled");
    if (!system_.oracle_ready()) return not_yet("the vault is not there");
    const auto state = system_.ledger(index_).state();
    if (!state || state->rebuilding) return not_yet("the ledger is not there");
    if (state->stored.v < model_.last_change()) return not_yet("changes are not stored");
    const auto gaps = system_.ledger(index_).list_gaps();
    if (!gaps || std::ranges::any_of(*gaps, [](const GapRow& gap) { return gap.open(); }))
        return not_yet("a gap is open");
    return true;
}

void Machine::void_leases() {
    const auto leases = system_.ledger(index_).list_leases();
    if (!leases) return;
    for (const LeaseRow& lease : *leases)
        if (system_.expired(lease)) void_leases_.insert(lease.id);
}

bool Machine::log_is_source() { return model_.latest() == source_content(); }

uint64_t Machine::gaps() const {
    const auto program = tap_->program<TapProgram>();
    return program == nullptr || program->tap == nullptr ? 0
                                                         : program->tap->producer().state().gaps;
}

// What the parts say about themselves, for a failure's report.
std::string Machine::states() {
    std::string out = fmt::format(
        "machine {}: {} disks, {}, spill {}, disk errors {}, appliance {}\n", index_,
        shape_.disk_bytes.size(), shape_.mode == TapMode::kMirror ? "mirror" : "in path",
        shape_.spill_bytes, shape_.disk_errors, address_);
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
    if (const auto s = system_.ledger(index_).state())
        out += fmt::format(
            "ledger: stored {}, epoch {} of {}, floor {}; last change {}, heard: received {}, "
            "stored {}\n",
            s->stored.v, s->epoch.v, s->appliance, s->floor.v, model_.last_change(),
            acked_received_.v, acked_stored_.v);
    return out;
}

}  // namespace farshore::system_sim
