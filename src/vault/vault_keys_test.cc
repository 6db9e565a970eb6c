// The vault's keys: rotation, checks, a key service that is away, destruction.
#include <gtest/gtest.h>

#include <fstream>

#include "keys/test_key_vault.h"
#include "meta/jobs.h"
#include "replica/item_key.h"
#include "replica/manifest.h"
#include "vault/test_site.h"

namespace farshore {
namespace {

Json ended_job(Site& site, const Json& started) {
    const auto job = site.vault().job(started["id"].get<uint64_t>(), 60'000'000);
    EXPECT_TRUE(job);
    EXPECT_TRUE(job->over());
    return site.call("GET", "/v1/jobs/" + std::to_string(job->id), 200);
}
Json run(Site& site, const std::string& target, const Json& body = Json::object()) {
    return ended_job(site, site.call("POST", target, 202, body));
}
size_t events_of(Site& site, const std::string& code) {
    size_t count = 0;
    const Json events = site.call("GET", "/v1/events?limit=1000", 200);
    for (const Json& event : events["events"]) count += event["code"] == code ? 1 : 0;
    return count;
}
std::string file_text(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}
Code opens_with(Site& site, const ItemId& item, const KeyFile& key) {
    auto opened = load_item_key(site.vault().store(), item, {{key.id, key}});
    return opened ? Code::kInternal : opened.error().code();
}

// Broken if a rotation disturbed replication, or the vault forgot where its key is.
TEST(VaultKeys, ARotationIsInForceAtOnceAndAtTheNextStart) {
    Site site;
    ProtectedItem item(site);
    const std::string path = site.directory + "/vault/key";
    const KeyFile old = *load_key_file(site.files, path);
    EXPECT_EQ(site.call("GET", "/v1/keys", 200)["items"][old.id], 1);
    const Json job = run(site, "/v1/keys/rotate");
    EXPECT_EQ(job["state"], "succeeded") << job;
    const KeyFile now = *load_key_file(site.files, path);
    EXPECT_NE(now.id, old.id);
    EXPECT_EQ(opens_with(site, item.item, old), Code::kWrongKey);
    EXPECT_EQ(opens_with(site, item.item, now), Code::kInternal);
    const Json keys = site.call("GET", "/v1/keys", 200);
    EXPECT_EQ(keys["id"], now.id);
    EXPECT_EQ(keys["items"], Json({{now.id, 1}}));
    EXPECT_FALSE(keys.contains("rotation"));
    Bytes records;
    item.appliance.add(records, RecordKind::kTime);
    EXPECT_TRUE(item.appliance.send(records)) << "its lease is as good as before";
    site.start();
    EXPECT_EQ(site.call("GET", "/v1/items/web/points/latest", 200)["sequence"], 6);
    // To a source of another place, which the vault remembers when nothing is said.
    const std::string other = site.directory + "/elsewhere";
    EXPECT_EQ(run(site, "/v1/keys/rotate", {{"to", "file:" + other}})["state"], "succeeded");
    site.start();
    EXPECT_EQ(site.call("GET", "/v1/keys", 200)["source"], "file:" + other);
    EXPECT_EQ(site.refused("POST", "/v1/keys/rotate", {{"to", "passphrase-fd:0"}}),
              "invalid-argument");
    EXPECT_EQ(site.refused("POST", "/v1/keys/rotate", {{"to", "nothing"}}), "invalid-argument");
}

// Broken if a rotation went on though an item would be left behind, or could not go on afterwards.
TEST(VaultKeys, ARotationThatCannotTakeAnItemAlongKeepsTheOldKey) {
    Site site;
    ProtectedItem item(site);
    const KeyFile old = *load_key_file(site.files, site.directory + "/vault/key");
    const std::string path = site.directory + "/store/" + item_object_name(item.item);
    const std::string whole = file_text(path);
    const auto put = [&](const std::string& text) {
        std::filesystem::remove(path);
        std::ofstream(path, std::ios::binary) << text;
    };
    put(whole.substr(0, whole.size() / 2));
    const Json failed = run(site, "/v1/keys/rotate");
    EXPECT_EQ(failed["state"], "failed");
    EXPECT_EQ(failed["error"]["code"], "truncated");
    EXPECT_NE(failed["error"]["detail"].get<std::string>().find("web"), std::string::npos);
    EXPECT_TRUE(site.call("GET", "/v1/keys", 200).contains("rotation"));
    EXPECT_EQ(load_key_file(site.files, site.directory + "/vault/key")->id, old.id);
    site.start();  // with both keys
    EXPECT_EQ(site.call("GET", "/v1/items/web/points/latest", 200)["sequence"], 5);
    EXPECT_EQ(site.refused("POST", "/v1/keys/rotate", {{"to", "file:/elsewhere"}}), "wrong-state");
    put(whole);
    EXPECT_EQ(run(site, "/v1/keys/rotate")["state"], "succeeded");
    EXPECT_EQ(opens_with(site, item.item, old), Code::kWrongKey);
    EXPECT_NE(load_key_file(site.files, site.directory + "/vault/key")->id, old.id);
}

// Broken if a vault that was replaced changed or removed keys under the one that replaced it.
TEST(VaultKeys, AFencedVaultRotatesNothing) {
    Site site;
    ProtectedItem item(site);
    const KeyFile old = *load_key_file(site.files, site.directory + "/vault/key");
    const std::string other = fresh_directory();
    VaultOptions options;
    options.data_directory = other;
    options.store_location = site.directory + "/store";
    options.key_file = site.directory + "/vault/key";
    options.tend_interval_us = 0;
    {
        auto newer = Vault::open(options, site.files, site.clock, site.random);
        ASSERT_TRUE(newer) << newer.error().to_string();
        EXPECT_EQ(site.refused("POST", "/v1/keys/rotate"), "fenced");
        EXPECT_EQ(opens_with(site, item.item, old), Code::kInternal);
        // The newer one rotates; the former key, which the older one has, opens nothing then.
        auto job = (*newer)->rotate_key("file:" + other + "/key");
        ASSERT_TRUE(job) << job.error().to_string();
        EXPECT_EQ((*newer)->job(job->id, 60'000'000)->state, JobState::kSucceeded);
        EXPECT_EQ(opens_with(site, item.item, old), Code::kWrongKey);
    }
    std::filesystem::remove_all(other);
}

// Broken if a lost key were found out only by somebody who asks.
TEST(VaultKeys, TheVaultLooksAtItsKeysEachDay) {
    Site site;
    ProtectedItem item(site);
    const auto tend_and_wait = [&] {
        site.vault().tend();
        const auto jobs = open_jobs(site.vault().database());
        for (const JobRecord& job : *jobs)
            EXPECT_TRUE(site.vault().job(job.id, 60'000'000)->over());
    };
    tend_and_wait();
    EXPECT_FALSE(site.call("GET", "/v1/keys", 200).contains("verified"));
    site.clock.us += 25 * 3600ll * 1'000'000;
    tend_and_wait();
    Json verified = site.call("GET", "/v1/keys", 200)["verified"];
    EXPECT_EQ(verified["ok"], true) << verified;
    EXPECT_EQ(verified["checked"], 1);
    EXPECT_EQ(events_of(site, "key-lost"), 0u);
    std::filesystem::rename(site.directory + "/vault/key", site.directory + "/kept");
    site.clock.us += 3600ll * 1'000'000;
    tend_and_wait();
    EXPECT_EQ(events_of(site, "key-lost"), 0u) << "once a day";
    site.clock.us += 24 * 3600ll * 1'000'000;
    tend_and_wait();
    EXPECT_EQ(events_of(site, "key-lost"), 1u);
    verified = site.call("GET", "/v1/keys", 200)["verified"];
    EXPECT_EQ(verified["ok"], false);
    EXPECT_EQ(verified["source_error"]["code"], "not-found");
    std::filesystem::rename(site.directory + "/kept", site.directory + "/vault/key");
    // The newest segment is damaged: its data key opens no index.
    const auto log = site.vault().store().list(log_prefix(item.item), "", 10);
    const std::string path = site.directory + "/store/" + log->back().name;
    std::string segment = file_text(path);
    segment[330] = static_cast<char>(segment[330] ^ 1);
    std::filesystem::remove(path);
    std::ofstream(path, std::ios::binary) << segment;
    const Json found = run(site, "/v1/keys/verify");
    EXPECT_EQ(found["result"]["unreadable"], 1) << found;
    EXPECT_EQ(found["result"]["items"][0]["code"], "corrupt");
    EXPECT_EQ(events_of(site, "key-lost"), 2u);
}

// A site whose key is sealed by a key service.
struct RemoteSite : Site {
    explicit RemoteSite(FakeKeyVault& service_in) : service(service_in) {
        server.reset();
        remove_database();
        std::filesystem::remove_all(directory);
        restart();
    }
    VaultServerOptions remote_options() {
        VaultServerOptions remote = options();
        remote.vault.key_source = service.spec();
        return remote;
    }
    void restart() {
        server.reset();
        auto started = VaultServer::start(remote_options(), files, clock, random);
        ASSERT_TRUE(started) << started.error().to_string();
        server = std::move(*started);
        HttpClientOptions client;
        client.authority_pem = vault().authority_pem();
        client.bearer_token = vault().admin_token();
        http = std::make_unique<HttpClient>(client);
    }
    FakeKeyVault& service;
};

// Broken if the key of a service came to lie on a disk, or if its absence stopped what runs or were
// called a wrong key.
TEST(VaultKeys, AKeyServiceIsNeededAtTheStartOnly) {
    FakeKeyVault service;
    RemoteSite site(service);
    ProtectedItem item(site);
    const Json keys = site.call("GET", "/v1/keys", 200);
    EXPECT_EQ(keys["remote"], true);
    const auto status = [&](int code) {
        const std::lock_guard hold(service.mutex);
        service.fails = {{"unwrapkey", code}};
    };
    status(503);
    Bytes records;
    item.appliance.add(records, RecordKind::kTime);
    EXPECT_TRUE(item.appliance.send(records));
    EXPECT_EQ(site.call("GET", "/v1/items/web/points/latest", 200)["sequence"], 6);
    site.call("POST", "/v1/items", 201, {{"name", "db"}, {"disks", {"/disks/b"}}, {"wait_s", 0}});
    const Json away = run(site, "/v1/keys/verify")["result"];
    EXPECT_EQ(away["source_error"]["code"], "unavailable");
    EXPECT_EQ(events_of(site, "key-service-away"), 1u);
    EXPECT_EQ(events_of(site, "key-lost"), 0u);
    for (const auto& [answer, code] : {std::pair{503, Code::kUnavailable},
                                       {429, Code::kThrottled},
                                       {403, Code::kForbidden},
                                       {404, Code::kNotFound}}) {
        site.server.reset();
        status(answer);
        auto started =
            VaultServer::start(site.remote_options(), site.files, site.clock, site.random);
        ASSERT_FALSE(started) << answer;
        EXPECT_EQ(started.error().code(), code);
    }
    {
        const std::lock_guard hold(service.mutex);
        service.fails.clear();
    }
    site.restart();
    EXPECT_EQ(site.call("GET", "/v1/items/web/points/latest", 200)["sequence"], 6);
    EXPECT_EQ(run(site, "/v1/keys/rotate")["state"], "succeeded");
    EXPECT_NE(site.call("GET", "/v1/keys", 200)["id"], keys["id"]);
    // From there into a file: what it was is in no file of the data directory or the store.
    const KeyFile file = [&] {
        const std::string to = site.directory + "/key";
        EXPECT_EQ(run(site, "/v1/keys/rotate", {{"to", "file:" + to}})["state"], "succeeded");
        return *load_key_file(site.files, to);
    }();
    EXPECT_EQ(opens_with(site, item.item, file), Code::kInternal);
    EXPECT_TRUE(site.vault().store().list("keys/", "", 10)->empty());
    EXPECT_FALSE(std::filesystem::exists(site.directory + "/vault/key"));
}

// Broken if a point that somebody must keep could be made unreadable, or a wish not meant be done.
TEST(VaultKeys, AHoldAnExportAndAReplicationStandInTheWayOfDestruction) {
    Site site;
    ProtectedItem item(site);
    const std::string target = "/v1/items/web/key/destroy";
    const Json sure{{"confirm", "web"}, {"end_replication", true}};
    EXPECT_EQ(site.refused("POST", target), "invalid-argument");
    EXPECT_EQ(site.refused("POST", target, {{"confirm", "wab"}}), "invalid-argument");
    EXPECT_EQ(site.refused("POST", target, {{"confirm", "web"}}), "wrong-state");
    const auto replica = site.vault().replica(item.item);
    ASSERT_TRUE(replica);
    auto hold = (*replica)->lease({5}, "legal", INT64_MAX);
    ASSERT_TRUE(hold);
    EXPECT_EQ(site.refused("POST", target, sure), "wrong-state");
    ASSERT_TRUE((*replica)->release(hold->id));
    auto reader = (*replica)->lease({5}, "export", 60'000'000);
    ASSERT_TRUE(reader);
    EXPECT_EQ(site.refused("POST", target, sure), "wrong-state");
    ASSERT_TRUE((*replica)->release(reader->id));
    EXPECT_EQ(site.call("GET", "/v1/items/web/points/latest", 200)["sequence"], 5);
    const KeyFile key = *load_key_file(site.files, site.directory + "/vault/key");
    EXPECT_EQ(run(site, target, sure)["state"], "succeeded");
    EXPECT_EQ(opens_with(site, item.item, key), Code::kWrongKey);
    EXPECT_EQ(site.refused("GET", "/v1/items/web/points/latest"), "wrong-key");
    EXPECT_EQ(site.refused("POST", target, sure), "wrong-state");
    Bytes records;
    item.appliance.add(records, RecordKind::kTime);
    EXPECT_FALSE(item.appliance.send(records)) << "nothing comes after it";
    EXPECT_EQ(events_of(site, "key-destroyed"), 1u);
    site.start();
    EXPECT_EQ(site.refused("GET", "/v1/items/web/points/latest"), "wrong-key");
    EXPECT_EQ(events_of(site, "key-destroyed"), 1u);
}

// Broken if an escrow could be had without anything to seal it under.
TEST(VaultKeys, AnEscrowIsSealedUnderExactlyOneThing) {
    Site site;
    const std::string target = "/v1/keys/escrow";
    EXPECT_EQ(site.refused("POST", target), "invalid-argument");
    EXPECT_EQ(
        site.refused("POST", target,
                     {{"passphrase", "a passphrase of some length"}, {"public_key_pem", "x"}}),
        "invalid-argument");
    EXPECT_EQ(site.refused("POST", target, {{"passphrase", "short"}}), "invalid-argument");
    EXPECT_EQ(site.refused("POST", target, {{"public_key_pem", "x"}}), "malformed");
    const Json escrow =
        site.call("POST", target, 200, {{"passphrase", "a passphrase of some length"}});
    EXPECT_EQ(escrow["escrow"].get<std::string>().find("passphrase of"), std::string::npos);
    EXPECT_EQ(events_of(site, "key-escrowed"), 1u);
}

}  // namespace
}  // namespace farshore
