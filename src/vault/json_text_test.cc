#include "vault/json_text.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

// Broken if what is written were not what is read.
TEST(JsonText, IsReadAsWhatWasWritten) {
    JsonText text;
    text.begin()
        .member("yes", true)
        .member("most", UINT64_MAX)
        .member("least", INT64_MIN)
        .member("small", uint32_t{7})
        .member("part", 0.1)
        .member("word", "a\"b\\c\n\x01")
        .member("long", std::string("x") + '\0' + "y")
        .member("tree", Json{{"a", {1, 2}}})
        .raw("raw", R"({"b": null})")
        .begin("inner")
        .member("one", 1)
        .end()
        .begin_list("list")
        .add(1)
        .add("two")
        .begin()
        .end()
        .end_list()
        .end();
    const Json read = Json::parse(text.text());
    EXPECT_EQ(read, (Json{{"yes", true},
                          {"most", UINT64_MAX},
                          {"least", INT64_MIN},
                          {"small", 7},
                          {"part", 0.1},
                          {"word", "a\"b\\c\n\x01"},
                          {"long", std::string("x") + '\0' + "y"},
                          {"tree", {{"a", {1, 2}}}},
                          {"raw", {{"b", nullptr}}},
                          {"inner", {{"one", 1}}},
                          {"list", {1, "two", Json::object()}}}));
}

// Broken if text from outside could make the document one that nobody reads.
TEST(JsonText, TextThatIsNotUtf8IsReplaced) {
    for (const std::string& word :
         {std::string("caf\xc3\xa9"), std::string("\xf0\x9f\x92\xbe"), std::string("bad\xff"),
          std::string("cut\xc3"), std::string("\xed\xa0\x80")}) {
        JsonText text;
        text.begin().member("word", word).end();
        const Json read = Json::parse(text.text(), nullptr, false);
        ASSERT_FALSE(read.is_discarded()) << word;
        EXPECT_EQ(read, Json::parse(dump_json(Json{{"word", word}})));
    }
}

}  // namespace
}  // namespace farshore
