#include "meta/database_ledger.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>

#include "meta/sql.h"

namespace farshore {
namespace {

constexpr std::string_view kSegmentColumns =
    "SELECT number, epoch, object_name, object_bytes, header_hash, first, last, first_time_us, "
    "last_time_us, written_bytes, entries FROM ledger_segments ";

// Segments by a condition, in the order that it names.
template <typename... Args>
Result<std::vector<SegmentRow>> select_segments(SqlSession& sql, std::string_view condition,
                                                const Args&... args) {
    std::vector<SegmentRow> rows;
    Status damaged;
    select<long long, long long, std::string, long long, std::string, long long, long long,
           long long, long long, long long, long long>(
        sql, std::string(kSegmentColumns) + std::string(condition),
        [&](long long number, long long epoch, const std::string& name, long long bytes,
            const std::string& hash, long long first, long long last, long long first_time,
            long long last_time, long long written, long long entries) {
            auto digest = digest_column(hash);
            if (!digest) {
                damaged = tl::unexpected(digest.error());
                return;
            }
            SegmentRow row;
            row.number.v = from_column(number);
            row.epoch.v = from_column(epoch);
            row.object_name = name;
            row.object_bytes = from_column(bytes);
            row.header_hash = *digest;
            row.first.v = from_column(first);
            row.last.v = from_column(last);
            row.first_time.us = first_time;
            row.last_time.us = last_time;
            row.written_bytes = from_column(written);
            row.entries = static_cast<uint32_t>(entries);
            rows.push_back(std::move(row));
        },
        args...);
    FS_TRY(damaged);
    return rows;
}

Result<SegmentRow> first_segment(Result<std::vector<SegmentRow>> rows, const char* otherwise) {
    if (!rows) return tl::unexpected(std::move(rows).error());
    if (rows->empty()) return fail(Code::kNotFound, otherwise);
    return std::move(rows->front());
}

// The item's state; all zeroes when it has none yet.
Result<LedgerState> read_state(SqlSession& sql, const std::string& item) {
    LedgerState state;
    std::string header;
    using L = long long;
    using T = std::string;
    select<L, T, L, T, L, L, L, L, L, L, L, L, L, L, L, L>(
        sql,
        "SELECT epoch, appliance, last_segment, last_header, last_segment_epoch, stored, "
        "stored_time_us, idle, idle_time_us, floor, floor_segment, floor_time_us, generation, "
        "written_bytes, stored_bytes, rebuilding FROM ledgers WHERE item_id = :item",
        [&](L epoch, const T& appliance, L last, const T& hash, L last_epoch, L stored,
            L stored_time, L idle, L idle_time, L floor, L floor_segment, L floor_time,
            L generation, L written, L stored_bytes, L rebuilding) {
            state.epoch.v = from_column(epoch);
            state.appliance = appliance;
            state.last_segment.v = from_column(last);
            header = hash;
            state.last_segment_epoch.v = from_column(last_epoch);
            state.stored.v = from_column(stored);
            state.stored_time.us = stored_time;
            state.idle.v = from_column(idle);
            state.idle_time.us = idle_time;
            state.floor.v = from_column(floor);
            state.floor_segment.v = from_column(floor_segment);
            state.floor_time.us = floor_time;
            state.generation = from_column(generation);
            state.written_bytes = from_column(written);
            state.stored_bytes = from_column(stored_bytes);
            state.rebuilding = rebuilding != 0;
        },
        item);
    if (!header.empty()) {
        FS_ASSIGN(state.last_header, digest_column(header));
    }
    return state;
}

void ensure_row(SqlSession& sql, const std::string& item) {
    execute(sql, "INSERT INTO ledgers (item_id) VALUES (:item) ON CONFLICT DO NOTHING", item);
}

// A number that no row of the item has carried before: leases and deaths are ordered by it.
uint64_t next_tick(SqlSession& sql, const std::string& item) {
    ensure_row(sql, item);
    execute(sql, "UPDATE ledgers SET tick = tick + 1 WHERE item_id = :item", item);
    uint64_t tick = 0;
    select<long long>(
        sql, "SELECT tick FROM ledgers WHERE item_id = :item",
        [&](long long value) { tick = from_column(value); }, item);
    return tick;
}

void put_point(SqlSession& sql, const std::string& item, const PointRow& point) {
    upsert(sql, "ledger_points", "item_id, sequence", "kind, time_us, label", item, point.sequence,
           point.kind, point.time, point.label);
}

// What a query of points asks for, as conditions over :item, :from, :to, :kind and :label. Each is
// used in every case, and each case finds its index.
std::string point_conditions(const PointQuery& query) {
    return fmt::format("item_id = :item AND sequence >= :from AND sequence <= :to AND {} AND {}",
                       query.kind ? "kind = :kind" : ":kind = 0",
                       query.label.empty() ? ":label = ''" : "label = :label");
}
std::string_view order_of(const PointQuery& query) { return query.newest_first ? "DESC" : "ASC"; }
int kind_of(const PointQuery& query) { return query.kind ? static_cast<int>(*query.kind) : 0; }

void put_geometry(SqlSession& sql, const std::string& item, const GeometryRow& geometry) {
    upsert(sql, "ledger_geometry", "item_id, disk, since", "size_bytes, joining", item,
           geometry.disk, geometry.since, geometry.size_bytes, geometry.joining);
}

// "0:10737418240 1:4096+": index and size of each disk, '+' while it joins.
std::string disks_column(const std::vector<DiskSize>& disks) {
    std::string out;
    for (const DiskSize& disk : disks)
        out += fmt::format("{}{}:{}{}", out.empty() ? "" : " ", disk.disk, disk.size_bytes,
                           disk.joining ? "+" : "");
    return out;
}

std::vector<DiskSize> disks_of_column(const std::string& text) {
    std::vector<DiskSize> disks;
    const char* at = text.data();
    const char* const end = at + text.size();
    while (at < end) {
        DiskSize disk;
        auto index = std::from_chars(at, end, disk.disk);
        if (index.ec != std::errc{} || index.ptr == end) break;
        auto size = std::from_chars(index.ptr + 1, end, disk.size_bytes);
        if (size.ec != std::errc{}) break;
        at = size.ptr;
        disk.joining = at < end && *at == '+';
        disks.push_back(disk);
        while (at < end && (*at == '+' || *at == ' ')) ++at;
    }
    return disks;
}

void add_change(SqlSession& sql, const std::string& item, const ChangeRow& row) {
    execute(sql,
            "INSERT INTO ledger_changes AS c (item_id, grain_s, start_us, disk, records, "
            "written_bytes, "
            "zeroed_bytes, dense_bytes, regions) VALUES (:i, :g, :s, :d, :r, :w, :z, :c, :n) "
            "ON CONFLICT (item_id, grain_s, start_us, disk) DO UPDATE SET records = c.records + "
            "excluded.records, written_bytes = c.written_bytes + excluded.written_bytes, "
            "zeroed_bytes = c.zeroed_bytes + excluded.zeroed_bytes, dense_bytes = c.dense_bytes + "
            "excluded.dense_bytes, regions = c.regions + excluded.regions",
            item, row.grain_s, row.start_us, row.disk, row.records, row.written_bytes,
            row.zeroed_bytes, row.dense_bytes, row.regions);
}

void put_kept(SqlSession& sql, const std::string& item, const KeptRow& row) {
    upsert(sql, "ledger_kept", "item_id, object_name",
           "sequence, generation, time_us, recorded, kind, label, disks", item, row.object_name,
           row.sequence, row.generation, row.time, row.recorded, row.kind, row.label,
           disks_column(row.disks));
}

void raise_floor(SqlSession& sql, const std::string& item, const ManifestCommit& commit) {
    const Sequence floor = *commit.floor;
    execute(sql,
            "UPDATE ledgers SET floor = :floor, floor_segment = :segment, floor_time_us = :time "
            "WHERE item_id = :item",
            floor, commit.floor_segment, commit.floor_time, item);
    execute(sql, "DELETE FROM ledger_segments WHERE item_id = :item AND number <= :number", item,
            commit.floor_segment);
    execute(sql, "DELETE FROM ledger_points WHERE item_id = :item AND sequence < :floor", item,
            floor);
    execute(
        sql,
        "DELETE FROM ledger_gaps WHERE item_id = :item AND resynced != 0 AND resynced <= :floor",
        item, floor);
    execute(sql,
            "DELETE FROM ledger_geometry WHERE item_id = :item AND EXISTS (SELECT 1 FROM "
            "ledger_geometry AS newer WHERE newer.item_id = ledger_geometry.item_id AND "
            "newer.disk = ledger_geometry.disk AND newer.since > ledger_geometry.since AND "
            "newer.since <= :floor)",
            item, floor);
}

}  // namespace

DatabaseLedger::DatabaseLedger(Database& database, const ItemId& item, const std::string& copy)
    : database_(database), item_(copy.empty() ? item.to_string() : copy_ledger_name(item, copy)) {}

std::string copy_ledger_name(const ItemId& item, const std::string& store) {
    return item.to_string() + "@" + store;
}

Result<LedgerState> DatabaseLedger::state() {
    return in_one_read(database_, "reading a ledger",
                       [&](SqlSession& sql) { return read_state(sql, item_); });
}

Status DatabaseLedger::commit_epoch(Epoch epoch, const std::string& appliance) {
    return in_transaction_of(database_, item_, "a log lease", [&](SqlSession& sql) -> Status {
        FS_ASSIGN(LedgerState state, read_state(sql, item_));
        if (epoch <= state.epoch)
            return fail(Code::kFenced, "a newer log lease was handed out meanwhile");
        ensure_row(sql, item_);
        execute(sql, "UPDATE ledgers SET epoch = :epoch, appliance = :name WHERE item_id = :item",
                epoch, appliance, item_);
        return {};
    });
}

Status DatabaseLedger::commit_registration(const RegistrationCommit& commit) {
    return in_transaction_of(
        database_, item_, "registering a segment", [&](SqlSession& sql) -> Status {
            const SegmentRow& row = commit.segment;
            FS_ASSIGN(LedgerState state, read_state(sql, item_));
            if (!state.rebuilding && row.epoch != state.epoch)
                return fail(Code::kFenced, "the segment's log lease is no longer the item's");
            if (row.number.v != state.last_segment.v + 1)
                return fail(Code::kSequenceHole, "the segment does not follow the last one");
            ensure_row(sql, item_);
            upsert(sql, "ledger_segments", "item_id, number",
                   "epoch, object_name, object_bytes, header_hash, first, last, first_time_us, "
                   "last_time_us, written_bytes, entries",
                   item_, row.number, row.epoch, row.object_name, row.object_bytes, row.header_hash,
                   row.first, row.last, row.first_time, row.last_time, row.written_bytes,
                   row.entries);
            for (const PointRow& point : commit.points) put_point(sql, item_, point);
            for (const GapRow& gap : commit.gaps)
                upsert(sql, "ledger_gaps", "item_id, last_good",
                       "gap, resynced, last_good_time_us, resynced_time_us", item_, gap.last_good,
                       gap.gap, gap.resynced, gap.last_good_time, gap.resynced_time);
            for (const GeometryRow& geometry : commit.geometry) put_geometry(sql, item_, geometry);
            for (const ChangeRow& minute : commit.changes) {
                add_change(sql, item_, minute);
                add_change(sql, item_, hour_of(minute));
            }
            for (const int64_t grain_s : {kMinuteS, kHourS})
                execute(
                    sql,
                    "DELETE FROM ledger_changes WHERE item_id = :i AND grain_s = :g AND start_us < "
                    ":t",
                    item_, grain_s, oldest_change_us(grain_s, row.last_time));
            execute(
                sql,
                "UPDATE ledgers SET last_segment = :n, last_header = :h, last_segment_epoch = :e, "
                "stored = :s, stored_time_us = :t, written_bytes = written_bytes + :w, "
                "stored_bytes = stored_bytes + :b WHERE item_id = :i",
                row.number, row.header_hash, row.epoch, row.last, row.last_time, row.written_bytes,
                row.object_bytes, item_);
            return {};
        });
}

Status DatabaseLedger::commit_idle(Epoch epoch, Sequence sequence, TimePoint time) {
    return in_transaction_of(database_, item_, "an idle mark", [&](SqlSession& sql) -> Status {
        FS_ASSIGN(LedgerState state, read_state(sql, item_));
        if (epoch != state.epoch)
            return fail(Code::kFenced, "the log lease is no longer the item's");
        if (time < state.idle_time) return {};
        ensure_row(sql, item_);
        execute(sql, "UPDATE ledgers SET idle = :s, idle_time_us = :t WHERE item_id = :i", sequence,
                time, item_);
        return {};
    });
}

Result<uint64_t> DatabaseLedger::reserve_generation() {
    return in_transaction_of(
        database_, item_, "reserving a generation", [&](SqlSession& sql) -> Result<uint64_t> {
            ensure_row(sql, item_);
            execute(sql, "UPDATE ledgers SET generation = generation + 1 WHERE item_id = :i",
                    item_);
            FS_ASSIGN(LedgerState state, read_state(sql, item_));
            return state.generation;
        });
}

Status DatabaseLedger::commit_manifest(const ManifestCommit& commit, TimePoint now) {
    return in_transaction_of(database_, item_, "a manifest", [&](SqlSession& sql) -> Status {
        ensure_row(sql, item_);
        FS_ASSIGN(LedgerState state, read_state(sql, item_));
        for (const KeptRow& row : commit.kept) put_kept(sql, item_, row);
        for (const std::string& name : commit.kept_dropped)
            execute(sql, "DELETE FROM ledger_kept WHERE item_id = :i AND object_name = :o", item_,
                    name);
        long long lost = 0;
        select<long long>(
            sql,
            "SELECT count(*) FROM ledger_leases WHERE item_id = :i AND expires_us > :now AND "
            "sequence < :floor AND NOT EXISTS (SELECT 1 FROM ledger_kept WHERE "
            "ledger_kept.item_id = ledger_leases.item_id AND ledger_kept.sequence = "
            "ledger_leases.sequence)",
            [&](long long count) { lost = count; }, item_, now,
            std::max(commit.floor.value_or(Sequence{}), state.floor));
        if (lost != 0) return fail(Code::kWrongState, "a leased point would be lost");
        for (const ManifestRow& row : commit.added)
            upsert(sql, "ledger_manifests", "item_id, object_name",
                   "sequence, segment, generation, time_us", item_, row.object_name, row.sequence,
                   row.segment, row.generation, row.time);
        for (const std::string& name : commit.dropped)
            execute(sql, "DELETE FROM ledger_manifests WHERE item_id = :i AND object_name = :o",
                    item_, name);
        execute(sql, "UPDATE ledgers SET stored_bytes = stored_bytes + :b WHERE item_id = :i",
                commit.added_bytes, item_);
        if (!commit.floor) return {};
        if (*commit.floor > state.floor) raise_floor(sql, item_, commit);
        return {};
    });
}

Status DatabaseLedger::commit_dead(const std::vector<DeadRow>& dead) {
    return in_transaction_of(
        database_, item_, "listing dead objects", [&](SqlSession& sql) -> Status {
            const uint64_t tick = next_tick(sql, item_);
            for (const DeadRow& row : dead)
                execute(sql,
                        "INSERT INTO ledger_dead (item_id, object_name, object_bytes, since_us, "
                        "tick) VALUES (:i, :o, :b, :s, :t) ON CONFLICT DO NOTHING",
                        item_, row.object_name, row.object_bytes, row.since, tick);
            return {};
        });
}

Status DatabaseLedger::commit_removed(const std::vector<std::string>& names, bool revived) {
    return in_transaction_of(database_, item_, "removed objects", [&](SqlSession& sql) -> Status {
        for (const std::string& name : names) {
            long long bytes = 0;
            select<long long>(
                sql, "SELECT object_bytes FROM ledger_dead WHERE item_id = :i AND object_name = :o",
                [&](long long known) { bytes = known; }, item_, name);
            if (!revived)
                execute(sql,
                        "UPDATE ledgers SET stored_bytes = CASE WHEN stored_bytes > :b THEN "
                        "stored_bytes - :c ELSE 0 END WHERE item_id = :i",
                        bytes, bytes, item_);
            execute(sql, "DELETE FROM ledger_dead WHERE item_id = :i AND object_name = :o", item_,
                    name);
        }
        return {};
    });
}

Result<LeaseRow> DatabaseLedger::commit_lease(const LeaseRow& lease) {
    return in_transaction_of(database_, item_, "a lease", [&](SqlSession& sql) -> Result<LeaseRow> {
        FS_ASSIGN(LedgerState state, read_state(sql, item_));
        long long kept = 0;
        select<long long>(
            sql, "SELECT count(*) FROM ledger_kept WHERE item_id = :i AND sequence = :s",
            [&](long long count) { kept = count; }, item_, lease.sequence);
        if (lease.sequence < state.floor && kept == 0)
            return fail(Code::kPointOutsideWindow, "the point left the window");
        LeaseRow row = lease;
        row.tick = row.id = next_tick(sql, item_);
        execute(sql,
                "INSERT INTO ledger_leases (item_id, id, tick, sequence, holder, expires_us) "
                "VALUES (:i, :n, :t, :s, :h, :e)",
                item_, row.id, row.tick, row.sequence, row.holder, row.expires);
        return row;
    });
}

Status DatabaseLedger::renew_lease(uint64_t id, TimePoint expires) {
    return in_transaction_of(database_, item_, "renewing a lease", [&](SqlSession& sql) -> Status {
        if (execute(sql, "UPDATE ledger_leases SET expires_us = :e WHERE item_id = :i AND id = :n",
                    expires, item_, id) == 0)
            return fail(Code::kNotFound, "the lease is gone");
        return {};
    });
}

Status DatabaseLedger::release_lease(uint64_t id) {
    return in_transaction_of(database_, item_, "releasing a lease", [&](SqlSession& sql) -> Status {
        execute(sql, "DELETE FROM ledger_leases WHERE item_id = :i AND id = :n", item_, id);
        return {};
    });
}

Result<std::vector<SegmentRow>> DatabaseLedger::list_segments(SegmentNumber after, size_t limit) {
    return in_one_read(database_, "listing segments", [&](SqlSession& sql) {
        return select_segments(sql, "WHERE item_id = :i AND number > :n ORDER BY number LIMIT :l",
                               item_, after, limit);
    });
}

Result<SegmentRow> DatabaseLedger::segment_with(Sequence sequence) {
    return in_one_read(database_, "finding a segment", [&](SqlSession& sql) {
        return first_segment(
            select_segments(sql, "WHERE item_id = :i AND last >= :s ORDER BY last, number LIMIT 1",
                            item_, sequence),
            "no registered segment holds that sequence");
    });
}

Result<SegmentRow> DatabaseLedger::segment_before(TimePoint time) {
    return in_one_read(database_, "finding a segment", [&](SqlSession& sql) {
        return first_segment(
            select_segments(
                sql,
                "WHERE item_id = :i AND (first_time_us <= :t OR last_time_us <= :u) ORDER BY "
                "number DESC LIMIT 1",
                item_, time, time),
            "no registered segment is that old");
    });
}

Result<SegmentRow> DatabaseLedger::segment_ended(Sequence sequence, TimePoint time) {
    return in_one_read(database_, "finding a segment", [&](SqlSession& sql) {
        return first_segment(
            select_segments(sql,
                            "WHERE item_id = :i AND last <= :s AND last_time_us <= :t ORDER BY "
                            "number DESC LIMIT 1",
                            item_, sequence, time),
            "no registered segment ended before that");
    });
}

Result<std::vector<PointRow>> DatabaseLedger::list_points(const PointQuery& query) {
    return in_one_read(
        database_, "listing points", [&](SqlSession& sql) -> Result<std::vector<PointRow>> {
            std::vector<PointRow> rows;
            select<long long, long long, long long, std::string>(
                sql,
                fmt::format("SELECT sequence, kind, time_us, label FROM ledger_points WHERE {} "
                            "ORDER BY sequence {} LIMIT :n",
                            point_conditions(query), order_of(query)),
                [&](long long sequence, long long point_kind, long long time,
                    const std::string& label) {
                    rows.push_back({{from_column(sequence)},
                                    static_cast<PointKind>(point_kind),
                                    {time},
                                    label});
                },
                item_, query.from, query.to, kind_of(query), query.label, query.limit);
            return rows;
        });
}

Result<std::vector<GapRow>> DatabaseLedger::list_gaps() {
    return in_one_read(
        database_, "listing gaps", [&](SqlSession& sql) -> Result<std::vector<GapRow>> {
            std::vector<GapRow> rows;
            select<long long, long long, long long, long long, long long>(
                sql,
                "SELECT last_good, gap, resynced, last_good_time_us, resynced_time_us FROM "
                "ledger_gaps WHERE item_id = :i ORDER BY last_good",
                [&](long long last_good, long long gap, long long resynced, long long good_time,
                    long long resynced_time) {
                    rows.push_back({{from_column(last_good)},
                                    {from_column(gap)},
                                    {from_column(resynced)},
                                    {good_time},
                                    {resynced_time}});
                },
                item_);
            return rows;
        });
}

Result<std::vector<GeometryRow>> DatabaseLedger::list_geometry() {
    return in_one_read(
        database_, "listing geometry", [&](SqlSession& sql) -> Result<std::vector<GeometryRow>> {
            std::vector<GeometryRow> rows;
            select<long long, long long, long long, long long>(
                sql,
                "SELECT disk, since, size_bytes, joining FROM ledger_geometry WHERE item_id = :i "
                "ORDER BY disk, since",
                [&](long long disk, long long since, long long size, long long joining) {
                    rows.push_back({static_cast<DiskIndex>(disk),
                                    {from_column(since)},
                                    from_column(size),
                                    joining != 0});
                },
                item_);
            return rows;
        });
}

Result<std::vector<ManifestRow>> DatabaseLedger::list_manifests() {
    return in_one_read(
        database_, "listing manifests", [&](SqlSession& sql) -> Result<std::vector<ManifestRow>> {
            std::vector<ManifestRow> rows;
            select<std::string, long long, long long, long long, long long>(
                sql,
                "SELECT object_name, sequence, segment, generation, time_us FROM ledger_manifests "
                "WHERE item_id = :i ORDER BY sequence, generation, object_name",
                [&](const std::string& name, long long sequence, long long segment,
                    long long generation, long long time) {
                    rows.push_back({name,
                                    {from_column(sequence)},
                                    {from_column(segment)},
                                    from_column(generation),
                                    {time}});
                },
                item_);
            return rows;
        });
}

Result<std::vector<KeptRow>> DatabaseLedger::list_kept() {
    PointQuery all;
    all.limit = SIZE_MAX;
    return find_kept(all);
}

Result<std::vector<KeptRow>> DatabaseLedger::find_kept(const PointQuery& query) {
    return in_one_read(
        database_, "listing kept points", [&](SqlSession& sql) -> Result<std::vector<KeptRow>> {
            std::vector<KeptRow> rows;
            select<std::string, long long, long long, long long, long long, long long, std::string,
                   std::string>(
                sql,
                fmt::format("SELECT object_name, sequence, generation, time_us, recorded, kind, "
                            "label, disks FROM ledger_kept WHERE {0}{1} ORDER BY sequence {2}, "
                            "generation {2}, object_name {2} LIMIT :n",
                            point_conditions(query), query.kind ? " AND recorded != 0" : "",
                            order_of(query)),
                [&](const std::string& name, long long sequence, long long generation,
                    long long time, long long recorded, long long point_kind,
                    const std::string& label, const std::string& disks) {
                    KeptRow row;
                    row.object_name = name;
                    row.sequence.v = from_column(sequence);
                    row.generation = from_column(generation);
                    row.time.us = time;
                    row.recorded = recorded != 0;
                    row.kind = static_cast<PointKind>(point_kind);
                    row.label = label;
                    row.disks = disks_of_column(disks);
                    rows.push_back(std::move(row));
                },
                item_, query.from, query.to, kind_of(query), query.label, query.limit);
            return rows;
        });
}

Result<std::vector<ChangeRow>> DatabaseLedger::list_changes() {
    return in_one_read(
        database_, "listing changes", [&](SqlSession& sql) -> Result<std::vector<ChangeRow>> {
            std::vector<ChangeRow> rows;
            using L = long long;
            select<L, L, L, L, L, L, L, L>(
                sql,
                "SELECT grain_s, start_us, disk, records, written_bytes, zeroed_bytes, "
                "dense_bytes, regions FROM ledger_changes WHERE item_id = :i ORDER BY grain_s, "
                "start_us, disk",
                [&](L grain, L start, L disk, L records, L written, L zeroed, L dense, L regions) {
                    rows.push_back({grain, start, static_cast<DiskIndex>(disk),
                                    from_column(records), from_column(written), from_column(zeroed),
                                    from_column(dense), from_column(regions)});
                },
                item_);
            return rows;
        });
}

Result<std::vector<DeadRow>> DatabaseLedger::list_dead(const std::string& after, size_t limit) {
    return in_one_read(
        database_, "listing dead objects", [&](SqlSession& sql) -> Result<std::vector<DeadRow>> {
            std::vector<DeadRow> rows;
            select<std::string, long long, long long, long long>(
                sql,
                "SELECT object_name, object_bytes, since_us, tick FROM ledger_dead WHERE item_id = "
                ":i AND object_name > :a ORDER BY object_name LIMIT :l",
                [&](const std::string& name, long long bytes, long long since, long long tick) {
                    rows.push_back({name, from_column(bytes), {since}, from_column(tick)});
                },
                item_, after, limit);
            return rows;
        });
}

Result<std::vector<LeaseRow>> DatabaseLedger::list_leases() {
    return in_one_read(
        database_, "listing leases", [&](SqlSession& sql) -> Result<std::vector<LeaseRow>> {
            std::vector<LeaseRow> rows;
            select<long long, long long, long long, std::string, long long>(
                sql,
                "SELECT id, tick, sequence, holder, expires_us FROM ledger_leases WHERE item_id = "
                ":i ORDER BY id",
                [&](long long id, long long tick, long long sequence, const std::string& holder,
                    long long expires) {
                    rows.push_back({from_column(id),
                                    from_column(tick),
                                    {from_column(sequence)},
                                    holder,
                                    {expires}});
                },
                item_);
            return rows;
        });
}

namespace {

void write_state(SqlSession& sql, const std::string& item, const LedgerState& state,
                 bool rebuilding) {
    execute(
        sql,
        "UPDATE ledgers SET epoch = :e, appliance = :a, last_segment = :ls, last_header = :lh, "
        "last_segment_epoch = :le, stored = :s, stored_time_us = :st, idle = :i, idle_time_us = "
        ":it WHERE item_id = :item",
        state.epoch, state.appliance, state.last_segment, state.last_header,
        state.last_segment_epoch, state.stored, state.stored_time, state.idle, state.idle_time,
        item);
    execute(sql,
            "UPDATE ledgers SET floor = :f, floor_segment = :fs, floor_time_us = :ft, generation = "
            ":g, written_bytes = :w, stored_bytes = :b, rebuilding = :r WHERE item_id = :item",
            state.floor, state.floor_segment, state.floor_time, state.generation,
            state.written_bytes, state.stored_bytes, rebuilding, item);
}

}  // namespace

Status DatabaseLedger::begin_rebuild(const RebuildStart& start) {
    return in_transaction_of(
        database_, item_, "beginning a rebuild", [&](SqlSession& sql) -> Status {
            uint64_t tick = 0;  // stays: no lease id is ever used twice
            select<long long>(
                sql, "SELECT tick FROM ledgers WHERE item_id = :item",
                [&](long long value) { tick = from_column(value); }, item_);
            execute(sql, "DELETE FROM ledgers WHERE item_id = :i", item_);
            execute(sql, "INSERT INTO ledgers (item_id, tick) VALUES (:i, :t)", item_, tick);
            write_state(sql, item_, start.state, true);
            for (const PointRow& point : start.points) put_point(sql, item_, point);
            for (const GeometryRow& geometry : start.geometry) put_geometry(sql, item_, geometry);
            for (const KeptRow& row : start.kept) put_kept(sql, item_, row);
            return {};
        });
}

Status DatabaseLedger::finish_rebuild(const LedgerState& state) {
    return in_transaction_of(database_, item_, "finishing a rebuild",
                             [&](SqlSession& sql) -> Status {
                                 ensure_row(sql, item_);
                                 write_state(sql, item_, state, false);
                                 return {};
                             });
}

Status remove_ledger(Database& database, const ItemId& item) {
    return in_transaction(database, "removing a ledger", [&](SqlSession& sql) -> Status {
        execute(sql, "DELETE FROM ledgers WHERE item_id = :i OR item_id LIKE :c", item,
                item.to_string() + "@%");
        return {};
    });
}

Result<std::vector<ItemId>> unfinished_rebuilds(Database& database) {
    return in_one_read(
        database, "listing unfinished rebuilds",
        [&](SqlSession& sql) -> Result<std::vector<ItemId>> {
            std::vector<ItemId> items;
            Status damaged;
            select<std::string>(
                sql,
                "SELECT item_id FROM ledgers WHERE rebuilding != 0 AND item_id NOT LIKE "
                "'%@%' ORDER BY item_id",
                [&](const std::string& text) {
                    if (auto id = item_id_column(text))
                        items.push_back(*id);
                    else
                        damaged = tl::unexpected(id.error());
                });
            FS_TRY(damaged);
            return items;
        });
}

}  // namespace farshore
