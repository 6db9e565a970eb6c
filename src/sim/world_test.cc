#include "sim/world.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "sim/disk.h"
#include "sim/object_store.h"

namespace farshore {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A run with a bit of everything in it.
std::pair<uint64_t, std::string> busy_run(uint64_t seed) {
    SimWorld world(seed);
    world.faults().enable(true);
    SimObjectStore store(world);
    store.allow_errors(true);
    SimHost& host = world.add_host("h");
    SimProcess& process = host.add_process("p", [&](SimProcess& self) {
        struct Program {
            SimProcess& self;
            std::unique_ptr<ObjectStore> store;
            std::unique_ptr<File> file;
            SimExecutor& other;
            void tick(uint64_t n) {
                const Bytes data(self.world().rng().below(5000), uint8_t(n));
                (void)file->write_at(n * 700, data);
                if (n % 3 == 0) (void)file->sync();
                (void)store->put("o/" + std::to_string(n), data);
                other.post(
                    [this, n] { self.executor().post_after_us(1000, [this, n] { tick(n + 1); }); });
            }
        };
        auto file = self.file_system().open("f", OpenMode::kCreate);
        auto program = std::make_shared<Program>(
            Program{self, store.client(self), std::move(*file), self.new_executor()});
        self.executor().post([p = program.get()] { p->tick(0); });
        return program;
    });
    process.start();
    world.run_for_us(100'000);
    host.lose_power();
    host.power_on_after_us(50'000);
    world.run_for_us(300'000);
    return {world.trace_hash(), world.trace_text()};
}

// Broken: something draws from outside the seed, so that no failure could be repeated.
TEST(SimWorld, OneSeedIsOneRun) {
    for (uint64_t seed = 1; seed <= 20; ++seed) {
        const auto a = busy_run(seed), b = busy_run(seed);
        EXPECT_EQ(a.first, b.first) << "seed " << seed;
        EXPECT_EQ(a.second, b.second) << "seed " << seed;
        EXPECT_NE(a.first, busy_run(seed + 100).first) << "seed " << seed;
    }
}

// Broken: events out of order, or time that jumps past what is asked for.
TEST(SimWorld, TimeMovesWithEvents) {
    SimWorld world(1);
    std::vector<int64_t> seen;
    world.after_us(300, [&] { seen.push_back(world.now_us()); });
    world.after_us(100, [&] {
        seen.push_back(world.now_us());
        world.after_us(50, [&] { seen.push_back(world.now_us()); });
    });
    EXPECT_FALSE(world.run_until([&] { return seen.size() == 3; }, 200));
    EXPECT_EQ(world.now_us(), 200);
    EXPECT_TRUE(world.run_until([&] { return seen.size() == 3; }, 1000));
    EXPECT_THAT(seen, ElementsAre(100, 150, 300));
    EXPECT_FALSE(world.step());
    world.run_for_us(700);
    EXPECT_EQ(world.now_us(), 1000);
}

// Broken: a cancelled timer runs, or one far away is taken for the next one.
TEST(SimWorld, CancelledTimersDoNotRunNorHideTheLimit) {
    SimWorld world(1);
    SimProcess& p = world.add_host("h").add_process("p");
    p.start();
    int ran = 0;
    const auto soon = p.executor().post_after_us(10, [&] { ran += 1; });
    p.executor().post_after_us(5'000, [&] { ran += 10; });
    p.executor().cancel(soon);
    p.executor().cancel(soon);
    p.executor().cancel(12345);
    world.run_for_us(100);
    EXPECT_EQ(ran, 0);
    world.run_for_us(10'000);
    EXPECT_EQ(ran, 10);
    // The slot is used again; the old id must not reach the new timer.
    p.executor().post_after_us(10, [&] { ran += 100; });
    p.executor().cancel(soon);
    world.run_for_us(100);
    EXPECT_EQ(ran, 110);
}

// Broken: an executor that reorders posts, or one where a slow task does not hold up the next.
TEST(SimExecutor, PostsKeepOrderAndSlowTasksDelayTheRest) {
    for (uint64_t seed = 1; seed < 50; ++seed) {
        SimWorld world(seed);
        SimProcess& p = world.add_host("h").add_process("p");
        p.start();
        std::vector<int> order;
        int64_t started_us = 0;
        for (int i = 0; i < 20; ++i)
            p.executor().post([&, i] {
                order.push_back(i);
                if (i == 3) world.consume_us(10'000);
                if (i == 4) started_us = world.now_us();
            });
        world.run_for_us(1'000'000);
        ASSERT_TRUE(std::ranges::is_sorted(order)) << "seed " << seed;
        ASSERT_EQ(order.size(), 20u);
        EXPECT_GE(started_us, 10'000) << "seed " << seed;
    }
}

// Broken: executors of one process always interleave in the same way, so no race is ever found.
TEST(SimExecutor, ExecutorsInterleaveDifferently) {
    std::set<std::string> orders;
    for (uint64_t seed = 1; seed < 40; ++seed) {
        SimWorld world(seed);
        SimProcess& p = world.add_host("h").add_process("p");
        p.start();
        SimExecutor& other = p.new_executor();
        std::string order;
        for (int i = 0; i < 4; ++i) {
            p.executor().post([&] { order += 'a'; });
            other.post([&] { order += 'b'; });
        }
        world.run_for_us(1'000);
        orders.insert(order);
    }
    EXPECT_GT(orders.size(), 10u);
}

// Broken: a steady clock that goes back, a wall clock that cannot, or timers that fire early.
TEST(SimClock, SteadyNeverGoesBackAndTheWallMay) {
    SimWorld world(3);
    SimHost& host = world.add_host("h");
    SimProcess& p = host.add_process("p");
    p.start();
    SimExecutor& other = p.new_executor();
    const Clock& clock = p.clock();
    int64_t last_us = clock.steady_us();
    const auto check = [&] {
        EXPECT_GE(clock.steady_us(), last_us);
        last_us = clock.steady_us();
    };
    p.executor().post([&] {
        world.consume_us(5'000);
        check();
    });
    other.post_after_us(100, [&] {  // runs while the first still consumes
        check();
        const int64_t asked_us = clock.steady_us();
        other.post_after_us(1'000, [&, asked_us] {
            check();
            EXPECT_GE(clock.steady_us() - asked_us, 1'000);
        });
    });
    world.run_for_us(20'000);
    const TimePoint before = clock.now();
    host.clock().jump_wall_us(-3'600'000'000);
    EXPECT_LT(clock.now(), before);
    check();
}

struct Probe {
    Probe(SimProcess& in, int* count, std::unique_ptr<File> opened)
        : self(in), destroyed(count), file(std::move(opened)) {}
    Probe(const Probe&) = delete;
    SimProcess& self;
    int* destroyed;
    std::unique_ptr<File> file;
    ~Probe() {
        ++*destroyed;
        // A destructor of a dead program: no effect, no exception.
        EXPECT_FALSE(file->write_at(0, as_bytes("late")));
        EXPECT_FALSE(self.file_system().open("made-by-the-dead", OpenMode::kCreate));
    }
};

// Broken: a killed process lives on in its tasks, timers or destructors.
TEST(SimProcess, NothingOfALifeHappensAfterAKill) {
    SimWorld world(5);
    SimHost& host = world.add_host("h");
    int destroyed = 0, ticks = 0;
    SimProcess& p = host.add_process("p", [&](SimProcess& self) {
        auto file = self.file_system().open("f", OpenMode::kCreate);
        EXPECT_TRUE((*file)->write_at(0, as_bytes("live")));
        self.executor().post_after_us(10'000, [&] { ++ticks; });
        return std::make_shared<Probe>(self, &destroyed, std::move(*file));
    });
    p.start();
    world.run_for_us(5'000);
    ASSERT_NE(p.program<Probe>(), nullptr);
    p.kill();
    EXPECT_EQ(destroyed, 1);
    EXPECT_EQ(p.program<Probe>(), nullptr);
    p.executor().post([&] { ++ticks; });
    world.run_for_us(50'000);
    EXPECT_EQ(ticks, 0);
    EXPECT_EQ(to_text(*host.disk().peek("f")), "live");  // kill -9 loses no file content
    EXPECT_FALSE(host.disk().peek("made-by-the-dead"));
    p.start();
    world.run_for_us(50'000);
    EXPECT_EQ(ticks, 1);
    EXPECT_EQ(p.life(), 2u);
}

// Broken: there are places between two operations where a process cannot die, or it dies elsewhere.
TEST(SimProcess, DiesAtTheOperationThatWasPlanned) {
    using Moment = DeathPlan::Moment;
    for (const Moment moment : {Moment::kBefore, Moment::kAfter}) {
        for (uint64_t k = 1; k <= 6; ++k) {
            SimWorld world(k);
            SimHost& host = world.add_host("h");
            SimProcess& p = host.add_process("p");
            p.start();
            p.plan_death({k, moment, false});
            std::string reached;
            const bool survived = p.run([&] {
                auto file = p.file_system().open("f", OpenMode::kCreate);
                reached += "1";
                (void)(*file)->write_at(0, as_bytes("a"));
                reached += "2";
                (void)(*file)->write_at(1, as_bytes("b"));
                reached += "3";
                (void)(*file)->sync();
                reached += "4";
                (void)p.file_system().rename("f", "g");
                reached += "5";
            });
            EXPECT_EQ(survived, k == 6);
            EXPECT_EQ(reached, std::string("12345").substr(0, k - 1));
            const uint64_t done = moment == Moment::kAfter ? k : k - 1;
            const auto f = host.disk().peek("f"), g = host.disk().peek("g");
            EXPECT_EQ(g.has_value(), done >= 5);
            if (done >= 1 && done < 5) {
                EXPECT_EQ(to_text(*f),
                          std::string("ab").substr(0, std::min<uint64_t>(done - 1, 2)));
            }
        }
    }
}

// Broken: an exception of a planned death that reaches a destructor ends the test program.
TEST(SimProcess, DyingInADestructorWhileUnwindingIsQuiet) {
    SimWorld world(1);
    SimHost& host = world.add_host("h");
    SimProcess& p = host.add_process("p");
    p.start();
    struct WritesAtEnd {
        File& file;
        ~WritesAtEnd() { (void)file.write_at(0, as_bytes("end")); }
    };
    p.plan_death({2, DeathPlan::Moment::kBefore, true});
    EXPECT_FALSE(p.run([&] {
        auto file = p.file_system().open("f", OpenMode::kCreate);
        const WritesAtEnd guard{**file};
        (void)(*file)->sync();
        FAIL() << "the sync returned";
    }));
    EXPECT_FALSE(host.up());
}

// Broken: the death of one process unwinds another one's code, or a caller on a dead host goes on.
TEST(SimProcess, ACallIntoAnotherProcessIsABorderOfDeath) {
    SimWorld world(1);
    SimHost& near = world.add_host("near");
    SimProcess& caller = near.add_process("caller");
    SimProcess& neighbour = near.add_process("neighbour");
    SimProcess& far = world.add_host("far").add_process("far");
    for (SimProcess* p : {&caller, &neighbour, &far}) p->start();
    far.plan_death({1, DeathPlan::Moment::kBefore, true});
    neighbour.plan_death({1, DeathPlan::Moment::kBefore, true});
    bool after_far = false, after_neighbour = false;
    EXPECT_FALSE(caller.run([&] {
        EXPECT_FALSE(far.run([&] { (void)far.file_system().exists("x"); }));
        after_far = true;
        neighbour.run([&] { (void)neighbour.file_system().exists("x"); });
        after_neighbour = true;
    }));
    EXPECT_TRUE(after_far);
    EXPECT_FALSE(after_neighbour);
}

// Broken: shared memory that a killed process changes while it unwinds, or that survives power
// loss.
TEST(SimHost, SharedMemoryIsFrozenAtDeathAndGoneAfterPowerLoss) {
    SimWorld world(1);
    SimHost& host = world.add_host("h");
    SimProcess& p = host.add_process("p");
    p.start();
    const MutableByteView memory = host.shared_memory("ring", 8);
    struct MarksClean {
        MutableByteView memory;
        ~MarksClean() { memory[1] = 9; }
    };
    p.plan_death({1, DeathPlan::Moment::kBefore, false});
    p.run([&] {
        const MarksClean guard{memory};
        memory[0] = 7;
        (void)p.file_system().exists("x");
    });
    EXPECT_THAT(host.shared_memory("ring", 8), ElementsAre(7, 0, 0, 0, 0, 0, 0, 0));
    host.lose_power();
    host.power_on(false);
    EXPECT_THAT(host.shared_memory("ring", 8), ElementsAre(0, 0, 0, 0, 0, 0, 0, 0));
}

// Broken: power does not come back to what ran before.
TEST(SimHost, PowerOnStartsWhatRan) {
    SimWorld world(1);
    SimHost& host = world.add_host("h");
    int boots = 0;
    SimProcess& a = host.add_process("a", [&](SimProcess&) {
        ++boots;
        return std::shared_ptr<void>();
    });
    SimProcess& never = host.add_process("never", [&](SimProcess&) {
        boots += 100;
        return std::shared_ptr<void>();
    });
    a.start();
    world.run_for_us(1'000);
    host.lose_power();
    EXPECT_FALSE(a.alive());
    a.restart_after_us(10);  // the host is down: nothing happens
    host.power_on_after_us(1'000);
    world.run_for_us(10'000);
    EXPECT_TRUE(a.alive());
    EXPECT_FALSE(never.alive());
    EXPECT_EQ(boots, 2);
}

// Broken: a failure report without what is needed to repeat and read it.
TEST(SimWorld, ReportNamesSeedAndLastLines) {
    SimWorld world(77);
    SimProcess& p = world.add_host("h").add_process("p");
    p.start();
    p.run([&] { world.trace("my.step", 4, 2, "detail"); });
    EXPECT_THAT(world.report(), HasSubstr("seed 77"));
    EXPECT_THAT(world.report(), testing::ContainsRegex("h/p +my.step +4 +2 detail"));
}

}  // namespace
}  // namespace farshore
