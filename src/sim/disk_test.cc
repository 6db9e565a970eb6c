#include "sim/disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <set>

#include "sim/world.h"

namespace farshore {
namespace {

using testing::ElementsAre;
using Fate = PowerLossPolicy::Fate;

// A host with one process whose file system the tests use from outside.
struct Fixture {
    explicit Fixture(uint64_t seed)
        : world(seed), host(world.add_host("h")), p(host.add_process("p")) {
        p.start();
    }
    FileSystem& fs() { return p.file_system(); }
    std::unique_ptr<File> open(const std::string& path, OpenMode mode = OpenMode::kCreate) {
        auto file = fs().open(path, mode);
        EXPECT_TRUE(file) << path;
        return file ? std::move(*file) : nullptr;
    }
    void write(const std::string& path, ByteView data, bool sync) {
        auto file = open(path);
        EXPECT_TRUE(file->write_at(0, data));
        if (sync) {
            EXPECT_TRUE(file->sync());
        }
    }
    void lose_power(Fate data, Fate entries) {
        host.disk().set_power_loss_policy({data, entries, 200'000});
        host.lose_power();
        host.power_on();
    }
    std::string text(const std::string& path) {
        const auto bytes = host.disk().peek(path);
        return bytes ? to_text(*bytes) : "(none)";
    }
    SimWorld world;
    SimHost& host;
    SimProcess& p;
};

Bytes filled(size_t n, uint8_t with) { return Bytes(n, with); }

// Broken: plain file semantics: sparse reads, short reads at the end only, holes, truncation.
TEST(SimDisk, RandomOperationsMatchAModelInMemory) {
    for (uint64_t seed = 1; seed <= 60; ++seed) {
        Fixture f(seed);
        auto file = f.open("f");
        Bytes model;
        Rng rng(seed);
        for (int i = 0; i < 200; ++i) {
            const uint64_t at = rng.below(40'000), n = rng.below(12'000);
            switch (rng.below(6)) {
                case 0:
                case 1: {
                    Bytes data(n);
                    rng.fill(data);
                    ASSERT_TRUE(file->write_at(at, data));
                    if (n > 0 && model.size() < at + n) model.resize(at + n);
                    std::copy(data.begin(), data.end(),
                              model.begin() + static_cast<ptrdiff_t>(n ? at : 0));
                    break;
                }
                case 2:
                    ASSERT_TRUE(file->truncate(at));
                    model.resize(at);
                    break;
                case 3:
                    ASSERT_TRUE(file->punch_hole(at, n));
                    for (uint64_t b = at; b < std::min<uint64_t>(at + n, model.size()); ++b)
                        model[b] = 0;
                    break;
                case 4:
                    ASSERT_TRUE(file->sync());
                    break;
                default: {
                    Bytes out(n, 0xaa);
                    const auto got = file->read_at(at, out);
                    ASSERT_TRUE(got);
                    const uint64_t want =
                        at >= model.size() ? 0 : std::min<uint64_t>(n, model.size() - at);
                    ASSERT_EQ(*got, want) << "seed " << seed;
                    ASSERT_TRUE(std::equal(out.begin(), out.begin() + static_cast<ptrdiff_t>(want),
                                           model.begin() + static_cast<ptrdiff_t>(want ? at : 0)))
                        << "seed " << seed;
                }
            }
            ASSERT_EQ(*file->size(), model.size());
        }
        EXPECT_EQ(*f.host.disk().peek("f"), model) << "seed " << seed;
        ASSERT_TRUE(file->sync());
        ASSERT_TRUE(f.fs().sync_directory(""));
        EXPECT_EQ(*f.host.disk().peek_durable("f"), model) << "seed " << seed;
        f.lose_power(Fate::kDropped, Fate::kDropped);
        EXPECT_EQ(*f.host.disk().peek("f"), model) << "seed " << seed;
    }
}

// Broken: a sync that keeps nothing, or one that keeps the name as well.
TEST(SimDisk, SyncKeepsDataAndOnlyDirectorySyncKeepsTheName) {
    Fixture f(1);
    f.write("a", as_bytes("one"), true);
    ASSERT_TRUE(f.fs().sync_directory(""));
    f.write("a", as_bytes("two"), false);
    f.write("b", as_bytes("b"), true);
    f.lose_power(Fate::kDropped, Fate::kDropped);
    EXPECT_EQ(f.text("a"), "one");
    EXPECT_EQ(f.text("b"), "(none)");
}

// Broken: the parent's name is durable without anybody having said so.
TEST(SimDisk, SyncOfADirectoryDoesNotKeepItsParents) {
    Fixture f(1);
    ASSERT_TRUE(f.fs().make_directories("w/y"));
    EXPECT_TRUE(f.host.disk().peek_durable("w/y"));  // what it makes is durable
    ASSERT_TRUE(f.fs().rename("w", "x"));
    f.write("x/y/f", as_bytes("data"), true);
    ASSERT_TRUE(f.fs().sync_directory("x/y"));
    ASSERT_TRUE(f.fs().sync_directory("x"));
    EXPECT_FALSE(f.host.disk().peek_durable("x/y/f"));
    ASSERT_TRUE(f.fs().sync_directory("/"));
    EXPECT_EQ(to_text(*f.host.disk().peek_durable("x/y/f")), "data");
}

// Broken: after power loss a sector holds something that was never written to it, synced data is
// gone, or some legal outcome (kept, dropped, torn, size without data) never happens.
TEST(SimDisk, EachUnsyncedSectorIsKeptDroppedOrTorn) {
    uint64_t kept = 0, dropped = 0, torn = 0, short_size = 0, zero_tail = 0;
    for (uint64_t seed = 1; seed <= 400; ++seed) {
        Fixture f(seed);
        auto file = f.open("f");
        ASSERT_TRUE(file->write_at(0, filled(16 * 512, 1)));
        ASSERT_TRUE(file->sync());
        ASSERT_TRUE(f.fs().sync_directory(""));
        ASSERT_TRUE(file->write_at(4 * 512, filled(20 * 512, 2)));
        file.reset();
        f.lose_power(Fate::kMixed, Fate::kMixed);
        const Bytes now = *f.host.disk().peek("f");
        ASSERT_GE(now.size(), 16u * 512);
        ASSERT_LE(now.size(), 24u * 512);
        short_size += now.size() < 24 * 512;
        for (size_t s = 0; s < now.size() / 512; ++s) {
            const std::set<uint8_t> values(now.begin() + static_cast<ptrdiff_t>(s * 512),
                                           now.begin() + static_cast<ptrdiff_t>(s * 512 + 512));
            if (s < 4) {
                ASSERT_THAT(values, ElementsAre(1)) << "seed " << seed;
            } else if (values.size() > 1) {
                ++torn;
                ASSERT_TRUE(values.contains(2));
            } else if (*values.begin() == 2) {
                ++kept;
            } else if (*values.begin() == 1) {
                ASSERT_LT(s, 16u);
                ++dropped;
            } else {
                ASSERT_GE(s, 16u) << "seed " << seed;
                ++zero_tail;
            }
        }
    }
    EXPECT_GT(kept, 500u);
    EXPECT_GT(dropped, 500u);
    EXPECT_GT(torn, 100u);
    EXPECT_GT(short_size, 100u);
    EXPECT_GT(zero_tail, 50u);
}

// Broken: a truncation that reaches the disk by halves, or never, or always.
TEST(SimDisk, UnsyncedTruncationHappensOrNot) {
    int happened = 0;
    for (uint64_t seed = 1; seed <= 100; ++seed) {
        Fixture f(seed);
        f.write("f", filled(20'000, 1), true);
        ASSERT_TRUE(f.fs().sync_directory(""));
        auto file = f.open("f");
        ASSERT_TRUE(file->truncate(5'000));
        file.reset();
        f.lose_power(Fate::kMixed, Fate::kMixed);
        const Bytes now = *f.host.disk().peek("f");
        ASSERT_TRUE(now == filled(5'000, 1) || now == filled(20'000, 1)) << "seed " << seed;
        happened += now.size() == 5'000;
    }
    EXPECT_GT(happened, 20);
    EXPECT_LT(happened, 80);
}

// Broken: the usual way to replace a file is not safe in the simulation, or it is safe without its
// two syncs.
TEST(SimDisk, ReplaceByRenameIsAtomicOnlyWithItsSyncs) {
    int without_sync_broken = 0;
    for (const bool sync : {true, false}) {
        for (uint64_t seed = 1; seed <= 200; ++seed) {
            Fixture f(seed);
            f.write("f", filled(3000, 1), true);
            ASSERT_TRUE(f.fs().sync_directory(""));
            f.write("f.tmp", filled(3000, 2), sync);
            ASSERT_TRUE(f.fs().rename("f.tmp", "f"));
            f.lose_power(Fate::kDrawn, Fate::kDrawn);
            const auto now = f.host.disk().peek("f");
            ASSERT_TRUE(now) << "seed " << seed;  // never neither
            const bool whole = *now == filled(3000, 1) || *now == filled(3000, 2);
            if (sync) {
                ASSERT_TRUE(whole) << "seed " << seed;
            } else {
                without_sync_broken += !whole;
            }
        }
    }
    EXPECT_GT(without_sync_broken, 20);
}

// Broken: a name that moved between directories is in both or in none after the target was synced.
TEST(SimDisk, RenameBetweenDirectoriesLeavesOneName) {
    for (uint64_t seed = 1; seed <= 100; ++seed) {
        Fixture f(seed);
        ASSERT_TRUE(f.fs().make_directories("a"));
        ASSERT_TRUE(f.fs().make_directories("b"));
        ASSERT_TRUE(f.fs().sync_directory(""));
        f.write("a/f", as_bytes("x"), true);
        ASSERT_TRUE(f.fs().rename("a/f", "b/f"));
        const bool sync = seed % 2 == 0;
        if (sync) {
            ASSERT_TRUE(f.fs().sync_directory("b"));
        }
        f.lose_power(Fate::kDrawn, Fate::kDrawn);
        const int names = *f.fs().exists("a/f") + *f.fs().exists("b/f");
        ASSERT_LE(names, 1) << "seed " << seed;
        if (sync) {
            ASSERT_TRUE(*f.fs().exists("b/f")) << "seed " << seed;
        }
    }
}

// Broken: links are not write-once, or removing one name frees the other's content.
TEST(SimDisk, LinksAndRemovesAndListing) {
    Fixture f(1);
    ASSERT_TRUE(f.fs().make_directories("d/sub"));
    f.write("d/tmp", as_bytes("v"), true);
    ASSERT_TRUE(f.fs().link("d/tmp", "d/name"));
    EXPECT_EQ(f.fs().link("d/tmp", "d/name").error().code(), Code::kAlreadyExists);
    ASSERT_TRUE(f.fs().remove("d/tmp"));
    EXPECT_EQ(f.text("d/name"), "v");
    EXPECT_THAT(*f.fs().list("d"), ElementsAre("name", "sub/"));
    EXPECT_EQ(f.fs().list("e").error().code(), Code::kNotFound);
    EXPECT_EQ(f.fs().remove("d/tmp").error().code(), Code::kNotFound);
    EXPECT_FALSE(f.fs().remove("d"));
    EXPECT_EQ(f.fs().open("d/name", OpenMode::kCreateNew).error().code(), Code::kAlreadyExists);
    EXPECT_EQ(f.fs().open("d/none", OpenMode::kReadWrite).error().code(), Code::kNotFound);
    EXPECT_FALSE(*f.fs().exists("d/none/below"));
    EXPECT_THAT(f.host.disk().files_below(""), ElementsAre("d/name"));
}

// Broken: removed files come back whole although their directory was synced, or never do without.
TEST(SimDisk, UnsyncedRemoveMayComeBack) {
    int back = 0;
    for (uint64_t seed = 1; seed <= 60; ++seed) {
        Fixture f(seed);
        f.write("f", as_bytes("x"), true);
        ASSERT_TRUE(f.fs().sync_directory(""));
        ASSERT_TRUE(f.fs().remove("f"));
        EXPECT_FALSE(*f.fs().exists("f"));
        f.lose_power(Fate::kDrawn, Fate::kDrawn);
        back += *f.fs().exists("f");
        if (!*f.fs().exists("f")) continue;
        ASSERT_EQ(f.text("f"), "x");
        ASSERT_TRUE(f.fs().remove("f"));
        ASSERT_TRUE(f.fs().sync_directory(""));
        f.lose_power(Fate::kDrawn, Fate::kDrawn);
        ASSERT_FALSE(*f.fs().exists("f"));
    }
    EXPECT_GT(back, 10);
    EXPECT_LT(back, 50);
}

// Broken: a full disk that is not full, or one that cannot be emptied again.
TEST(SimDisk, CapacityIsEnforcedAndFreed) {
    Fixture f(1);
    f.host.disk().set_capacity_bytes(64 << 10);
    auto file = f.open("f");
    ASSERT_TRUE(file->write_at(0, filled(48 << 10, 1)));
    EXPECT_EQ(*f.fs().free_bytes(""), 16u << 10);
    EXPECT_EQ(file->write_at(48 << 10, filled(20 << 10, 2)).error().code(), Code::kNoSpace);
    EXPECT_TRUE(file->write_at(0, filled(48 << 10, 3)));  // nothing new is needed
    ASSERT_TRUE(file->punch_hole(0, 32 << 10));
    EXPECT_TRUE(f.fs().open("g", OpenMode::kCreate));
    ASSERT_TRUE(f.fs().remove("f"));
    EXPECT_GT(f.host.disk().used_bytes(), 0u);  // still open
    file.reset();
    EXPECT_EQ(f.host.disk().used_bytes(), 0u);
}

// Broken: code that syncs again after a failed sync and believes it, is right in the simulation.
TEST(SimDisk, AfterAFailedSyncTheDataIsCleanAndLost) {
    int lost = 0, read_old = 0;
    for (uint64_t seed = 1; seed <= 60; ++seed) {
        Fixture f(seed);
        auto file = f.open("f");
        ASSERT_TRUE(file->write_at(0, filled(4096, 1)));
        ASSERT_TRUE(file->sync());
        ASSERT_TRUE(f.fs().sync_directory(""));
        ASSERT_TRUE(file->write_at(0, filled(4096, 2)));
        f.host.disk().fail_next(DiskOp::kSync, "f", EIO);
        EXPECT_EQ(file->sync().error().code(), Code::kIo);
        ASSERT_TRUE(file->sync());  // as Linux: the error was reported once
        read_old += f.host.disk().peek("f")->front() == 1;
        file.reset();
        f.lose_power(Fate::kDropped, Fate::kDropped);
        lost += *f.host.disk().peek("f") != filled(4096, 2);
    }
    EXPECT_GT(lost, 50);
    EXPECT_GT(read_old, 1);
}

// Broken: scripted faults hit the wrong operation, path or count.
TEST(SimDisk, ScriptedFailures) {
    Fixture f(1);
    auto a = f.open("dir-a"), b = f.open("dir-b");
    f.host.disk().fail_next(DiskOp::kWrite, "dir-a", ENOSPC, 2, 1);
    EXPECT_TRUE(b->write_at(0, as_bytes("x")));
    EXPECT_TRUE(a->write_at(0, as_bytes("x")));
    EXPECT_EQ(a->write_at(0, as_bytes("x")).error().code(), Code::kNoSpace);
    EXPECT_EQ(a->write_at(0, as_bytes("x")).error().error_number(), ENOSPC);
    EXPECT_TRUE(a->write_at(0, as_bytes("x")));
    f.host.disk().fail_next(DiskOp::kRead, "", EIO);
    Bytes out(1);
    EXPECT_EQ(a->read_at(0, out).error().code(), Code::kIo);
    EXPECT_EQ(f.host.disk().counters().of(DiskOp::kWrite), 5u);
}

// Broken: writes that die in the middle are always whole or always absent.
TEST(SimDisk, AWriteMayBeCutBetweenPagesByAKill) {
    std::set<uint64_t> sizes;
    for (uint64_t seed = 1; seed <= 60; ++seed) {
        Fixture f(seed);
        auto file = f.open("f");
        f.p.plan_death({f.p.operations() + 1, DeathPlan::Moment::kDuring, false});
        f.p.run([&] { (void)file->write_at(100, filled(3 * 4096, 1)); });
        EXPECT_FALSE(f.p.alive());
        sizes.insert(f.host.disk().peek("f")->size());
    }
    EXPECT_THAT(sizes, ElementsAre(0, 4096, 2 * 4096, 3 * 4096, 3 * 4096 + 100));
}

// Broken: big sparse files cost memory or time by their size.
TEST(SimDisk, SparseFilesAreCheap) {
    Fixture f(1);
    auto file = f.open("f");
    ASSERT_TRUE(file->truncate(64ull << 40));
    ASSERT_TRUE(file->write_at(63ull << 40, as_bytes("end")));
    ASSERT_TRUE(file->punch_hole(0, 1 << 20));
    ASSERT_TRUE(file->sync());
    EXPECT_EQ(f.host.disk().used_bytes(), 4096u);
    Bytes out(3);
    ASSERT_TRUE(file->read_at(63ull << 40, out));
    EXPECT_EQ(to_text(out), "end");
}

// Broken: bit rot that a process cannot see, or that a power loss mends.
TEST(SimDisk, FlippedBitsAreAtRest) {
    Fixture f(1);
    f.write("f", as_bytes("a"), true);
    ASSERT_TRUE(f.fs().sync_directory(""));
    ASSERT_TRUE(f.host.disk().flip_bit("f", 1));
    EXPECT_EQ(f.text("f"), "c");
    f.lose_power(Fate::kDropped, Fate::kDropped);
    EXPECT_EQ(f.text("f"), "c");
}

}  // namespace
}  // namespace farshore
