#include "compute/qmp_client.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "compute/test_support.h"

namespace farshore {
namespace {

using Json = nlohmann::json;

constexpr char kGreeting[] =
    "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}}, "
    "\"capabilities\": []}}\r\n";
constexpr char kReady[] = "{\"return\": {}, \"id\": 0}\r\n";

QmpClient::Options quick() { return {.connect_timeout_ms = 200, .command_timeout_ms = 300}; }

TEST(QmpFramer, CutsMessagesWhereverTheStreamIsCut) {
    const std::string stream = "{\"a\":1}\r\n\r\n{\"b\":[2]}\n{\"c\":3}\n";
    for (size_t cut = 0; cut <= stream.size(); ++cut) {
        QmpFramer framer;
        std::vector<Json> out;
        ASSERT_TRUE(framer.feed(as_bytes(stream).first(cut), out));
        ASSERT_TRUE(framer.feed(as_bytes(stream).subspan(cut), out));
        ASSERT_EQ(out.size(), 3u) << "cut at " << cut;
        EXPECT_EQ(out[1]["b"][0], 2);
    }
}

TEST(QmpFramer, RefusesGarbageDepthAndLength) {
    for (const std::string bad :
         {"SSH-2.0-OpenSSH\r\n", "[]\n", "{\"a\":\n", "12\n", "\x80\xff\n"}) {
        QmpFramer framer;
        std::vector<Json> out;
        const Status fed = framer.feed(as_bytes(bad), out);
        ASSERT_FALSE(fed) << bad;
        EXPECT_EQ(fed.error().code(), Code::kMalformed);
    }
    QmpFramer deep;
    std::vector<Json> out;
    EXPECT_FALSE(deep.feed(
        as_bytes("{\"a\":" + std::string(5000, '[') + std::string(5000, ']') + "}\n"), out));
    QmpFramer longer;
    const Status fed = longer.feed(as_bytes(std::string(kMaxQmpMessageBytes + 1, 'x')), out);
    ASSERT_FALSE(fed);
    EXPECT_EQ(fed.error().code(), Code::kTooLarge) << "a peer can make us keep any amount";
}

TEST(QmpClient, SocketThatIsNotThereOrNotListening) {
    const TestDirectory directory;
    EXPECT_EQ(QmpClient::connect(directory / "none", quick()).error().code(), Code::kNotFound);
}

TEST(QmpClient, MonitorHeldByAnotherClientIsSaidToBeInUse) {
    const TestDirectory directory;
    const FakeMonitor monitor(directory / "q", "", {});
    const auto client = QmpClient::connect(directory / "q", quick());
    ASSERT_FALSE(client);
    EXPECT_EQ(client.error().code(), Code::kUnavailable);
    EXPECT_NE(client.error().what().find("another client"), std::string::npos);
}

TEST(QmpClient, GarbageInsteadOfAGreetingIsMalformed) {
    const TestDirectory directory;
    const FakeMonitor monitor(directory / "q", "220 mail ESMTP\r\n", {});
    EXPECT_EQ(QmpClient::connect(directory / "q", quick()).error().code(), Code::kMalformed);
}

// Broken: an agent that restarts while its machine reports events finds "no QMP monitor".
TEST(QmpClient, WhatWasMeantForTheClientBeforeIsPassedOver) {
    const TestDirectory directory;
    const std::string left_over =
        "{\"return\": {}, \"id\": 12}\n{\"event\": \"JOB_STATUS_CHANGE\"}\n";
    const FakeMonitor monitor(directory / "q", left_over + kGreeting, {kReady});
    const auto client = QmpClient::connect(directory / "q", quick());
    ASSERT_TRUE(client) << client.error().to_string();
}

TEST(QmpClient, GreetingWithFieldsOfOtherTypesDoesNotThrow) {
    const TestDirectory directory;
    const FakeMonitor monitor(
        directory / "q", "{\"QMP\": {\"version\": {\"qemu\": {\"major\": \"x\"}}}}\n", {kReady});
    const auto client = QmpClient::connect(directory / "q", quick());
    ASSERT_TRUE(client);
    EXPECT_EQ((*client)->qemu_version(), "0.0.0");
}

TEST(QmpClient, GarbageLaterEndsTheConnectionWithItsReason) {
    const TestDirectory directory;
    const FakeMonitor monitor(directory / "q", kGreeting, {kReady, "nonsense\n"});
    auto client = QmpClient::connect(directory / "q", quick());
    ASSERT_TRUE(client) << client.error().to_string();
    EXPECT_EQ((*client)->execute("query-status").error().code(), Code::kMalformed);
    EXPECT_FALSE((*client)->connected());
    EXPECT_EQ((*client)->execute("query-status").error().code(), Code::kMalformed);
}

TEST(QmpClient, AnswersAreMatchedByIdAndLateOnesDropped) {
    const TestDirectory directory;
    const FakeMonitor monitor(
        directory / "q", kGreeting,
        {kReady,
         "{\"return\": \"stray\", \"id\": 77}\n{\"return\": 1}\n{\"event\": \"STOP\"}\n"
         "{\"return\": \"mine\", \"id\": 1}\n",
         "{\"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"no such disk\"}, \"id\": 2}\n",
         "{\"error\": 5, \"id\": 3}\n"});
    auto client = QmpClient::connect(directory / "q", quick());
    ASSERT_TRUE(client);
    EXPECT_EQ(*(*client)->execute("one"), "mine");
    const auto refused = (*client)->execute("two");
    EXPECT_EQ(refused.error().code(), Code::kNotFound);
    EXPECT_NE(refused.error().what().find("no such disk"), std::string::npos)
        << "QEMU's words are lost";
    EXPECT_EQ((*client)->execute("three").error().code(), Code::kWrongState);
    EXPECT_EQ((*client)->execute("four").error().code(), Code::kTimeout);
    const auto events = (*client)->take_events();
    ASSERT_EQ(events.size(), 1u);
    EXPECT_EQ(events[0]["event"], "STOP");
}

}  // namespace
}  // namespace farshore
