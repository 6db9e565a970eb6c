// Where a disk's changes break from its past, in virtual time.
#include "replica/change_history.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "replica/replica_test_check.h"

namespace farshore {
namespace {

constexpr int64_t kSecondUs = 1'000'000, kMinuteUs = 60 * kSecondUs, kHourUs = 60 * kMinuteUs;
constexpr int64_t kDayUs = 24 * kHourUs;
constexpr int64_t kStartUs = 20'000 * kDayUs;
constexpr uint64_t kMB = 1'000'000;

// A database by day, a backup to the same disk at two in the morning for the first hour or so.
struct Load {
    explicit Load(uint64_t seed) : rng(seed) {}

    void write(int64_t at_us, uint64_t bytes, uint64_t dense) {
        ChangeRow row;
        row.start_us = at_us;
        row.records = bytes / 8192 + 1;
        row.written_bytes = bytes;
        row.dense_bytes = dense;
        rows.push_back(row);
    }
    void minute(int64_t at_us) {
        const double hour = static_cast<double>((at_us - kStartUs) % kDayUs) / kHourUs;
        const double day = 1 + std::sin((hour - 6) / 24 * 6.283);
        const uint64_t bytes = static_cast<uint64_t>(2e6 + 4e6 * day) + rng.below(3 * kMB) +
                               (rng.below(50) == 0) * 40 * kMB;
        write(at_us, bytes, bytes * (3 + rng.below(6)) / 100);
        const int64_t of_day = (at_us - kStartUs) % kDayUs / kMinuteUs;
        const int64_t late = static_cast<int64_t>(rng.below(2));
        if (backup && of_day >= 120 + late && of_day < 175) write(at_us, 300 * kMB, 290 * kMB);
        // Logs are compressed at midnight, every day.
        if (of_day < 5) write(at_us, 60 * kMB, 60 * kMB);
    }
    void run(int64_t from_us, int64_t to_us) {
        for (int64_t at = from_us; at < to_us; at += kMinuteUs) minute(at);
    }
    // As a ledger keeps them: hours, and minutes of the last two days.
    std::vector<ChangeRow> kept(int64_t now_us) const {
        std::map<int64_t, ChangeRow> hours;
        std::map<int64_t, ChangeRow> minutes;
        for (const ChangeRow& row : rows) {
            if (row.start_us > now_us) continue;
            ChangeRow hour = hour_of(row);
            auto [at, fresh] = hours.emplace(hour.start_us, hour);
            if (!fresh) at->second.add(hour);
            if (row.start_us < now_us - kMinuteRowsS * kSecondUs) continue;
            auto [minute, first] = minutes.emplace(row.start_us, row);
            if (!first) minute->second.add(row);
        }
        std::vector<ChangeRow> out;
        for (const auto& [start, row] : hours) out.push_back(row);
        for (const auto& [start, row] : minutes) out.push_back(row);
        return out;
    }
    Rng rng;
    bool backup = true;
    std::vector<ChangeRow> rows;
};

// Broken if encryption of a disk goes unnoticed among a database, a nightly backup and rotated
// logs, is noticed late, or is said to have begun at another minute.
TEST(ChangeHistory, EncryptionIsNamedToTheMinuteAndWhatRecursIsNot) {
    for (uint64_t seed = 1; seed <= 10; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        Load load(seed);
        const int64_t begins = kStartUs + 12 * kDayUs + 13 * kHourUs + 37 * kMinuteUs;
        load.run(kStartUs, begins);
        for (const ChangeBreak& known : find_breaks(load.kept(begins)))
            EXPECT_LT(known.from.us, kStartUs + 4 * kDayUs) << "what recurs was flagged";
        const size_t before = find_breaks(load.kept(begins)).size();
        // A few hundred MB a minute are read, encrypted and written back.
        int64_t noticed_us = 0;
        for (int64_t at = begins; at < begins + 40 * kMinuteUs; at += kMinuteUs) {
            load.minute(at);
            load.write(at, 400 * kMB, 396 * kMB);
            if (noticed_us == 0 && find_breaks(load.kept(at)).size() > before) noticed_us = at;
        }
        EXPECT_LE(noticed_us, begins + 5 * kMinuteUs);
        EXPECT_NE(noticed_us, 0);
        const auto breaks = find_breaks(load.kept(begins + 40 * kMinuteUs));
        ASSERT_GT(breaks.size(), before);
        const auto dense = std::ranges::find_if(breaks, [&](const ChangeBreak& b) {
            return b.reason == ChangeReason::kDense && b.from.us >= begins - kHourUs;
        });
        ASSERT_NE(dense, breaks.end());
        EXPECT_EQ(dense->from.us, begins);
        EXPECT_GT(dense->bytes, 5'000 * kMB);
        EXPECT_LT(dense->usual_bytes, 100 * kMB);
        EXPECT_EQ(dense->until.us, begins / kHourUs * kHourUs + 2 * kHourUs);
    }
}

// Broken if a backup that is new is not seen, or is flagged for ever.
TEST(ChangeHistory, ABackupThatIsNewIsUsualAfterSomeDays) {
    Load load(3);
    load.backup = false;
    load.run(kStartUs, kStartUs + 8 * kDayUs);
    // The logs of the first nights.
    for (const ChangeBreak& b : find_breaks(load.kept(kStartUs + 8 * kDayUs)))
        EXPECT_LT(b.from.us, kStartUs + 4 * kDayUs);
    load.backup = true;
    load.run(kStartUs + 8 * kDayUs, kStartUs + 20 * kDayUs);
    std::set<int64_t> days;
    for (const ChangeBreak& b : find_breaks(load.kept(kStartUs + 20 * kDayUs)))
        if (b.from.us >= kStartUs + 4 * kDayUs) days.insert((b.from.us - kStartUs) / kDayUs);
    EXPECT_EQ(days, (std::set<int64_t>{8, 9, 10}));
}

// Broken if a disk that was idle, or is new, or writes little is flagged for nothing.
TEST(ChangeHistory, ShortPastsAndSmallAmountsAreNoBreaks) {
    Load load(4);
    load.write(kStartUs, kMB, kMB);
    load.write(kStartUs + 5 * kHourUs, 90'000 * kMB, 90'000 * kMB);
    EXPECT_TRUE(find_breaks(load.kept(kStartUs + 6 * kHourUs)).empty()) << "the first copy";
    load.write(kStartUs + 60 * kHourUs, 50 * kMB, 50 * kMB);
    EXPECT_TRUE(find_breaks(load.kept(kStartUs + 61 * kHourUs)).empty());
    load.write(kStartUs + 70 * kHourUs, 500 * kMB, 10 * kMB);
    const auto breaks = find_breaks(load.kept(kStartUs + 71 * kHourUs));
    ASSERT_EQ(breaks.size(), 1u);
    EXPECT_EQ(breaks[0].reason, ChangeReason::kRate);
    EXPECT_TRUE(find_breaks({}).empty());
}

// Broken if what is kept is not what was written, what a gap copies counts as the machine's, or a
// ledger that is rebuilt from the store forgets it.
TEST(ChangeHistory, IsKeptWithEachSegmentAndRebuilt) {
    using namespace replica_test;
    TestClock clock;
    TestRandom random(1);
    MemoryStore memory;
    MemoryLedger ledger;
    auto replica = *ItemReplica::open(memory, ledger, clock, random, test_item(), test_key());
    Appliance appliance(memory, random, test_item(), test_key());
    ASSERT_TRUE(appliance.acquire(*replica));
    uint64_t sequence = 0;
    Bytes records;
    const auto add = [&](RecordKind kind, int64_t at_us, uint64_t offset, uint32_t length,
                         bool dense = false) {
        RecordHeader h;
        h.kind = kind;
        h.sequence = {++sequence};
        h.time = {at_us};
        h.disk = 1;
        h.offset_bytes = offset;
        h.length_bytes = length;
        Bytes payload(kind == RecordKind::kWrite ? length : 0, 7);
        if (dense) random.fill(payload);
        append_record(records, h, payload);
    };
    add(RecordKind::kGap, kStartUs, 0, 0);
    add(RecordKind::kGeometry, kStartUs, 1u << 30, 0);
    add(RecordKind::kWrite, kStartUs, 0, kChunkBytes, true);  // the first copy
    add(RecordKind::kResynced, kStartUs, 0, 0);
    add(RecordKind::kWrite, kStartUs + kSecondUs, 0, kChunkBytes, true);
    add(RecordKind::kWrite, kStartUs + kMinuteUs, 5u << 20, 2 * kChunkBytes);
    ASSERT_TRUE(appliance.send(*replica, records));
    records.clear();
    add(RecordKind::kZero, kStartUs + kMinuteUs, 0, 4096);
    add(RecordKind::kWrite, kStartUs + kMinuteUs, 1u << 20, kChunkBytes, true);
    ASSERT_TRUE(appliance.send(*replica, records));
    const std::vector<ChangeRow> wanted{
        {kMinuteS, kStartUs, 1, 1, kChunkBytes, 0, kChunkBytes, 1},
        {kMinuteS, kStartUs + kMinuteUs, 1, 3, 3 * kChunkBytes, 4096, kChunkBytes, 3},
        {kHourS, kStartUs, 1, 4, 4 * kChunkBytes, 4096, 2 * kChunkBytes, 4}};
    EXPECT_EQ(*replica->changes(), wanted);
    MemoryLedger rebuilt;
    ASSERT_TRUE(ItemReplica::rebuild(memory, rebuilt, test_item(), test_key()));
    EXPECT_EQ(*rebuilt.list_changes(), wanted);
    // Old minutes go, hours stay.
    records.clear();
    add(RecordKind::kTime, kStartUs + 3 * kDayUs, 0, 0);
    ASSERT_TRUE(appliance.send(*replica, records));
    EXPECT_EQ(*replica->changes(), (std::vector<ChangeRow>{wanted[2]}));
}

}  // namespace
}  // namespace farshore
