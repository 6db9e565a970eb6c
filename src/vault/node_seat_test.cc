#include "vault/node_seat.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "os/process.h"
#include "os/real.h"
#include "os/waiting.h"
#include "vault/drill_leftovers.h"
#include "vault/test_site.h"

namespace farshore {
namespace {

VaultNode node(const char* name, uint64_t machines, int64_t silent_us) {
    return {name, "", "", {}, machines, silent_us};
}

// Broken if two nodes gave the lease to each other for ever, or one gave it to a node that is away.
TEST(NodeSeat, YieldsToTheNodeOfTheMachinesOnly) {
    EXPECT_FALSE(should_yield({}, "a"));
    EXPECT_FALSE(should_yield({node("a", 0, 0), node("b", 0, 0)}, "a"));
    EXPECT_TRUE(should_yield({node("a", 0, 0), node("b", 1, 0)}, "a"));
    EXPECT_FALSE(should_yield({node("a", 0, 0), node("b", 1, 0)}, "b"));
    EXPECT_FALSE(should_yield({node("a", 1, 0), node("b", 5, 0)}, "a"));
    EXPECT_FALSE(should_yield({node("a", 0, 0), node("b", 1, kNodeAwayUs)}, "a"));
}

// Broken if a node had another name after a restart: it would wait for its own lease to end.
TEST(NodeSeat, TheNameStays) {
    PosixFileSystem files;
    RealRandom random;
    const std::string directory = fresh_directory();
    const auto name = node_name(files, random, directory + "/node");
    ASSERT_TRUE(name) << name.error().to_string();
    EXPECT_EQ(*node_name(files, random, directory + "/node"), *name);
    EXPECT_NE(*node_name(files, random, directory + "/other"), *name);
    std::filesystem::remove_all(directory);
}

// Broken if a drill's machine made its node claim the lead, or a recovered one did not.
TEST(NodeSeat, MachinesOfDrillsDoNotCount) {
    EXPECT_TRUE(is_recovered_machine("failover-0123/"));
    EXPECT_TRUE(is_recovered_machine("plan-0123/"));
    EXPECT_FALSE(is_recovered_machine("drill-0123/"));
    EXPECT_FALSE(is_recovered_machine("accelerator.json"));
}

// Broken if a node that does not lead any more kept the machines of its drills running, or ended
// others.
TEST(NodeSeat, ANodeThatDoesNotLeadEndsTheMachinesOfItsDrills) {
    PosixFileSystem files;
    const std::string directory = fresh_directory();
    EXPECT_TRUE(end_drill_machines(files, directory + "/none", directory + "/run"));
    std::map<std::string, Process> machines;
    for (const char* name : {"drill-1", "plan-2"}) {
        ASSERT_TRUE(files.make_directories(directory + "/recoveries/" + name));
        ASSERT_TRUE(files.make_directories(directory + "/run/" + name));
        ProcessOptions options;
        options.arguments = {"sleep", "1000"};
        options.die_with_parent = true;
        auto process = Process::spawn(options);
        ASSERT_TRUE(process);
        ASSERT_TRUE(
            write_pid_file(files, directory + "/run/" + name + "/qemu.pid", process->key()));
        machines.emplace(name, std::move(*process));
    }
    ASSERT_TRUE(files.make_directories(directory + "/recoveries/drill-3"));
    EXPECT_TRUE(end_drill_machines(files, directory + "/recoveries", directory + "/run"));
    EXPECT_TRUE(machines.at("drill-1").wait(10'000'000));
    EXPECT_TRUE(machines.at("plan-2").is_alive());
    EXPECT_TRUE(std::filesystem::exists(directory + "/recoveries/drill-1"));
    (void)machines.at("plan-2").terminate(0);
    std::filesystem::remove_all(directory);
}

// Broken if two seats on one database could both lead, or neither did when the one that led ended.
TEST(NodeSeat, OneOfTwoLeads) {
    if (test_postgres().empty()) GTEST_SKIP() << "needs tests/services/postgres.py";
    PosixFileSystem files;
    RealClock clock;
    const std::string directory = fresh_directory();
    NodeSeatOptions options{test_schema(directory), "a", "h:1", directory + "/none"};
    const auto start = [&](const char* name, const char* address) {
        options.name = name;
        options.address = address;
        auto seat = NodeSeat::start(options, files, clock, [] {});
        EXPECT_TRUE(seat) << seat.error().to_string();
        return std::move(*seat);
    };
    auto a = start("a", "h:1");
    while (a->epoch() == 0) pause_ms(10);
    auto b = start("b", "h:2");
    while (b->leader_address().empty()) pause_ms(10);
    EXPECT_EQ(b->leader_address(), "h:1");
    EXPECT_EQ(b->epoch(), 0u);
    EXPECT_EQ(a->leader_address(), "");
    a->step_back(60'000'000);
    EXPECT_EQ(a->epoch(), 0u);
    while (b->epoch() == 0) pause_ms(10);
    EXPECT_EQ(b->epoch(), 2u);
    while (a->leader_address().empty()) pause_ms(10);
    EXPECT_EQ(a->leader_address(), "h:2");
    b.reset();
    a = start("a", "h:1");
    while (a->epoch() == 0) pause_ms(10);
    EXPECT_EQ(a->epoch(), 3u);
    std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace farshore
