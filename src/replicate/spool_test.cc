#include "replicate/spool.h"

#include <gtest/gtest.h>

#include "record/record.h"
#include "sim/disk.h"
#include "sim/world.h"

namespace farshore {
namespace {

constexpr uint64_t kFileBytes = 1u << 20;
const ItemId kItem{};

// A spool on a disk of its own, on which there is room for so much.
class FullSpool : public ::testing::Test {
  protected:
    FullSpool() : host_(world_.add_host("site")), process_(host_.add_process("appliance")) {
        process_.start();
        open();
    }
    void open() {
        auto spool = Spool::open(process_.file_system(), "spool", kItem, kFileBytes, true);
        ASSERT_TRUE(spool) << spool.error().to_string();
        spool_ = std::move(*spool);
    }
    // One more record, synced.
    Status receive() {
        Bytes bytes;
        RecordHeader header;
        header.kind = RecordKind::kWrite;
        header.sequence = next_;
        header.length_bytes = 40'000;
        append_record(bytes, header, Bytes(40'000, static_cast<uint8_t>(next_.v)));
        SpoolRange range;
        FS_TRY(spool_->append(bytes, range));
        FS_TRY(spool_->sync());
        next_ = next_.next();
        return {};
    }
    void fill() {
        host_.disk().set_capacity_bytes(400'000);
        while (receive()) {
        }
        ASSERT_GT(next_.v, 5u);
    }
    Sequence newest() const { return {next_.v - 1}; }

    SimWorld world_{1};
    SimHost& host_;
    SimProcess& process_;
    std::unique_ptr<Spool> spool_;
    Sequence next_{1};
};

// Broken: a disk that is full of nothing but what is stored stays full, and nothing is received.
TEST_F(FullSpool, WhatIsStoredMakesRoom) {
    fill();
    ASSERT_EQ(receive().error().code(), Code::kNoSpace);
    ASSERT_TRUE(spool_->trim(newest()));
    EXPECT_EQ(spool_->bytes(), 0u);
    EXPECT_TRUE(receive());
}

// Broken: an appliance that is started on a full disk can't open its spool, so it never stores and
// frees what fills it.
TEST_F(FullSpool, OpensWithoutRoomForACopy) {
    fill();
    open();
    ASSERT_FALSE(spool_->recovered().empty());
    EXPECT_EQ(spool_->recovered().back().last, newest());
    // What counts as received is durable.
    host_.disk().set_power_loss_policy(
        {PowerLossPolicy::Fate::kDropped, PowerLossPolicy::Fate::kDropped, 0});
    spool_.reset();
    host_.lose_power();
    host_.power_on();
    open();
    EXPECT_EQ(spool_->recovered().back().last, newest());
    EXPECT_TRUE(spool_->trim(newest()));
    (void)receive();  // does not fit, which closes the file
    EXPECT_TRUE(spool_->trim(newest()));
    EXPECT_TRUE(receive());
}

}  // namespace
}  // namespace farshore
