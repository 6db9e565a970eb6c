#include "replica/replica_reader.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "replica/replica_test_model.h"

namespace farshore {
namespace {

using namespace replica_test;

// Remembers what was read.
class WatchedStore final : public ObjectStore {
  public:
    explicit WatchedStore(ObjectStore& inner) : inner_(inner) {}
    Status put(const std::string& name, ByteView data) override { return inner_.put(name, data); }
    Result<Bytes> get(const std::string& name) override {
        note(name);
        return inner_.get(name);
    }
    Result<Bytes> get_range(const std::string& name, uint64_t offset, uint64_t length) override {
        note(name);
        return inner_.get_range(name, offset, length);
    }
    Result<ObjectInfo> head(const std::string& name) override { return inner_.head(name); }
    Result<std::vector<ObjectInfo>> list(const std::string& prefix, const std::string& after,
                                         size_t limit) override {
        return inner_.list(prefix, after, limit);
    }
    Status remove(const std::string& name) override { return inner_.remove(name); }
    size_t count(const std::string& part) {
        size_t n = 0;
        for (const std::string& name : read_) n += name.find(part) != std::string::npos;
        return n;
    }
    void forget() { read_.clear(); }

  private:
    void note(const std::string& name) {
        std::lock_guard lock(mutex_);
        read_.push_back(name);
    }
    ObjectStore& inner_;
    std::mutex mutex_;
    std::vector<std::string> read_;
};

// A store with a folded floor, base objects, checkpoints and a log behind them.
struct Stored {
    explicit Stored(uint64_t seed) : machine(seed), random(seed) {
        ItemReplicaOptions options;
        options.max_manifests = 2;
        auto replica =
            *ItemReplica::open(memory, ledger, clock, random, test_item(), test_key(), options);
        Appliance appliance(memory, random, test_item(), test_key());
        EXPECT_TRUE(appliance.acquire(*replica));
        Bytes records;
        machine.begin(records, clock.now_us, false);
        EXPECT_TRUE(appliance.send(*replica, records));
        for (int round = 0; round < 24; ++round) {
            clock.now_us += 500'000;
            records.clear();
            machine.run(12, records, clock.now_us);
            EXPECT_TRUE(appliance.send(*replica, records));
            if (round % 6 == 3) {
                EXPECT_TRUE(replica->checkpoint());
            }
            if (round == 16) {
                RetentionPolicy policy;
                policy.window_us = 3'000'000;
                policy.small_objects = 3;
                policy.rewrite_min_bytes = 0;
                for (int i = 0; i < 3; ++i) {
                    EXPECT_TRUE(replica->run_retention(policy));
                    policy.grace_us = 0;
                }
            }
        }
        floor = ledger.state()->floor.v;
        EXPECT_GT(floor, 0u);
    }
    Result<std::shared_ptr<ReplicaReader>> read(uint64_t s) {
        return ReplicaReader::open(memory, test_item(), test_key(), {s});
    }
    TestClock clock;
    Machine machine;
    TestRandom random;
    MemoryStore memory;
    MemoryLedger ledger;
    uint64_t floor = 0;
};

// Would break: seconds of start for a large machine.
TEST(ReplicaReader, OpensWithTheManifestAndTheLogBehindItAlone) {
    Stored s(1);
    WatchedStore store(s.memory);
    auto reader = ReplicaReader::open(store, test_item(), test_key(), kLatestSequence);
    ASSERT_TRUE(reader);
    EXPECT_LE(store.count("/manifest/"), 2u);
    EXPECT_EQ(store.count("/shard/"), 0u);
    EXPECT_EQ(store.count("/base/"), 0u);
    EXPECT_LE(store.count("/log/"), 8u);
    store.forget();
    auto disk = (*reader)->disk(1);
    ASSERT_TRUE(disk);
    Bytes out(100);
    ASSERT_TRUE((*disk)->read(0, out));
    EXPECT_LE(store.count("/shard/"), 1u) << "only the shard that was read";
    EXPECT_EQ((*disk)->read((*disk)->size_bytes() - 50, out).error().code(),
              Code::kInvalidArgument);
    EXPECT_EQ((*disk)->read(~0ull - 50, out).error().code(), Code::kInvalidArgument);
    EXPECT_EQ((*disk)->extents((*disk)->size_bytes(), 1).error().code(), Code::kInvalidArgument);
    EXPECT_EQ((*reader)->disk(63).error().code(), Code::kNotFound);
}

// Would break: a damaged store that gives wrong data instead of an error.
TEST(ReplicaReader, DamageIsANamedErrorOrPassedOver) {
    Stored s(2);
    const uint64_t latest = s.machine.last();
    const std::vector<uint64_t> points = {s.floor, (s.floor + latest) / 2, latest};
    const auto objects = *list_all(s.memory, item_prefix(test_item()));
    Rng rng(5);
    uint64_t errors = 0;
    std::map<std::string, int> kinds;
    for (const ObjectInfo& info : objects) {
        const Bytes good = *s.memory.get(info.name);
        for (int damage = 0; damage < 8; ++damage) {
            Bytes bad = good;
            if (damage == 0)
                bad.clear();
            else if (damage == 1)
                bad.resize(rng.below(bad.size()));
            else if (damage < 4)
                bad[rng.below(std::min<size_t>(bad.size(), 300))] ^= 1 << rng.below(8);
            else
                bad[rng.below(bad.size())] ^= 1 << rng.below(8);
            if (damage == 7)
                ASSERT_TRUE(s.memory.remove(info.name));
            else
                s.memory.replace(info.name, bad);
            for (const uint64_t point : points) {
                SCOPED_TRACE(info.name + " damage " + std::to_string(damage) + " point " +
                             std::to_string(point));
                const auto& model = s.machine.history().at(point);
                auto reader = s.read(point);
                std::optional<Error> error;
                if (!reader) error = reader.error();
                for (DiskIndex d = 0; !error && d < model.size(); ++d) {
                    auto disk = (*reader)->disk(d);
                    ASSERT_TRUE(disk);
                    Bytes bytes(model[d].bytes.size());
                    const Status read = (*disk)->read(model[d].region, bytes);
                    if (!read)
                        error = read.error();
                    else
                        ASSERT_TRUE(bytes == model[d].bytes) << "wrong data";
                }
                if (!error) continue;
                ++errors;
                ++kinds[std::string(code_name(error->code()))];
                ASSERT_FALSE(error->what().empty());
                ASSERT_TRUE(
                    error->code() == Code::kCorrupt || error->code() == Code::kTruncated ||
                    error->code() == Code::kMalformed || error->code() == Code::kNewerVersion ||
                    error->code() == Code::kForeignStore || error->code() == Code::kWrongKey ||
                    error->code() == Code::kPointNotFound)
                    << error->to_string();
            }
            if (damage == 7)
                ASSERT_TRUE(s.memory.put(info.name, good));
            else
                s.memory.replace(info.name, good);
        }
    }
    EXPECT_GT(errors, 50u);
    EXPECT_EQ(ReplicaReader::open(s.memory, test_item(), Secret(Bytes(32, 9)), kLatestSequence)
                  .error()
                  .code(),
              Code::kWrongKey);
}

// Would break (also under tsan): what nbdkit's threads do.
TEST(ReplicaReader, ManyThreadsReadTheSame) {
    Stored s(3);
    std::vector<std::thread> background;
    std::mutex mutex;
    ReplicaReaderOptions options;
    options.cache_bytes = 512u << 10;  // some chunks: what is read goes out again
    options.background = [&](std::function<void()> task) {
        std::lock_guard lock(mutex);
        if (background.size() < 64) background.emplace_back(std::move(task));
    };
    options.parallel = [](size_t n, const std::function<void(size_t)>& job) {
        std::vector<std::thread> threads;
        for (size_t i = 0; i < n; ++i) threads.emplace_back([&, i] { job(i); });
        for (auto& t : threads) t.join();
    };
    auto reader = ReplicaReader::open(s.memory, test_item(), test_key(), kLatestSequence, options);
    ASSERT_TRUE(reader) << reader.error().to_string();
    const auto& model = s.machine.history().at(s.machine.last());
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (uint64_t t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            Rng rng(t + 1);
            for (int i = 0; i < 300; ++i) {
                const auto d = static_cast<DiskIndex>(rng.below(model.size()));
                const auto disk = (*reader)->disk(d);
                const size_t at = rng.below(model[d].bytes.size());
                Bytes out(1 + rng.below(model[d].bytes.size() - at));
                if (!disk || !(*disk)->read(model[d].region + at, out) ||
                    !std::equal(out.begin(), out.end(),
                                model[d].bytes.begin() + static_cast<long>(at)))
                    ++wrong;
            }
        });
    }
    for (auto& t : threads) t.join();
    for (auto& t : background) t.join();
    EXPECT_EQ(wrong, 0);
}

TEST(ChunkCache, StaysWithinItsBoundAndKeepsWhatIsUsed) {
    ChunkCache cache(16 * 16 * (kChunkBytes + 256));
    const auto chunk = std::make_shared<const Bytes>(kChunkBytes);
    const auto key = [](uint32_t i) {
        return ChunkKey{test_item(), {SegmentKind::kLog, {i / 10}, {1}}, i % 10};
    };
    for (uint32_t i = 0; i < 5000; ++i) {
        cache.insert(key(i), chunk);
        EXPECT_TRUE(cache.find(key(0))) << "what is used stays, at " << i;
        EXPECT_LE(cache.size_bytes(), 16u * 16 * (kChunkBytes + 256) + 16u * kChunkBytes);
    }
    EXPECT_FALSE(cache.find(key(100)));
}

// Would break: a disk that shrinks and grows again shows what was cut off.
TEST(ReplicaReader, AShrunkDiskReadsZeroesWhereItGrowsAgain) {
    TestRandom random(1);
    TestClock clock;
    MemoryStore memory;
    MemoryLedger ledger;
    auto replica = *ItemReplica::open(memory, ledger, clock, random, test_item(), test_key());
    Appliance appliance(memory, random, test_item(), test_key());
    ASSERT_TRUE(appliance.acquire(*replica));
    uint64_t sequence = 0;
    const auto record = [&](RecordKind kind, uint64_t offset, uint32_t length) {
        RecordHeader h;
        h.kind = kind;
        h.sequence = {++sequence};
        h.offset_bytes = offset;
        h.length_bytes = length;
        Bytes out;
        append_record(out, h, Bytes(kind == RecordKind::kWrite ? length : 0, 7));
        return out;
    };
    const uint64_t size = 3 * kShardBytes;
    for (const bool checkpointed : {false, true}) {
        ASSERT_TRUE(appliance.send(*replica, record(RecordKind::kGeometry, size, 0)));
        ASSERT_TRUE(appliance.send(*replica, record(RecordKind::kWrite, 5000, 5000)));
        ASSERT_TRUE(appliance.send(*replica, record(RecordKind::kWrite, size - 5000, 5000)));
        if (checkpointed) {
            ASSERT_TRUE(replica->checkpoint());
        }
        ASSERT_TRUE(appliance.send(*replica, record(RecordKind::kGeometry, 6000, 0)));
        const auto small = ReplicaReader::open(memory, test_item(), test_key(), kLatestSequence);
        ASSERT_TRUE(small);
        EXPECT_EQ((*small)->disks().front().size_bytes, 6000u);
        ASSERT_TRUE(appliance.send(*replica, record(RecordKind::kGeometry, size, 0)));
        const auto big = ReplicaReader::open(memory, test_item(), test_key(), kLatestSequence);
        ASSERT_TRUE(big);
        Bytes out(5000);
        ASSERT_TRUE((*(*big)->disk(0))->read(size - 5000, out));
        EXPECT_TRUE(all_zero(out));
        ASSERT_TRUE((*(*big)->disk(0))->read(5000, out));
        EXPECT_FALSE(all_zero(ByteView(out).first(1000)));
        EXPECT_TRUE(all_zero(ByteView(out).subspan(1000)));
    }
}

}  // namespace
}  // namespace farshore
