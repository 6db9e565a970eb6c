// farshore policy, and events that are followed.
#include "cli/test_terminal.h"

namespace farshore {
namespace {

constexpr const char* kGold =
    R"({"name":"gold","etag":"\"e1\"","policy":{"window_s":900,"keep":""},"items":2})";
constexpr const char* kPreview =
    R"({"etag":"\"e1\"","more":3,"items":[{"item":"web","changed":{"window_s":{"old":900,"new":600}},)"
    R"("points":{"dropped":12,"dropped_anyway":1},"bytes_change":-5000000,)"
    R"("alarms":[{"code":"rpo-high","severity":"warning","cause":"old"}]}]})";

// Broken if a policy were changed without being shown and agreed to, in another version than was
// shown, or with values that were not named.
TEST(PolicyVerbs, AnEditIsShownBefore) {
    Terminal t;
    const std::deque<Exchange> looks{
        {"GET /v1/policies/gold", kGold},
        {R"(POST /v1/policies/gold/preview {"policy":{"keep":"","window_s":600}})", kPreview}};
    const Exchange change{
        R"(If-Match "e1": PUT /v1/policies/gold {"policy":{"keep":"","window_s":600}})", kGold};
    t.script = looks;
    EXPECT_EQ(t.run({"policy", "edit", "gold", "--window", "10min", "--preview"}), 0);
    for (const char* words : {"window_s: 900 -> 600", "points that go at the next round: 12",
                              "about 4.8 MiB less", "rpo-high", "3 items more"})
        EXPECT_NE(t.out.str().find(words), std::string::npos) << words << t.out.str();
    t.script = looks;
    EXPECT_EQ(t.run({"policy", "edit", "gold", "--window", "10min"}), 64) << "nobody is there";
    t.line = "n";
    t.script = looks;
    EXPECT_EQ(t.run({"policy", "edit", "gold", "--window", "10min"}), 0);
    EXPECT_EQ(t.asked.size(), 1u);
    t.line = "y";
    t.script = looks;
    t.script.push_back(change);
    EXPECT_EQ(t.run({"policy", "edit", "gold", "--window", "10min"}), 0);
    t.line.clear();
    t.script = looks;
    t.script.push_back(change);
    EXPECT_EQ(t.run({"policy", "edit", "gold", "--window", "10min", "--yes", "--json"}), 0);
    t.script = looks;
    t.script.push_back({change.request, fail(Code::kPreconditionFailed, "it has changed")});
    EXPECT_EQ(t.run({"policy", "edit", "gold", "--window", "10min", "--yes"}), 75);
    EXPECT_EQ(t.run({"policy", "edit", "gold", "--yes"}), 64) << "nothing was named";
    EXPECT_EQ(t.run({"policy", "edit", "gold", "--window", "1h", "--yes", "--preview"}), 64);
}

// Broken if other items were assigned than were named, or a protected machine followed another
// policy.
TEST(PolicyVerbs, Assign) {
    Terminal t;
    t.script = {{R"(POST /v1/policies/gold/preview {"items":["web","db"]})", kPreview},
                {R"(If-Match "e1": POST /v1/policies/gold/assign {"items":["web","db"]})", kGold}};
    EXPECT_EQ(t.run({"policy", "assign", "gold", "web", "db", "--yes"}), 0);
    EXPECT_NE(t.out.str().find("2 items follow it"), std::string::npos);
    t.script = {
        {R"(POST /v1/items {"disks":["/d"],"name":"web","policy_name":"gold","wait_s":30})", "{}"}};
    EXPECT_EQ(t.run({"protect", "web", "--disk", "/d", "--policy", "gold"}), 0);
    t.script = {{"GET /v1/items?health=warning&policy=custom&limit=1000", R"({"items":[]})"}};
    EXPECT_EQ(t.run({"items", "--policy", "custom", "--health", "warning"}), 0);
}

// Broken if an event were shown twice or not at all when the connection breaks, or an interruption
// did not end it.
TEST(PolicyVerbs, EventsAreFollowedOverALostConnection) {
    Terminal t;
    const auto event = [](int id, const char* severity) {
        return "id: " + std::to_string(id) + "\nevent: event\ndata: {\"id\":" + std::to_string(id) +
               ",\"severity\":\"" + severity + "\",\"code\":\"a\"}\n\n";
    };
    t.script = {{"FOLLOW  /v1/changes?item=web", "event: hello\ndata: {}\n\n" +
                                                     event(7, "warning") + event(8, "information") +
                                                     "id: 9\nevent: event\ndata: {\"cut"},
                {"FOLLOW 8 /v1/changes?item=web", fail(Code::kConnectionLost, "lost")},
                {"FOLLOW 8 /v1/changes?item=web", event(9, "critical")}};
    t.pauses_until_interrupt = 2;
    EXPECT_EQ(t.run({"events", "--follow", "--json", "--item", "web", "--severity", "warning"}),
              130);
    EXPECT_EQ(t.out.str(),
              "{\"code\":\"a\",\"id\":7,\"severity\":\"warning\"}\n"
              "{\"code\":\"a\",\"id\":9,\"severity\":\"critical\"}\n");
    t.script = {{"FOLLOW  /v1/changes", fail(Code::kForbidden, "no")}};
    EXPECT_EQ(t.run({"events", "--follow"}), 77);
}

}  // namespace
}  // namespace farshore
