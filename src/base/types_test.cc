#include "base/types.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

// Broken if a time that the CLI prints could not be given back to it.
TEST(TimePoint, PrintsAndReadsRfc3339) {
    for (int64_t us :
         {0ll, 1ll, 1'700'000'000'123'456ll, 951'782'400'000'000ll, 4'102'444'799'999'999ll}) {
        auto back = from_rfc3339(to_rfc3339({us}));
        ASSERT_TRUE(back);
        EXPECT_EQ(back->us, us);
    }
    EXPECT_EQ(to_rfc3339({1'000'000}), "1970-01-01T00:00:01.000000Z");
    EXPECT_EQ(from_rfc3339("1970-01-01T01:00:00.5+01:00")->us, 500'000);
    EXPECT_EQ(from_rfc3339("1969-12-31T23:00:00-01:00")->us, 0);
}

TEST(TimePoint, RefusesWhatIsNoTime) {
    for (const char* text :
         {"", "now", "2026-02-30T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:00:00",
          "2026-01-01T00:00:00.Z", "2026-01-01T00:00:00Zx", "2026-01-01T00:00:00+1:00",
          "2026-01-01T00:00:00.1234567890Z"}) {
        auto time = from_rfc3339(text);
        ASSERT_FALSE(time) << text;
        EXPECT_EQ(time.error().code(), Code::kMalformed);
    }
}

TEST(Id, ParsesOnlyWhatItPrints) {
    ItemId id;
    id.raw[0] = 0xab;
    EXPECT_EQ(*ItemId::parse(id.to_string()), id);
    EXPECT_FALSE(ItemId::parse("ab"));
    EXPECT_FALSE(ItemId::parse(std::string(32, 'g')));
}

}  // namespace
}  // namespace farshore
