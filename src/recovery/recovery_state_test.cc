#include "recovery/recovery_state.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

TEST(RecoveryState, ComesBackFromJson) {
    RecoveryState state;
    state.id = "t1";
    state.kind = RecoveryKind::kFailover;
    state.stage = RecoveryStage::kChangingPoint;
    state.committed = true;
    state.item.raw.fill(0x5a);
    state.item_name = "a \"name\"";
    state.compute = "rack-1";
    state.compute_where = "qemu+tls://rack-1/system";
    state.tried = true;
    state.note = "for the auditors";
    state.undecided = Undecided::kRollsBack;
    state.decide_at = {77};
    state.sequence = {UINT64_MAX};
    state.lease = 7;
    state.old_lease = 6;
    state.machine = describe_plain_machine("m", {{"/a", 1}});
    state.network = {NetworkKind::kSegment, "lab"};
    state.networks = {{NetworkKind::kNone}, {NetworkKind::kBridge, "br0"}};
    state.addresses = {{1, {"10.1.2.3/24", "10.1.2.1", {"10.1.2.1"}}},
                       {2, {"10.1.3.3/24", "", {}, AddressBy::kDhcp}},
                       {3, {"10.1.4.3/24", "", {}, AddressBy::kCloudInit}}};
    state.address_stage = AddressStage::kFailed;
    state.address_words = "no agent";
    state.own = {{0, {OwnStage::kSwitched, "/own/m-disk-0.raw"}},
                 {2, {OwnStage::kHeld, "/own/m-disk-2.raw"}},
                 {3, {OwnStage::kSwitching, "/own/m-disk-3.raw"}}};
    state.own_directory = "/own";
    state.own_format = DiskFormat::kRaw;
    state.own_files = 4;
    state.let_go = true;
    state.error = RecoveryError{Code::kNoSpace, "full", "make room"};
    state.timings.first_read_ms = 812;
    const std::string json = encode_recovery_state(state);
    auto decoded = decode_recovery_state(json);
    ASSERT_TRUE(decoded) << decoded.error().to_string();
    EXPECT_EQ(encode_recovery_state(*decoded), json);
    EXPECT_TRUE(stands_alone(*decoded)) << "its only disk is a file";
    EXPECT_FALSE(is_own(*decoded, 3)) << "it is being switched";
    EXPECT_TRUE(is_own(*decoded, 2)) << "it was noted";
    decoded->own.at(0).stage = OwnStage::kHeld;
    EXPECT_FALSE(stands_alone(*decoded)) << "its machine may be held";
    EXPECT_EQ(decoded->own_directory, "/own");
    EXPECT_TRUE(decoded->let_go);
    EXPECT_EQ(decoded->note, "for the auditors");
    EXPECT_EQ(decoded->compute, "rack-1");
    EXPECT_EQ(decoded->compute_where, "qemu+tls://rack-1/system");
    EXPECT_TRUE(decoded->tried);
    EXPECT_EQ(decoded->undecided, Undecided::kRollsBack);
    EXPECT_EQ(decoded->decide_at.us, 77);
    EXPECT_EQ(decoded->sequence.v, UINT64_MAX);
    EXPECT_EQ(decoded->error->code, Code::kNoSpace);
    EXPECT_EQ(decoded->timings.first_read_ms, 812);
    EXPECT_EQ(decoded->addresses, state.addresses);
    EXPECT_EQ(decoded->address_stage, AddressStage::kFailed);
    EXPECT_EQ(network_of(*decoded, 1), (NetworkChoice{NetworkKind::kBridge, "br0"}));
    EXPECT_EQ(network_of(*decoded, 2), (NetworkChoice{NetworkKind::kSegment, "lab"}));
    for (const std::string bad : {"", "[]", "{}", "{\"version\":1}", "{\"version\":\"1\"}"})
        EXPECT_EQ(decode_recovery_state(bad).error().code(), Code::kMalformed) << bad;
    std::string other = json;
    other.replace(other.find("cloud-init"), 10, "luck");
    EXPECT_EQ(decode_recovery_state(other).error().code(), Code::kMalformed);
    EXPECT_EQ(decode_recovery_state("{\"version\":9}").error().code(), Code::kNewerVersion);
}

// Broken if a vault that was upgraded gave up the machines that it runs: recovery.json of before
// there were segments has one word for all cards.
TEST(RecoveryState, StatesOfBeforeThereWereSegmentsAreRead) {
    RecoveryState state;
    state.id = "t1";
    state.machine = describe_plain_machine("m", {{"/a", 1}});
    for (const auto& [word, kind] : {std::pair{"isolated", NetworkKind::kIsolated},
                                     {"user", NetworkKind::kUser},
                                     {"none", NetworkKind::kNone}}) {
        state.network = {kind};
        std::string json = encode_recovery_state(state);
        const std::string added = "  \"networks\": [],\n";
        ASSERT_NE(json.find(added), std::string::npos) << json;
        json.erase(json.find(added), added.size());
        EXPECT_NE(json.find(std::string("\"network\": \"") + word + "\""), std::string::npos);
        const auto decoded = decode_recovery_state(json);
        ASSERT_TRUE(decoded) << decoded.error().to_string();
        EXPECT_EQ(network_of(*decoded, 0).kind, kind);
    }
    // Of a word that nobody knows, the file stays as it is.
    state.network = {NetworkKind::kSegment, "NO"};
    EXPECT_EQ(decode_recovery_state(encode_recovery_state(state)).error().code(),
              Code::kInvalidArgument);
}

}  // namespace
}  // namespace farshore
