// Where two states of a replica differ, by the log between them; and what the later one has there.
#include "replica/replica_return.h"

#include <gtest/gtest.h>

#include "replica/replica_test_model.h"

namespace farshore {
namespace {

using namespace replica_test;

constexpr uint64_t kDiskBytes = 300'000;

class ReplicaReturnTest : public ::testing::Test {
  protected:
    void SetUp() override {
        replica_ = *ItemReplica::open(memory_, ledger_, clock_, random_, test_item(), test_key(),
                                      ItemReplicaOptions());
        appliance_.emplace(memory_, random_, test_item(), test_key());
        ASSERT_TRUE(appliance_->acquire(*replica_));
        Bytes records;
        RecordHeader h = header(RecordKind::kGeometry);
        h.offset_bytes = kDiskBytes;
        append_record(records, h, {});
        states_.push_back(disk_);  // 0
        states_.push_back(disk_);  // the geometry
        send(records);
    }
    RecordHeader header(RecordKind kind) {
        RecordHeader h;
        h.kind = kind;
        h.sequence = {states_.size() == 0 ? 1 : states_.size()};
        h.time = {clock_.now_us};
        return h;
    }
    void change(Bytes& records) {
        const bool zero = random_.below(4) == 0;
        RecordHeader h = header(zero ? RecordKind::kZero : RecordKind::kWrite);
        h.length_bytes = static_cast<uint32_t>(1 + random_.below(9000));
        h.offset_bytes = random_.below(kDiskBytes - h.length_bytes);
        const auto bytes = MutableByteView(disk_).subspan(h.offset_bytes, h.length_bytes);
        if (zero)
            std::fill(bytes.begin(), bytes.end(), 0);
        else
            random_.fill(bytes);
        append_record(records, h, zero ? ByteView() : ByteView(bytes));
        states_.push_back(disk_);
    }
    void send(const Bytes& records) { ASSERT_TRUE(appliance_->send(*replica_, records)); }
    void segments(int count) {
        for (int i = 0; i < count; ++i) {
            Bytes records;
            for (int n = 0; n < 6; ++n) change(records);
            send(records);
        }
    }
    Result<std::unique_ptr<ReplicaReturn>> open(uint64_t to) {
        return ReplicaReturn::open(memory_, test_item(), test_key(), {to},
                                   replica_->status()->segments);
    }
    // What becomes of the state `from` when the answers are followed.
    Bytes followed(ReplicaReturn& state, uint64_t from, bool* known) {
        Bytes disk = states_.at(from);
        ReturnQuestion question;
        question.from = {from};
        question.to = state.to();
        while (true) {
            auto changed = state.answer(question);
            EXPECT_TRUE(changed) << changed.error().to_string();
            *known = changed && changed->verdict == ReturnVerdict::kOk;
            if (!*known) return disk;
            for (const ReturnRange& range : changed->ranges) {
                ReturnQuestion data;
                data.kind = ReturnKind::kData;
                data.to = state.to();
                data.ranges = {range};
                auto bytes = state.answer(data);
                EXPECT_TRUE(bytes) << bytes.error().to_string();
                if (!bytes) return disk;
                std::copy(bytes->data.begin(), bytes->data.end(),
                          disk.begin() + static_cast<ptrdiff_t>(range.offset_bytes));
            }
            if (changed->next_offset_bytes == 0) return disk;
            question.offset_bytes = changed->next_offset_bytes;
        }
    }

    TestClock clock_;
    TestRandom random_{5};
    MemoryStore memory_;
    MemoryLedger ledger_;
    std::shared_ptr<ItemReplica> replica_;
    std::optional<Appliance> appliance_;
    Bytes disk_ = Bytes(kDiskBytes);
    std::vector<Bytes> states_;
};

// Broken if a change between two states were left out, wherever in their segments they lie.
TEST_F(ReplicaReturnTest, WhatIsFollowedIsThere) {
    segments(8);
    for (int i = 0; i < 60; ++i) {
        const uint64_t to = 1 + random_.below(states_.size() - 1);
        auto state = open(to);
        ASSERT_TRUE(state) << state.error().to_string();
        for (int j = 0; j < 3; ++j) {
            const uint64_t from = 1 + random_.below(to);
            bool known = false;
            EXPECT_TRUE(followed(**state, from, &known) == states_[to]) << from << " " << to;
            EXPECT_TRUE(known);
        }
    }
}

// Broken if a log that lacks segments were taken for one without changes, a foreign segment for one
// of it, or another state answered for.
TEST_F(ReplicaReturnTest, WhatIsNotKnownIsSaid) {
    segments(4);
    auto state = open(states_.size() - 1);
    ASSERT_TRUE(state);
    const auto objects = *memory_.list(log_prefix(test_item()), "", 100);
    ASSERT_GE(objects.size(), 5u);
    const Bytes second = *memory_.get(objects[1].name);
    ASSERT_TRUE(memory_.remove(objects[1].name));
    bool known = true;
    (void)followed(**state, 1, &known);
    EXPECT_FALSE(known) << "it was folded into a base";
    (void)followed(**state, states_.size() - 3, &known);
    EXPECT_TRUE(known) << "that is behind it";
    ReturnQuestion question;
    question.from = {1};
    question.to = {2};
    EXPECT_EQ((*state)->answer(question).error().code(), Code::kInvalidArgument);
    question.to = (*state)->to();
    question.disk = 3;
    question.kind = ReturnKind::kData;
    question.ranges = {{0, 1}};
    EXPECT_EQ((*state)->answer(question).error().code(), Code::kNotFound);
    question.disk = 0;
    question.ranges = {{0, kMaxReturnBytes}, {kMaxReturnBytes, 1}};
    EXPECT_EQ((*state)->answer(question).error().code(), Code::kMalformed);
    question.ranges = {{kDiskBytes - 10, 20}};
    const auto tail = (*state)->answer(question);
    ASSERT_TRUE(tail);
    EXPECT_EQ(Bytes(tail->data.begin() + 10, tail->data.end()), Bytes(10));
    EXPECT_EQ(open(states_.size() + 5).error().code(), Code::kPointNotFound);
}

}  // namespace
}  // namespace farshore
