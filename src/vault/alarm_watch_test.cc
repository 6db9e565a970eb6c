#include "vault/alarm_watch.h"

#include <gtest/gtest.h>

#include "vault/test_site.h"

namespace farshore {
namespace {

constexpr int64_t kS = 1'000'000;

Trouble trouble(const char* code, Severity severity) { return {severity, code, "why", "what"}; }

// The kinds and codes of what is to be done: '+' raised, '!' worse, '-' cleared.
std::string shown(AlarmWatch& watch, int64_t now_us, const std::vector<Trouble>& troubles) {
    std::string out;
    uint64_t id = 100;
    for (const AlarmChange& change : watch.look(now_us, troubles)) {
        out += "+!-"[static_cast<int>(change.kind)] + change.trouble.code + " ";
        if (change.kind == AlarmChange::Kind::kClear)
            watch.cleared(change.trouble.code);
        else
            watch.raised(change.trouble.code, ++id, change.trouble.severity);
    }
    return out;
}

// Broken if something that passes were an alarm, something that comes and goes many, one that lasts
// were raised twice, or one that is over stayed.
TEST(AlarmWatch, OnceEachAndClearedByItself) {
    AlarmWatch watch({}, kS);
    const std::vector<Trouble> high{trouble("rpo-high", Severity::kWarning)};
    EXPECT_EQ(shown(watch, 1 * kS, high), "");
    EXPECT_EQ(shown(watch, 5 * kS, {}), "");
    EXPECT_EQ(shown(watch, 8 * kS, high), "") << "it had gone meanwhile";
    EXPECT_EQ(shown(watch, 13 * kS, high), "+rpo-high ");
    EXPECT_EQ(shown(watch, 18 * kS, high), "");
    EXPECT_EQ(shown(watch, 30 * kS, {}), "");
    EXPECT_EQ(shown(watch, 40 * kS, high), "") << "it is back: the same alarm";
    EXPECT_EQ(shown(watch, 69 * kS, {}), "");
    EXPECT_EQ(shown(watch, 70 * kS, {}), "-rpo-high ");
    EXPECT_EQ(shown(watch, 75 * kS, {}), "");
}

// Broken if a warning that became critical were not told again, or every look told it.
TEST(AlarmWatch, WorseIsTold) {
    AlarmWatch watch({}, kS);
    const std::vector<Trouble> warning{trouble("a", Severity::kWarning)};
    const std::vector<Trouble> both{trouble("a", Severity::kCritical),
                                    trouble("a", Severity::kWarning)};
    EXPECT_EQ(shown(watch, 1 * kS, warning), "");
    EXPECT_EQ(shown(watch, 6 * kS, warning), "+a ");
    EXPECT_EQ(shown(watch, 11 * kS, both), "!a ");
    EXPECT_EQ(shown(watch, 16 * kS, both), "");
    EXPECT_EQ(shown(watch, 21 * kS, warning), "") << "better is no news";
    EXPECT_EQ(shown(watch, 26 * kS, both), "");
}

// Broken if a vault that starts again raised what stands, forgot it, or tried only once.
TEST(AlarmWatch, WhatStandsGoesOn) {
    AlarmRecord known;
    known.id = 7;
    known.code = "a";
    known.severity = Severity::kCritical;
    AlarmWatch watch({known}, 100 * kS);
    EXPECT_EQ(watch.look(105 * kS, {trouble("a", Severity::kCritical)}).size(), 0u);
    EXPECT_EQ(watch.look(120 * kS, {}).size(), 0u);
    for (int i = 0; i < 2; ++i) {
        const auto changes = watch.look((140 + i) * kS, {});
        ASSERT_EQ(changes.size(), 1u);
        EXPECT_EQ(changes[0].id, 7u);
    }
}

// Broken if an RPO over its threshold were no alarm, one that was seen were told as if it were not,
// or its end not at all.
TEST(VaultAlarms, AnItemsAlarmFromBeginningToEnd) {
    Site site;
    ProtectedItem item(site);
    const auto pass = [&](int64_t seconds) {
        for (int64_t i = 0; i < seconds; i += 5) {
            site.clock.us += 5 * kS;
            site.vault().tend();
        }
    };
    pass(5);
    EXPECT_TRUE(site.call("GET", "/v1/alarms", 200)["alarms"].empty());
    pass(80);  // nobody says anything any more
    Json alarms = site.call("GET", "/v1/alarms?item=web", 200)["alarms"];
    const auto find = [&](const std::string& code) {
        for (const Json& alarm : alarms)
            if (alarm["code"] == code) return alarm;
        return Json();
    };
    ASSERT_FALSE(find("rpo-high").is_null()) << alarms;
    ASSERT_FALSE(find("agent-lost").is_null()) << alarms;
    EXPECT_EQ(find("rpo-high")["item"], "web");
    const std::string id = std::to_string(find("agent-lost")["id"].get<int>());
    const Json seen =
        site.call("POST", "/v1/alarms/" + id + "/acknowledge", 200, {{"note", "on my way"}});
    EXPECT_EQ(seen["note"], "on my way");
    EXPECT_FALSE(seen["acknowledged_by"].get<std::string>().empty());
    EXPECT_EQ(site.refused("POST", "/v1/alarms/4711/acknowledge"), "not-found");
    const size_t events = site.call("GET", "/v1/events", 200)["events"].size();
    pass(60);
    EXPECT_EQ(site.call("GET", "/v1/events", 200)["events"].size(), events);
    pass(200);
    EXPECT_EQ(site.call("GET", "/v1/events", 200)["events"].size(), events + 1)
        << "the RPO became critical; nothing else was told again";
    site.start();  // knows what stands
    const auto lost = [&] {
        const Json page = site.call("GET", "/v1/items/web", 200);
        for (const Json& trouble : page["troubles"])
            if (trouble["code"] == "agent-lost") return true;
        return false;
    };
    EXPECT_FALSE(lost()) << "nobody can have been heard of yet";
    pass(20);
    EXPECT_TRUE(lost());
    EXPECT_EQ(site.call("GET", "/v1/alarms", 200)["alarms"].size(), alarms.size());
    // It is back.
    for (int i = 0; i < 10; ++i) {
        site.clock.us += 5 * kS;
        ASSERT_TRUE(item.agent.sync({live(item.item)}));
        site.vault().tend();
    }
    alarms = site.call("GET", "/v1/alarms", 200)["alarms"];
    EXPECT_TRUE(find("agent-lost").is_null()) << alarms;
    EXPECT_EQ(site.refused("POST", "/v1/alarms/" + id + "/acknowledge"), "wrong-state");
    alarms = site.call("GET", "/v1/alarms?all=true", 200)["alarms"];
    EXPECT_TRUE(find("agent-lost").contains("cleared"));
    bool told = false;
    const Json events_now = site.call("GET", "/v1/events", 200)["events"];
    for (const Json& event : events_now) told = told || event["code"] == "critical-alarm-cleared";
    EXPECT_TRUE(told) << events_now;
}

}  // namespace
}  // namespace farshore
