#include "meta/agent_documents.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

AgentInstructions instructions() {
    DesiredItem item;
    item.item = *ItemId::parse("000102030405060708090a0b0c0d0e0f");
    item.name = "web";
    item.mode = CaptureMode::kMirror;
    item.qmp_socket = "/run/web.qmp";
    item.disks = {{0, "/disks/a", 1 << 20}, {1, "/disks/b", kMaxDiskBytes}};
    item.desired = Desired::kRemove;
    item.crash_point_interval_s = 1;
    item.copy_throttle_bytes_per_s = 5;
    item.resync_request_id = "r1";
    item.resync_cancel_id = "c1";
    item.resync_hold = ResyncHold::kAlways;
    item.bookmarks = {{"b1", "before", PointKind::kBookmark}};
    item.stored = {UINT64_MAX};
    AgentInstructions all{{item}};
    all.appliances = {{"one", "one.example:9443"}};
    all.appliances_id = "a1";
    return all;
}

AgentStatus status() {
    AgentItemStatus item;
    item.item = *ItemId::parse("000102030405060708090a0b0c0d0e0f");
    item.state = AgentItemState::kGap;
    item.error = AgentItemError{Code::kNoSpace, "full", "free some"};
    item.nbd_socket = "/run/s";
    item.disks = {{3, 77, "/x"}};
    item.machine_description = R"({"cpus":2})";
    item.ring_used_bytes = 1;
    item.spill_used_bytes = 2;
    item.gap_open = true;
    item.copied_bytes = 3;
    item.copy_total_bytes = 4;
    item.copy_rate_bytes_per_s = 5;
    item.last = {6};
    item.last_time = {7};
    item.received = {8};
    item.stored = {9};
    item.bookmarks = {{"b1", {10}, {11}, {}},
                      {"b2", {}, {}, AgentItemError{Code::kTimeout, "not frozen", "try again"}}};
    item.resync_done_id = "r1";
    item.resync_cancel_done_id = "c1";
    item.resync_cancel_error = AgentItemError{Code::kWrongState, "needed", "wait"};
    item.resync.held = true;
    item.resync.read_errors = 13;
    item.tap_restarts = 12;
    AgentStatus all{"agent-1", "i", "0.1", {13}, {item}, -14, {}, {}};
    all.appliances_id = "a1";
    return all;
}

// Broken if agent and vault of one version lost a field between them.
TEST(AgentDocuments, RoundTrip) {
    const std::string down = encode_instructions(instructions());
    auto decoded = decode_instructions(down);
    ASSERT_TRUE(decoded) << decoded.error().to_string();
    EXPECT_EQ(encode_instructions(*decoded), down);
    EXPECT_EQ(decoded->items[0].stored.v, UINT64_MAX);
    EXPECT_EQ(decoded->items[0].disks[1].size_bytes, kMaxDiskBytes);
    EXPECT_EQ(decoded->items[0].desired, Desired::kRemove);
    EXPECT_EQ(decoded->items[0].resync_cancel_id, "c1");
    EXPECT_EQ(decoded->items[0].resync_hold, ResyncHold::kAlways);

    const std::string up = encode_status(status());
    auto back = decode_status(up);
    ASSERT_TRUE(back) << back.error().to_string();
    EXPECT_EQ(encode_status(*back), up);
    EXPECT_EQ(back->items[0].error->code, Code::kNoSpace);
    EXPECT_EQ(back->items[0].machine_description, R"({"cpus":2})");
}

// Broken if a newer peer's extra fields, or an older one's missing ones, ended the conversation.
TEST(AgentDocuments, ToleratesUnknownAndMissingFields) {
    auto decoded = decode_status(
        R"({"instance":"i","new":{},"items":[{"item_id":"000102030405060708090a0b0c0d0e0f",)"
        R"("state":"live","hue":3}]})");
    ASSERT_TRUE(decoded) << decoded.error().to_string();
    EXPECT_EQ(decoded->items[0].state, AgentItemState::kLive);
    EXPECT_FALSE(decoded->items[0].error);
}

// Broken if a refusal did not say what is wrong, or if garbage were taken or thrown.
TEST(AgentDocuments, NamesWhatIsWrong) {
    struct Row {
        const char* text;
        Code code;
        const char* says;
    };
    for (const Row& row : {
             Row{"", Code::kMalformed, "not valid JSON"},
             Row{"[]", Code::kMalformed, "must be an object"},
             Row{R"({"items":[]})", Code::kMalformed, "status.instance is missing"},
             Row{R"({"instance":"i","items":{}})", Code::kMalformed, "status.items must be a list"},
             Row{R"({"instance":"i","items":[{"item_id":"xy","state":"live"}]})", Code::kMalformed,
                 "32 hexadecimal"},
             Row{R"({"instance":"i","items":[{"item_id":"000102030405060708090a0b0c0d0e0f",)"
                 R"("state":"odd"}]})",
                 Code::kMalformed, "items[0].state 'odd'"},
             Row{R"({"instance":"i","items":[{"item_id":"000102030405060708090a0b0c0d0e0f",)"
                 R"("state":"live","ring_used":-1}]})",
                 Code::kMalformed, "items[0].ring_used"},
             Row{R"({"instance":"i","time_us":18446744073709551615})", Code::kMalformed,
                 "status.time_us"},
         }) {
        auto decoded = decode_status(row.text);
        ASSERT_FALSE(decoded) << row.text;
        EXPECT_EQ(decoded.error().code(), row.code) << row.text;
        EXPECT_NE(decoded.error().what().find(row.says), std::string::npos)
            << decoded.error().what();
    }
    EXPECT_EQ(decode_status(std::string(kMaxAgentDocumentBytes + 1, ' ')).error().code(),
              Code::kTooLarge);
    EXPECT_EQ(decode_status("{\"instance\":\"" + std::string(1000, 'x') + "\"}").error().code(),
              Code::kTooLarge);
}

}  // namespace
}  // namespace farshore
