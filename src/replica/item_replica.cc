#include "replica/item_replica.h"

#include <fmt/core.h>

#include <algorithm>
#include <set>

#include "replica/manifest_builder.h"

namespace farshore {

namespace {

// Rows, names and removals that are handled at once.
constexpr size_t kPage = 1000;
constexpr size_t kRemoveBatch = 64;

bool is_damage(Code code) {
    return code == Code::kCorrupt || code == Code::kTruncated || code == Code::kMalformed ||
           code == Code::kNotFound;
}

std::string describe(Sequence sequence, TimePoint time) {
    return fmt::format("{} ({})", sequence.v, to_rfc3339(time));
}

const GapRow* gap_over(const std::vector<GapRow>& gaps, Sequence sequence) {
    for (const GapRow& gap : gaps) {
        if (gap.covers(sequence)) return &gap;
    }
    return nullptr;
}

std::optional<GapRow> open_gap(const std::vector<GapRow>& gaps) {
    if (gaps.empty() || !gaps.back().open()) return std::nullopt;
    return gaps.back();
}

Result<Manifest> load_manifest(ObjectStore& store, const ItemId& item, const Secret& key,
                               const std::string& name) {
    FS_ASSIGN(const Bytes object, store.get(name));
    return decode_manifest(item, name, object, key);
}

// The newest of `rows` (by sequence, generation) at or below `limit` that can be read; an empty
// manifest when there is none and the log is whole from its start.
Result<Manifest> newest_manifest(ObjectStore& store, const ItemId& item, const Secret& key,
                                 const std::vector<ManifestRow>& rows, Sequence limit,
                                 const LedgerState& state) {
    std::optional<Error> damage;
    for (auto it = rows.rbegin(); it != rows.rend(); ++it) {
        if (it->sequence > limit) continue;
        auto manifest = load_manifest(store, item, key, it->object_name);
        if (manifest) return manifest;
        if (!is_damage(manifest.error().code())) return fail(manifest.error());
        if (!damage) damage = manifest.error();
    }
    if (state.floor_segment.v == 0) return Manifest{};
    if (damage) return fail(*damage);
    return fail(Code::kCorrupt, "no manifest at the window's floor is known",
                "rebuild the ledger from the store");
}

// Registered segments in (after, last].
Result<std::vector<SegmentRow>> segments_between(ReplicaLedger& ledger, SegmentNumber after,
                                                 SegmentNumber last) {
    std::vector<SegmentRow> out;
    while (after < last) {
        FS_ASSIGN(auto page, ledger.list_segments(after, kPage));
        if (page.empty()) break;
        for (SegmentRow& row : page) {
            if (row.number > last) return out;
            if (row.number != after.next())
                return fail(Code::kCorrupt, "the ledger does not know all segments of the log",
                            "rebuild the ledger from the store");
            after = row.number;
            out.push_back(std::move(row));
        }
    }
    return out;
}

// What the records of a segment mean for the ledger. `state` moves on.
Result<RegistrationCommit> registration_of(const SegmentReader& segment, LogState& state) {
    RegistrationCommit commit;
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
        return fail(Code::kCorrupt, row.object_name + ": its records are not those that its header "
                                                      "counts");
    commit.points = state.points();
    commit.gaps = state.gaps();
    commit.geometry = state.geometry();
    return commit;
}

}  // namespace

PointSpec PointSpec::parse(std::string_view text) {
    PointSpec spec;
    constexpr std::string_view kLabelPrefix = "label:";
    if (text == "latest") return spec;
    if (text == "latest-processed") {
        spec.kind = Kind::kLatestProcessed;
        return spec;
    }
    if (text.starts_with(kLabelPrefix)) {
        spec.kind = Kind::kLabel;
        spec.label = std::string(text.substr(kLabelPrefix.size()));
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
    return std::unique_ptr<ItemReplica>(new ItemReplica(store, ledger, clock, random, item,
                                                        item_key, std::move(options)));
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
    FS_TRY(check_fence());
    FS_ASSIGN(const LedgerState state, ledger_.state());
    // The vault's epoch is in the upper half: after the ledger was rebuilt, leases that were handed
    // out before but never used, which the store knows nothing of, are fenced too.
    const Epoch epoch{std::max(state.epoch.v + 1, vault_epoch().v << 32 | 1)};
    FS_TRY(ledger_.commit_epoch(epoch, appliance));
    LogLease lease;
    lease.epoch = epoch;
    lease.next_segment = state.last_segment.next();
    lease.previous_header = state.last_header;
    lease.stored = state.stored;
    lease.item_key = key_;
    return lease;
}

Status ItemReplica::register_segment(const SegmentRegistration& registration) {
    std::lock_guard lock(log_mutex_);
    FS_ASSIGN(const LedgerState state, ledger_.state());
    if (registration.item != item_)
        return fail(Code::kInvalidArgument, "the registration is of another item");
    const ObjectRef ref{SegmentKind::kLog, registration.number, registration.epoch};
    if (registration.object_name != object_name(item_, ref))
        return fail(Code::kInvalidArgument, "the object's name does not say the segment's number "
                                            "and epoch");
    if (registration.number.v == 0 || registration.number > state.last_segment.next())
        return fail(Code::kSequenceHole,
                    fmt::format("segment {} was registered, {} comes next", registration.number.v,
                                state.last_segment.v + 1));
    if (registration.number <= state.last_segment) {
        // Sent again? Names are write-once, so number and epoch tell which object it is.
        FS_ASSIGN(const auto rows,
                  ledger_.list_segments({registration.number.v - 1}, 1));
        if (!rows.empty() && rows.front().number == registration.number &&
            rows.front().epoch == registration.epoch &&
            rows.front().header_hash == registration.header_hash)
            return {};
        if (registration.epoch != state.epoch)
            return fail(Code::kFenced, "a newer log lease has gone on without this segment",
                        "acquire the log again");
        return fail(Code::kSequenceHole,
                    fmt::format("segment {} is there already, {} comes next",
                                registration.number.v, state.last_segment.v + 1));
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
        return fail(Code::kInvalidArgument, registration.object_name +
                                                " is not what its registration says");
    FS_ASSIGN(const auto gaps, ledger_.list_gaps());
    LogState log(state.stored, state.stored_time, open_gap(gaps), {});
    FS_ASSIGN(const RegistrationCommit commit, registration_of(*segment, log));
    // The object was put before this check: a vault that claims the store after it sees the object.
    FS_TRY(check_fence());
    return ledger_.commit_registration(commit);
}

Status ItemReplica::mark_idle(Epoch epoch, Sequence sequence, TimePoint time) {
    std::lock_guard lock(log_mutex_);
    FS_ASSIGN(const LedgerState state, ledger_.state());
    if (epoch != state.epoch)
        return fail(Code::kFenced, "the log lease is no longer the item's", "acquire the log again");
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
    out.gap_open = open_gap(gaps).has_value();
    out.written_bytes = state.written_bytes;
    const int64_t stored_bytes =
        static_cast<int64_t>(state.stored_bytes) + stored_correction_bytes_.load();
    out.stored_bytes = static_cast<uint64_t>(std::max<int64_t>(stored_bytes, 0));
    for (const GeometryRow& row : geometry) {
        if (!out.disks.empty() && out.disks.back().disk == row.disk)
            out.disks.back().size_bytes = row.size_bytes;
        else
            out.disks.push_back({row.disk, row.size_bytes});
    }
    return out;
}

std::string ItemReplica::window_text(const LedgerState& state, const std::vector<GapRow>& gaps) {
    PointQuery none;
    none.limit = 0;
    const auto list = points(none);
    if (!list || list->ranges.empty()) return "there is no point yet";
    std::string out = fmt::format(
        "the window reaches from {} to {}",
        describe(list->ranges.front().first, list->ranges.front().first_time),
        describe(list->ranges.back().last, list->ranges.back().last_time));
    if (open_gap(gaps)) out += fmt::format(", and a gap is open behind it up to {}", state.stored.v);
    return out;
}

Status ItemReplica::check_point(Sequence sequence, const LedgerState& state) {
    FS_ASSIGN(const auto gaps, ledger_.list_gaps());
    if (state.stored.v == 0)
        return fail(Code::kPointNotFound, "nothing of this machine is stored yet",
                    "wait until it is protected");
    if (sequence < state.floor || sequence.v == 0)
        return fail(Code::kPointOutsideWindow,
                    fmt::format("sequence {} is not in the window: {}", sequence.v,
                                window_text(state, gaps)),
                    "choose a point inside the window");
    if (sequence > state.stored)
        return fail(Code::kPointNotFound,
                    fmt::format("sequence {} is not stored: {}", sequence.v,
                                window_text(state, gaps)),
                    "wait until it is stored, or choose an older point");
    if (const GapRow* gap = gap_over(gaps, sequence))
        return fail(point_in_gap(sequence, *gap, state.floor));
    return {};
}

Result<TimePoint> ItemReplica::time_of(Sequence sequence, const LedgerState& state) {
    if (sequence == state.stored) return state.stored_time;
    if (sequence == state.floor) return state.floor_time;
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
        return fail(Code::kPointOutsideWindow,
                    fmt::format("{} is not in the window: {}", to_rfc3339(time),
                                window_text(state, gaps)),
                    "choose a time inside the window");
    };
    if (state.stored.v == 0)
        return fail(Code::kPointNotFound, "nothing of this machine is stored yet",
                    "wait until it is protected");
    if (state.floor.v > 0 && time < state.floor_time) return outside();
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
        return fail(point_in_gap(point.sequence, *gap, state.floor)
                        .with_context(to_rfc3339(time)));
    if (point.sequence < state.floor) return outside();
    return point;
}

Result<ResolvedPoint> ItemReplica::resolve(const PointSpec& spec) {
    FS_ASSIGN(const LedgerState state, ledger_.state());
    switch (spec.kind) {
        case PointSpec::Kind::kSequence: {
            FS_TRY(check_point(spec.sequence, state));
            FS_ASSIGN(const TimePoint time, time_of(spec.sequence, state));
            return ResolvedPoint{spec.sequence, time};
        }
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
            FS_ASSIGN(const auto rows, ledger_.list_points(query));
            if (!rows.empty()) FS_TRY(check_point(rows.front().sequence, state));
            FS_ASSIGN(const auto gaps, ledger_.list_gaps());
            return fail(Code::kPointNotFound,
                        fmt::format("no point is called '{}'; {}", spec.label,
                                    window_text(state, gaps)),
                        "list the points of the machine");
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

Status ItemReplica::renew(uint64_t lease, int64_t duration_us) {
    return ledger_.renew_lease(lease, {expiry(duration_us)});
}

Status ItemReplica::release(uint64_t lease) { return ledger_.release_lease(lease); }

// ---- checkpoints

Result<bool> ItemReplica::maybe_checkpoint() {
    return write_checkpoint(options_.checkpoint_entries, options_.checkpoint_segments);
}

Result<bool> ItemReplica::checkpoint() { return write_checkpoint(1, 1); }

Result<bool> ItemReplica::write_checkpoint(uint64_t min_entries, uint64_t min_segments) {
    std::lock_guard lock(upkeep_mutex_);
    FS_ASSIGN(const LedgerState state, ledger_.state());
    FS_ASSIGN(const auto manifests, ledger_.list_manifests());
    const SegmentNumber newest =
        manifests.empty() ? SegmentNumber{} : manifests.back().segment;
    if (newest >= state.last_segment) return false;
    FS_ASSIGN(const auto behind, segments_between(ledger_, newest, state.last_segment));
    uint64_t entries = 0;
    for (const SegmentRow& row : behind) entries += row.entries;
    if (entries < min_entries && behind.size() < min_segments) return false;

    FS_TRY(check_fence());
    FS_ASSIGN(const Manifest from, newest_manifest(store_, item_, key_, manifests,
                                                   {UINT64_MAX}, state));
    FS_ASSIGN(const auto segments, segments_between(ledger_, from.segment, state.last_segment));
    FS_ASSIGN(const uint64_t generation, ledger_.reserve_generation());
    ManifestBuilder builder(store_, item_, key_, random_, options_.parallel);
    FS_ASSIGN(Manifest made, builder.extend(from, segments, {vault_epoch(), generation}));
    made.floor = state.floor;
    made.floor_segment = state.floor_segment;
    made.floor_time = state.floor_time;
    std::erase_if(made.points, [&](const PointRow& p) { return p.sequence < state.floor; });
    std::erase_if(made.gaps, [&](const GapRow& g) { return !g.open() && g.resynced <= state.floor; });
    FS_TRY(builder.put(made));

    ManifestCommit commit;
    commit.added.push_back({manifest_name(item_, made.sequence, made.generation), made.sequence,
                            made.segment, generation, made.time});
    commit.added_bytes = builder.put_bytes();
    // Too many between: the one goes whose neighbours are closest to each other. The first is the
    // floor's (or the oldest), the newest is the one just made.
    std::vector<ManifestRow> kept = manifests;
    kept.push_back(commit.added.front());
    while (kept.size() > options_.max_manifests + 1 && kept.size() > 2) {
        size_t least = 1;
        for (size_t i = 1; i + 1 < kept.size(); ++i) {
            if (kept[i + 1].segment.v - kept[i - 1].segment.v <
                kept[least + 1].segment.v - kept[least - 1].segment.v)
                least = i;
        }
        commit.dropped.push_back(kept[least].object_name);
        kept.erase(kept.begin() + static_cast<ptrdiff_t>(least));
    }
    FS_TRY(ledger_.commit_manifest(commit, clock_.now()));
    return true;
}

// ---- retention

Result<std::optional<SegmentRow>> ItemReplica::choose_floor(const RetentionPolicy& policy,
                                                            const LedgerState& state) {
    const std::optional<SegmentRow> stay;
    FS_ASSIGN(const auto gaps, ledger_.list_gaps());
    const auto gap = open_gap(gaps);
    // Below the newest point: while a gap is open, that is the last one before it.
    const Sequence newest = gap ? gap->last_good : state.stored;
    if (newest.v == 0) return stay;
    Sequence limit{newest.v - 1};
    FS_ASSIGN(const auto leases, ledger_.list_leases());
    const TimePoint now = clock_.now();
    for (const LeaseRow& lease : leases) {
        if (lease.expires > now) limit = std::min(limit, lease.sequence);
    }
    const TimePoint edge{now.us - policy.window_us};
    while (limit > state.floor) {
        auto row = ledger_.segment_ended(limit, edge);
        if (!row) {
            if (row.error().code() == Code::kNotFound) return stay;
            return fail(row.error());
        }
        if (row->number <= state.floor_segment) return stay;
        if (const GapRow* over = gap_over(gaps, row->last)) {
            limit = over->last_good;
            continue;
        }
        if (state.floor.v > 0 && row->last_time.us - state.floor_time.us < policy.min_advance_us)
            return stay;
        return std::optional<SegmentRow>(std::move(*row));
    }
    return stay;
}

Status ItemReplica::move_floor(const RetentionPolicy& policy, RetentionReport& report) {
    FS_ASSIGN(const LedgerState state, ledger_.state());
    FS_ASSIGN(const auto row, choose_floor(policy, state));
    const SegmentNumber segment = row ? row->number : state.floor_segment;
    const Sequence floor = row ? row->last : state.floor;
    const TimePoint floor_time = row ? row->last_time : state.floor_time;
    report.floor = floor;
    if (floor.v == 0) return {};

    FS_ASSIGN(const auto manifests, ledger_.list_manifests());
    FS_ASSIGN(const Manifest from,
              newest_manifest(store_, item_, key_, manifests, floor, state));
    ManifestBuilder builder(store_, item_, key_, random_, options_.parallel);
    const auto set_window = [&](Manifest& m) {
        m.floor = floor;
        m.floor_segment = segment;
        m.floor_time = floor_time;
        std::erase_if(m.points, [&](const PointRow& p) { return p.sequence < floor; });
        std::erase_if(m.gaps, [&](const GapRow& g) { return !g.open() && g.resynced <= floor; });
    };
    const auto next_generation = [&]() -> Result<Generation> {
        FS_ASSIGN(const uint64_t number, ledger_.reserve_generation());
        return Generation{vault_epoch(), number};
    };
    Manifest at_floor = from;
    if (from.segment < segment) {
        FS_ASSIGN(const auto segments, segments_between(ledger_, from.segment, segment));
        FS_ASSIGN(const Generation generation, next_generation());
        FS_ASSIGN(at_floor, builder.extend(from, segments, generation));
    }

    // What is mostly dead, most dead first, and what is small when there is a lot of it.
    std::vector<LiveObject> moving;
    std::vector<LiveObject> small;
    if (policy.rewrite_below_percent > 0) {
        for (const LiveObject& object : at_floor.objects) {
            if (object.live_bytes * 100 < object.payload_bytes * policy.rewrite_below_percent)
                moving.push_back(object);
            else if (object.payload_bytes < policy.small_object_bytes)
                small.push_back(object);
        }
        std::sort(moving.begin(), moving.end(), [](const LiveObject& a, const LiveObject& b) {
            return std::pair(a.live_bytes * b.payload_bytes, a.object) <
                   std::pair(b.live_bytes * a.payload_bytes, b.object);
        });
        if (small.size() >= std::max<size_t>(policy.small_objects, 2))
            moving.insert(moving.end(), small.begin(), small.end());
        uint64_t bytes = 0;
        size_t count = 0;
        while (count < moving.size() &&
               (bytes += moving[count].live_bytes) <= policy.rewrite_bytes)
            ++count;
        moving.resize(count);
    }
    if (!row && moving.empty()) return {};

    ManifestCommit commit;
    const auto add = [&](Manifest& m) -> Status {
        set_window(m);
        FS_TRY(builder.put(m));
        commit.added.push_back({manifest_name(item_, m.sequence, m.generation), m.sequence,
                                m.segment, m.generation.number, m.time});
        return {};
    };
    ManifestBuilder::Moves moves;
    if (!moving.empty()) {
        FS_ASSIGN(moves, builder.move_payload(at_floor, moving, vault_epoch(),
                                              [&] { return ledger_.reserve_generation(); }));
        FS_ASSIGN(const Generation generation, next_generation());
        FS_ASSIGN(at_floor, builder.relocate(at_floor, moves, generation));
    } else if (at_floor.generation == from.generation) {
        // The floor reaches a checkpoint: the same shards under a manifest that says so.
        FS_ASSIGN(at_floor.generation, next_generation());
        at_floor.previous = manifest_name(item_, from.sequence, from.generation);
    }
    // First: whoever sees a later manifest with this floor finds the floor's own.
    FS_TRY(add(at_floor));
    for (const ManifestRow& known : manifests) {
        if (known.sequence <= floor) {
            commit.dropped.push_back(known.object_name);
            continue;
        }
        if (moves.empty()) continue;
        auto manifest = load_manifest(store_, item_, key_, known.object_name);
        if (!manifest) {
            if (!is_damage(manifest.error().code())) return fail(manifest.error());
            commit.dropped.push_back(known.object_name);  // the log behind the floor replaces it
            continue;
        }
        const bool refers =
            std::any_of(manifest->objects.begin(), manifest->objects.end(),
                        [&](const LiveObject& o) { return moves.contains(o.object); });
        if (!refers) continue;
        FS_ASSIGN(const Generation generation, next_generation());
        FS_ASSIGN(Manifest moved, builder.relocate(*manifest, moves, generation));
        FS_TRY(add(moved));
        commit.dropped.push_back(known.object_name);
    }
    commit.added_bytes = builder.put_bytes();
    if (row) {
        commit.floor = floor;
        commit.floor_segment = segment;
        commit.floor_time = floor_time;
    }
    const Status committed = ledger_.commit_manifest(commit, clock_.now());
    if (!committed) {
        // A lease came in between: the next run chooses another floor, the sweep takes what was put.
        if (committed.error().code() == Code::kWrongState) return {};
        return committed;
    }
    report.floor_moved = row.has_value();
    report.rewritten_objects = moving.size();
    report.rewritten_bytes = builder.moved_bytes();
    return {};
}

Status ItemReplica::sweep(const RetentionPolicy& policy, RetentionReport& report) {
    // The listing comes first: what is put or registered afterwards is not in it.
    const std::string own = item_prefix(item_);
    std::vector<ObjectInfo> there;
    for (const std::string& prefix : {base_prefix(item_), log_prefix(item_), manifest_prefix(item_),
                                      shard_prefix(item_)}) {
        FS_ASSIGN(auto infos, list_all(store_, prefix));
        there.insert(there.end(), std::make_move_iterator(infos.begin()),
                     std::make_move_iterator(infos.end()));
    }
    FS_ASSIGN(const LedgerState state, ledger_.state());
    FS_ASSIGN(const auto manifests, ledger_.list_manifests());
    std::set<std::string> needed, in_force;
    for (const ManifestRow& row : manifests) {
        needed.insert(row.object_name);
        in_force.insert(row.object_name);
    }
    // Every manifest that a reader can still find keeps what it refers to.
    size_t found_in_force = 0;
    for (const ObjectInfo& info : there) {
        if (!parse_manifest_name(item_, info.name)) continue;
        found_in_force += in_force.count(info.name);
        auto manifest = load_manifest(store_, item_, key_, info.name);
        if (!manifest) {
            // Of one in force it must be known what it needs; nothing is removed until it is mended.
            if (in_force.contains(info.name) || !is_damage(manifest.error().code()))
                return fail(manifest.error());
            continue;
        }
        for (const ShardRef& shard : manifest->shards) needed.insert(shard_name(item_, shard));
        for (const LiveObject& object : manifest->objects)
            needed.insert(object_name(item_, object.object));
    }
    if (found_in_force != in_force.size())
        return fail(Code::kCorrupt, "a manifest that is in force is missing in the store",
                    "rebuild the ledger from the store");
    FS_ASSIGN(const auto rows, segments_between(ledger_, state.floor_segment, state.last_segment));
    for (const SegmentRow& row : rows) needed.insert(row.object_name);

    const auto dispensable = [&](const ObjectInfo& info) {
        if (needed.contains(info.name)) return false;
        if (parse_manifest_name(item_, info.name)) return true;
        if (const auto shard = parse_shard_name(item_, info.name))
            return shard->generation.vault <= vault_epoch();
        const auto object = parse_object_name(item_, info.name);
        if (!object) return false;  // not ours
        if (object->kind == SegmentKind::kBase) return object->epoch <= vault_epoch();
        // Put and about to be registered: its lease is the newest.
        return object->number <= state.last_segment || object->epoch < state.epoch;
    };
    const TimePoint now = clock_.now();
    std::map<std::string, uint64_t> unneeded;
    uint64_t there_bytes = 0;
    for (const ObjectInfo& info : there) {
        there_bytes += info.size_bytes;
        if (dispensable(info)) unneeded[info.name] = info.size_bytes;
    }

    std::vector<DeadRow> listed;
    for (std::string after;;) {
        FS_ASSIGN(auto page, ledger_.list_dead(after, kPage));
        const bool last = page.size() < kPage;
        if (!page.empty()) after = page.back().object_name;
        listed.insert(listed.end(), std::make_move_iterator(page.begin()),
                      std::make_move_iterator(page.end()));
        if (last) break;
    }
    std::vector<std::string> revived, gone;
    std::set<std::string> known;
    std::vector<DeadRow> ripe;
    FS_ASSIGN(const auto leases, ledger_.list_leases());
    uint64_t oldest_lease = UINT64_MAX;
    for (const LeaseRow& lease : leases) {
        if (lease.expires > now)
            oldest_lease = std::min(oldest_lease, lease.tick);
        else
            FS_TRY(ledger_.release_lease(lease.id));
    }
    for (const DeadRow& row : listed) {
        known.insert(row.object_name);
        if (!unneeded.contains(row.object_name)) {
            (needed.contains(row.object_name) ? revived : gone).push_back(row.object_name);
        } else if (now.us - row.since.us >= policy.grace_us && oldest_lease > row.tick) {
            ripe.push_back(row);
        } else {
            ++report.waiting;
        }
    }
    if (!revived.empty()) FS_TRY(ledger_.commit_removed(revived, true));
    if (!gone.empty()) FS_TRY(ledger_.commit_removed(gone, false));
    std::vector<DeadRow> dead;
    for (const auto& [name, bytes] : unneeded) {
        if (!known.contains(name)) dead.push_back({name, bytes, now, 0});
    }
    for (size_t from = 0; from < dead.size(); from += kPage) {
        const auto end = std::min(dead.size(), from + kPage);
        FS_TRY(ledger_.commit_dead({dead.begin() + static_cast<ptrdiff_t>(from),
                                    dead.begin() + static_cast<ptrdiff_t>(end)}));
    }
    report.found_dead = dead.size();
    report.waiting += dead.size();

    for (size_t from = 0; from < ripe.size(); from += kRemoveBatch) {
        FS_TRY(check_fence());
        const auto end = std::min(ripe.size(), from + kRemoveBatch);
        std::vector<std::string> names;
        for (size_t i = from; i < end; ++i) {
            FS_TRY(store_.remove(ripe[i].object_name));
            names.push_back(ripe[i].object_name);
            there_bytes -= std::min(there_bytes, unneeded[ripe[i].object_name]);
            report.removed_bytes += unneeded[ripe[i].object_name];
            ++report.removed;
        }
        FS_TRY(ledger_.commit_removed(names, false));
    }
    FS_ASSIGN(const LedgerState after, ledger_.state());
    // What was registered since the listing is counted by the ledger alone.
    const uint64_t registered = after.last_segment == state.last_segment
                                    ? 0
                                    : after.stored_bytes - std::min(after.stored_bytes,
                                                                    state.stored_bytes);
    stored_correction_bytes_ = static_cast<int64_t>(there_bytes + registered) -
                               static_cast<int64_t>(after.stored_bytes);
    return {};
}

Result<RetentionReport> ItemReplica::run_retention(const RetentionPolicy& policy) {
    std::lock_guard lock(upkeep_mutex_);
    RetentionReport report;
    FS_TRY(check_fence());
    FS_TRY(move_floor(policy, report));
    FS_TRY(sweep(policy, report));
    return report;
}

// ---- rebuilding

Status ItemReplica::rebuild(ObjectStore& store, ReplicaLedger& ledger, const ItemId& item,
                            const Secret& item_key, const ItemReplicaOptions& options) {
    struct Found {
        std::string name;
        ManifestName parsed;
    };
    FS_ASSIGN(const auto infos, list_all(store, manifest_prefix(item)));
    std::vector<Found> found;
    uint64_t generation = 0, total_bytes = 0;
    for (const ObjectInfo& info : infos) {
        total_bytes += info.size_bytes;
        if (const auto parsed = parse_manifest_name(item, info.name)) {
            found.push_back({info.name, *parsed});
            generation = std::max(generation, parsed->generation.number);
        }
    }
    FS_ASSIGN(const auto shards, list_all(store, shard_prefix(item)));
    for (const ObjectInfo& info : shards) {
        total_bytes += info.size_bytes;
        if (const auto shard = parse_shard_name(item, info.name))
            generation = std::max(generation, shard->generation.number);
    }
    FS_ASSIGN(const auto bases, list_all(store, base_prefix(item)));
    for (const ObjectInfo& info : bases) {
        total_bytes += info.size_bytes;
        if (const auto base = parse_object_name(item, info.name))
            generation = std::max(generation, base->number.v);
    }
    uint64_t epoch = 0;
    FS_ASSIGN(const auto logs, list_all(store, log_prefix(item)));
    for (const ObjectInfo& info : logs) {
        total_bytes += info.size_bytes;
        if (const auto segment = parse_object_name(item, info.name))
            epoch = std::max(epoch, segment->epoch.v);
    }

    // The window is what the newest manifest that can be read says.
    std::sort(found.begin(), found.end(), [](const Found& a, const Found& b) {
        return a.parsed.generation > b.parsed.generation;
    });
    std::map<Sequence, Manifest> newest;  // of each sequence, the newest generation
    std::optional<Error> damage;
    Sequence floor;
    bool have_window = false;
    for (const Found& f : found) {
        if (have_window && (f.parsed.sequence < floor || newest.contains(f.parsed.sequence)))
            continue;
        auto manifest = load_manifest(store, item, item_key, f.name);
        if (!manifest) {
            if (!is_damage(manifest.error().code())) return fail(manifest.error());
            if (!damage) damage = manifest.error();
            continue;
        }
        if (!have_window) floor = manifest->floor;
        have_window = true;
        newest.emplace(manifest->sequence, std::move(*manifest));
    }

    RebuildStart start;
    LogPosition at;
    if (floor.v > 0) {
        const auto at_floor = newest.find(floor);
        if (at_floor == newest.end())
            return fail(damage ? *damage
                               : Error(Code::kCorrupt, "the manifest at the window's floor is "
                                                       "missing"));
        const Manifest& m = at_floor->second;
        at = {m.segment, m.segment_epoch, m.segment_header, m.sequence, m.time};
        LedgerState& state = start.state;
        state.last_segment = m.segment;
        state.last_segment_epoch = m.segment_epoch;
        state.last_header = m.segment_header;
        state.stored = state.floor = m.sequence;
        state.stored_time = state.floor_time = m.time;
        state.floor_segment = m.segment;
        state.written_bytes = m.written_bytes;
        for (const PointRow& point : m.points) {
            if (point.sequence >= floor) start.points.push_back(point);
        }
        for (const DiskSize& disk : m.disks)
            start.geometry.push_back({disk.disk, m.sequence, disk.size_bytes});
    }
    FS_TRY(ledger.begin_rebuild(start));
    FS_ASSIGN(const auto log, list_log(store, item, at.number));
    if (log.empty() && floor.v == 0 && damage) return fail(*damage);
    LogState state(at.last, at.last_time, std::nullopt, {});
    FS_TRY(walk_log(store, item, item_key, at, log, options.parallel,
                    [&](const std::shared_ptr<SegmentReader>& segment) -> Result<bool> {
                        LogState one(state.last(), state.last_time(), state.open_gap(), {});
                        auto commit = registration_of(*segment, one);
                        if (!commit) return fail(commit.error());
                        state = std::move(one);
                        auto done = ledger.commit_registration(*commit);
                        if (!done) return fail(done.error());
                        return true;
                    }));
    ManifestCommit manifests;
    for (const auto& [sequence, m] : newest) {
        // One beyond the log's end stands on segments that are gone.
        if (m.segment > at.number) continue;
        manifests.added.push_back({manifest_name(item, m.sequence, m.generation), m.sequence,
                                   m.segment, m.generation.number, m.time});
    }
    FS_TRY(ledger.commit_manifest(manifests, {}));
    FS_ASSIGN(LedgerState end, ledger.state());
    end.generation = generation;
    end.epoch = {std::max(end.epoch.v, epoch)};
    end.stored_bytes = total_bytes;
    return ledger.finish_rebuild(end);
}

}  // namespace farshore
