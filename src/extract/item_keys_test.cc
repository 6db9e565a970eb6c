// The independent reader against the writers of keys: it opens what they write, at every step.
#include "extract/item_keys.h"

#include <gtest/gtest.h>

#include "codec/envelope.h"
#include "keys/key_document.h"
#include "keys/key_source.h"
#include "os/real.h"
#include "os/test_directory.h"
#include "replica/item_key.h"
#include "store/directory_store.h"

namespace farshore::extraction {
namespace {

constexpr KdfCost kCheap{64, 1, 1};

struct ItemKeysTest : ::testing::Test {
    TestDirectory directory;
    PosixFileSystem files;
    RealRandom random;
    std::unique_ptr<DirectoryStore> store =
        DirectoryStore::open(files, random, {.path = directory / "store", .create = true}).value();
    StoreDirectory reader{files, directory / "store"};
    ItemId item = [this] {
        ItemId id;
        random.fill(id.raw);
        return id;
    }();
    Secret item_key = make_key(random);
    KeyFile old_key = make_key_file(random), new_key = make_key_file(random);

    void SetUp() override {
        ItemObject object;
        object.item = item;
        object.name = "web";
        object.disks = {{2, "vdc", 4096}};
        ASSERT_TRUE(wrap_item_key(object, item_key, old_key, random));
        ASSERT_TRUE(store->put(item_object_name(item), *encode_item_object(object)));
    }
    Code reads(const KeyFile& key) {
        auto description = find_item_description(reader, item);
        EXPECT_TRUE(description) << description.error().to_string();
        EXPECT_EQ(description->name, "web");
        EXPECT_EQ(description->disks.size(), 1u);
        Keys keys;
        keys.keks.emplace(key.id, key.key);
        auto found = find_item_key(reader, *description, keys);
        if (!found) return found.error().code();
        EXPECT_TRUE(std::ranges::equal(found->reveal(), item_key.reveal()));
        return Code::kInternal;  // here: it does
    }
    static constexpr Code kOpens = Code::kInternal;
};

// Broken if the pages of the format, the vault and the reader disagree on where a key stands.
TEST_F(ItemKeysTest, FollowsARotationStepByStep) {
    const auto good = [] { return Status(); };
    EXPECT_EQ(reads(old_key), kOpens);
    EXPECT_EQ(reads(new_key), Code::kWrongKey);
    ASSERT_TRUE(put_item_key(*store, item, item_key, new_key, {9}, {1}, random));
    EXPECT_EQ(reads(old_key), kOpens) << "until it has ended";
    EXPECT_EQ(reads(new_key), kOpens);
    // A crash between the description and the removal of the item object.
    const Bytes first = *store->get(item_object_name(item));
    ASSERT_TRUE(remove_other_item_keys(*store, item, new_key, good));
    ASSERT_TRUE(store->put(item_object_name(item), first));
    EXPECT_EQ(reads(old_key), kOpens);
    EXPECT_EQ(reads(new_key), kOpens);
    ASSERT_TRUE(remove_other_item_keys(*store, item, new_key, good));
    EXPECT_EQ(reads(old_key), Code::kWrongKey);
    EXPECT_EQ(reads(new_key), kOpens);
    ASSERT_TRUE(destroy_item_key(*store, item, {1}, good));
    EXPECT_EQ(reads(new_key), Code::kWrongKey);
}

// Broken if a passphrase, or an escrow of either kind, opened anything else than the vault sealed.
TEST_F(ItemKeysTest, OpensPassphrasesAndEscrows) {
    const Secret passphrase{as_bytes("a passphrase of some length")};
    const Secret other{as_bytes("a passphrase of other length")};
    auto document = seal_under_passphrase(old_key, passphrase, kCheap, {1}, random);
    ASSERT_TRUE(document);
    ASSERT_TRUE(store->put(key_document_name(old_key.id), encode_key_document(*document)));
    ExtractOptions options;
    options.passphrase = passphrase;
    auto keys = open_keys(options, files, reader);
    ASSERT_TRUE(keys) << keys.error().to_string();
    EXPECT_TRUE(std::ranges::equal(keys->keks.at(old_key.id).reveal(), old_key.key.reveal()));
    options.passphrase = other;
    EXPECT_EQ(open_keys(options, files, reader).error().code(), Code::kWrongKey);
    // A key service seals another one; that it is away is not that the key is wrong.
    KeyDocument remote;
    remote.sealing = KeySealing::kAzureKeyVault;
    remote.key_id = new_key.id;
    remote.remote_key = "https://kv/keys/k/1";
    remote.sealed = {1, 2, 3};
    ASSERT_TRUE(store->put(key_document_name(new_key.id), encode_key_document(remote)));
    options.unwrap_remote = [](const std::string&, ByteView) -> Result<Secret> {
        return fail(Code::kUnavailable, "away");
    };
    EXPECT_EQ(open_keys(options, files, reader).error().code(), Code::kUnavailable);
    options.unwrap_remote = [&](const std::string& name, ByteView sealed) -> Result<Secret> {
        EXPECT_EQ(name, remote.remote_key);
        EXPECT_EQ(sealed.size(), 3u);
        return new_key.key;
    };
    EXPECT_TRUE(open_keys(options, files, reader)->keks.contains(new_key.id));

    EscrowContent content;
    content.store_id = "1234";
    content.keys = {old_key};
    content.items.push_back({item, "we\"b\n", item_key});
    auto escrow = seal_escrow(content, passphrase, kCheap, {1}, random);
    ASSERT_TRUE(escrow);
    auto opened = open_escrow(*escrow, passphrase, {});
    ASSERT_TRUE(opened) << opened.error().to_string();
    EXPECT_TRUE(std::ranges::equal(opened->items.at(item).reveal(), item_key.reveal()));
    EXPECT_TRUE(opened->keks.contains(old_key.id));
    EXPECT_EQ(open_escrow(*escrow, other, {}).error().code(), Code::kWrongKey);
    EXPECT_EQ(open_escrow(*escrow, {}, {}).error().code(), Code::kWrongKey);
    for (size_t n = 0; n < escrow->size(); n += 11)
        ASSERT_FALSE(open_escrow(ByteView(*escrow).first(n), passphrase, {})) << n;
}

}  // namespace
}  // namespace farshore::extraction
