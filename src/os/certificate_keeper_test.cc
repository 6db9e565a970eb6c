#include "os/certificate_keeper.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

constexpr int64_t kDayUs = int64_t{86'400} * 1'000'000;

class SetClock final : public Clock {
  public:
    TimePoint now() const override { return time; }
    int64_t steady_us() const override { return time.us; }
    TimePoint time{1'700'000'000'000'000};
};

// Broken if a certificate ran out while its party ran, or were asked for with every look; or one
// that could not be had were given up.
TEST(CertificateKeeper, RenewsInTime) {
    SetClock clock;
    const auto authority = CertificateAuthority::create("ca", clock.time).value();
    const auto make = [&] {
        return authority.issue_with_key({.common_name = "agent-1", .now = clock.time});
    };
    int asked = 0, used = 0;
    bool away = false;
    CertificateKeeper keeper(
        "agent-1", clock, make()->certificate_pem,
        [&]() -> Result<Credentials> {
            ++asked;
            if (away) return fail(Code::kUnavailable, "the vault is away");
            return make();
        },
        [&](const Credentials&) -> Status {
            ++used;
            return {};
        });
    EXPECT_FALSE(*keeper.look());
    const TimePoint first_until = keeper.until();
    EXPECT_GT(first_until.us, clock.time.us + 360 * kDayUs);
    clock.time.us += 243 * kDayUs;
    EXPECT_FALSE(*keeper.look()) << "more than a third of the year is left";
    clock.time.us += kDayUs;
    away = true;
    EXPECT_EQ(keeper.look().error().code(), Code::kUnavailable);
    EXPECT_EQ(keeper.look().error().code(), Code::kUnavailable);
    EXPECT_EQ(used, 0);
    away = false;
    EXPECT_TRUE(*keeper.look());
    EXPECT_EQ(asked, 3);
    EXPECT_EQ(used, 1);
    EXPECT_FALSE(*keeper.look()) << "it is new";
    EXPECT_GT(keeper.until().us, first_until.us) << "monitoring warns of the old one's end";
    clock.time.us += 300 * kDayUs;
    EXPECT_TRUE(*keeper.look());
}

}  // namespace
}  // namespace farshore
