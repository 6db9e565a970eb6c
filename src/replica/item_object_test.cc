#include "replica/item_object.h"

#include <gtest/gtest.h>

#include <random>

#include "codec/document.h"
#include "codec/envelope.h"

namespace farshore {
namespace {

class SeededRandom final : public Random {
  public:
    explicit SeededRandom(uint64_t seed) : engine_(seed) {}
    void fill(MutableByteView out) override {
        for (uint8_t& b : out) b = static_cast<uint8_t>(engine_());
    }

  private:
    std::mt19937_64 engine_;
};

ItemObject example(Random& random, const KeyFile& key, const Secret& item_key) {
    ItemObject object;
    random.fill(object.item.raw);
    object.name = "database \xc3\xa4 \"1\"\n";
    object.created = {1'700'000'000'123'456};
    object.disks = {{0, "vda", 10ull << 30}, {3, "/srv/d.raw", 12345}};
    object.machine_json = R"({"cpus":4,"memory_bytes":8589934592})";
    EXPECT_TRUE(wrap_item_key(object, item_key, key, random));
    return object;
}

// Broken if a store without its database could not be read any more.
TEST(ItemObject, RoundTripsAndOpensItsKey) {
    SeededRandom random(1);
    const KeyFile key = make_key_file(random), other = make_key_file(random);
    const Secret item_key = make_key(random);
    const ItemObject object = example(random, key, item_key);
    auto bytes = encode_item_object(object);
    ASSERT_TRUE(bytes);
    auto back = decode_item_object(*bytes, object.item);
    ASSERT_TRUE(back) << back.error().to_string();
    EXPECT_EQ(back->name, object.name);
    EXPECT_EQ(back->created, object.created);
    EXPECT_EQ(back->disks, object.disks);
    EXPECT_EQ(back->machine_json, object.machine_json);
    auto opened = open_item_key(*back, key);
    ASSERT_TRUE(opened);
    EXPECT_TRUE(std::ranges::equal(opened->reveal(), item_key.reveal()));
    EXPECT_EQ(open_item_key(*back, other).error().code(), Code::kWrongKey);
    ItemObject moved = *back;
    moved.item.raw[0] ^= 1;
    EXPECT_EQ(open_item_key(moved, key).error().code(), Code::kWrongKey)
        << "a key must not open under another item";
    EXPECT_EQ(decode_item_object(*bytes, moved.item).error().code(), Code::kForeignStore);
    moved.machine_json = "[1]";
    EXPECT_EQ(encode_item_object(moved).error().code(), Code::kInvalidArgument);
    moved.machine_json.clear();
    moved.name = "\xff\xfe";
    EXPECT_TRUE(encode_item_object(moved)) << "a name that is not UTF-8 must not throw";
}

TEST(ItemObject, EveryDamageAndANewerFormatAreNamed) {
    SeededRandom random(2);
    const KeyFile key = make_key_file(random);
    const ItemObject object = example(random, key, make_key(random));
    const Bytes good = *encode_item_object(object);
    for (size_t i = 0; i < good.size(); ++i) {
        Bytes bad = good;
        bad[i] ^= static_cast<uint8_t>(1u << random.below(8));
        auto flipped = decode_item_object(bad, object.item);
        ASSERT_FALSE(flipped) << i;
        ASSERT_TRUE(flipped.error().code() == Code::kCorrupt ||
                    flipped.error().code() == Code::kMalformed ||
                    flipped.error().code() == Code::kTruncated)
            << flipped.error().to_string();
        ASSERT_EQ(decode_item_object(ByteView(good).first(i), object.item).error().code(),
                  Code::kTruncated)
            << i;
    }
    EXPECT_EQ(decode_item_object(encode_document(R"({"format":3})"), object.item).error().code(),
              Code::kNewerVersion);
    EXPECT_EQ(decode_item_object(encode_document("{}"), object.item).error().code(),
              Code::kMalformed);
}

}  // namespace
}  // namespace farshore
