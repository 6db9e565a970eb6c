#include "replica/item_key.h"

#include <gtest/gtest.h>

#include <random>

#include "codec/document.h"
#include "codec/envelope.h"
#include "store/memory_store.h"

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

// A process that dies at its n-th change of the store, before it or just after.
class DyingStore final : public ObjectStore {
  public:
    explicit DyingStore(ObjectStore& inner) : inner_(inner) {}
    int changes_left = INT_MAX;
    bool after = false;

    Status put(const std::string& name, ByteView data) override {
        return change([&] { return inner_.put(name, data); });
    }
    Status remove(const std::string& name) override {
        return change([&] { return inner_.remove(name); });
    }
    Result<Bytes> get(const std::string& name) override { return inner_.get(name); }
    Result<Bytes> get_range(const std::string& name, uint64_t from, uint64_t length) override {
        return inner_.get_range(name, from, length);
    }
    Result<ObjectInfo> head(const std::string& name) override { return inner_.head(name); }
    Result<std::vector<ObjectInfo>> list(const std::string& prefix, const std::string& from,
                                         size_t limit) override {
        return inner_.list(prefix, from, limit);
    }

  private:
    Status change(const std::function<Status()>& effect) {
        if (changes_left-- > 0) return effect();
        if (after && changes_left == -1) (void)effect();
        return fail(Code::kConnectionLost, "the process died");
    }
    ObjectStore& inner_;
};

struct ItemKeyTest : ::testing::Test {
    SeededRandom random{7};
    MemoryStore store;
    ItemId item = [this] {
        ItemId id;
        random.fill(id.raw);
        return id;
    }();
    Secret item_key = make_key(random);
    KeyFile first = make_key_file(random), second = make_key_file(random),
            third = make_key_file(random);

    static Keyring ring(const KeyFile& key) { return {{key.id, key}}; }
    static Status good() { return {}; }
    void empty_store() {
        const auto all = store.list("", "", 1000);
        for (const ObjectInfo& info : *all) ASSERT_TRUE(store.remove(info.name));
    }
    void put_item() {
        ItemObject object;
        object.item = item;
        object.name = "web";
        object.disks = {{0, "vda", 1 << 20}};
        ASSERT_TRUE(wrap_item_key(object, item_key, first, random));
        ASSERT_TRUE(store.put(item_object_name(item), *encode_item_object(object)));
    }
    Status rotate(ObjectStore& to, const KeyFile& key) {
        FS_TRY(put_item_key(to, item, item_key, key, {5}, {1}, random));
        auto removed = remove_other_item_keys(to, item, key, good);
        if (!removed) return fail(removed.error());
        return {};
    }
    bool opens(const KeyFile& key) {
        auto opened = load_item_key(store, item, ring(key));
        return opened && std::ranges::equal(opened->key.reveal(), item_key.reveal());
    }
    // Whether any object holds a copy that the key opens, whatever the rules say.
    bool any_copy_opens(const KeyFile& key) {
        const auto all = store.list("", "", 1000);
        for (const ObjectInfo& info : *all) {
            const Bytes bytes = *store.get(info.name);
            const std::string text(as_text(bytes));
            for (size_t at = 0; (at = text.find("\"wrapped\":\"", at)) != std::string::npos; ++at)
                if (open_for_item(item, *from_hex(text.substr(at + 11, 120)), ring(key)))
                    return true;
        }
        return false;
    }
};

// Broken if data were lost in a rotation, or an old key still opened a copy after it.
TEST_F(ItemKeyTest, EachRotationLeavesOneCopyUnderTheNewKey) {
    put_item();
    EXPECT_TRUE(opens(first));
    ASSERT_TRUE(rotate(store, second));
    EXPECT_TRUE(opens(second));
    EXPECT_FALSE(any_copy_opens(first));
    auto wrong = load_item_key(store, item, ring(first));
    ASSERT_FALSE(wrong);
    EXPECT_EQ(wrong.error().code(), Code::kWrongKey);
    EXPECT_NE(wrong.error().what().find(second.id), std::string::npos) << wrong.error().what();
    ASSERT_TRUE(rotate(store, third));
    EXPECT_TRUE(opens(third));
    EXPECT_FALSE(any_copy_opens(second));
    auto object = load_item_object(store, item);
    ASSERT_TRUE(object);
    EXPECT_EQ(object->name, "web");
    EXPECT_EQ(object->disks.size(), 1u);
    EXPECT_TRUE(object->wrapped_key.empty());
    EXPECT_EQ(store.list("items/", "", 100)->size(), 2u) << "a description and one key";
    ASSERT_TRUE(rotate(store, third)) << "again is harmless";
    EXPECT_EQ(store.list("items/", "", 100)->size(), 2u);
}

// Broken if a crash at some change of the store left the item without a key, or an old copy behind
// once it was done again; and if until then the old key were no use.
TEST_F(ItemKeyTest, ACrashAnywhereIsMendedByDoingItAgain) {
    for (const bool from_description : {false, true}) {
        for (const bool after : {false, true}) {
            for (int changes = 0;; ++changes) {
                empty_store();
                put_item();
                if (from_description) ASSERT_TRUE(rotate(store, second));
                const KeyFile& old = from_description ? second : first;
                DyingStore dying(store);
                dying.changes_left = changes;
                dying.after = after;
                const bool done = rotate(dying, third).has_value();
                EXPECT_TRUE(opens(old) || opens(third)) << changes;
                ASSERT_TRUE(load_item_object(store, item)) << changes;
                ASSERT_TRUE(rotate(store, third)) << changes;
                EXPECT_TRUE(opens(third)) << changes;
                EXPECT_FALSE(any_copy_opens(old)) << changes;
                EXPECT_EQ(store.list("items/", "", 100)->size(), 2u) << changes;
                if (done) {
                    EXPECT_GE(changes, 2);
                    break;
                }
            }
        }
    }
}

// Broken if copies were removed though none is known to open: the last way to the data would go.
TEST_F(ItemKeyTest, NothingIsRemovedBeforeTheNewCopyWasReadBack) {
    put_item();
    EXPECT_EQ(remove_other_item_keys(store, item, second, good).error().code(), Code::kWrongKey);
    ASSERT_TRUE(put_item_key(store, item, item_key, second, {5}, {1}, random));
    const std::string name = item_key_name(item, 1, {5});
    Bytes damaged = *store.get(name);
    damaged[damaged.size() / 2] ^= 1;
    ASSERT_TRUE(store.remove(name));
    ASSERT_TRUE(store.put(name, damaged));
    EXPECT_EQ(remove_other_item_keys(store, item, second, good).error().code(), Code::kWrongKey);
    EXPECT_TRUE(opens(first)) << "the newest generation that can be unwrapped counts";
    ASSERT_TRUE(put_item_key(store, item, item_key, second, {5}, {1}, random))
        << "a damaged generation is passed over by a newer one";
    EXPECT_TRUE(opens(second));
    const auto fenced = [] { return Status(fail(Code::kFenced, "another vault")); };
    EXPECT_EQ(remove_other_item_keys(store, item, second, fenced).error().code(), Code::kFenced);
    EXPECT_TRUE(opens(first));
    ASSERT_TRUE(rotate(store, second));
    EXPECT_FALSE(any_copy_opens(first));
}

// Broken if a destroyed item could be opened, or a crash in the middle were not known.
TEST_F(ItemKeyTest, DestructionLeavesNoCopyWhereverItIsCut) {
    for (int changes = 0;; ++changes) {
        empty_store();
        put_item();
        ASSERT_TRUE(put_item_key(store, item, item_key, second, {5}, {1}, random));
        DyingStore dying(store);
        dying.changes_left = changes;
        const bool done = destroy_item_key(dying, item, {99}, good).has_value();
        if (changes > 0) {
            auto opened = load_item_key(store, item, {{first.id, first}, {second.id, second}});
            ASSERT_FALSE(opened) << changes;
            EXPECT_EQ(opened.error().code(), Code::kWrongKey);
            EXPECT_EQ(**key_destroyed(store, item), TimePoint{99});
        }
        ASSERT_TRUE(destroy_item_key(store, item, {100}, good));
        EXPECT_FALSE(any_copy_opens(first));
        EXPECT_FALSE(any_copy_opens(second));
        EXPECT_EQ(load_item_object(store, item)->name, "web") << "what it was is still known";
        if (done) break;
    }
}

// Broken if a key object of another item or generation passed, or a cut one crashed its reader.
TEST_F(ItemKeyTest, EveryDamageIsNamed) {
    ItemKeyObject object;
    object.item = item;
    object.generation = 3;
    object.vault = {7};
    object.key_id = first.id;
    object.wrapped_key = *wrap_for_item(item, item_key, first, random);
    const Bytes bytes = encode_item_key(object);
    const ItemKeyName name{3, {7}};
    ASSERT_TRUE(decode_item_key(bytes, item, name));
    EXPECT_EQ(decode_item_key(bytes, item, {4, {7}}).error().code(), Code::kForeignStore);
    ItemId other = item;
    other.raw[0] ^= 1;
    EXPECT_EQ(decode_item_key(bytes, other, name).error().code(), Code::kForeignStore);
    EXPECT_EQ(open_for_item(other, object.wrapped_key, ring(first)).error().code(),
              Code::kWrongKey);
    for (size_t n = 0; n < bytes.size(); ++n)
        ASSERT_EQ(decode_item_key(ByteView(bytes).first(n), item, name).error().code(),
                  Code::kTruncated)
            << n;
    std::string text = *decode_document(bytes, "x");
    text.replace(text.find("\"format\":1"), 10, "\"format\":2");
    EXPECT_EQ(decode_item_key(encode_document(text), item, name).error().code(),
              Code::kNewerVersion);
    EXPECT_EQ(parse_item_key_name(item, item_key_name(item, 3, {7})), name);
    for (const std::string& odd :
         {item_object_name(item), item_key_prefix(item) + "x", item_key_name(item, 3, {7}) + "x",
          item_key_name(other, 3, {7}), item_key_name(item, 0, {7})})
        EXPECT_FALSE(parse_item_key_name(item, odd)) << odd;
}

}  // namespace
}  // namespace farshore
