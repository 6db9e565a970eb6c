#include "replica/item_replica.h"

#include <fmt/core.h>

#include <algorithm>

#include "replica/item_internal.h"
#include "replica/log_lease.h"

namespace farshore {

using namespace item_internal;

namespace item_internal {

Result<RegistrationCommit> registration_of(const SegmentReader& segment, LogState& state) {
    RegistrationCommit commit;
    const bool in_gap = state.open_gap().has_value();
    const SegmentHeader& header = segment.header();
    SegmentRow& row = commit.segment;
    row.number = header.number;
    row.epoch = header.epoch;
    row.object_name = segment_object_name(header);
    row.object_bytes = header.object_bytes;
    row.header_hash = header.header_hash;
    row.first = header.first;
    row.last = header.last;
    row.first_time = header.first_time;
    row.last_time = header.last_time;
    row.entries = header.record_count;
    for (const IndexEntry& entry : segment.index()) {
        FS_TRY(state.apply(entry));
        if (entry.kind == RecordKind::kWrite || entry.kind == RecordKind::kZero)
            row.written_bytes += entry.length_bytes;
    }
    if (state.last() != header.last || segment.index().empty() ||
        segment.index().front().sequence != header.first)
        return fail(Code::kCorrupt, row.object_name +
                                        ": its records are not those that its header "
                                        "counts");
    commit.points = state.points();
    commit.gaps = state.gaps();
    commit.geometry = state.geometry();
    commit.changes = changes_of(segment, in_gap);
    return commit;
}

}  // namespace item_internal

namespace {

// The one at `sequence`, when it is kept.
Result<std::optional<KeptRow>> kept_at(ReplicaLedger& ledger, Sequence sequence) {
    PointQuery exact;
    exact.from = exact.to = sequence;
    exact.limit = 1;
    FS_ASSIGN(auto rows, ledger.find_kept(exact));
    if (rows.empty()) return std::nullopt;
    return std::move(rows.front());
}

std::string describe(Sequence sequence, TimePoint time) {
    return fmt::format("{} ({})", sequence.v, to_rfc3339(time));
}

}  // namespace

PointSpec PointSpec::parse(std::string_view text) {
    PointSpec spec;
    struct Word {
        std::string_view text;
        Kind kind;
    };
    for (const Word& word : {Word{"latest", Kind::kLatest},
                             {"latest-processed", Kind::kLatestProcessed},
                             {"latest-app", Kind::kLatestApplication},
                             {"latest-multi-vm", Kind::kLatestShared},
                             {"latest-multi-vm-app", Kind::kLatestSharedApplication}})
        if (text == word.text) {
            spec.kind = word.kind;
            return spec;
        }
    for (const Word& prefix : {Word{"shared:", Kind::kShared}, {"label:", Kind::kLabel}})
        if (text.starts_with(prefix.text)) {
            spec.kind = prefix.kind;
            spec.label = std::string(text.substr(prefix.text.size()));
            return spec;
        }
    const bool digits = !text.empty() && text.size() <= 19 &&
                        text.find_first_not_of("0123456789") == std::string_view::npos;
    if (digits) {
        spec.kind = Kind::kSequence;
        for (const char c : text)
            spec.sequence.v = spec.sequence.v * 10 + static_cast<uint64_t>(c - '0');
        return spec;
    }
    if (const auto time = from_rfc3339(text)) {
        spec.kind = Kind::kTime;
        spec.time = *time;
        return spec;
    }
    spec.kind = Kind::kLabel;
    spec.label = std::string(text);
    return spec;
}

ItemReplica::ItemReplica(ObjectStore& store, ReplicaLedger& ledger, Clock& clock, Random& random,
                         const ItemId& item, const Secret& key, ItemReplicaOptions options)
    : store_(store),
      ledger_(ledger),
      clock_(clock),
      random_(random),
      item_(item),
      key_(key),
      options_(std::move(options)) {}

Result<std::unique_ptr<ItemReplica>> ItemReplica::open(ObjectStore& store, ReplicaLedger& ledger,
                                                       Clock& clock, Random& random,
                                                       const ItemId& item, const Secret& item_key,
                                                       ItemReplicaOptions options) {
    FS_ASSIGN(const LedgerState state, ledger.state());
    if (state.rebuilding)
        return fail(Code::kWrongState, "the rebuild of the item's ledger did not end",
                    "rebuild it again");
    return std::unique_ptr<ItemReplica>(
        new ItemReplica(store, ledger, clock, random, item, item_key, std::move(options)));
}

Epoch ItemReplica::vault_epoch() const {
    return options_.fence != nullptr ? options_.fence->epoch() : Epoch{1};
}

Status ItemReplica::check_fence() const {
    return options_.fence != nullptr ? options_.fence->still_mine() : Status{};
}

// ---- the log

Result<LogLease> ItemReplica::acquire_log(const std::string& appliance) {
    std::lock_guard lock(log_mutex_);
    FS_ASSIGN(const Epoch epoch, next_epoch(appliance));
    // Nobody registers under an older lease any more: where this one begins is settled.
    FS_ASSIGN(const LedgerState state, ledger_.state());
    LogLease lease;
    lease.epoch = epoch;
    lease.next_segment = state.last_segment.next();
    lease.previous_header = state.last_header;
    lease.stored = state.stored;
    lease.item_key = key_;
    // In the store before anything of it can be. One that is never used does no harm.
    FS_TRY(put_log_lease(store_, item_, {epoch, lease.next_segment, state.last_segment_epoch}));
    return lease;
}

Status ItemReplica::fence_log(const std::string& why) {
    std::lock_guard lock(log_mutex_);
    FS_ASSIGN([[maybe_unused]] const Epoch epoch, next_epoch(why));
    return {};
}

Result<Epoch> ItemReplica::next_epoch(const std::string& holder) {
    FS_TRY(check_fence());
    FS_ASSIGN(const LedgerState state, ledger_.state());
    const Epoch epoch = next_log_epoch(state.epoch, options_);
    FS_TRY(ledger_.commit_epoch(epoch, holder));
    return epoch;
}

Status ItemReplica::register_segment(const SegmentRegistration& registration) {
    std::lock_guard lock(log_mutex_);
    FS_ASSIGN(const LedgerState state, ledger_.state());
    if (registration.item != item_)
        return fail(Code::kInvalidArgument, "the registration is of another item");
    const ObjectRef ref{SegmentKind::kLog, registration.number, registration.epoch};
    if (registration.object_name != object_name(item_, ref))
        return fail(Code::kInvalidArgument,
                    "the object's name does not say the segment's number "
                    "and epoch");
    if (registration.number.v == 0 || registration.number > state.last_segment.next())
        return fail(Code::kSequenceHole,
                    fmt::format("segment {} was registered, {} comes next", registration.number.v,
                                state.last_segment.v + 1));
    if (registration.number <= state.last_segment) {
        // Sent again? Names are write-once, so number and epoch tell which object it is.
        FS_ASSIGN(const auto rows, ledger_.list_segments({registration.number.v - 1}, 1));
        if (!rows.empty() && rows.front().number == registration.number &&
            rows.front().epoch == registration.epoch &&
            rows.front().header_hash == registration.header_hash)
            return {};
        if (registration.epoch != state.epoch)
            return fail(Code::kFenced, "a newer log lease has gone on without this segment",
                        "acquire the log again");
        return fail(Code::kSequenceHole,
                    fmt::format("segment {} is there already, {} comes next", registration.number.v,
                                state.last_segment.v + 1));
    }
    if (registration.epoch != state.epoch)
        return fail(Code::kFenced, "the segment's log lease is no longer the item's",
                    "acquire the log again");
    if (registration.previous_header != state.last_header)
        return fail(Code::kSequenceHole,
                    fmt::format("segment {} does not name the header of the one before it",
                                registration.number.v));

    // Nothing becomes part of the log that cannot be read.
    FS_ASSIGN(const ObjectInfo info, store_.head(registration.object_name));
    FS_ASSIGN(const auto segment,
              SegmentReader::open(store_, registration.object_name, item_, key_));
    const SegmentHeader& header = segment->header();
    if (info.size_bytes != header.object_bytes)
        return fail(info.size_bytes < header.object_bytes ? Code::kTruncated : Code::kCorrupt,
                    fmt::format("{} has {} bytes, its header says {}", registration.object_name,
                                info.size_bytes, header.object_bytes));
    if (header.header_hash != registration.header_hash || header.kind != SegmentKind::kLog ||
        header.number != registration.number || header.epoch != registration.epoch ||
        header.previous_header != registration.previous_header ||
        header.first != registration.first || header.last != registration.last)
        return fail(Code::kInvalidArgument,
                    registration.object_name + " is not what its registration says");
    FS_ASSIGN(const auto gaps, ledger_.list_gaps());
    LogState log(state.stored, state.stored_time, open_gap(gaps), {});
    FS_ASSIGN(const RegistrationCommit commit, registration_of(*segment, log));
    // The object was put before this check: a vault that claims the store after it sees the object.
    FS_TRY(check_fence());
    return ledger_.commit_registration(commit);
}

Status ItemReplica::follow(const SegmentRow& segment) {
    FS_ASSIGN(const LedgerState state, ledger_.state());
    // The right to append was the source's to give; here it only has to grow.
    if (segment.epoch > state.epoch) FS_TRY(ledger_.commit_epoch(segment.epoch, "copy"));
    SegmentRegistration registration;
    registration.item = item_;
    registration.epoch = segment.epoch;
    registration.number = segment.number;
    registration.object_name = segment.object_name;
    registration.object_bytes = segment.object_bytes;
    registration.header_hash = segment.header_hash;
    registration.previous_header = state.last_header;
    registration.first = segment.first;
    registration.last = segment.last;
    registration.first_time = segment.first_time;
    registration.last_time = segment.last_time;
    registration.written_bytes = segment.written_bytes;
    return register_segment(registration);
}

Status ItemReplica::mark_idle(Epoch epoch, Sequence sequence, TimePoint time) {
    std::lock_guard lock(log_mutex_);
    FS_ASSIGN(const LedgerState state, ledger_.state());
    if (epoch != state.epoch)
        return fail(Code::kFenced, "the log lease is no longer the item's",
                    "acquire the log again");
    if (sequence > state.stored)
        return fail(Code::kSequenceHole,
                    fmt::format("idle after sequence {}, but only {} is stored", sequence.v,
                                state.stored.v));
    // Something newer is stored already: the mark says nothing any more.
    if (sequence < state.stored || time <= state.idle_time) return {};
    return ledger_.commit_idle(epoch, sequence, time);
}

// ---- points

Result<PointList> ItemReplica::points(const PointQuery& query) {
    FS_ASSIGN(const LedgerState state, ledger_.state());
    FS_ASSIGN(const auto gaps, ledger_.list_gaps());
    PointList out;
    // Rows inside a gap are left out, so more than the limit may have to be read.
    PointQuery page = query;
    while (out.points.size() < query.limit) {
        page.limit = query.limit - out.points.size();
        FS_ASSIGN(const auto rows, ledger_.list_points(page));
        for (const PointRow& row : rows) {
            if (gap_over(gaps, row.sequence) == nullptr && row.sequence >= state.floor)
                out.points.push_back(row);
        }
        if (rows.size() < page.limit) break;
        if (query.newest_first) {
            if (rows.back().sequence.v == 0) break;
            page.to = {rows.back().sequence.v - 1};
        } else {
            page.from = rows.back().sequence.next();
        }
        if (page.from > page.to) break;
    }

    if (query.limit > 0) {
        FS_ASSIGN(out.kept, ledger_.find_kept(query));
    }
    if (state.stored.v == 0) return out;
    OfferedRange range;
    if (state.floor.v > 0) {
        range.first = state.floor;
        range.first_time = state.floor_time;
    } else {
        range.first = {1};
        FS_ASSIGN(const auto first, ledger_.list_segments({0}, 1));
        if (!first.empty()) {
            // A log may start anywhere behind 0: with a GAP, which then covers what is before.
            range.first_time = first.front().first_time;
        }
    }
    for (const GapRow& gap : gaps) {
        if (gap.last_good >= range.first && gap.last_good.v > 0) {
            range.last = gap.last_good;
            range.last_time = gap.last_good_time;
            out.ranges.push_back(range);
        }
        if (gap.open()) return out;
        if (gap.resynced > range.first) {
            range.first = gap.resynced;
            range.first_time = gap.resynced_time;
        }
    }
    range.last = state.stored;
    range.last_time = state.stored_time;
    if (range.first <= range.last) out.ranges.push_back(range);
    return out;
}

Result<std::vector<KeptRow>> ItemReplica::kept() { return ledger_.list_kept(); }

Result<ReplicaStatus> ItemReplica::status() {
    FS_ASSIGN(const LedgerState state, ledger_.state());
    PointQuery none;
    none.limit = 0;
    FS_ASSIGN(const PointList list, points(none));
    FS_ASSIGN(const auto gaps, ledger_.list_gaps());
    FS_ASSIGN(const auto geometry, ledger_.list_geometry());
    ReplicaStatus out;
    out.epoch = state.epoch;
    out.appliance = state.appliance;
    out.segments = state.last_segment;
    out.stored = state.stored;
    out.stored_time = state.stored_time;
    out.current_until = state.idle == state.stored ? std::max(state.stored_time, state.idle_time)
                                                   : state.stored_time;
    if (!list.ranges.empty()) {
        out.oldest = list.ranges.front().first;
        out.oldest_time = list.ranges.front().first_time;
        out.newest = list.ranges.back().last;
        out.newest_time = list.ranges.back().last_time;
    }
    PointQuery first;
    first.limit = 1;
    FS_ASSIGN(const auto oldest_kept, ledger_.find_kept(first));
    if (!oldest_kept.empty()) {
        out.oldest = oldest_kept.front().sequence;
        out.oldest_time = oldest_kept.front().time;
    }
    out.gap_open = open_gap(gaps).has_value();
    out.written_bytes = state.written_bytes;
    const int64_t stored_bytes =
        static_cast<int64_t>(state.stored_bytes) + stored_correction_bytes_.load();
    out.stored_bytes = static_cast<uint64_t>(std::max<int64_t>(stored_bytes, 0));
    out.disks = disks_at(geometry, state.stored);
    return out;
}

Result<std::vector<ChangeRow>> ItemReplica::changes() { return ledger_.list_changes(); }

Result<std::vector<GeometryRow>> ItemReplica::geometry() { return ledger_.list_geometry(); }

Result<std::vector<DiskSize>> ItemReplica::disks_of(Sequence sequence) {
    FS_ASSIGN(const LedgerState state, ledger_.state());
    if (sequence < state.floor) {
        FS_ASSIGN(const auto row, kept_at(ledger_, sequence));
        if (row) return row->disks;
    }
    FS_ASSIGN(const auto rows, ledger_.list_geometry());
    return disks_at(rows, sequence);
}

std::string ItemReplica::window_text(const LedgerState& state, const std::vector<GapRow>& gaps) {
    PointQuery none;
    none.limit = 0;
    const auto list = points(none);
    if (!list || list->ranges.empty()) return "there is no point yet";
    std::string out =
        fmt::format("the window reaches from {} to {}",
                    describe(list->ranges.front().first, list->ranges.front().first_time),
                    describe(list->ranges.back().last, list->ranges.back().last_time));
    if (open_gap(gaps))
        out += fmt::format(", and a gap is open behind it up to {}", state.stored.v);
    if (const auto kept = ledger_.list_kept(); kept && !kept->empty())
        out += fmt::format("; below it {} point{} kept, from {} on", kept->size(),
                           kept->size() == 1 ? " is" : "s are",
                           describe(kept->front().sequence, kept->front().time));
    return out;
}

Status ItemReplica::check_point(Sequence sequence, const LedgerState& state) {
    FS_ASSIGN(const auto gaps, ledger_.list_gaps());
    if (state.stored.v == 0)
        return fail(Code::kPointNotFound, "nothing of this machine is stored yet",
                    "wait until it is protected");
    if (sequence < state.floor && sequence.v > 0) {
        FS_ASSIGN(const auto kept, kept_at(ledger_, sequence));
        if (kept) return {};
    }
    if (sequence < state.floor || sequence.v == 0)
        return fail(Code::kPointOutsideWindow,
                    fmt::format("sequence {} is not in the window: {}", sequence.v,
                                window_text(state, gaps)),
                    "choose a point inside the window");
    if (sequence > state.stored)
        return fail(
            Code::kPointNotFound,
            fmt::format("sequence {} is not stored: {}", sequence.v, window_text(state, gaps)),
            "wait until it is stored, or choose an older point");
    if (const GapRow* gap = gap_over(gaps, sequence))
        return fail(point_in_gap(sequence, *gap, state.floor));
    return {};
}

Result<TimePoint> ItemReplica::time_of(Sequence sequence, const LedgerState& state) {
    if (sequence == state.stored) return state.stored_time;
    if (sequence == state.floor) return state.floor_time;
    if (sequence < state.floor) {
        FS_ASSIGN(const auto row, kept_at(ledger_, sequence));
        if (row) return row->time;
    }
    FS_ASSIGN(const SegmentRow row, ledger_.segment_with(sequence));
    if (row.last == sequence) return row.last_time;
    if (row.first == sequence) return row.first_time;
    FS_ASSIGN(const auto segment, SegmentReader::open(store_, row.object_name, item_, key_));
    for (const IndexEntry& entry : segment->index()) {
        if (entry.sequence >= sequence) return entry.time;
    }
    return row.last_time;
}

Result<ResolvedPoint> ItemReplica::resolve_time(TimePoint time, const LedgerState& state) {
    FS_ASSIGN(const auto gaps, ledger_.list_gaps());
    const auto outside = [&] {
        return fail(
            Code::kPointOutsideWindow,
            fmt::format("{} is not in the window: {}", to_rfc3339(time), window_text(state, gaps)),
            "choose a time inside the window");
    };
    if (state.stored.v == 0)
        return fail(Code::kPointNotFound, "nothing of this machine is stored yet",
                    "wait until it is protected");
    if (state.floor.v > 0 && time < state.floor_time) {
        // The newest that was kept by then.
        FS_ASSIGN(const auto kept, ledger_.list_kept());
        const auto row = std::ranges::find_if(kept.rbegin(), kept.rend(),
                                              [&](const KeptRow& r) { return r.time <= time; });
        if (row == kept.rend()) return outside();
        return ResolvedPoint{row->sequence, row->time};
    }
    const TimePoint newest = state.idle == state.stored
                                 ? std::max(state.stored_time, state.idle_time)
                                 : state.stored_time;
    if (time > newest) return outside();

    ResolvedPoint point;
    const auto row = ledger_.segment_before(time);
    if (!row) {
        if (row.error().code() != Code::kNotFound) return fail(row.error());
        if (state.floor.v == 0) return outside();
        point = {state.floor, state.floor_time};
    } else if (row->last_time <= time) {
        point = {row->last, row->last_time};
    } else {
        FS_ASSIGN(const auto segment, SegmentReader::open(store_, row->object_name, item_, key_));
        for (const IndexEntry& entry : segment->index()) {
            if (entry.time <= time) point = {entry.sequence, entry.time};
        }
        if (point.sequence.v == 0) return outside();
    }
    if (const GapRow* gap = gap_over(gaps, point.sequence))
        return fail(point_in_gap(point.sequence, *gap, state.floor).with_context(to_rfc3339(time)));
    if (point.sequence < state.floor) return outside();
    return point;
}

// Those of which retention has left nothing are passed over.
Result<ResolvedPoint> ItemReplica::resolve_shared(const PointSpec& spec, const LedgerState& state) {
    std::vector<SharedPointOfItem> known;
    if (options_.shared_points) {
        FS_ASSIGN(known, options_.shared_points());
    }
    for (const SharedPointOfItem& one : known) {
        if (spec.kind == PointSpec::Kind::kShared && one.id != spec.label) continue;
        if (spec.kind == PointSpec::Kind::kLatestSharedApplication &&
            one.kind != PointKind::kApplication)
            continue;
        if (auto there = check_point(one.sequence, state); !there) {
            if (spec.kind == PointSpec::Kind::kShared) return fail(there.error());
            continue;
        }
        FS_ASSIGN(const TimePoint time, time_of(one.sequence, state));
        return ResolvedPoint{one.sequence, time};
    }
    const std::string which =
        spec.kind == PointSpec::Kind::kShared ? fmt::format(" '{}'", spec.label.substr(0, 64)) : "";
    return fail(Code::kPointNotFound,
                fmt::format("this machine has no point{} that it shares with its group", which),
                "`farshore group points` lists them");
}

Status ItemReplica::is_there(Sequence sequence) {
    FS_ASSIGN(const LedgerState state, ledger_.state());
    return check_point(sequence, state);
}

Result<ResolvedPoint> ItemReplica::resolve(const PointSpec& spec) {
    FS_ASSIGN(const LedgerState state, ledger_.state());
    switch (spec.kind) {
        case PointSpec::Kind::kSequence: {
            FS_TRY(check_point(spec.sequence, state));
            FS_ASSIGN(const TimePoint time, time_of(spec.sequence, state));
            return ResolvedPoint{spec.sequence, time};
        }
        case PointSpec::Kind::kShared:
        case PointSpec::Kind::kLatestShared:
        case PointSpec::Kind::kLatestSharedApplication:
            return resolve_shared(spec, state);
        case PointSpec::Kind::kTime:
            return resolve_time(spec.time, state);
        case PointSpec::Kind::kLabel: {
            PointQuery query;
            query.label = spec.label;
            query.newest_first = true;
            query.limit = 1;
            FS_ASSIGN(const PointList valid, points(query));
            if (!valid.points.empty())
                return ResolvedPoint{valid.points.front().sequence, valid.points.front().time};
            if (!valid.kept.empty())
                return ResolvedPoint{valid.kept.front().sequence, valid.kept.front().time};
            FS_ASSIGN(const auto rows, ledger_.list_points(query));
            if (!rows.empty()) FS_TRY(check_point(rows.front().sequence, state));
            FS_ASSIGN(const auto gaps, ledger_.list_gaps());
            return fail(
                Code::kPointNotFound,
                fmt::format("no point is called '{}'; {}", spec.label, window_text(state, gaps)),
                "list the points of the machine");
        }
        case PointSpec::Kind::kLatestApplication: {
            PointQuery query;
            query.kind = PointKind::kApplication;
            query.newest_first = true;
            query.limit = 1;
            FS_ASSIGN(const PointList valid, points(query));
            if (!valid.points.empty())
                return ResolvedPoint{valid.points.front().sequence, valid.points.front().time};
            if (!valid.kept.empty())
                return ResolvedPoint{valid.kept.front().sequence, valid.kept.front().time};
            return fail(Code::kPointNotFound, "this machine has no application-consistent point",
                        "`farshore point --bookmark NAME --consistent` makes one, a policy does so "
                        "at an interval");
        }
        case PointSpec::Kind::kLatestProcessed: {
            FS_ASSIGN(const auto manifests, ledger_.list_manifests());
            FS_ASSIGN(const auto gaps, ledger_.list_gaps());
            for (auto it = manifests.rbegin(); it != manifests.rend(); ++it) {
                if (it->sequence >= state.floor && gap_over(gaps, it->sequence) == nullptr)
                    return ResolvedPoint{it->sequence, it->time};
            }
            break;  // nothing is processed yet: the newest point is as good
        }
        case PointSpec::Kind::kLatest:
            break;
    }
    PointQuery none;
    none.limit = 0;
    FS_ASSIGN(const PointList list, points(none));
    if (list.ranges.empty())
        return fail(Code::kPointNotFound,
                    state.stored.v == 0
                        ? "nothing of this machine is stored yet"
                        : "there is no recovery point yet: the first copy is not complete",
                    "wait until it is protected");
    return ResolvedPoint{list.ranges.back().last, list.ranges.back().last_time};
}

// ---- leases

int64_t ItemReplica::expiry(int64_t duration_us) const {
    const int64_t now = clock_.now().us;
    return duration_us > kNeverExpires.us - now ? kNeverExpires.us : now + duration_us;
}

Result<LeaseRow> ItemReplica::lease(Sequence sequence, const std::string& holder,
                                    int64_t duration_us) {
    FS_ASSIGN(const LedgerState state, ledger_.state());
    FS_TRY(check_point(sequence, state));
    LeaseRow row;
    row.sequence = sequence;
    row.holder = holder;
    row.expires = {expiry(duration_us)};
    // The ledger checks the floor again: it may have moved meanwhile.
    return ledger_.commit_lease(row);
}

Result<LeaseRow> ItemReplica::lease_floor(const std::string& holder, int64_t duration_us) {
    std::lock_guard lock(upkeep_mutex_);
    FS_ASSIGN(const LedgerState state, ledger_.state());
    if (state.floor.v == 0) return fail(Code::kPointNotFound, "nothing has left the window");
    LeaseRow row;
    row.sequence = state.floor;
    row.holder = holder;
    row.expires = {expiry(duration_us)};
    return ledger_.commit_lease(row);
}

Status ItemReplica::renew(uint64_t lease, int64_t duration_us) {
    return ledger_.renew_lease(lease, {expiry(duration_us)});
}

Status ItemReplica::release(uint64_t lease) { return ledger_.release_lease(lease); }

}  // namespace farshore
