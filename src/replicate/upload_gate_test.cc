#include "replicate/upload_gate.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

namespace farshore {
namespace {

constexpr uint64_t kMB = 1'000'000;

ItemId item(uint8_t n) {
    ItemId id;
    id.raw[0] = n;
    return id;
}

// Items that always have something to send: what each has sent between the two moments.
std::map<ItemId, uint64_t> run(UploadGate& gate, const std::map<ItemId, uint64_t>& objects,
                               int64_t from_us, int64_t until_us) {
    std::map<ItemId, uint64_t> sent;
    for (const auto& [id, bytes] : objects) gate.want(id, bytes);
    for (int64_t now_us = from_us; now_us <= until_us;) {
        while (const auto next = gate.next(now_us)) {
            sent[*next] += objects.at(*next);
            gate.want(*next, objects.at(*next));
        }
        const auto wait_us = gate.wait_us(now_us);
        EXPECT_TRUE(wait_us && *wait_us > 0) << "it says that somebody may go, and nobody does";
        if (!wait_us || *wait_us <= 0) break;
        now_us += *wait_us;
    }
    return sent;
}

TEST(UploadGate, WithoutALimitNobodyWaits) {
    UploadGate gate;
    for (int i = 0; i < 100; ++i) {
        gate.want(item(1), 1000 * kMB);
        EXPECT_EQ(gate.next(0), item(1));
    }
    EXPECT_EQ(gate.next(0), std::nullopt);
    EXPECT_EQ(gate.wait_us(0), std::nullopt);
}

// Broken if an item sent more than its limit, or much less.
TEST(UploadGate, AnItemKeepsItsLimit) {
    UploadGate gate;
    gate.set_rate(item(1), kMB, 0);
    const uint64_t sent = run(gate, {{item(1), 300'000}}, 0, 100'000'000)[item(1)];
    EXPECT_LE(sent, 100 * kMB + kMB / 4 + 300'000);
    EXPECT_GE(sent, 100 * kMB);
    EXPECT_EQ(gate.rate(item(1)), kMB);
    EXPECT_FALSE(gate.total_counts(item(1)));
    // One object may be larger than a second's worth; the next waits until it is paid.
    UploadGate slow;
    slow.set_rate(item(1), 10'000, 0);
    slow.want(item(1), 16 * kMB);
    EXPECT_EQ(slow.next(0), item(1));
    slow.want(item(1), 16 * kMB);
    EXPECT_EQ(slow.next(1'599'000'000), std::nullopt);
    EXPECT_EQ(slow.next(1'601'000'000), item(1));
}

// Broken if one item took the line from the others.
TEST(UploadGate, ItemsShareTheTotalFairly) {
    UploadGate gate;
    gate.set_total_rate(10 * kMB, 0);
    gate.set_rate(item(3), kMB, 0);
    auto sent = run(gate, {{item(1), kMB}, {item(2), kMB / 5}, {item(3), kMB / 2}}, 0, 100'000'000);
    EXPECT_NEAR(double(sent[item(3)]), 100e6, 5e6) << "its own limit";
    EXPECT_NEAR(double(sent[item(1)]), 450e6, 10e6);
    EXPECT_NEAR(double(sent[item(2)]), 450e6, 10e6);
    EXPECT_TRUE(gate.total_counts(item(1)));
    EXPECT_FALSE(gate.total_counts(item(3)));
    // Who was quiet has saved nothing up.
    UploadGate late;
    late.set_total_rate(10 * kMB, 0);
    run(late, {{item(1), kMB}}, 0, 100'000'000);
    sent = run(late, {{item(1), kMB}, {item(2), kMB}}, 100'100'000, 110'000'000);
    EXPECT_NEAR(double(sent[item(1)]), 50e6, 3e6);
    EXPECT_NEAR(double(sent[item(2)]), 50e6, 3e6);
}

// Broken if a quiet machine's marks waited for what a busy one owes: its RPO would be the other's.
TEST(UploadGate, SmallObjectsDoNotWaitForLargeOnes) {
    UploadGate gate;
    gate.set_total_rate(100'000, 0);
    gate.want(item(1), 16 * kMB);
    ASSERT_EQ(gate.next(0), item(1));  // owes 160 s
    gate.want(item(1), 16 * kMB);
    for (int64_t second = 1; second <= 100; ++second) {
        gate.want(item(2), 5000);
        EXPECT_EQ(gate.next(second * 1'000'000), item(2)) << second;
        EXPECT_EQ(gate.next(second * 1'000'000), std::nullopt);
    }
    // But many small ones are many bytes.
    uint64_t sent = 0;
    for (int64_t us = 101'000'000; us < 151'000'000; us += 10'000) {
        gate.want(item(2), kSmallObjectBytes);
        if (gate.next(us)) sent += kSmallObjectBytes;
    }
    EXPECT_LE(sent, kSmallReserveBytes + 50 * 10'000);
}

// Broken if a change waited for what was owed at the old limit, or a pause sent something.
TEST(UploadGate, ChangesCountAtOnce) {
    UploadGate gate;
    gate.set_rate(item(1), 0, 0);
    gate.want(item(1), 100);
    EXPECT_EQ(gate.next(3'600'000'000), std::nullopt);
    EXPECT_EQ(gate.wait_us(3'600'000'000), std::nullopt);
    gate.set_rate(item(1), 10'000, 3'600'000'000);
    EXPECT_EQ(gate.next(3'600'000'000), item(1));
    gate.want(item(1), kMB);
    ASSERT_EQ(gate.next(3'600'100'000), item(1));
    gate.want(item(1), kMB);
    EXPECT_EQ(gate.next(3'601'000'000), std::nullopt);
    gate.set_rate(item(1), 100 * kMB, 3'601'000'000);
    EXPECT_EQ(gate.next(3'601'010'000), item(1));
    gate.want(item(1), kMB);
    gate.set_rate(item(1), kUnlimited, 3'601'010'000);
    EXPECT_EQ(gate.next(3'601'010'000), item(1));
    gate.set_rate(item(1), kMB, 3'601'010'000);
    gate.want(item(1), kMB);
    gate.withdraw(item(1));
    EXPECT_EQ(gate.next(3'601'010'000), std::nullopt);
    EXPECT_FALSE(gate.waits(item(1)));
}

// Broken if any sequence of objects, rates and times passed the bound of the header.
TEST(UploadGate, NoMoreThanTheBoundInAnyTime) {
    EXPECT_TRUE(rc::check([] {
        const uint64_t rate = *rc::gen::inRange<uint64_t>(kMinBandwidthBytesPerS, 20 * kMB);
        const auto steps = *rc::gen::container<std::vector<std::pair<uint64_t, int64_t>>>(
            rc::gen::pair(rc::gen::oneOf(rc::gen::inRange<uint64_t>(1, 4 * kMB),
                                         rc::gen::inRange<uint64_t>(1, kSmallObjectBytes + 1)),
                          rc::gen::inRange<int64_t>(0, 2'000'000)));
        UploadGate gate;
        gate.set_total_rate(rate, 0);
        std::map<ItemId, uint64_t> wanted;
        uint64_t sent = 0, largest = 0;
        int64_t now_us = 0;
        for (size_t i = 0; i < steps.size(); ++i) {
            const ItemId id = item(uint8_t(i % 3));
            gate.want(id, wanted[id] = steps[i].first);
            now_us += steps[i].second;
            while (const auto next = gate.next(now_us)) {
                sent += wanted.at(*next);
                largest = std::max(largest, wanted.at(*next));
            }
            RC_ASSERT(double(sent) <= double(rate) * (double(now_us + kBurstUs) / 1e6) +
                                          double(largest + kSmallReserveBytes) + 1);
        }
    }));
}

}  // namespace
}  // namespace farshore
