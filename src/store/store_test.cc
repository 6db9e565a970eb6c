// Directory store, memory store, retrying store and store identity; store_contract.h on each.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "os/real.h"
#include "os/test_directory.h"
#include "sim/disk.h"
#include "sim/object_store.h"
#include "sim/world.h"
#include "store/directory_store.h"
#include "store/memory_store.h"
#include "store/retrying_store.h"
#include "store/store_contract.h"
#include "store/store_identity.h"

namespace farshore {
namespace {

class SeededRandom final : public Random {
  public:
    explicit SeededRandom(uint64_t seed) : engine_(seed) {}
    void fill(MutableByteView out) override {
        for (uint8_t& b : out) b = static_cast<uint8_t>(engine_());
    }

  private:
    std::mt19937_64 engine_;
};

class FixedClock final : public Clock {
  public:
    TimePoint now() const override { return {1'700'000'000'000'000 + steady}; }
    int64_t steady_us() const override { return steady; }
    int64_t steady = 0;
};

struct DirectoryHolder final : StoreHolder {
    DirectoryHolder() {
        auto opened = DirectoryStore::open(files, random, {directory / "store", true});
        FS_CHECK(opened);
        opened_store = std::move(*opened);
    }
    ObjectStore& store() override { return *opened_store; }
    TestDirectory directory;
    PosixFileSystem files;
    SeededRandom random{1};
    std::unique_ptr<DirectoryStore> opened_store;
};
struct MemoryHolder final : StoreHolder {
    ObjectStore& store() override { return memory; }
    MemoryStore memory;
};
struct RetryingHolder final : StoreHolder {
    ObjectStore& store() override { return retrying; }
    MemoryStore memory;
    FixedClock clock;
    SeededRandom random{1};
    RetryingStore retrying{memory, clock, random, [](int64_t) { return true; }};
};

struct SimHolder final : StoreHolder {
    SimHolder() {
        process.start();
        client = sim_store.client(process);
    }
    ObjectStore& store() override { return *client; }
    SimWorld world{1};
    SimObjectStore sim_store{world};
    SimProcess& process = world.add_host("h").add_process("p");
    std::unique_ptr<ObjectStore> client;
};
// The directory store on a simulated disk.
struct SimDirectoryHolder final : StoreHolder {
    SimDirectoryHolder() {
        process.start();
        auto opened =
            DirectoryStore::open(process.file_system(), process.random(), {"/data/store", true});
        FS_CHECK(opened);
        opened_store = std::move(*opened);
    }
    ObjectStore& store() override { return *opened_store; }
    SimWorld world{2};
    SimProcess& process = world.add_host("h").add_process("p");
    std::unique_ptr<DirectoryStore> opened_store;
};

template <typename Holder>
StoreMaker maker(const char* name, bool threads = true) {
    return {name, [] { return std::make_unique<Holder>(); }, threads};
}
INSTANTIATE_TEST_SUITE_P(Stores, StoreContract,
                         testing::Values(maker<DirectoryHolder>("directory"),
                                         maker<MemoryHolder>("memory"),
                                         maker<RetryingHolder>("retrying"),
                                         maker<SimHolder>("simulated", false),
                                         maker<SimDirectoryHolder>("simulated_disk", false)),
                         [](const auto& tested) { return tested.param.name; });

INSTANTIATE_TEST_SUITE_P(Remote, StoreContract, testing::ValuesIn(remote_store_makers()),
                         [](const auto& tested) { return tested.param.name; });

// Fails the n-th call that changes something, once.
class FailingFiles final : public FileSystem {
  public:
    int fail_at = -1;
    int calls = 0;
    Code code = Code::kNoSpace;
    std::vector<std::string> log;

    Status step(const std::string& what) {
        log.push_back(what);
        if (calls++ == fail_at) return fail(code, "planted: " + what);
        return {};
    }
    struct FailingFile final : File {
        FailingFile(std::unique_ptr<File> f, FailingFiles& o) : inner(std::move(f)), owner(o) {}
        Result<size_t> read_at(uint64_t at, MutableByteView out) override {
            return inner->read_at(at, out);
        }
        Status write_at(uint64_t at, ByteView data) override {
            if (Status s = owner.step("write"); !s) {
                (void)inner->write_at(at, data.first(data.size() / 2));
                return s;
            }
            return inner->write_at(at, data);
        }
        Status sync() override {
            FS_TRY(owner.step("sync"));
            return inner->sync();
        }
        Status truncate(uint64_t n) override { return inner->truncate(n); }
        Result<uint64_t> size() override { return inner->size(); }
        Status punch_hole(uint64_t at, uint64_t n) override { return inner->punch_hole(at, n); }
        std::unique_ptr<File> inner;
        FailingFiles& owner;
    };
    Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override {
        if (mode != OpenMode::kRead) FS_TRY(step("create"));
        FS_ASSIGN(auto file, real.open(path, mode));
        return std::unique_ptr<File>(new FailingFile(std::move(file), *this));
    }
    Status remove(const std::string& path) override { return real.remove(path); }
    Status rename(const std::string& from, const std::string& to) override {
        return real.rename(from, to);
    }
    Status link(const std::string& from, const std::string& to) override {
        FS_TRY(step("link"));
        return real.link(from, to);
    }
    Status make_directories(const std::string& path) override {
        FS_TRY(step("mkdir"));
        return real.make_directories(path);
    }
    Status sync_directory(const std::string& path) override {
        FS_TRY(step("sync " + path.substr(path.find("/store") + 1)));
        return real.sync_directory(path);
    }
    Result<std::vector<std::string>> list(const std::string& path) override {
        return real.list(path);
    }
    Result<bool> exists(const std::string& path) override { return real.exists(path); }
    Result<uint64_t> free_bytes(const std::string& path) override { return real.free_bytes(path); }
    PosixFileSystem real;
};

size_t files_below(const std::string& path) {
    size_t n = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path))
        if (entry.is_regular_file()) ++n;
    return n;
}

// Broken if a full disk or a failing one left a torn object, or used up space with what nobody
// knows.
TEST(DirectoryStore, AFailureAtAnyStepLeavesAllOrNothing) {
    const Bytes data(100'000, 7);
    for (const Code code : {Code::kNoSpace, Code::kIo}) {
        for (int step = 0;; ++step) {
            TestDirectory directory;
            FailingFiles files;
            SeededRandom random(2);
            auto store = DirectoryStore::open(files, random, {directory / "store", true});
            ASSERT_TRUE(store);
            files.calls = 0;
            files.code = code;
            files.fail_at = step;
            const Status put = (*store)->put("items/x/log/1.seg", data);
            if (files.calls <= step) {
                ASSERT_GE(step, 8) << "the test must reach every step";
                EXPECT_TRUE(put);
                break;
            }
            ASSERT_FALSE(put) << step;
            EXPECT_EQ(put.error().code(), code) << step;
            auto got = (*store)->get("items/x/log/1.seg");
            if (got)
                EXPECT_EQ(*got, data);
            else
                EXPECT_EQ(files_below(directory / "store"), 0u)
                    << "step " << step << " left a file";
            EXPECT_TRUE(put_idempotent(**store, "items/x/log/1.seg", data)) << step;
            EXPECT_EQ(files_below(directory / "store"), 1u);
        }
    }
}

// Broken if an acknowledged object could vanish with the power: file before link, directory after,
// new directories once, and again when an earlier attempt did not get that far.
TEST(DirectoryStore, SyncsInTheOrderThatSurvivesAPowerCut) {
    TestDirectory directory;
    FailingFiles files;
    SeededRandom random(2);
    auto store = DirectoryStore::open(files, random, {directory / "store", true});
    ASSERT_TRUE(store);
    files.log.clear();
    ASSERT_TRUE((*store)->put("a/b/one", as_bytes("1")));
    EXPECT_EQ(files.log,
              (std::vector<std::string>{"create", "write", "sync", "mkdir", "sync store", "mkdir",
                                        "sync store/a", "link", "sync store/a/b"}));
    files.log.clear();
    ASSERT_TRUE((*store)->put("a/b/two", as_bytes("2")));
    EXPECT_EQ(files.log,
              (std::vector<std::string>{"create", "write", "sync", "link", "sync store/a/b"}));
    files.log.clear();
    EXPECT_FALSE((*store)->put("a/b/two", as_bytes("2")));
    EXPECT_EQ(files.log, std::vector<std::string>{"sync store/a/b"})
        << "'exists' may be taken for success, so it must be durable";
}

// Broken if a crash's leftovers stayed for ever, or showed up as objects.
TEST(DirectoryStore, RemovesLeftoversAndHidesWhatIsNoObject) {
    TestDirectory directory;
    PosixFileSystem files;
    SeededRandom random(3);
    const std::string path = directory / "store";
    {
        auto store = DirectoryStore::open(files, random, {path, true});
        ASSERT_TRUE(store);
        FixedClock clock;
        ASSERT_TRUE(ensure_store_identity(**store, clock, random));
        ASSERT_TRUE((*store)->put("a/x", as_bytes("1")));
    }
    std::ofstream(path + "/~tmp/0123-4") << "half an object";
    std::ofstream(path + "/a/README.TXT") << "a person's note";
    auto store = DirectoryStore::open(files, random, {path, false});
    ASSERT_TRUE(store) << store.error().to_string();
    EXPECT_FALSE(std::filesystem::exists(path + "/~tmp/0123-4"));
    auto listed = (*store)->list("", "", 100);
    ASSERT_TRUE(listed);
    ASSERT_EQ(listed->size(), 2u);
    EXPECT_EQ((*listed)[0].name, "a/x");
    EXPECT_EQ((*listed)[1].name, kStoreObject);
}

// Broken if another process's start could fail a put that is under way.
TEST(DirectoryStore, SurvivesAnotherProcessCleaningUp) {
    TestDirectory directory;
    struct Cleaning final : FileSystem {
        PosixFileSystem real;
        std::string temporary;
        int times = 1;
        Result<std::unique_ptr<File>> open(const std::string& p, OpenMode m) override {
            return real.open(p, m);
        }
        Status remove(const std::string& p) override { return real.remove(p); }
        Status rename(const std::string& a, const std::string& b) override {
            return real.rename(a, b);
        }
        Status link(const std::string& a, const std::string& b) override {
            if (times-- > 0) (void)real.remove(a);
            return real.link(a, b);
        }
        Status make_directories(const std::string& p) override { return real.make_directories(p); }
        Status sync_directory(const std::string& p) override { return real.sync_directory(p); }
        Result<std::vector<std::string>> list(const std::string& p) override {
            return real.list(p);
        }
        Result<bool> exists(const std::string& p) override { return real.exists(p); }
        Result<uint64_t> free_bytes(const std::string& p) override { return real.free_bytes(p); }
    } files;
    SeededRandom random(4);
    auto store = DirectoryStore::open(files, random, {directory / "store", true});
    ASSERT_TRUE(store);
    EXPECT_TRUE((*store)->put("a/x", as_bytes("1")));
    files.times = 100;
    EXPECT_EQ((*store)->put("a/y", as_bytes("1")).error().code(), Code::kUnavailable);
}

// Broken if a power cut or a kill at any instant of a put could lose an acknowledged object, show
// half of one, or leave something behind for ever.
TEST(DirectoryStore, SurvivesDeathAtEveryOperation) {
    const Bytes data(300'000, 9);
    int died = 0, acknowledged = 0, survived = 0;
    for (uint64_t seed = 1; seed <= 6; ++seed) {
        for (const bool power_loss : {false, true}) {
            for (const auto moment : {DeathPlan::Moment::kBefore, DeathPlan::Moment::kDuring,
                                      DeathPlan::Moment::kAfter}) {
                for (uint64_t operation = 1;; ++operation) {
                    SCOPED_TRACE(testing::Message()
                                 << "seed " << seed << " power_loss " << power_loss << " moment "
                                 << static_cast<int>(moment) << " operation " << operation);
                    SimWorld world(seed);
                    SimHost& host = world.add_host("h");
                    SimProcess& p = host.add_process("p");
                    p.start();
                    bool acked = false;
                    const auto open = [&] {
                        return DirectoryStore::open(p.file_system(), p.random(),
                                                    {"/data/store", true});
                    };
                    // A store with something in it, as it mostly is.
                    p.run([&] {
                        auto store = open();
                        ASSERT_TRUE(store);
                        RealClock clock;
                        ASSERT_TRUE(ensure_store_identity(**store, clock, p.random()));
                        p.plan_death({p.operations() + operation, moment, power_loss});
                        acked = static_cast<bool>((*store)->put("items/x/log/1.seg", data));
                        p.plan_death({});
                    });
                    const bool was_alive = p.alive();
                    if (was_alive) {
                        ASSERT_TRUE(acked);
                        // Power goes right after the answer: what was promised must hold.
                        host.lose_power();
                    }
                    if (!host.up()) host.power_on(false);
                    if (!p.alive()) p.start();
                    died += !was_alive;
                    acknowledged += acked;
                    p.run([&] {
                        auto store = open();
                        ASSERT_TRUE(store) << store.error().to_string();
                        auto got = (*store)->get("items/x/log/1.seg");
                        if (acked) {
                            ASSERT_TRUE(got) << "an acknowledged object is gone";
                        }
                        if (got) {
                            ASSERT_TRUE(*got == data) << "a torn object";
                            ++survived;
                        }
                        EXPECT_TRUE((*p.file_system().list("/data/store/~tmp")).empty());
                        EXPECT_EQ((*store)->list("items/", "", 10)->size(), got ? 1u : 0u);
                        EXPECT_TRUE(put_idempotent(**store, "items/x/log/1.seg", data));
                        EXPECT_TRUE(read_store_identity(**store));
                    });
                    if (was_alive) break;
                }
            }
        }
    }
    EXPECT_GT(died, 300);
    EXPECT_EQ(acknowledged, 36);
    EXPECT_GT(survived, acknowledged);
}

TEST(DirectoryStore, NamesThatAFileSystemCannotHoldAreRefused) {
    DirectoryHolder holder;
    ASSERT_TRUE(holder.store().put("a/b", as_bytes("1")));
    EXPECT_EQ(holder.store().put("a", as_bytes("1")).error().code(), Code::kInvalidArgument);
    EXPECT_FALSE(holder.store().put("a/b/c", as_bytes("1")));
    EXPECT_TRUE(holder.store().remove("a"));
    EXPECT_TRUE(holder.store().get("a/b"));
}

// Broken if Farshore wrote into somebody's home directory, or misread a newer store.
TEST(StoreIdentity, TellsOwnForeignAndNewerStoresApart) {
    TestDirectory directory;
    PosixFileSystem files;
    SeededRandom random(5);
    FixedClock clock;
    const std::string path = directory / "store";
    EXPECT_EQ(DirectoryStore::open(files, random, {path, false}).error().code(), Code::kNotFound);
    StoreId id;
    {
        auto store = DirectoryStore::open(files, random, {path, true});
        ASSERT_TRUE(store);
        EXPECT_EQ(read_store_identity(**store).error().code(), Code::kForeignStore);
        auto made = ensure_store_identity(**store, clock, random);
        ASSERT_TRUE(made) << made.error().to_string();
        id = made->id;
        EXPECT_FALSE(id.is_nil());
        auto again = ensure_store_identity(**store, clock, random);
        ASSERT_TRUE(again);
        EXPECT_EQ(again->id, id);
        EXPECT_EQ(again->created, clock.now());
    }
    EXPECT_TRUE(DirectoryStore::open(files, random, {path, false}));

    std::filesystem::create_directories(directory / "home");
    std::ofstream(directory / "home/Letter.txt") << "dear";
    EXPECT_EQ(DirectoryStore::open(files, random, {directory / "home", true}).error().code(),
              Code::kForeignStore);
    EXPECT_FALSE(std::filesystem::exists(directory / "home/~tmp")) << "it must be left as it was";

    MemoryStore foreign;
    ASSERT_TRUE(foreign.put("photos/1.jpg", as_bytes("x")));
    EXPECT_EQ(ensure_store_identity(foreign, clock, random).error().code(), Code::kForeignStore);

    MemoryStore newer;
    StoreIdentity future;
    future.format = 2;
    ASSERT_TRUE(newer.put(kStoreObject, encode_store_identity(future)));
    EXPECT_EQ(ensure_store_identity(newer, clock, random).error().code(), Code::kNewerVersion);

    const Bytes good = encode_store_identity({1, id, clock.now()});
    for (size_t i = 0; i < good.size(); ++i) {
        Bytes bad = good;
        bad[i] ^= 4;
        ASSERT_FALSE(decode_store_identity(bad)) << i;
        ASSERT_FALSE(decode_store_identity(ByteView(good).first(i))) << i;
    }
}

// Plays a script of outcomes before the real ones.
class FlakyStore final : public ObjectStore {
  public:
    MemoryStore memory;
    std::vector<Code> script;
    bool happens_anyway = false;
    int calls = 0;

    Status trouble() {
        ++calls;
        if (script.empty()) return {};
        const Code code = script.front();
        script.erase(script.begin());
        return fail(code, "planted");
    }
    Status put(const std::string& name, ByteView data) override {
        const Status planted = trouble();
        if (planted || happens_anyway) {
            const Status put = memory.put(name, data);
            if (planted) return put;
        }
        return planted;
    }
    Result<Bytes> get(const std::string& name) override {
        FS_TRY(trouble());
        return memory.get(name);
    }
    Result<Bytes> get_range(const std::string& name, uint64_t at, uint64_t n) override {
        FS_TRY(trouble());
        return memory.get_range(name, at, n);
    }
    Result<ObjectInfo> head(const std::string& name) override {
        FS_TRY(trouble());
        return memory.head(name);
    }
    Result<std::vector<ObjectInfo>> list(const std::string& p, const std::string& a,
                                         size_t n) override {
        FS_TRY(trouble());
        return memory.list(p, a, n);
    }
    Status remove(const std::string& name) override {
        FS_TRY(trouble());
        return memory.remove(name);
    }
};

struct RetryFixture {
    FlakyStore flaky;
    FixedClock clock;
    SeededRandom random{6};
    std::vector<int64_t> slept;
    bool running = true;
    RetryPolicy policy;
    RetryingStore store() {
        return RetryingStore(
            flaky, clock, random,
            [this](int64_t us) {
                slept.push_back(us);
                clock.steady += us;
                return running;
            },
            policy);
    }
};

// Broken if a put whose answer was lost were reported as a clash, or a real clash as success.
TEST(RetryingStore, APutThatHappenedUnseenIsSuccess) {
    RetryFixture f;
    auto store = f.store();
    f.flaky.happens_anyway = true;
    f.flaky.script = {Code::kTimeout, Code::kConnectionLost};
    EXPECT_TRUE(store.put("a", as_bytes("1")));
    f.flaky.script = {};
    EXPECT_EQ(store.put("a", as_bytes("1")).error().code(), Code::kAlreadyExists);
    f.flaky.happens_anyway = false;
    f.flaky.script = {Code::kTimeout};
    EXPECT_EQ(store.put("a", as_bytes("2")).error().code(), Code::kAlreadyExists);
}

TEST(RetryingStore, RetriesOnlyWhatTimeCuresWithinBounds) {
    RetryFixture f;
    {
        auto store = f.store();
        f.flaky.script = {Code::kThrottled, Code::kUnavailable, Code::kTimeout};
        ASSERT_TRUE(store.put("a", as_bytes("1")));
        EXPECT_EQ(f.slept.size(), 3u);
        for (size_t i = 0; i < f.slept.size(); ++i)
            EXPECT_LE(f.slept[i], f.policy.first_delay_us << i);
        for (const Code code : {Code::kNoSpace, Code::kCorrupt, Code::kForbidden, Code::kIo}) {
            f.flaky.script = {code};
            f.flaky.calls = 0;
            EXPECT_EQ(store.get("a").error().code(), code);
            EXPECT_EQ(f.flaky.calls, 1);
        }
        f.flaky.script.assign(20, Code::kUnavailable);
        f.flaky.calls = 0;
        EXPECT_EQ(store.list("", "", 1).error().code(), Code::kUnavailable);
        EXPECT_EQ(f.flaky.calls, f.policy.max_attempts);
    }
    f.policy.max_attempts = 1'000'000;
    f.policy.budget_us = 1'000'000;
    auto store = f.store();
    const int64_t start = f.clock.steady;
    f.flaky.script.assign(1000, Code::kUnavailable);
    EXPECT_FALSE(store.head("a"));
    EXPECT_LE(f.clock.steady - start, f.policy.budget_us);
    f.running = false;
    f.flaky.script = {Code::kUnavailable};
    f.flaky.calls = 0;
    EXPECT_FALSE(store.remove("a"));
    EXPECT_EQ(f.flaky.calls, 1) << "a program that ends must not wait";
}

}  // namespace
}  // namespace farshore
