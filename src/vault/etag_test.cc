#include "vault/etag.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

// Broken if a version that was not named matched, or a weak one were taken for the same bytes.
TEST(Etags, AreComparedAsTheRfcSays) {
    const auto list = parse_etags(R"( "a", W/"b" ,"c,d")");
    ASSERT_TRUE(list) << list.error().to_string();
    EXPECT_TRUE(list->matches("\"a\"", true));
    EXPECT_TRUE(list->matches("\"c,d\"", true));
    EXPECT_FALSE(list->matches("\"b\"", true));
    EXPECT_TRUE(list->matches("\"b\"", false));
    EXPECT_FALSE(list->matches("\"d\"", false));
    EXPECT_FALSE(list->matches("a", false));
    EXPECT_TRUE(parse_etags("*")->matches("\"anything\"", true));
    for (const char* bad :
         {"", " ", ",", "a", "\"a", "W/a", "\"a\" \"b\"", "*, \"a\"", "w/\"a\"", "\"a\"b\""})
        EXPECT_EQ(parse_etags(bad).error().code(), Code::kMalformed) << bad;
    std::string many;
    for (size_t i = 0; i <= kMaxEtags; ++i) many += "\"x\",";
    EXPECT_EQ(parse_etags(many).error().code(), Code::kTooLarge);
}

// Broken if two states had one version, or one state had two.
TEST(Etags, AreOfWhatTheyAreMadeOf) {
    EXPECT_EQ(etag_of({{"a", 1}, {"b", 2}}), etag_of({{"b", 2}, {"a", 1}}));
    EXPECT_NE(etag_of({{"a", 1}}), etag_of({{"a", 2}}));
    EXPECT_TRUE(parse_etags(etag_of({{"a", 1}})));
}

}  // namespace
}  // namespace farshore
