#include "recovery/drill_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "meta/json_fields.h"
#include "recovery/line_pattern.h"

namespace farshore {
namespace {

using testing::HasSubstr;

DrillPolicy demanding() {
    DrillPolicy policy;
    policy.agent = true;
    policy.port = 22;
    policy.serial = "login:";
    policy.limit_s = 100;
    return policy;
}

// Broken if a machine passed before all was seen, or did not when each was seen at another time.
TEST(DrillWatch, AMachineIsGoodWhenAllWasSeen) {
    DrillWatch watch(demanding());
    EXPECT_EQ(watch.feed({1'000'000, MachineState::kRunning, false, false, true}),
              DrillVerdict::kOpen);
    EXPECT_FALSE(watch.wants_serial());
    EXPECT_EQ(watch.feed({2'000'000, MachineState::kRunning, true, false, false}),
              DrillVerdict::kOpen);
    EXPECT_EQ(watch.feed({3'000'000, MachineState::kRunning, false, true, false}),
              DrillVerdict::kGood);
}

// Broken if a machine that never boots, or ends, were not told from a good one, or without a
// reason.
TEST(DrillWatch, AMachineThatIsNotIsBadAndItIsSaidWhy) {
    DrillWatch slow(demanding());
    EXPECT_EQ(slow.feed({99'000'000, MachineState::kRunning, true, false, false}),
              DrillVerdict::kOpen);
    EXPECT_EQ(slow.feed({100'000'000, MachineState::kRunning, false, false, false}),
              DrillVerdict::kBad);
    EXPECT_EQ(slow.why(),
              "after 100 s port 22 takes no connection; 'login:' was not said at the serial line");
    DrillWatch ended(demanding());
    EXPECT_EQ(ended.feed({5'000'000, MachineState::kStopped, true, true, false}),
              DrillVerdict::kBad);
    EXPECT_THAT(ended.why(), HasSubstr("the machine ended after 5 s: 'login:'"));
    DrillWatch late(demanding());
    EXPECT_EQ(late.feed({200'000'000, MachineState::kStopped, true, true, true}),
              DrillVerdict::kGood)
        << "what was seen counts, however it ends";
}

TEST(TextFinder, FindsWhatComesInPieces) {
    TextFinder finder("login:");
    EXPECT_FALSE(finder.feed("a long line without it, and then log"));
    EXPECT_FALSE(finder.feed("i"));
    EXPECT_TRUE(finder.feed("n: "));
    TextFinder one("x");
    EXPECT_FALSE(one.feed("abc"));
    EXPECT_TRUE(one.feed("x"));
}

// Broken if a prompt (a line without an end) were not seen, a line that comes in pieces, or one
// that is longer than what is kept; or lines were taken for one.
TEST(LinePattern, MatchesALineHoweverItComes) {
    auto prompt = LinePattern::parse("^[a-z]+ login: $");
    ASSERT_TRUE(prompt) << prompt.error().to_string();
    EXPECT_FALSE(prompt->feed("Debian 12 web ttyS0\r\n\r\nweb log"));
    EXPECT_TRUE(prompt->feed("in: "));
    auto across = LinePattern::parse("first.*second");
    ASSERT_TRUE(across);
    EXPECT_FALSE(across->feed("first\nsecond\n"));
    EXPECT_TRUE(across->feed("the first, then the second\n"));
    auto tail = LinePattern::parse("end$");
    ASSERT_TRUE(tail);
    EXPECT_FALSE(tail->feed(std::string(100'000, '.')));
    EXPECT_TRUE(tail->feed("end"));
    tail->restart();
    EXPECT_FALSE(tail->feed("\xff"));
    const auto bad = LinePattern::parse("login: (");
    ASSERT_FALSE(bad);
    EXPECT_THAT(bad.error().to_string(), HasSubstr("missing"));
}

// Broken if a policy changed on its way, or one that can tell nothing were taken.
TEST(DrillPolicy, ComesBackAndIsChecked) {
    const auto policy = drill_policy_from_json(Json::parse(
        R"({"interval_s":86400,"after_consistent":true,"serial":"DONE","port":443,
            "serial_pattern":"^ok [0-9]+$","windows":"Sat 01:00-05:00 Europe/Berlin",
            "checks":[{"kind":"script","program":"check.sh","arguments":["x"]},
                      {"kind":"guest-script","program":"/bin/true","limit_s":5}]})"));
    ASSERT_TRUE(policy) << policy.error().to_string();
    EXPECT_EQ(policy->overdue_us(), 2ll * 86'400 * 1'000'000);
    EXPECT_EQ(drill_policy_json(*drill_policy_from_json(drill_policy_json(*policy))),
              drill_policy_json(*policy));
    const auto error = [](const char* text) {
        const auto bad = drill_policy_from_json(Json::parse(text));
        return bad ? std::string("taken") : bad.error().to_string();
    };
    EXPECT_TRUE(policy->agent) << "nothing inside can be started before it answers";
    EXPECT_FALSE(drill_policy_from_json(Json::parse(R"({"port":1})"))->agent);
    EXPECT_THAT(error(R"({"interval_s":3600})"), HasSubstr("by what a good machine is known"));
    EXPECT_THAT(error(R"({"agent":true,"interval_s":5})"), HasSubstr("at least 60"));
    EXPECT_THAT(error(R"({"agent":true,"port":70000})"), HasSubstr("policy.port"));
    EXPECT_THAT(error(R"({"agent":true,"ports":1})"), HasSubstr("'ports'"));
    EXPECT_THAT(error(R"({"checks":[{"kind":"script","program":"/bin/sh"}]})"),
                HasSubstr("not the name of a script"));
    EXPECT_THAT(error(R"({"agent":true,"serial_pattern":"("})"), HasSubstr("regular expression"));
    EXPECT_THAT(error(R"({"agent":true,"windows":"Someday"})"), HasSubstr("Someday"));
    EXPECT_THAT(error(R"({"checks":[{"kind":"shell","program":"x"}]})"), HasSubstr("kind"));
}

}  // namespace
}  // namespace farshore
