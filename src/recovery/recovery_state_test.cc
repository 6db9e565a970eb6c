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
    state.note = "for the auditors";
    state.undecided = Undecided::kRollsBack;
    state.decide_at = {77};
    state.sequence = {UINT64_MAX};
    state.lease = 7;
    state.old_lease = 6;
    state.machine = describe_plain_machine("m", {{"/a", 1}});
    state.error = RecoveryError{Code::kNoSpace, "full", "make room"};
    state.timings.first_read_ms = 812;
    const std::string json = encode_recovery_state(state);
    const auto decoded = decode_recovery_state(json);
    ASSERT_TRUE(decoded) << decoded.error().to_string();
    EXPECT_EQ(encode_recovery_state(*decoded), json);
    EXPECT_EQ(decoded->note, "for the auditors");
    EXPECT_EQ(decoded->undecided, Undecided::kRollsBack);
    EXPECT_EQ(decoded->decide_at.us, 77);
    EXPECT_EQ(decoded->sequence.v, UINT64_MAX);
    EXPECT_EQ(decoded->error->code, Code::kNoSpace);
    EXPECT_EQ(decoded->timings.first_read_ms, 812);
    for (const std::string bad : {"", "[]", "{}", "{\"version\":1}", "{\"version\":\"1\"}"})
        EXPECT_EQ(decode_recovery_state(bad).error().code(), Code::kMalformed) << bad;
    EXPECT_EQ(decode_recovery_state("{\"version\":9}").error().code(), Code::kNewerVersion);
}

}  // namespace
}  // namespace farshore
