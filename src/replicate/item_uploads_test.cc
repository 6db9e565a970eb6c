// Puts of one item side by side: in whatever order they end, the log is registered in its own.
#include "replicate/process_server_test_site.h"

namespace farshore::process_server_test {
namespace {

constexpr uint64_t kRecordsASegment = 16;  // 64 KiB

class SideBySide : public ProcessServerTest {
  protected:
    void SetUp() override {
        for (int i = 0; i < 12; ++i) putting_.push_back(std::make_unique<ManualTime>());
        store_.ask = [this](const std::string& name, ByteView data) -> Status {
            if (name.find(failing_) != std::string::npos && failing_times_ > 0) {
                --failing_times_;
                return fail(Code::kUnavailable, "planned");
            }
            landed_.push_back(name);
            landed_bytes_ += data.size();
            return {};
        };
        tune_ = [](ProcessServerOptions& options) {
            options.segment_payload_bytes = kRecordsASegment * 4096;
        };
        boot();
    }

    // The records of `segments` more segments; none of their puts happens yet.
    void send(Wire& wire, uint64_t segments) {
        for (uint64_t i = 0; i < segments; ++i) {
            wire.handlers.on_frame(encode_data(noise(next_, kRecordsASegment)));
            next_ += kRecordsASegment;
            time_.run();
        }
    }
    // Those that have a put under way, the one that began first at the front.
    std::vector<ManualTime*> under_way() {
        std::vector<ManualTime*> out;
        // The server takes them from the back.
        for (auto one = putting_.rbegin(); one != putting_.rend(); ++one)
            if ((*one)->busy()) out.push_back(one->get());
        return out;
    }
    void finish(ManualTime& put) {
        put.run();
        time_.run();
    }
    // Until nothing is left to put; time passes.
    void finish_all() {
        for (int round = 0; round < 400; ++round) {
            for (auto& one : putting_) one->run();
            time_.advance(50'000);
        }
    }
    void expect_all_stored(const Wire& wire) {
        EXPECT_EQ(last_ack(wire).stored.v, next_ - 1);
        const auto all = stored_sequences();
        ASSERT_EQ(all.size(), next_ - 1);
        for (size_t i = 0; i < all.size(); ++i) ASSERT_EQ(all[i], i + 1);
    }
    static std::string number(uint64_t n) { return fmt::format("log/{:016x}-", n); }

    uint64_t next_ = 1;
    std::string failing_ = "none";
    int failing_times_ = 0;
    std::vector<std::string> landed_;
    uint64_t landed_bytes_ = 0;
};

// Broken if one put at a time were under way, a segment were registered before the one in front of
// it, or acknowledged before it is registered.
TEST_F(SideBySide, PutsEndInReverseAndTheLogIsInOrder) {
    auto wire = connect("agent-1");
    send(*wire, 5);
    auto puts = under_way();
    ASSERT_EQ(puts.size(), 5u);
    for (size_t i = 5; i-- > 1;) {
        finish(*puts[i]);
        EXPECT_TRUE(landed_.back().find(number(i + 1)) != std::string::npos) << landed_.back();
        EXPECT_TRUE(vault_.segments.empty()) << "its predecessors are not there";
        EXPECT_EQ(last_ack(*wire).stored.v, 0u);
    }
    finish(*puts[0]);
    EXPECT_EQ(vault_.segments.size(), 5u);
    expect_all_stored(*wire);
}

// Broken if one that fails stopped the others, or were passed over.
TEST_F(SideBySide, OneThatFailsIsTriedAgainWhileTheOthersGoOn) {
    failing_ = number(3);
    failing_times_ = 2;
    auto wire = connect("agent-1");
    send(*wire, 5);
    for (ManualTime* put : under_way()) finish(*put);
    EXPECT_EQ(landed_.size(), 4u);
    EXPECT_EQ(vault_.segments.size(), 2u);
    EXPECT_EQ(last_ack(*wire).stored.v, 2 * kRecordsASegment);
    EXPECT_TRUE(under_way().empty()) << "not at once";
    time_.advance(kRetryFirstUs);
    ASSERT_EQ(under_way().size(), 1u) << "that one alone";
    finish_all();
    EXPECT_EQ(failing_times_, 0);
    EXPECT_EQ(landed_.size(), 5u) << "and none of the others again";
    expect_all_stored(*wire);
}

// Broken if what was under way under a lease that is lost were registered, missed afterwards, or
// sealed again before it has come to its end with more memory than there is.
TEST_F(SideBySide, ALostLeaseForgetsWhatIsUnderWay) {
    auto wire = connect("agent-1");
    send(*wire, 4);
    auto puts = under_way();
    ASSERT_EQ(puts.size(), 4u);
    vault_.epoch += 3;
    finish(*puts[0]);  // and finds itself fenced
    EXPECT_TRUE(vault_.segments.empty());
    time_.advance(kRetryFirstUs);  // the next lease
    EXPECT_EQ(under_way().size(), 3u + 4u) << "the three old ones, and all four again";
    finish(*puts[2]);
    finish(*puts[1]);
    finish(*puts[3]);
    EXPECT_TRUE(vault_.segments.empty()) << "of the old lease nothing is registered";
    finish_all();
    EXPECT_EQ(landed_.size(), 8u);
    for (const auto& segment : vault_.segments) EXPECT_EQ(segment.epoch.v, vault_.epoch);
    expect_all_stored(*wire);
}

// Broken if segments that landed under a lease that is lost counted as stored, or were missed.
TEST_F(SideBySide, WhatIsLeftOfALeaseCountsForNothing) {
    auto wire = connect("agent-1");
    send(*wire, 3);
    auto puts = under_way();
    ASSERT_EQ(puts.size(), 3u);
    finish(*puts[1]);
    finish(*puts[2]);
    vault_.epoch += 1;
    finish(*puts[0]);
    EXPECT_TRUE(vault_.segments.empty());
    EXPECT_EQ(last_ack(*wire).stored.v, 0u);
    finish_all();
    EXPECT_EQ(vault_.segments.size(), 3u);
    expect_all_stored(*wire);
}

// Broken if more were ahead of what is registered than the rebuild of a ledger allows for.
TEST_F(SideBySide, NoMoreThanSoManyAreAhead) {
    auto wire = connect("agent-1");
    send(*wire, 20);
    EXPECT_EQ(under_way().size(), kMaxSegmentsAhead);
    // That the others have landed makes no room: the first is not registered.
    auto puts = under_way();
    for (size_t i = 1; i < puts.size(); ++i) finish(*puts[i]);
    EXPECT_TRUE(under_way().size() == 1 && landed_.size() == kMaxSegmentsAhead - 1);
    finish(*puts[0]);
    EXPECT_EQ(vault_.segments.size(), kMaxSegmentsAhead);
    EXPECT_EQ(under_way().size(), kMaxSegmentsAhead);
    finish_all();
    expect_all_stored(*wire);
}

// Broken if sealed segments took more memory than their bound, also when a lease is lost again and
// again while puts hang.
TEST_F(SideBySide, SealedSegmentsKeepWithinTheirMemory) {
    tune_ = [](ProcessServerOptions& options) {
        options.segment_payload_bytes = kRecordsASegment * 4096;
        options.sealed_bytes = 4 * (kRecordsASegment * 4096 + 8192);
    };
    boot();
    auto wire = connect("agent-1");
    send(*wire, 12);
    EXPECT_EQ(under_way().size(), 4u);
    auto puts = under_way();
    vault_.epoch += 1;
    finish(*puts[0]);
    time_.advance(kRetryMaxUs);
    EXPECT_EQ(under_way().size(), 4u) << "one new one: three old ones hang";
    for (size_t i = 1; i < 4; ++i) {
        finish(*puts[i]);
        EXPECT_EQ(under_way().size(), 4u);
    }
    finish_all();
    expect_all_stored(*wire);
}

// Broken if an item whose puts hang kept all others from sending.
TEST_F(SideBySide, AnItemWhosePutsHangLeavesSomeToTheOthers) {
    auto wire = connect("agent-1");
    send(*wire, 20);
    auto hanging = under_way();
    vault_.epoch += 1;
    finish(*hanging[0]);
    time_.advance(kRetryMaxUs);
    EXPECT_EQ(under_way().size(), kMaxSegmentsAhead) << "those of the lost lease count";
    vault_.segments.clear();
    item_.raw[0] = 9;
    next_ = 1;
    auto other = connect("agent-2");
    send(*other, 1);
    const auto all = under_way();
    ASSERT_EQ(all.size(), kMaxSegmentsAhead + 1);
    for (ManualTime* put : all)
        if (std::ranges::find(hanging, put) == hanging.end() || put == hanging[0]) finish(*put);
    EXPECT_EQ(last_ack(*other).stored.v, kRecordsASegment);
}

// Broken if a put that outlives its item used what is gone, or its place were lost for the others.
TEST_F(SideBySide, AnItemThatIsRemovedGivesItsPlacesBack) {
    auto wire = connect("agent-1");
    send(*wire, 8);
    auto puts = under_way();
    ASSERT_EQ(puts.size(), 8u);
    server_->remove(item_);
    for (ManualTime* put : puts) finish(*put);
    EXPECT_TRUE(vault_.segments.empty());
    item_.raw[0] = 9;
    next_ = 1;
    auto other = connect("agent-2");
    send(*other, 8);
    EXPECT_EQ(under_way().size(), 8u);
    finish_all();
    expect_all_stored(*other);
}

// Broken if the registration's failure put everything again, or let the next one go first.
TEST_F(SideBySide, ARegistrationThatFailsIsRepeatedAlone) {
    auto wire = connect("agent-1");
    vault_.failing = 3;
    send(*wire, 4);
    for (ManualTime* put : under_way()) finish(*put);
    EXPECT_EQ(vault_.failing, 2);
    EXPECT_TRUE(vault_.segments.empty());
    time_.advance(kRetryMaxUs);
    EXPECT_EQ(landed_.size(), 4u);
    expect_all_stored(*wire);
}

// Broken if a limit were asked once for all that is under way.
TEST_F(SideBySide, EachPutPassesTheGate) {
    vault_.bandwidth = "64kB/s";
    auto wire = connect("agent-1");
    send(*wire, 6);
    EXPECT_EQ(under_way().size(), 1u);
    for (int second = 0; second < 5; ++second) {
        const uint64_t before = landed_bytes_;
        for (ManualTime* put : under_way()) finish(*put);
        time_.advance(1'000'000);
        EXPECT_LE(landed_bytes_ - before, 64'000u + (68u << 10));
    }
}

}  // namespace
}  // namespace farshore::process_server_test
