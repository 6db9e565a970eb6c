// A month of a database's load under the default policy, in simulated time, with a vault that dies:
// what the grid keeps is what the disk was, the rest is gone, and what it cost is printed.
// FARSHORE_MONTH_ITEMS=20 takes that many machines, FARSHORE_MONTH_DAYS=10 a shorter month: with
// the sanitizers 30 days take minutes.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "replica/replica_test_check.h"
#include "sim/seeds.h"

namespace farshore {
namespace {

using namespace replica_test;

constexpr int64_t kMinute = 60'000'000, kHour = 60 * kMinute, kDay = 24 * kHour;
constexpr uint32_t kPageBytes = 4096, kPages = 512;

// Counts what is put and what is there.
class CountingStore final : public ObjectStore {
  public:
    explicit CountingStore(ObjectStore& inner) : inner_(inner) {}
    Status put(const std::string& name, ByteView data) override {
        FS_TRY(inner_.put(name, data));
        put_bytes += data.size();
        ++puts;
        there_bytes += data.size();
        return {};
    }
    Result<Bytes> get(const std::string& name) override { return inner_.get(name); }
    Result<Bytes> get_range(const std::string& name, uint64_t at, uint64_t length) override {
        return inner_.get_range(name, at, length);
    }
    Result<ObjectInfo> head(const std::string& name) override { return inner_.head(name); }
    Result<std::vector<ObjectInfo>> list(const std::string& prefix, const std::string& after,
                                         size_t limit) override {
        return inner_.list(prefix, after, limit);
    }
    Status remove(const std::string& name) override {
        if (const auto info = inner_.head(name)) there_bytes -= info->size_bytes;
        return inner_.remove(name);
    }
    uint64_t put_bytes = 0, puts = 0, there_bytes = 0;

  private:
    ObjectStore& inner_;
};

// One disk of pages; what a page holds follows from its number and how often it was written.
class DatabaseLoad {
  public:
    explicit DatabaseLoad(uint64_t seed) : rng_(seed), versions_(kPages) {}
    static Bytes page(uint32_t number, uint32_t version) {
        Bytes out(kPageBytes);
        if (version == 0) return out;
        Rng rng(uint64_t{version} << 32 | number);
        rng.fill(MutableByteView(out).first(kPageBytes / 2));  // the other half compresses away
        return out;
    }
    // Records of half an hour: most of them to a tenth of the pages, a log that goes round, and
    // every six hours a consistent point.
    Bytes half_hour(int64_t now_us) {
        Bytes records;
        if (next_ == 1) {
            RecordHeader geometry = header(RecordKind::kGeometry, now_us);
            geometry.offset_bytes = uint64_t{kPages} * kPageBytes;
            append_record(records, geometry, {});
            remember(now_us, false);
        }
        const int writes = 30;
        for (int i = 0; i < writes; ++i) {
            const int64_t at_us = now_us - 30 * kMinute + (i + 1) * kMinute;
            const auto number =
                static_cast<uint32_t>(rng_.below(4) == 0   ? rng_.below(kPages)
                                      : rng_.below(3) == 0 ? kPages - 32 + log_++ % 32
                                                           : rng_.below(kPages / 10));
            RecordHeader write = header(RecordKind::kWrite, at_us);
            write.offset_bytes = uint64_t{number} * kPageBytes;
            write.length_bytes = kPageBytes;
            append_record(records, write, page(number, ++versions_[number]));
            written_bytes += kPageBytes;
            if (i == writes / 2 && ++halves_ % 12 == 0) {
                RecordHeader point = header(RecordKind::kPoint, at_us);
                point.flags = static_cast<uint8_t>(PointKind::kApplication);
                append_record(records, point, {});
                remember(at_us, true);
            }
        }
        remember(now_us, false);
        return records;
    }
    Sequence last() const { return {next_ - 1}; }
    struct State {
        int64_t time_us = 0;
        bool consistent = false;
        std::vector<uint32_t> versions;
    };
    const std::map<uint64_t, State>& states() const { return states_; }
    uint64_t written_bytes = 0;

  private:
    RecordHeader header(RecordKind kind, int64_t now_us) {
        RecordHeader h;
        h.kind = kind;
        h.sequence = {next_++};
        h.time = {now_us};
        return h;
    }
    void remember(int64_t now_us, bool consistent) {
        states_[next_ - 1] = {now_us, consistent, versions_};
    }
    Rng rng_;
    std::vector<uint32_t> versions_;
    std::map<uint64_t, State> states_;
    uint64_t next_ = 1;
    uint32_t log_ = 0, halves_ = 0;
};

struct Month {
    uint64_t written = 0, put = 0, there = 0, kept = 0, deaths = 0, puts = 0;
};

void expect_state(ObjectStore& store, Sequence sequence, const DatabaseLoad& load) {
    SCOPED_TRACE("sequence " + std::to_string(sequence.v));
    const auto model = load.states().find(sequence.v);
    ASSERT_NE(model, load.states().end());
    auto reader = ReplicaReader::open(store, test_item(), test_key(), sequence, {});
    ASSERT_TRUE(reader) << reader.error().to_string();
    auto disk = (*reader)->disk(0);
    ASSERT_TRUE(disk) << disk.error().to_string();
    Bytes bytes(uint64_t{kPages} * kPageBytes);
    const Status read = (*disk)->read(0, bytes);
    ASSERT_TRUE(read) << read.error().to_string();
    for (uint32_t number = 0; number < kPages; ++number) {
        const Bytes expected = DatabaseLoad::page(number, model->second.versions[number]);
        ASSERT_TRUE(std::ranges::equal(
            ByteView(bytes).subspan(uint64_t{number} * kPageBytes, kPageBytes), expected))
            << "page " << number;
    }
}

void one_item(uint64_t seed, int days, Month& sum) {
    MemoryStore memory;
    CountingStore counted(memory);
    Fate fate;
    FatefulStore store(counted, fate);
    MemoryLedger ledger;
    ledger.set_hook([&](const char*, bool after) { return after ? fate.after() : fate.before(); });
    TestClock clock;
    TestRandom random(seed);
    Rng rng(seed * 7);
    DatabaseLoad load(seed);
    Appliance appliance(counted, random, test_item(), test_key());
    std::unique_ptr<ItemReplica> replica;
    const auto open = [&] {
        auto opened = ItemReplica::open(store, ledger, clock, random, test_item(), test_key(), {});
        ASSERT_TRUE(opened);
        replica = std::move(*opened);
    };
    open();
    ASSERT_TRUE(appliance.acquire(*replica));
    RetentionPolicy policy;
    policy.window_us = 2 * kHour;
    policy.grid = *RetentionGrid::parse("1h:1d, 2h:7d, 4h:15d");
    policy.grace_us = 10 * kMinute;
    // In proportion to a disk of 2 MiB.
    policy.rewrite_min_bytes = 64 << 10;
    policy.small_object_bytes = 16 << 10;
    clock.now_us = 1'000 * kDay;
    for (int half = 0; half < days * 48; ++half) {
        clock.now_us += 30 * kMinute;
        const Status sent = appliance.send(*replica, load.half_hour(clock.now_us));
        ASSERT_TRUE(sent) << sent.error().to_string();
        fate = {};
        if (rng.below(5) == 0) {
            fate.at = 1 + rng.below(60);
            fate.kind = rng.coin() ? Fate::Kind::kDieBefore : Fate::Kind::kDieAfter;
        }
        try {
            ASSERT_TRUE(replica->maybe_checkpoint());
            const auto report = replica->run_retention(policy);
            ASSERT_TRUE(report) << report.error().to_string();
        } catch (const Died&) {
            ++sum.deaths;
            fate = {};
            open();
        }
        fate = {};
        if (half % 240 != 239) continue;
        const auto kept = *ledger.list_kept();
        if (!kept.empty()) expect_state(memory, kept[rng.below(kept.size())].sequence, load);
        if (testing::Test::HasFatalFailure()) return;
    }
    sum.written += load.written_bytes;
    sum.put += counted.put_bytes;
    sum.puts += counted.puts;
    // What has aged by now goes within two graces and four runs.
    for (int i = 0; i < 4; ++i) {
        ASSERT_TRUE(replica->run_retention(policy));
        clock.now_us += policy.grace_us;
    }
    policy.grace_us = 0;
    for (int i = 0; i < 4; ++i) ASSERT_TRUE(replica->run_retention(policy));
    sum.there += counted.there_bytes;

    const auto kept = *ledger.list_kept();
    sum.kept += kept.size();
    for (const KeptRow& row : kept) {
        expect_state(memory, row.sequence, load);
        EXPECT_EQ(row.kind == PointKind::kApplication, row.recorded);
        if (testing::Test::HasFatalFailure()) return;
    }
    expect_state(memory, ledger.state()->floor, load);
    expect_state(memory, load.last(), load);
    expect_nothing_left_over(memory, ledger);
    // Each whole slot has its point, and where there was a consistent one it is that.
    int64_t from_us = policy.window_us;
    for (const GridStep& step : policy.grid.steps()) {
        std::map<int64_t, const KeptRow*> slots;
        for (const KeptRow& row : kept) slots[row.time.us / step.every_us] = &row;
        for (const auto& [sequence, state] : load.states()) {
            const int64_t slot = state.time_us / step.every_us;
            if (clock.now_us - slot * step.every_us > step.until_us ||
                clock.now_us - (slot + 1) * step.every_us <= from_us + kHour)
                continue;
            ASSERT_TRUE(slots.contains(slot)) << "slot " << slot << " of " << step.every_us / kHour;
            if (state.consistent) EXPECT_TRUE(slots[slot]->recorded);
        }
        from_us = step.until_us;
    }
}

int number_from(const char* name, int usual) {
    const char* const text = std::getenv(name);
    return text != nullptr ? std::atoi(text) : usual;
}

// Broken if over a month a kept point changed or went, or what nothing needs stayed; or if keeping
// cost more writing than the design says.
TEST(RetentionMonth, DatabasesKeepWhatTheGridSays) {
    const int items = number_from("FARSHORE_MONTH_ITEMS", 1);
    const int days = number_from("FARSHORE_MONTH_DAYS", fewer_when_sanitized(30));
    Month sum;
    for (int item = 1; item <= items; ++item) {
        SCOPED_TRACE("item " + std::to_string(item));
        one_item(static_cast<uint64_t>(item), days, sum);
        if (testing::Test::HasFatalFailure()) return;
    }
    fmt::print(
        "{} items, {} days: {} deaths, {} points kept; {} MiB written, {} MiB put ({:.2f} of "
        "it, {} objects), {} MiB stored ({} KiB an item of a {} KiB disk)\n",
        items, days, sum.deaths, sum.kept, sum.written >> 20, sum.put >> 20,
        double(sum.put) / double(sum.written), sum.puts, sum.there >> 20,
        sum.there / static_cast<uint64_t>(items) >> 10, kPages * kPageBytes >> 10);
    EXPECT_GT(sum.deaths, 2u * static_cast<uint64_t>(items * days) / 3);
}

}  // namespace
}  // namespace farshore
