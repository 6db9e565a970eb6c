#include "cli/plan_yaml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "meta/json_fields.h"

namespace farshore {
namespace {

using testing::HasSubstr;

// Broken if a plan changed on its way into a file and back.
TEST(PlanYaml, ComesBackAsItWas) {
    const Json json = Json::parse(
        R"({"name":"shop","groups":[{"name":"one","items":[{"name":"007","limit_s":60}],"before":[],
            "after":[{"name":"a: b # c","arguments":["true","5","","~","two\nlines","- x","\"q\""],
                      "callback":true,"nothing":null}]}]})");
    const std::string yaml = yaml_from_json(json);
    const auto again = json_from_yaml(yaml);
    ASSERT_TRUE(again) << again.error().to_string() << yaml;
    EXPECT_EQ(*again, json) << yaml;
    EXPECT_THAT(yaml, HasSubstr("name: shop\n"));

    // What would begin or end a document where it stands.
    for (const std::string text : {"---", "--- a", "...", "... a", "- a", "? a", "%TAG", ",", "#"})
        for (const Json& one : {Json(text), Json::array({text}), Json{{text, text}}}) {
            const auto read = json_from_yaml(yaml_from_json(one));
            ASSERT_TRUE(read) << one.dump() << read.error().to_string();
            EXPECT_EQ(*read, one) << yaml_from_json(one);
        }
}

TEST(PlanYaml, ReadsWhatPeopleWrite) {
    const auto json = json_from_yaml(
        "name: shop\n"
        "groups:\n"
        "  # the database first\n"
        "  - name: databases\n"
        "    items: [{name: db, limit_s: 900}]\n"
        "    before:\n"
        "      - {name: 'tell', kind: script, arguments: [\"5\", five], for: [test]}\n");
    ASSERT_TRUE(json) << json.error().to_string();
    EXPECT_EQ((*json)["groups"][0]["items"][0]["limit_s"], 900);
    EXPECT_EQ((*json)["groups"][0]["before"][0]["arguments"], Json::parse(R"(["5","five"])"));

    const auto aliases = json_from_yaml("a: &a {b: &b [1, x]}\nc: *a\nd: *b\ne:\n");
    ASSERT_TRUE(aliases) << aliases.error().to_string();
    EXPECT_EQ(*aliases,
              Json::parse(R"({"a":{"b":[1,"x"]},"c":{"b":[1,"x"]},"d":[1,"x"],"e":null})"));
}

// Broken if a file that is none, or is made to hurt, were taken or brought the program down.
TEST(PlanYaml, WhatIsWrongIsSaidWithItsPlace) {
    const auto error = [](const std::string& yaml) {
        const auto json = json_from_yaml(yaml);
        return json ? "taken: " + dump_json(*json) : json.error().to_string();
    };
    EXPECT_THAT(error("a: [1, 2"), HasSubstr("line"));
    EXPECT_THAT(error("a: 1\nb: 2\na: 3\n"), HasSubstr("line 3, column 1: 'a' is there twice"));
    EXPECT_THAT(error("? [a]\n: 1\n"), HasSubstr("a key must be a text"));
    EXPECT_THAT(error("a: !!binary aGVsbG8=\n"), HasSubstr("tag"));
    EXPECT_THAT(error("a: 1\n---\nb: 2\n"), HasSubstr("line 2, column 1: a second YAML document"));
    EXPECT_THAT(error(""), HasSubstr("no YAML document"));
    // The library reads document after document in it, without an end.
    EXPECT_THAT(error(","), HasSubstr("a second YAML document"));
    EXPECT_THAT(error("a: b\nc: \x01\n"), HasSubstr("line 2: there is a control character"));
    EXPECT_THAT(error("a: \xff\n"), HasSubstr("UTF-8"));
    EXPECT_THAT(error("a: &a [*a]\n"), HasSubstr("line 1, column 8: an alias must not"));
    EXPECT_THAT(error("a: &a b\n? *a\n: 1\n"), HasSubstr("a key must be a text"));
    EXPECT_THAT(error(std::string(kMaxYamlBytes + 1, ' ')), HasSubstr("too-large"));
    EXPECT_THAT(error(std::string(400, '[') + std::string(400, ']')), HasSubstr("too-large"));
    EXPECT_THAT(error(std::string(100'000, '[')), HasSubstr("line 1"));
    // Each alias is ten of those before it.
    std::string bomb = "a0: &a0 [x]\n";
    for (int i = 1; i < 12; ++i) {
        bomb += fmt::format("a{}: &a{} [", i, i);
        for (int k = 0; k < 10; ++k) bomb += fmt::format("{}*a{}", k == 0 ? "" : ", ", i - 1);
        bomb += "]\n";
    }
    EXPECT_THAT(error(bomb), HasSubstr("too-large"));
    std::string large = "a: &a " + std::string(100'000, 'x') + "\nb: [*a";
    for (int i = 0; i < 1000; ++i) large += ", *a";
    EXPECT_THAT(error(large + "]\n"), HasSubstr("too-large"));
}

}  // namespace
}  // namespace farshore
