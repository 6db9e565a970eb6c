#include "replicate/script_orders.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace farshore {
namespace {

using nlohmann::json;

ScriptOrder order() {
    ScriptOrder order;
    order.handle = "0123-ab";
    order.program = "move.sh";
    order.arguments = {"an argument", ""};
    order.environment = {{"FARSHORE_STEP", "g1-before-1"}};
    order.limit_s = 60;
    order.go = true;
    return order;
}

// Broken if an order or a word changed on its way.
TEST(ScriptOrders, ComeBackAsTheyWere) {
    const auto back = script_order_of(script_order_json(order()));
    ASSERT_TRUE(back) << back.error().to_string();
    EXPECT_EQ(script_order_json(*back), script_order_json(order()));
    EXPECT_TRUE(back->go);
    EXPECT_FALSE(back->end);
    ScriptWord word{
        .handle = "0123-ab", .state = ScriptState::kEnded, .code = 3, .output = "said\n"};
    const auto ended = script_word_of(script_word_json(word));
    ASSERT_TRUE(ended) << ended.error().to_string();
    EXPECT_EQ(ended->code, 3);
    EXPECT_EQ(ended->output, "said\n");
    word = {
        .handle = "x", .state = ScriptState::kFailed, .error = Error(Code::kForbidden, "a", "b")};
    const auto failed = script_word_of(script_word_json(word));
    ASSERT_TRUE(failed && failed->error);
    EXPECT_EQ(failed->error->code(), Code::kForbidden);
    EXPECT_EQ(failed->error->remedy(), "b");
}

// Broken if a vault in wrong hands could run a program outside of the directory, or set what
// changes how programs run.
TEST(ScriptOrders, WhatReachesFurtherIsRefused) {
    const auto refused = [](const char* member, const json& value) {
        json document = script_order_json(order());
        document[member] = value;
        return !script_order_of(document);
    };
    for (const char* program : {"", "../x", "/bin/sh", ".hidden", "-rf", "a b", "x\n"})
        EXPECT_TRUE(refused("program", program)) << program;
    for (const char* handle : {"", "..", "a/b", "A", "a b"})
        EXPECT_TRUE(refused("handle", handle)) << handle;
    EXPECT_TRUE(refused("handle", std::string(65, 'a')));
    EXPECT_TRUE(refused("environment", {{"LD_PRELOAD", "x"}}));
    EXPECT_TRUE(refused("environment", {{"FARSHORE_A=B", "x"}}));
    EXPECT_TRUE(refused("environment", {{"FARSHORE_A", 1}}));
    EXPECT_TRUE(refused("arguments", json::array({std::string("a\0b", 3)})));
    EXPECT_TRUE(refused("arguments", std::vector<std::string>(65, "a")));
    EXPECT_TRUE(refused("arguments", {std::string(5000, 'a')}));
    EXPECT_TRUE(refused("limit_s", 0));
    EXPECT_TRUE(refused("limit_s", -1));
    EXPECT_TRUE(refused("limit_s", 1e9));
    EXPECT_FALSE(refused("go", "yes")) << "anything but true is no";
    EXPECT_FALSE(script_order_of(json::array()));
}

// Broken if an appliance could say what is none.
TEST(ScriptWords, WhatIsNoneIsRefused) {
    const json good =
        script_word_json({.handle = "a", .state = ScriptState::kEnded, .code = 0, .output = "x"});
    const auto refused = [&](const char* member, const json& value) {
        json document = good;
        document[member] = value;
        return !script_word_of(document);
    };
    EXPECT_TRUE(refused("state", "gone"));
    EXPECT_TRUE(refused("exit_code", 256));
    EXPECT_TRUE(refused("exit_code", -1));
    EXPECT_TRUE(refused("exit_code", "0"));
    EXPECT_TRUE(refused("output", std::string(5 * kMaxOrderedOutputBytes, 'x')));
    EXPECT_TRUE(refused("state", "failed")) << "without an error";
}

}  // namespace
}  // namespace farshore
