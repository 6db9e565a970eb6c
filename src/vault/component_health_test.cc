#include "vault/component_health.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

constexpr int64_t kMinuteUs = 60'000'000;

struct Looked {
    ComponentWatch watch;
    HealthLimits limits;
    ComponentReading reading;
    int64_t now_us = 1;
    Looked() {
        reading.name = "appliance one";
        reading.now.us = 1'000'000;
    }
    std::vector<Trouble> after(int64_t us) {
        now_us += us;
        return watch.look(now_us, reading, limits);
    }
};

// Broken if a short peak was an alarm, if one that lasts was none, or if it grew worse without a
// word.
TEST(ComponentWatch, OnlyWhatLastsIsATrouble) {
    Looked looked;
    looked.reading.load = {850, 500, 0};
    EXPECT_TRUE(looked.after(0).empty());
    EXPECT_TRUE(looked.after(14 * kMinuteUs).empty());
    auto troubles = looked.after(kMinuteUs);
    ASSERT_EQ(troubles.size(), 1u);
    EXPECT_EQ(troubles[0].code, "cpu-high");
    EXPECT_EQ(troubles[0].severity, Severity::kWarning);
    EXPECT_EQ(troubles[0].cause, "appliance one: its processors are busy to 85.0 %");
    looked.reading.load.cpu_permille = 960;
    EXPECT_EQ(looked.after(kMinuteUs).at(0).severity, Severity::kWarning);
    EXPECT_EQ(looked.after(15 * kMinuteUs).at(0).severity, Severity::kCritical);
    looked.reading.load.cpu_permille = 800;
    EXPECT_TRUE(looked.after(1).empty());
    looked.reading.load.cpu_permille = 999;
    EXPECT_TRUE(looked.after(1).empty());
}

// Broken if less room or a longer way counted as better, or what is not known as bad.
TEST(ComponentWatch, EachMeasureHasItsLimits) {
    Looked looked;
    looked.limits.lasting_s = 0;
    EXPECT_TRUE(looked.after(1).empty());
    looked.reading.load = {-1, 951, 0};
    looked.reading.spool_free_permille = 249;
    looked.reading.upload_eta_s = 31 * 60;
    looked.reading.certificate_until.us = looked.reading.now.us + int64_t{5} * 86'400'000'000;
    auto troubles = looked.after(1);
    ASSERT_EQ(troubles.size(), 4u);
    const std::vector<std::pair<std::string, Severity>> expected{
        {"memory-high", Severity::kCritical},
        {"spool-filling", Severity::kCritical},
        {"upload-behind", Severity::kWarning},
        {"certificate-ending", Severity::kWarning}};
    for (size_t i = 0; i < 4; ++i) {
        EXPECT_EQ(troubles[i].code, expected[i].first);
        EXPECT_EQ(troubles[i].severity, expected[i].second) << troubles[i].code;
    }
    // Of one that is silent nothing else is known.
    looked.reading.silent_us = 61'000'000;
    troubles = looked.after(1);
    ASSERT_EQ(troubles.size(), 1u);
    EXPECT_EQ(troubles[0].code, "component-silent");
    looked.reading.silent_us = 59'000'000;
    EXPECT_EQ(looked.after(1).size(), 4u);
}

TEST(StoreWatch, FailsFromTheFirstFailureUntilSomethingSucceeds) {
    StoreWatch watch;
    EXPECT_FALSE(watch.look(0, 10, 0));
    EXPECT_TRUE(watch.look(1, 12, 2));
    const auto trouble = watch.look(9'000'001, 12, 2);
    ASSERT_TRUE(trouble);
    EXPECT_EQ(trouble->cause, "none of 2 requests to the store has succeeded for 9 s");
    EXPECT_FALSE(watch.look(10'000'000, 14, 3));
    EXPECT_FALSE(watch.look(11'000'000, 14, 3));
}

// Broken if limits that make no sense were taken, or lost on their way.
TEST(HealthLimits, AreCheckedAndKept) {
    HealthLimits limits;
    EXPECT_TRUE(check_limits(limits));
    limits.cpu_percent = {50, 60};
    limits.spool_free_percent = {20, 10};
    limits.lasting_s = 0;
    auto again = decode_limits(encode_limits(limits));
    ASSERT_TRUE(again) << again.error().to_string();
    EXPECT_EQ(*again, limits);
    auto part = decode_limits(R"({"cpu_percent": {"critical": 70}})", limits);
    ASSERT_TRUE(part);
    EXPECT_EQ(part->cpu_percent, (HealthLimits::Pair{50, 70}));
    EXPECT_EQ(part->spool_free_percent, limits.spool_free_percent);
    for (const char* bad :
         {R"({"cpu_percent": {"warning": 90, "critical": 80}})",
          R"({"cpu_percent": {"critical": 101}})",
          R"({"spool_free_percent": {"warning": 5, "critical": 6}})", R"({"silent_s": 1})",
          R"({"lasting_s": -1})", R"({"upload_eta_min": 7})", "[]", ""})
        EXPECT_FALSE(decode_limits(bad)) << bad;
}

}  // namespace
}  // namespace farshore
