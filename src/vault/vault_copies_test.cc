// Copies of items in other stores as the vault drives them: verbs, faults, keys, damage.
#include "meta/items.h"
#include "meta/stores.h"
#include "replica/item_key.h"
#include "replica/manifest.h"
#include "replica/replica_reader.h"
#include "replica/vault_fence.h"
#include "store/directory_store.h"
#include "vault/test_site.h"

namespace farshore {
namespace {

constexpr int64_t kMinuteUs = 60'000'000;

class CopiesTest : public testing::Test {
  protected:
    CopiesTest() {
        item = std::make_unique<ProtectedItem>(site);
        appliance = &item->appliance;
    }
    ~CopiesTest() override { std::filesystem::remove_all(place); }

    Json add_store(const std::string& name = "second") {
        return site.call("POST", "/v1/stores", 201, {{"name", name}, {"location", place}});
    }
    Json add_copy(const Json& more = {}) {
        Json body{{"store", "second"}};
        if (more.is_object()) body.update(more);
        return site.call("POST", "/v1/items/web/copies", 201, body);
    }
    void restart() {
        site.start();
        later = std::make_unique<FakeAppliance>(
            FakeAppliance{site, site.vault(), item->item, {}, {}, {}, {1}});
        ASSERT_TRUE(later->acquire());
        appliance = later.get();
    }
    Json copy() { return site.call("GET", "/v1/items/web/copies", 200)["copies"].at(0); }
    void follow() {
        // What failed is tried again after a while.
        site.clock.us += kMinuteUs;
        while (site.vault().tend_copies()) {
        }
    }
    void write(int segments = 1) {
        for (int i = 0; i < segments; ++i) {
            site.clock.us += kMinuteUs;
            Bytes records;
            appliance->add(records, RecordKind::kWrite, std::string(8192, char('a' + i % 20)));
            appliance->add(records, RecordKind::kPoint, "",
                           static_cast<uint8_t>(PointKind::kCrash));
            const Status sent = appliance->send(records);
            ASSERT_TRUE(sent) << sent.error().to_string();
        }
    }
    std::unique_ptr<DirectoryStore> open(const std::string& path) {
        auto store = DirectoryStore::open(site.files, site.random, {path, false});
        EXPECT_TRUE(store) << store.error().to_string();
        return std::move(*store);
    }
    size_t objects(const std::string& prefix) { return list_all(*open(place), prefix)->size(); }
    std::vector<Json> events(const std::string& code) {
        std::vector<Json> out;
        const Json all = site.call("GET", "/v1/events", 200);
        for (const Json& event : all["events"])
            if (event["code"] == code) out.push_back(event);
        return out;
    }
    Json wait(const Json& job) {
        const auto id = job["id"].get<uint64_t>();
        const auto over = site.vault().job(id, 3'600'000'000);
        EXPECT_TRUE(over && over->over());
        return site.call("GET", "/v1/jobs/" + std::to_string(id), 200);
    }
    // The newest point that is offered, of a copy or of the item.
    uint64_t newest(const std::string& query = {}) {
        const Json points = site.call("GET", "/v1/items/web/points" + query, 200);
        return points["window"]["newest"]["sequence"];
    }
    // The first bytes of the disk at the newest point, as the store at `path` has them.
    std::string content(const std::string& path, uint64_t sequence) {
        const auto store = open(path);
        auto reader = ReplicaReader::open(*store, item->item, *site.vault().item_key(item->item),
                                          {sequence}, {});
        EXPECT_TRUE(reader) << reader.error().to_string();
        Bytes bytes(4);
        EXPECT_TRUE((*(*reader)->disk(0))->read(0, bytes));
        return std::string(as_text(bytes));
    }

    Site site;
    std::string place = fresh_directory();
    std::unique_ptr<ProtectedItem> item;
    std::unique_ptr<FakeAppliance> later;
    FakeAppliance* appliance = nullptr;
};

// Broken if a copy did not get all that the item has, were not offered, did not survive a restart,
// or stayed when the item was unprotected.
TEST_F(CopiesTest, ACopyIsMadeFollowsAndGoesWithItsItem) {
    const Json store = add_store();
    EXPECT_EQ(store["open"], true);
    EXPECT_EQ(site.call("GET", "/v1/stores", 200)["stores"].size(), 2u);
    const Json added = add_copy({{"window_s", 86'400}, {"keep", "1h:1d"}});
    EXPECT_EQ(added["window_s"], 86'400);
    EXPECT_EQ(added["keep"], "1h:1d");
    write(3);
    follow();
    Json now = copy();
    EXPECT_EQ(now["state"], "following");
    EXPECT_EQ(now["behind_segments"], 0);
    EXPECT_EQ(newest("?copy=second"), newest());
    EXPECT_EQ(content(place, newest()), "cccc");
    EXPECT_EQ(content(place, newest()), content(site.directory + "/store", newest()));

    restart();
    site.vault().tend();
    write(2);
    follow();
    EXPECT_EQ(copy()["state"], "following");
    EXPECT_EQ(newest("?copy=second"), newest());
    const Json changed =
        site.call("PATCH", "/v1/items/web/copies/second", 200, {{"window_s", 3600}});
    EXPECT_EQ(changed["window_s"], 3600);
    EXPECT_EQ(changed["keep"], "1h:1d") << "what was not named stays";

    EXPECT_EQ(site.refused("DELETE", "/v1/stores/second"), "wrong-state");
    const Json job = site.call("DELETE", "/v1/items/web", 202);
    AgentItemStatus removed;
    removed.item = item->item;
    removed.state = AgentItemState::kRemoved;
    EXPECT_TRUE(item->agent.sync({removed}));
    EXPECT_EQ(wait(job)["state"], "succeeded");
    EXPECT_EQ(objects("items/"), 0u);
    site.call("DELETE", "/v1/stores/second", 204);
    EXPECT_EQ(objects("farshore-store"), 1u) << "the store is still one";
}

// Broken if a copy that begins late, after the log's beginning has left the window, lacked the
// older points or what they need.
TEST_F(CopiesTest, ACopyOfAnOlderItemBeginsWithItsFloor) {
    site.call("PATCH", "/v1/items/web", 200, {{"policy", {{"window_s", 300}, {"keep", "10m:1d"}}}});
    for (int i = 0; i < 10; ++i) {
        write(4);
        site.vault().tend();
    }
    const auto before = site.vault().replica(item->item);
    ASSERT_TRUE(before);
    const uint64_t oldest = (*before)->status()->oldest->v;
    ASSERT_GT(oldest, 1u);
    ASSERT_FALSE((*before)->points({})->kept.empty())
        << site.call("GET", "/v1/items/web", 200).dump();
    add_store();
    add_copy({{"window_s", 86'400}, {"keep", "10m:30d"}});
    follow();
    EXPECT_EQ(events("copy-seeded").size(), 1u);
    const auto copied = site.vault().replica(item->item, "second");
    ASSERT_TRUE(copied) << copied.error().to_string();
    EXPECT_EQ((*copied)->status()->oldest->v, oldest);
    EXPECT_EQ((*copied)->status()->newest, (*before)->status()->newest);
    const auto kept = (*copied)->points({})->kept;
    ASSERT_FALSE(kept.empty());
    EXPECT_EQ(content(place, kept.front().sequence.v),
              content(site.directory + "/store", kept.front().sequence.v));
    // The item's own window goes on; the copy's is longer.
    const auto window = [](ItemReplica& replica) {
        return replica.points({})->ranges.front().first.v;
    };
    const uint64_t own = window(**before), theirs = window(**copied);
    for (int i = 0; i < 10; ++i) {
        write(4);
        follow();
        site.vault().tend();
    }
    EXPECT_GT(window(**before), own);
    EXPECT_EQ(window(**copied), theirs);
}

// Broken if wrong input were taken, half taken, or answered with anything but what is wrong.
TEST_F(CopiesTest, BadInputIsRefused) {
    const auto store = [&](const Json& body) { return site.refused("POST", "/v1/stores", body); };
    EXPECT_EQ(store({{"name", "Bad Name"}, {"location", place}}), "invalid-argument");
    EXPECT_EQ(store({{"name", "primary"}, {"location", place}}), "invalid-argument");
    EXPECT_EQ(store({{"name", "x"}, {"location", "relative/place"}}), "invalid-argument");
    EXPECT_EQ(store({{"name", "x"}}), "malformed");
    EXPECT_EQ(store({{"name", "x"}, {"location", site.directory + "/store"}}), "already-exists")
        << "the vault's own";
    std::filesystem::create_directory(place + "/full");
    ASSERT_TRUE(write_file_durably(site.files, place + "/full/letter", as_bytes("dear")));
    EXPECT_EQ(store({{"name", "x"}, {"location", place + "/full"}}), "foreign-store");
    std::filesystem::remove_all(place + "/full");
    // One that another vault uses.
    const std::string theirs = fresh_directory();
    {
        Site other;
        std::filesystem::rename(other.directory + "/store", theirs + "/store");
        EXPECT_EQ(store({{"name", "x"}, {"location", theirs + "/store"}}), "vault-replaced");
        std::filesystem::rename(theirs + "/store", other.directory + "/store");
    }
    std::filesystem::remove_all(theirs);
    EXPECT_EQ(site.call("GET", "/v1/stores", 200)["stores"].size(), 1u) << "nothing was added";

    add_store();
    EXPECT_EQ(store({{"name", "second"}, {"location", place}}), "already-exists");
    EXPECT_EQ(store({{"name", "other"}, {"location", place}}), "vault-replaced");
    const auto refused = [&](const Json& body) {
        return site.refused("POST", "/v1/items/web/copies", body);
    };
    EXPECT_EQ(refused({{"store", "third"}}), "not-found");
    EXPECT_EQ(refused({{"store", "second"}, {"keep", "nonsense"}}), "invalid-argument");
    EXPECT_EQ(refused({{"store", "second"}, {"window_s", 1}}), "invalid-argument");
    EXPECT_EQ(refused({{"store", "second"}, {"window_s", "long"}}), "malformed");
    EXPECT_TRUE(site.call("GET", "/v1/items/web/copies", 200)["copies"].empty());
    EXPECT_EQ(site.refused("GET", "/v1/items/web/points?copy=second"), "not-found");
    add_copy();
    EXPECT_EQ(refused({{"store", "second"}}), "already-exists");
    EXPECT_EQ(site.refused("DELETE", "/v1/items/web/copies/third"), "not-found");
}

// Broken if a store that is away lost the copy what was written meanwhile, were not said, or kept
// the item from being read.
TEST_F(CopiesTest, AStoreThatIsAwayCostsTimeOnly) {
    site.call("PATCH", "/v1/items/web", 200, {{"policy", {{"window_s", 300}, {"keep", ""}}}});
    add_store();
    add_copy();
    write(2);
    follow();
    const uint64_t had = newest("?copy=second");
    site.server.reset();
    std::filesystem::rename(place, place + ".away");
    restart();
    for (int i = 0; i < 6; ++i) {
        write(4);
        site.vault().tend();
        follow();
    }
    EXPECT_EQ(events("store-away").size(), 1u) << "said once";
    const Json shown = site.call("GET", "/v1/items/web", 200);
    EXPECT_EQ(copy()["state"], "failing");
    EXPECT_FALSE(site.refused("GET", "/v1/items/web/points?copy=second").empty());
    EXPECT_GT(newest(), had);
    const auto own = *site.vault().replica(item->item);
    EXPECT_LE(own->status()->oldest->v, had + 1) << "what did not travel yet is still there";

    std::filesystem::rename(place + ".away", place);
    follow();
    EXPECT_EQ(events("store-back").size(), 1u);
    EXPECT_EQ(newest("?copy=second"), newest());
    EXPECT_EQ(content(place, newest()), content(site.directory + "/store", newest()));
    for (int i = 0; i < 3; ++i) {
        site.clock.us += 5 * kMinuteUs;
        write(1);
        site.vault().tend();
    }
    EXPECT_GT(own->status()->oldest->v, had) << "nothing is held back any more";
}

// Broken if a copy that was ended lost its points, or began anew when it is added again; or if its
// points stayed although they were to be deleted.
TEST_F(CopiesTest, AnEndedCopyIsTakenUpAgainOrDeleted) {
    add_store();
    add_copy();
    write(3);
    follow();
    const uint64_t had = newest("?copy=second");
    site.call("DELETE", "/v1/items/web/copies/second", 204);
    EXPECT_TRUE(site.call("GET", "/v1/items/web/copies", 200)["copies"].empty());
    EXPECT_GT(objects("items/"), 3u);
    site.call("DELETE", "/v1/stores/second", 204);
    EXPECT_EQ(content(place, had), "cccc") << "readable without the vault";
    EXPECT_EQ(site.refused("POST", "/v1/stores", {{"name", "again"}, {"location", place}}),
              "vault-replaced");
    site.call("POST", "/v1/stores", 201,
              {{"name", "second"}, {"location", place}, {"take_over", true}});
    write(2);
    add_copy();
    follow();
    EXPECT_EQ(copy()["state"], "following");
    EXPECT_EQ(newest("?copy=second"), newest());

    const auto copied = *site.vault().replica(item->item, "second");
    const auto lease = copied->lease({newest()}, "somebody", 3600'000'000);
    ASSERT_TRUE(lease);
    EXPECT_EQ(site.refused("DELETE", "/v1/items/web/copies/second?points=delete"), "wrong-state");
    ASSERT_TRUE(copied->release(lease->id));
    const Json job = site.call("DELETE", "/v1/items/web/copies/second?points=delete", 202);
    EXPECT_EQ(wait(job)["state"], "succeeded");
    EXPECT_EQ(objects("items/"), 0u);
    EXPECT_TRUE(site.call("GET", "/v1/items/web/copies", 200)["copies"].empty());
    EXPECT_GT(newest(), had) << "the item's own points stay";
}

// Broken if another vault that took the store over lost what it has there to this one.
TEST_F(CopiesTest, AnotherVaultsStoreIsNotTouched) {
    add_store();
    add_copy();
    write(2);
    follow();
    {
        const auto store = open(place);
        ASSERT_TRUE(VaultFence::claim(*store, site.clock, site.random, "another"));
    }
    const size_t before = objects("items/");
    write(3);
    site.clock.us += 60 * kMinuteUs;
    follow();
    EXPECT_EQ(copy()["state"], "failing");
    EXPECT_EQ(copy()["error"]["code"], "fenced");
    site.start();
    follow();
    EXPECT_EQ(copy()["error"]["code"], "vault-replaced");
    EXPECT_LE(objects("items/"), before + 4) << "a segment that was under way does no harm";
    EXPECT_GE(objects("items/"), before);
}

// Broken if a key that was exchanged still opened the copy, or the new one did not; or if a
// destroyed one's copies stayed.
TEST_F(CopiesTest, KeysAreExchangedAndDestroyedInCopiesToo) {
    add_store();
    add_copy();
    write(2);
    follow();
    const std::string old_id = site.vault().info().key_id;
    EXPECT_EQ(load_item_object(*open(place), item->item)->key_id, old_id);
    const Json rotated = site.call("POST", "/v1/keys/rotate", 202, Json::object());
    EXPECT_EQ(wait(rotated)["state"], "succeeded");
    const std::string new_id = site.vault().info().key_id;
    ASSERT_NE(new_id, old_id);
    const auto keys = *list_all(*open(place), item_key_prefix(item->item));
    ASSERT_EQ(keys.size(), 1u);
    const auto object = decode_item_key(*open(place)->get(keys[0].name), item->item,
                                        *parse_item_key_name(item->item, keys[0].name));
    ASSERT_TRUE(object);
    EXPECT_EQ(object->key_id, new_id);
    EXPECT_TRUE(load_item_object(*open(place), item->item)->wrapped_key.empty());

    // A store that is away keeps everything as it is.
    std::filesystem::rename(place, place + ".away");
    const Json failed = site.call("POST", "/v1/items/web/key/destroy", 202,
                                  {{"confirm", "web"}, {"end_replication", true}});
    EXPECT_EQ(wait(failed)["state"], "failed");
    EXPECT_FALSE(*key_destroyed(*open(site.directory + "/store"), item->item));
    std::filesystem::rename(place + ".away", place);
    const Json destroyed = site.call("POST", "/v1/items/web/key/destroy", 202,
                                     {{"confirm", "web"}, {"end_replication", true}});
    EXPECT_EQ(wait(destroyed)["state"], "succeeded");
    EXPECT_TRUE(*key_destroyed(*open(place), item->item));
    EXPECT_EQ(objects(item_key_prefix(item->item)), 0u);
    EXPECT_FALSE(open(place)->get(item_object_name(item->item)));
}

// Broken if damage in one store stayed although the other has the object whole.
TEST_F(CopiesTest, DamagedSegmentsAreMendedFromTheOtherStore) {
    add_store();
    add_copy();
    write(3);
    follow();
    const auto newest_segment = [](const std::string& root) {
        std::vector<std::filesystem::path> found;
        for (const auto& entry : std::filesystem::recursive_directory_iterator(root))
            if (entry.path().extension() == ".seg") found.push_back(entry.path());
        std::ranges::sort(found);
        return found.back();
    };
    const auto damage = [&](const std::filesystem::path& path) {
        Bytes bytes = *read_whole_file(site.files, path, 1 << 20);
        bytes[bytes.size() - 5] ^= 1;
        std::filesystem::remove(path);
        EXPECT_TRUE(write_file_durably(site.files, path, bytes));
    };
    const auto ours = newest_segment(site.directory + "/store"), theirs = newest_segment(place);
    const Bytes whole = *read_whole_file(site.files, ours, 1 << 20);
    damage(ours);
    EXPECT_EQ(wait(site.call("POST", "/v1/items/web/scrub", 202))["state"], "succeeded");
    EXPECT_EQ(*read_whole_file(site.files, ours, 1 << 20), whole);
    EXPECT_EQ(events("object-restored").size(), 1u);
    EXPECT_TRUE(site.call("GET", "/v1/items/web/scrub", 200)["damaged"].empty());

    std::filesystem::remove(theirs);
    EXPECT_EQ(wait(site.call("POST", "/v1/items/web/scrub", 202))["state"], "succeeded");
    EXPECT_EQ(*read_whole_file(site.files, theirs, 1 << 20), whole);
    EXPECT_EQ(copy()["damaged"], 0);

    // Both: nothing can be mended, and both are said.
    damage(ours);
    damage(theirs);
    EXPECT_EQ(wait(site.call("POST", "/v1/items/web/scrub", 202))["state"], "succeeded");
    EXPECT_EQ(copy()["damaged"], 1);
    EXPECT_EQ(events("copy-damaged").size(), 1u);
    EXPECT_FALSE(site.call("GET", "/v1/items/web/scrub", 200)["damaged"].empty());
}

}  // namespace
}  // namespace farshore
