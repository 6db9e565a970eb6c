#include "compute/guest_agent.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "compute/test_support.h"

namespace farshore {
namespace {

using testing::HasSubstr;
constexpr int kLimitMs = 10'000;

// The real agent, on this machine instead of inside a guest.
class RealAgent : public testing::Test {
  protected:
    void SetUp() override {
        process_ = std::make_unique<TestProcess>(
            std::vector<std::string>{"qemu-ga", "-m", "unix-listen", "-p", socket_, "-t",
                                     directory_.path(), "-f", directory_ / "pid"},
            directory_ / "log");
        ASSERT_TRUE(wait_for_socket(socket_)) << tail_of_file(directory_ / "log");
    }
    Result<GuestExit> run(const std::string& program, const std::vector<std::string>& arguments,
                          size_t output_bytes = 1000) {
        FS_ASSIGN(GuestAgent agent, GuestAgent::connect(socket_, kLimitMs));
        FS_ASSIGN(const int64_t pid, agent.start_program(program, arguments, {"FS=x"}, kLimitMs));
        Result<std::optional<GuestExit>> ended = std::optional<GuestExit>();
        wait_until(kLimitMs, 10, [&] {
            ended = agent.program_exit(pid, output_bytes, kLimitMs);
            return !ended || ended->has_value();
        });
        FS_TRY(ended);
        if (!*ended) return fail(Code::kTimeout, "it still runs");
        return **ended;
    }
    TestDirectory directory_;
    std::string socket_ = directory_ / "qga.sock";
    std::unique_ptr<TestProcess> process_;
};

// Broken if a program inside did not get what it is told, or its end or words got lost.
TEST_F(RealAgent, RunsProgramsInside) {
    const auto ended = run("/bin/sh", {"-c", "echo \"$0 $FS\"; echo bad >&2; exit 7", "an arg"});
    ASSERT_TRUE(ended) << ended.error().to_string();
    EXPECT_EQ(ended->code, 7);
    EXPECT_EQ(ended->output, "an arg x\nbad\n");
    const auto long_one = run("/bin/sh", {"-c", "head -c 100000 /dev/zero | tr '\\0' x"}, 100);
    ASSERT_TRUE(long_one) << long_one.error().to_string();
    EXPECT_EQ(long_one->output, std::string(100, 'x'));
    const auto killed = run("/bin/sh", {"-c", "kill -9 $$"});
    ASSERT_TRUE(killed) << killed.error().to_string();
    EXPECT_EQ(killed->signal, 9);
    EXPECT_EQ(run("/no/such/program", {}).error().code(), Code::kGuestFailed);
}

// Broken if what a client left in the channel when it was cut off spoiled what the next one asks.
// It leaves no answer unread: behind a socket, unlike in a guest, the agent ends of the reset.
TEST_F(RealAgent, StartsAfreshBehindAClientThatWasCutOff) {
    {
        auto cut = UnixStream::connect(socket_, kLimitMs);
        ASSERT_TRUE(cut);
        ASSERT_TRUE((*cut)->write_all(as_bytes("{\"exec"), kLimitMs));
    }
    auto agent = GuestAgent::connect(socket_, kLimitMs);
    ASSERT_TRUE(agent) << agent.error().to_string();
    const auto none = agent->execute("guest-no-such-thing", nullptr, kLimitMs);
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().code(), Code::kUnsupported);
    EXPECT_TRUE(agent->execute("guest-ping", nullptr, kLimitMs));
}

// Broken if a channel that nobody reads, or that says garbage, held its caller or hurt it.
TEST(GuestAgent, NobodyAndGarbageAreErrors) {
    TestDirectory directory;
    {
        const FakeMonitor silent(directory / "a.sock", "", {});
        const auto agent = GuestAgent::connect(directory / "a.sock", 50);
        ASSERT_FALSE(agent);
        EXPECT_EQ(agent.error().code(), Code::kTimeout);
        EXPECT_THAT(agent.error().remedy(), HasSubstr("installed"));
    }
    {
        const FakeMonitor garbage(directory / "b.sock", "hello\n[1]\n{\"return\": \"x\"}\n", {});
        EXPECT_EQ(GuestAgent::connect(directory / "b.sock", 50).error().code(), Code::kTimeout);
    }
    EXPECT_EQ(GuestAgent::connect(directory / "none.sock", 50).error().code(), Code::kNotFound);
}

TEST(GuestAgentFramer, CutsAnswersOutOfTheStream) {
    GuestAgentFramer framer;
    std::vector<nlohmann::json> out;
    ASSERT_TRUE(framer.feed(as_bytes("{\"return\": 1}\n{\"half"), out));
    ASSERT_TRUE(framer.feed(as_bytes("\xff{\"return\":"), out));
    ASSERT_TRUE(framer.feed(as_bytes(" 2}\r\n\n"), out));
    ASSERT_EQ(out.size(), 2u);
    EXPECT_EQ(out[1]["return"], 2);
    EXPECT_EQ(framer.feed(as_bytes("7\n"), out).error().code(), Code::kMalformed);
    GuestAgentFramer deep;
    EXPECT_EQ(deep.feed(as_bytes("{\"a\":" + std::string(1000, '[') + "\n"), out).error().code(),
              Code::kMalformed);
}

}  // namespace
}  // namespace farshore
