// The promises of ObjectStore as tests, for every kind of store. Include in one test file of a
// program and instantiate:
//
//     INSTANTIATE_TEST_SUITE_P(Directory, StoreContract, testing::Values(StoreMaker{"directory",
//     …}));
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include "store/store_maker.h"

namespace farshore {

class StoreContract : public testing::TestWithParam<StoreMaker> {
  protected:
    void SetUp() override {
        holder_ = GetParam().make();
        ASSERT_NE(holder_, nullptr);
    }
    ObjectStore& store() { return holder_->store(); }
    std::vector<std::string> names(const std::string& prefix, const std::string& after = "",
                                   size_t limit = 1000) {
        auto listed = store().list(prefix, after, limit);
        EXPECT_TRUE(listed) << listed.error().to_string();
        std::vector<std::string> out;
        if (listed)
            for (const ObjectInfo& info : *listed) out.push_back(info.name);
        return out;
    }
    static Bytes pattern(size_t n, uint8_t seed) {
        Bytes out(n);
        for (size_t i = 0; i < n; ++i) out[i] = static_cast<uint8_t>(i * 31 + i / 256 + seed);
        return out;
    }

    std::unique_ptr<StoreHolder> holder_;
};

// Broken if what is stored could come back changed, cut or longer.
TEST_P(StoreContract, GivesBackWhatWasPut) {
    for (size_t n : {0u, 1u, 4095u, 4096u, 100'000u, 3u << 20}) {
        const std::string name = "items/a/log/" + std::to_string(n);
        const Bytes data = pattern(n, 3);
        ASSERT_TRUE(store().put(name, data));
        auto back = store().get(name);
        ASSERT_TRUE(back) << back.error().to_string();
        ASSERT_EQ(*back, data);
        auto info = store().head(name);
        ASSERT_TRUE(info);
        EXPECT_EQ(info->size_bytes, n);
        EXPECT_EQ(info->name, name);
    }
}

// Broken if an object could be overwritten: history would change.
TEST_P(StoreContract, IsWriteOnce) {
    ASSERT_TRUE(store().put("a/b", as_bytes("first")));
    EXPECT_EQ(store().put("a/b", as_bytes("second")).error().code(), Code::kAlreadyExists);
    EXPECT_EQ(store().put("a/b", as_bytes("first")).error().code(), Code::kAlreadyExists);
    EXPECT_EQ(to_text(*store().get("a/b")), "first");
    EXPECT_TRUE(put_idempotent(store(), "a/b", as_bytes("first")));
    EXPECT_EQ(put_idempotent(store(), "a/b", as_bytes("secnd")).error().code(),
              Code::kAlreadyExists);
}

// Broken if two writers of one name could both believe that theirs is stored.
TEST_P(StoreContract, OneOfManyWritersWins) {
    for (int round = 0; round < 8; ++round) {
        const std::string name = "race/" + std::to_string(round);
        std::atomic<int> winners{0}, winner{-1};
        const auto put_one = [&](int t) {
            const Status put = store().put(name, pattern(50'000, static_cast<uint8_t>(t)));
            if (put) {
                ++winners;
                winner = t;
            } else {
                EXPECT_EQ(put.error().code(), Code::kAlreadyExists) << put.error().to_string();
            }
        };
        std::vector<std::thread> threads;
        for (int t = 0; t < 4; ++t) {
            if (GetParam().threads)
                threads.emplace_back(put_one, t);
            else
                put_one(t);
        }
        for (std::thread& thread : threads) thread.join();
        ASSERT_EQ(winners, 1);
        EXPECT_EQ(*store().get(name), pattern(50'000, static_cast<uint8_t>(winner.load())));
    }
}

TEST_P(StoreContract, RangesAreCutAtTheEnd) {
    const Bytes data = pattern(10'000, 1);
    ASSERT_TRUE(store().put("r", data));
    const auto range = [&](uint64_t from, uint64_t n) {
        auto got = store().get_range("r", from, n);
        EXPECT_TRUE(got) << got.error().to_string();
        return got ? *got : Bytes();
    };
    EXPECT_EQ(range(0, 10'000), data);
    EXPECT_EQ(range(17, 100), to_bytes(ByteView(data).subspan(17, 100)));
    EXPECT_EQ(range(9'990, 100), to_bytes(ByteView(data).subspan(9'990)));
    EXPECT_EQ(range(0, 256u << 10), data);
    EXPECT_EQ(range(10'000, 5), Bytes());
    EXPECT_EQ(range(1u << 30, 5), Bytes());
    EXPECT_EQ(range(3, 0), Bytes());
}

TEST_P(StoreContract, MissingObjectsAreNotFound) {
    ASSERT_TRUE(store().put("d/x", as_bytes("1")));
    for (const char* name : {"nothing", "d", "d/x/y", "d/y", "e/x"}) {
        EXPECT_EQ(store().get(name).error().code(), Code::kNotFound) << name;
        EXPECT_EQ(store().get_range(name, 0, 1).error().code(), Code::kNotFound) << name;
        EXPECT_EQ(store().head(name).error().code(), Code::kNotFound) << name;
        EXPECT_TRUE(store().remove(name)) << name;
    }
    EXPECT_TRUE(store().get("d/x"));
}

TEST_P(StoreContract, RemovedIsGoneAndCanBePutAgain) {
    ASSERT_TRUE(store().put("d/x", as_bytes("1")));
    ASSERT_TRUE(store().put("d/y", as_bytes("1")));
    EXPECT_TRUE(store().remove("d/x"));
    EXPECT_TRUE(store().remove("d/x"));
    EXPECT_EQ(store().get("d/x").error().code(), Code::kNotFound);
    EXPECT_EQ(names("d/"), std::vector<std::string>{"d/y"});
    EXPECT_TRUE(store().put("d/x", as_bytes("2")));
}

// Broken if a listing skipped or repeated an object: the log of an item would have holes.
TEST_P(StoreContract, ListsInByteOrderWithPrefixAfterAndLimit) {
    // '-' and '.' sort before '/', digits after: directories must not disturb the order.
    std::set<std::string> all;
    for (const char* name :
         {"a-b", "a.b", "a/0", "a/1/x", "a/1-x", "a/1.x", "a/10/x", "a/2", "a0", "b/c/d/e",
          "b/c/d0", "b/c-d", "items/0/log/1.seg", "items/0/log/2.seg", "items/00/log/1.seg"}) {
        ASSERT_TRUE(store().put(name, as_bytes(name))) << name;
        all.insert(name);
    }
    const auto expected = [&](const std::string& prefix, const std::string& after, size_t limit) {
        std::vector<std::string> out;
        for (const std::string& name : all)
            if (name.starts_with(prefix) && name > after && out.size() < limit) out.push_back(name);
        return out;
    };
    for (const char* prefix : {"", "a", "a/", "a/1", "a/1/", "b/c", "items/0", "items/0/log/", "z",
                               "a/1/x", "../", "/", "a//"}) {
        EXPECT_EQ(names(prefix), expected(prefix, "", 1000)) << prefix;
        for (const std::string& after : all)
            EXPECT_EQ(names(prefix, after, 3), expected(prefix, after, 3))
                << prefix << " " << after;
        EXPECT_EQ(names(prefix, "a/1/", 1000), expected(prefix, "a/1/", 1000)) << prefix;
        EXPECT_EQ(names(prefix, "a/1", 1000), expected(prefix, "a/1", 1000)) << prefix;
        EXPECT_EQ(names(prefix, "zz", 1000), expected(prefix, "zz", 1000)) << prefix;
    }
    EXPECT_TRUE(names("", "", 0).empty());
    auto listed = store().list("items/", "", 10);
    ASSERT_TRUE(listed);
    for (const ObjectInfo& info : *listed) EXPECT_EQ(info.size_bytes, info.name.size());
}

// Broken if a name could reach outside the store or be two objects at once.
TEST_P(StoreContract, RefusesBadNamesAndSizes) {
    for (const std::string& name :
         {std::string(""), std::string("/a"), std::string("a/"), std::string("a//b"),
          std::string("../x"), std::string("a/../../x"), std::string("."), std::string("a/."),
          std::string("A"), std::string("a b"), std::string("a\nb"), std::string("a\0b", 3),
          std::string("~tmp/x"), std::string("a\\b"), std::string("\xc3\xa4"),
          std::string(513, 'a')}) {
        EXPECT_EQ(store().put(name, as_bytes("x")).error().code(), Code::kInvalidArgument) << name;
        EXPECT_EQ(store().get(name).error().code(), Code::kInvalidArgument) << name;
        EXPECT_EQ(store().get_range(name, 0, 1).error().code(), Code::kInvalidArgument) << name;
        EXPECT_EQ(store().head(name).error().code(), Code::kInvalidArgument) << name;
        EXPECT_EQ(store().remove(name).error().code(), Code::kInvalidArgument) << name;
    }
    std::string longest = "a";
    while (longest.size() < 500) longest += "/" + std::string(99, 'b');
    longest.resize(501);
    EXPECT_TRUE(store().put(longest, as_bytes("x")));
    EXPECT_EQ(store().put("large", Bytes(kMaxObjectBytes + 1)).error().code(), Code::kTooLarge);
    EXPECT_EQ(store().head("large").error().code(), Code::kNotFound);
}

}  // namespace farshore
