#include "agent/kept_tap.h"

#include <gtest/gtest.h>

#include "compute/test_support.h"
#include "os/unix_stream.h"

namespace farshore {
namespace {

class KeptTapTest : public testing::Test {
  protected:
    NbdServerOptions options() {
        return {
            .run_directory = directory_.path(), .plugin = "memory", .parameters = {{"size", "1M"}}};
    }
    void SetUp() override {
        const auto started = tap_.start(options());
        ASSERT_TRUE(started) << started.error().to_string();
    }
    // Somebody else does; returns when it has ended.
    void end_it() {
        auto server = NbdServer::adopt(directory_.path());
        ASSERT_TRUE(server);
        ASSERT_TRUE(server->kill());
    }
    bool answers() { return nbd_server_greets(directory_ / "nbd.sock", 5000).has_value(); }
    void TearDown() override { EXPECT_TRUE(NbdServer::clean_up(directory_.path())); }

    const TestDirectory directory_;
    KeptTap tap_;
};

// Broken if a tap that ended were not replaced, or were replaced when nobody asked to keep it.
TEST_F(KeptTapTest, OneThatEndedIsReplacedWhenItIsKept) {
    end_it();
    EXPECT_FALSE(tap_.alive());
    EXPECT_FALSE(tap_.ended()) << "nobody keeps it";
    EXPECT_TRUE(tap_.replace());
    EXPECT_FALSE(answers());

    tap_.keep(options());
    EXPECT_TRUE(tap_.ended());
    ASSERT_TRUE(tap_.replace());
    EXPECT_TRUE(answers());
    EXPECT_TRUE(tap_.alive());
    EXPECT_FALSE(tap_.ended());
    EXPECT_EQ(tap_.restarts(), 1u);
    end_it();
    ASSERT_TRUE(tap_.replace()) << "it is kept but once";
    EXPECT_TRUE(answers());
}

// Broken if one that hangs stayed, or two ran.
TEST_F(KeptTapTest, OneThatRunsIsEndedBeforeTheNext) {
    tap_.keep(options());
    auto first = NbdServer::adopt(directory_.path());
    ASSERT_TRUE(first);
    ASSERT_TRUE(tap_.replace());
    EXPECT_FALSE(first->alive());
    EXPECT_TRUE(answers());
}

// Broken if a worker that saw the old one dead ended the one that the watcher had started since.
TEST_F(KeptTapTest, OneThatRunsByThenIsNotStartedAnew) {
    end_it();
    tap_.keep(options());
    ASSERT_TRUE(tap_.replace());
    auto watchers = NbdServer::adopt(directory_.path());
    ASSERT_TRUE(watchers);
    ASSERT_TRUE(tap_.start(options()));
    EXPECT_TRUE(watchers->alive());
    EXPECT_EQ(tap_.restarts(), 1u);
}

// Broken if the watcher started a tap that its machine's end, or a change of its disks, has taken.
TEST_F(KeptTapTest, OneThatWasLetGoIsLeftAlone) {
    tap_.keep(options());
    tap_.let_go();
    EXPECT_FALSE(tap_.kept());
    EXPECT_TRUE(answers()) << "it was ended";
    end_it();
    EXPECT_FALSE(tap_.ended());
    EXPECT_TRUE(tap_.replace());
    EXPECT_FALSE(answers());

    ASSERT_TRUE(tap_.start(options()));
    tap_.keep(options());
    ASSERT_TRUE(tap_.kill());
    EXPECT_TRUE(tap_.replace());
    EXPECT_FALSE(answers());
}

// Broken if a tap that cannot start were started over and over.
TEST_F(KeptTapTest, OneThatCannotBeReplacedIsTriedOnce) {
    NbdServerOptions broken = options();
    broken.plugin = "/no/such/plugin.so";
    tap_.keep(broken);
    EXPECT_FALSE(tap_.replace());
    EXPECT_FALSE(tap_.kept());
    EXPECT_FALSE(tap_.alive());
    EXPECT_TRUE(tap_.has_one());
    ASSERT_TRUE(tap_.start(options()));
    EXPECT_TRUE(answers());
}

}  // namespace
}  // namespace farshore
