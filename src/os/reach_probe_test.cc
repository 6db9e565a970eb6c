#include "os/reach_probe.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

constexpr int64_t kSecondUs = 1'000'000;
constexpr int64_t kDayUs = 86'400 * kSecondUs;
constexpr TimePoint kNow{1'700'000'000 * kSecondUs};

// Broken if a clock that makes signatures invalid passed, or a header's whole seconds were blamed.
TEST(ReachProbe, ClocksMayBeTwoSecondsApartAndMustNotBeSixty) {
    for (const int sign : {-1, 1}) {
        const auto at = [&](int64_t us) { return judge_clock({kNow.us + sign * us}, kNow).state; };
        EXPECT_EQ(at(0), ReachState::kOk);
        EXPECT_EQ(at(2 * kSecondUs), ReachState::kOk);
        EXPECT_EQ(at(2 * kSecondUs + 1), ReachState::kWarning);
        EXPECT_EQ(at(60 * kSecondUs), ReachState::kWarning);
        EXPECT_EQ(at(60 * kSecondUs + 1), ReachState::kFailed);
    }
    EXPECT_NE(judge_clock({kNow.us - 90 * kSecondUs}, kNow).detail.find("90.0 s ahead"),
              std::string::npos);
}

// Broken if nobody were told that a peer's certificate is about to end.
TEST(ReachProbe, ACertificateWarnsInItsLastFortnight) {
    const auto at = [](int64_t us) {
        return judge_certificate("TLSv1.3", "peer", {kNow.us + us}, kNow).state;
    };
    EXPECT_EQ(at(14 * kDayUs), ReachState::kOk);
    EXPECT_EQ(at(14 * kDayUs - 1), ReachState::kWarning);
}

}  // namespace
}  // namespace farshore
