#include "meta/notifiers.h"

#include <gtest/gtest.h>

#include "meta/parties.h"
#include "meta/test_database.h"

namespace farshore {
namespace {

uint64_t happen(Database& database, Severity severity, const std::string& cause) {
    EventRecord event;
    event.severity = severity;
    event.code = "test";
    event.cause = cause;
    EXPECT_TRUE(add_event(database, event));
    return list_events(database, 0, 1)->front().id;
}

NotifierRecord hook(const std::string& name) {
    NotifierRecord record;
    record.name = name;
    record.target = "https://example.com";
    record.settings_file = "/etc/hook.json";
    return record;
}

// Broken if somebody were told of what happened before, or again of what he was told, or were not
// told after a restart.
TEST(Notifiers, EachIsToldFromWhereItWas) {
    TestDatabase test;
    const uint64_t before = happen(*test.database, Severity::kCritical, "before");
    const auto added = add_notifier(*test.database, hook("ops"));
    ASSERT_TRUE(added) << added.error().to_string();
    EXPECT_EQ(added->cursor, before);
    EXPECT_EQ(added->least, Severity::kWarning);
    const uint64_t first = happen(*test.database, Severity::kInformation, "first");
    const uint64_t second = happen(*test.database, Severity::kWarning, "second");
    auto events = list_events_after(*test.database, before, 10);
    ASSERT_TRUE(events);
    ASSERT_EQ(events->size(), 2u);
    EXPECT_EQ(events->front().id, first);
    EXPECT_EQ(events->back().severity, Severity::kWarning);
    ASSERT_TRUE(notifier_failed(*test.database, "ops", {Code::kTimeout, "no answer", ""}));
    EXPECT_EQ(get_notifier(*test.database, "ops")->cursor, before);
    const TimePoint failing = get_notifier(*test.database, "ops")->failing_since;
    EXPECT_NE(failing.us, 0);
    ASSERT_TRUE(notifier_failed(*test.database, "ops", {Code::kUnavailable, "nobody there", ""}));
    EXPECT_EQ(get_notifier(*test.database, "ops")->failing_since, failing) << "of the first one";
    EXPECT_EQ(get_notifier(*test.database, "ops")->error->code, Code::kUnavailable);
    ASSERT_TRUE(notifier_told(*test.database, "ops", second, true));
    test.reopen();
    const auto now = get_notifier(*test.database, "ops");
    ASSERT_TRUE(now);
    EXPECT_EQ(now->cursor, second);
    EXPECT_FALSE(now->error);
    EXPECT_EQ(now->failing_since.us, 0);
    EXPECT_NE(now->delivered.us, 0);
    EXPECT_TRUE(list_events_after(*test.database, second, 10)->empty());
}

// Broken if two had one name, or one that is none were taken.
TEST(Notifiers, NamesAreChecked) {
    TestDatabase test;
    ASSERT_TRUE(add_notifier(*test.database, hook("ops")));
    EXPECT_EQ(add_notifier(*test.database, hook("ops")).error().code(), Code::kAlreadyExists);
    EXPECT_EQ(get_notifier(*test.database, "other").error().code(), Code::kNotFound);
    EXPECT_EQ(remove_notifier(*test.database, "other").error().code(), Code::kNotFound);
    for (const char* bad : {"", "UP", "a b", "12", "x/y", "012345678901234567890123456789012"})
        EXPECT_EQ(check_notifier_name(bad).error().code(), Code::kInvalidArgument) << bad;
    EXPECT_TRUE(check_notifier_name("ops-2"));
    EXPECT_FALSE(notifier_kind_from_name("pigeon"));
    ASSERT_TRUE(remove_notifier(*test.database, "ops"));
    EXPECT_TRUE(list_notifiers(*test.database)->empty());
    for (size_t i = 0; i < kMaxNotifiers; ++i)
        ASSERT_TRUE(add_notifier(*test.database, hook("n" + std::to_string(i))));
    EXPECT_EQ(add_notifier(*test.database, hook("one-more")).error().code(), Code::kLimitReached);
}

}  // namespace
}  // namespace farshore
