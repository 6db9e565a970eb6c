#include "store/counting_store.h"

#include <gtest/gtest.h>

#include "store/memory_store.h"

namespace farshore {
namespace {

// Broken if what a provider charges for were counted under another name, or not at all.
TEST(CountingStore, CountsEachKindAndTheBytesBothWays) {
    CountingStore store(std::make_unique<MemoryStore>());
    ASSERT_TRUE(store.put("a", Bytes(100)));
    EXPECT_FALSE(store.put("a", Bytes(100)));
    ASSERT_TRUE(store.get("a"));
    EXPECT_FALSE(store.get("b"));
    ASSERT_TRUE(store.get_range("a", 90, 100));
    ASSERT_TRUE(store.head("a"));
    ASSERT_TRUE(store.list("", "", 5));
    ASSERT_TRUE(store.list("", "a", 5));
    ASSERT_TRUE(store.remove("a"));
    EXPECT_FALSE(store.put("A", Bytes(1)));
    const StoreCounts counts = store.counts();
    EXPECT_EQ(counts.requests, (std::array<uint64_t, 6>{3, 2, 1, 1, 2, 1}));
    EXPECT_EQ(counts.failed, 1u) << "a bad name; what is there or not there is an answer";
    EXPECT_EQ(counts.bytes_put, 201u);
    EXPECT_EQ(counts.bytes_got, 110u);
}

}  // namespace
}  // namespace farshore
