#include "agent/kept_tap.h"

#include <gtest/gtest.h>

#include <atomic>

#include "compute/test_support.h"
#include "os/unix_stream.h"

namespace farshore {
namespace {

class SetClock final : public Clock {
  public:
    TimePoint now() const override { return {us}; }
    int64_t steady_us() const override { return us; }
    std::atomic<int64_t> us = 1'000'000;
};

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
    // By somebody who has seen the newest one.
    Status replace() { return tap_.replace(tap_.number()); }
    bool answers() { return nbd_server_greets(directory_ / "nbd.sock", 5000).has_value(); }
    void TearDown() override { EXPECT_TRUE(NbdServer::clean_up(directory_.path())); }

    const TestDirectory directory_;
    SetClock clock_;
    KeptTap tap_{clock_};
};

// Broken if a tap that ended were not replaced, or were replaced when nobody asked to keep it.
TEST_F(KeptTapTest, OneThatEndedIsReplacedWhenItIsKept) {
    end_it();
    EXPECT_FALSE(tap_.alive());
    EXPECT_FALSE(tap_.ended()) << "nobody keeps it";
    EXPECT_TRUE(replace());
    EXPECT_FALSE(answers());

    tap_.keep(options());
    EXPECT_TRUE(tap_.ended());
    ASSERT_TRUE(replace());
    EXPECT_TRUE(answers());
    EXPECT_TRUE(tap_.alive());
    EXPECT_FALSE(tap_.ended());
    EXPECT_EQ(tap_.restarts(), 1u);
    end_it();
    ASSERT_TRUE(replace()) << "it is kept but once";
    EXPECT_TRUE(answers());
}

// Broken if one that hangs stayed, or two ran.
TEST_F(KeptTapTest, OneThatRunsIsEndedBeforeTheNext) {
    tap_.keep(options());
    auto first = NbdServer::adopt(directory_.path());
    ASSERT_TRUE(first);
    ASSERT_TRUE(replace());
    EXPECT_FALSE(first->alive());
    EXPECT_TRUE(answers());
}

// Broken if a worker that saw the old one dead ended the one that the watcher had started since.
TEST_F(KeptTapTest, OneThatRunsByThenIsNotStartedAnew) {
    end_it();
    tap_.keep(options());
    ASSERT_TRUE(replace());
    auto watchers = NbdServer::adopt(directory_.path());
    ASSERT_TRUE(watchers);
    ASSERT_TRUE(tap_.start(options()));
    EXPECT_TRUE(watchers->alive());
    EXPECT_EQ(tap_.restarts(), 1u);
}

// Broken if the watcher, which saw the old one dead, ended the one that the worker has started
// since.
TEST_F(KeptTapTest, OneThatWasStartedSinceIsNotReplaced) {
    const uint64_t seen = tap_.number();
    end_it();
    tap_.keep(options());
    ASSERT_TRUE(tap_.start(options()));
    auto workers = NbdServer::adopt(directory_.path());
    ASSERT_TRUE(workers);
    ASSERT_TRUE(tap_.replace(seen));
    EXPECT_TRUE(workers->alive());
}

// Broken if a tap that ends again and again were started, and warned about, many times a second, or
// one that has ended once made its machine wait.
TEST_F(KeptTapTest, OneThatEndsAgainAndAgainIsStartedAtAPace) {
    tap_.keep(options());
    for (uint32_t i = 0; i < kTapStartsAtOnce; ++i) {
        end_it();
        EXPECT_TRUE(tap_.ended());
        ASSERT_TRUE(tap_.start(options()));
    }
    for (int i = 0; i < 2; ++i) {
        end_it();
        EXPECT_FALSE(tap_.ended()) << "the watcher is not to start it yet";
        const auto early = tap_.start(options());
        ASSERT_FALSE(early);
        EXPECT_EQ(early.error().code(), Code::kUnavailable);
        EXPECT_NE(early.error().remedy().find("nbd.log"), std::string::npos);
        clock_.us += kTapPaceUs;
        EXPECT_TRUE(tap_.ended());
        ASSERT_TRUE(tap_.start(options()));
        EXPECT_TRUE(answers());
    }
    clock_.us += kTapCalmUs;
    end_it();
    ASSERT_TRUE(tap_.start(options()));
    end_it();
    EXPECT_TRUE(tap_.start(options())) << "it went well for a while";
}

// Broken if the watcher started a tap that its machine's end, or a change of its disks, has taken.
TEST_F(KeptTapTest, OneThatWasLetGoIsLeftAlone) {
    tap_.keep(options());
    tap_.let_go();
    EXPECT_FALSE(tap_.kept());
    EXPECT_TRUE(answers()) << "it was ended";
    end_it();
    EXPECT_FALSE(tap_.ended());
    EXPECT_TRUE(replace());
    EXPECT_FALSE(answers());

    ASSERT_TRUE(tap_.start(options()));
    tap_.keep(options());
    ASSERT_TRUE(tap_.kill());
    EXPECT_TRUE(replace());
    EXPECT_FALSE(answers());
}

// Broken if a tap that cannot start were started over and over.
TEST_F(KeptTapTest, OneThatCannotBeReplacedIsTriedOnce) {
    NbdServerOptions broken = options();
    broken.plugin = "/no/such/plugin.so";
    tap_.keep(broken);
    EXPECT_FALSE(replace());
    EXPECT_FALSE(tap_.kept());
    EXPECT_FALSE(tap_.alive());
    EXPECT_TRUE(tap_.has_one());
    ASSERT_TRUE(tap_.start(options()));
    EXPECT_TRUE(answers());
}

}  // namespace
}  // namespace farshore
