#include <fmt/core.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <thread>

#include "meta/deleted_items.h"
#include "meta/json_fields.h"
#include "os/http.h"
#include "os/real.h"
#include "os/waiting.h"
#include "replica/item_object.h"
#include "replica/segment.h"
#include "replicate/remote_link.h"
#include "vault/item_drive.h"
#include "vault/test_site.h"
#include "vault/vault.h"
#include "vault/vault_server.h"

namespace farshore {
namespace {

// Broken if the whole way from "protect" to points did not work over the real API, or its documents
// lacked what people look at.
TEST(Vault, ProtectsAndOffersPoints) {
    Site site;
    ASSERT_TRUE(site.vault().local_party(PartyKind::kAgent, "agent-1"));
    Json item = site.call("POST", "/v1/items", 201,
                          {{"name", "web"}, {"disks", {"/disks/a"}}, {"wait_s", 0}});
    EXPECT_EQ(item["state"], "enabling");
    FakeAgent agent{site};
    auto down = agent.sync();
    ASSERT_TRUE(down) << down.error().to_string();
    ASSERT_EQ(down->items.size(), 1u);
    EXPECT_EQ(down->items[0].desired, Desired::kProtect);
    EXPECT_EQ(down->items[0].disks[0].path, "/disks/a");
    FakeAppliance appliance{site, site.vault(), id_of(item), {}, {}, {}, {1}};
    // No log before the machine is known: the object that describes the item is written once.
    EXPECT_EQ(appliance.acquire().error().code(), Code::kUnavailable);
    ASSERT_TRUE(agent.sync({live(id_of(item))}));
    item = site.call("GET", "/v1/items/web", 200);
    EXPECT_EQ(item["state"], "initial-replication");
    EXPECT_EQ(item["nbd_socket"], "/run/tap.sock");
    EXPECT_EQ(item["machine"]["cpus"], 1);
    EXPECT_EQ(site.refused("GET", "/v1/items/web/points/latest"), "point-not-found");
    ASSERT_TRUE(appliance.acquire());
    auto sent = appliance.send_first();
    ASSERT_TRUE(sent) << sent.error().to_string();
    site.vault().tend();
    item = site.call("GET", "/v1/items/web", 200);
    EXPECT_EQ(item["state"], "protected");
    EXPECT_EQ(item["health"], "normal") << item;
    EXPECT_EQ(item["stored_sequence"], 5);
    EXPECT_EQ(item["rpo_s"], 0.0);
    const Json points = site.call("GET", "/v1/items/web/points", 200);
    ASSERT_EQ(points["points"].size(), 1u) << points;
    EXPECT_EQ(points["points"][0]["kind"], "crash");
    EXPECT_EQ(points["window"]["newest"]["sequence"], 5);
    EXPECT_EQ(site.call("GET", "/v1/items/web/points/latest", 200)["sequence"], 5);
    // The object with which a reader without a vault begins.
    auto object = site.vault().store().get(item_object_name(id_of(item)));
    ASSERT_TRUE(object);
    auto decoded = decode_item_object(*object, id_of(item));
    ASSERT_TRUE(decoded);
    EXPECT_EQ(decoded->disks[0].size_bytes, 1u << 20);
}

// Broken if bad requests were taken, or refused without saying what is wrong.
TEST(Vault, NamesBadRequests) {
    Site site;
    ProtectedItem item(site);
    EXPECT_EQ(site.refused("GET", "/v1/items/nope"), "item-not-found");
    EXPECT_EQ(site.refused("GET", "/v1/items/web/points/77"), "point-not-found");
    EXPECT_EQ(site.refused("GET", "/v1/items/web/points/2"), "point-in-gap");
    EXPECT_EQ(site.refused("GET", "/v1/items/web/points/2001-01-01T00:00:00Z"),
              "point-outside-window");
    EXPECT_EQ(site.refused("GET", "/v1/items/web/points/nolabel"), "point-not-found");
    EXPECT_EQ(site.refused("GET", "/v1/nothing"), "not-found");
    EXPECT_EQ(site.refused("PUT", "/v1/items"), "not-found");
    EXPECT_EQ(site.refused("GET", "/v1/jobs/seven"), "not-found");
    EXPECT_EQ(site.refused("GET", "/v1/items?limit=x"), "invalid-argument");
    EXPECT_EQ(site.refused("POST", "/v1/items", {{"name", "a b"}, {"disks", {"/x"}}}),
              "invalid-argument");
    EXPECT_EQ(site.refused("POST", "/v1/items", {{"name", "b"}}), "invalid-argument");
    EXPECT_EQ(site.refused("POST", "/v1/items", {{"name", "b"}, {"disks", {"x"}}}),
              "invalid-argument");
    EXPECT_EQ(site.refused("POST", "/v1/items", {{"name", 7}}), "malformed");
    EXPECT_EQ(site.refused("POST", "/v1/items", {{"name", "web"}, {"disks", {"/y"}}}),
              "already-exists");
    EXPECT_EQ(site.refused("POST", "/v1/items", {{"name", "two"}, {"disks", {"/disks/a"}}}),
              "already-exists");
    EXPECT_EQ(site.refused("POST", "/v1/items",
                           {{"name", "b"}, {"disks", {"/y"}}, {"policy", {{"window_s", 1}}}}),
              "invalid-argument");
    EXPECT_EQ(site.refused("POST", "/v1/items/web/bookmarks", {{"label", ""}}), "malformed");
    EXPECT_EQ(
        site.refused("POST", "/v1/items/web/exports", {{"point", "latest"}, {"socket", "/tmp/x"}}),
        "unsupported");
    EXPECT_EQ(site.refused("POST", "/v1/enrol", {{"token", "guess"}, {"request_pem", "x"}}),
              "unauthenticated");
}

// Broken if anybody but the administrator and enrolled appliances were let in.
TEST(Vault, AsksWhoItIs) {
    Site site;
    HttpClientOptions options;
    options.authority_pem = site.vault().authority_pem();
    HttpClient nobody(options);
    EXPECT_EQ(site.request(nobody, "GET", "/v1/health").status, 200);
    const HttpResponse refused = site.request(nobody, "GET", "/v1/items");
    EXPECT_EQ(refused.status, 401);
    EXPECT_NE(refused.body.find("\"unauthenticated\""), std::string::npos);
    EXPECT_EQ(site.request(nobody, "POST", "/internal/v1/link/acquire-log", Json::object()).status,
              401);
    options.bearer_token = Secret(as_bytes("wrong"));
    HttpClient wrong(options);
    EXPECT_EQ(site.request(wrong, "GET", "/v1/items").status, 401);
    EXPECT_EQ(site.request(wrong, "GET", "/metrics").status, 401);
    const HttpResponse metrics = site.request(*site.http, "GET", "/metrics");
    EXPECT_EQ(metrics.status, 200);
    // The store object and the claim of this vault.
    EXPECT_NE(metrics.body.find("\nfarshore_store_requests_total{kind=\"put\"} 2\n"),
              std::string::npos)
        << metrics.body;

    // An appliance with a certificate may, an agent may not, a removed appliance may no longer.
    const auto client_of = [&](PartyKind kind, const std::string& name) {
        HttpClientOptions with = options;
        with.bearer_token = Secret();
        with.credentials = *site.vault().local_party(kind, name);
        return std::make_unique<HttpClient>(with);
    };
    const Json round{{"agent", "a"}, {"status", "{}"}};
    auto agent = client_of(PartyKind::kAgent, "an-agent");
    EXPECT_EQ(site.request(*agent, "POST", "/internal/v1/link/sync-agent", round).status, 403);
    auto appliance = client_of(PartyKind::kAppliance, "an-appliance");
    RemoteVaultLink link(
        [&](const std::string& method, const std::string& body) -> Result<std::string> {
            HttpClientRequest request;
            request.method = "POST";
            request.url = "https://" + site.server->address() + "/internal/v1/link/" + method;
            request.body = body;
            FS_ASSIGN(HttpResponse response, appliance->request(request));
            if (response.status == 200) return response.body;
            const Json json = Json::parse(response.body, nullptr, false);
            return fail(code_from_name(json["code"].get<std::string>()),
                        json["detail"].get<std::string>());
        });
    ItemId none = *ItemId::parse(std::string(32, '7'));
    EXPECT_EQ(link.acquire_log(none, "an-appliance").error().code(), Code::kItemNotFound);
    EXPECT_EQ(link.sync_agent("stranger", "{}").error().code(), Code::kUnauthenticated);
    site.call("DELETE", "/v1/agents/an-appliance", 204);
    EXPECT_EQ(link.acquire_log(none, "x").error().code(), Code::kUnauthenticated);
}

// Broken if a token admitted twice, after its time, or under a name that it is not for.
TEST(Vault, TokensAdmitOnce) {
    Site site;
    const Json token = site.call("POST", "/v1/enrolment-tokens", 201,
                                 {{"kind", "agent"}, {"name", "host7"}, {"valid_s", 60}});
    const KeyAndRequest request = *make_key_and_request("whatever");
    auto chain = site.vault().enrol(token["token"], request.request_pem);
    ASSERT_TRUE(chain) << chain.error().to_string();
    EXPECT_EQ(inspect_certificate(*chain)->common_name, "host7");
    EXPECT_EQ(site.vault().enrol(token["token"], request.request_pem).error().code(),
              Code::kUnauthenticated);
    FakeAgent agent{site, "host7"};
    EXPECT_TRUE(agent.sync());
    // Without a name in it, a token gives the name that is asked for, but never somebody's.
    const auto enrol = [&](const char* name) {
        const Json open = site.call("POST", "/v1/enrolment-tokens", 201, {{"valid_s", 60}});
        auto admitted = site.vault().enrol(open["token"], make_key_and_request(name)->request_pem);
        return admitted ? inspect_certificate(*admitted)->common_name : std::string();
    };
    EXPECT_EQ(enrol("db1.example.org"), "db1.example.org");
    EXPECT_TRUE(enrol("db1.example.org").starts_with("agent-"));
    EXPECT_TRUE(enrol("host7").starts_with("agent-"));
    const Json late = site.call("POST", "/v1/enrolment-tokens", 201, {{"valid_s", 60}});
    site.clock.us += 61'000'000;
    EXPECT_EQ(site.vault().enrol(late["token"], request.request_pem).error().code(),
              Code::kUnauthenticated);
}

// Broken if two agents with one identity fought over a machine, or a restarted one were shut out.
TEST(Vault, OneAgentOfAName) {
    Site site;
    ProtectedItem item(site);
    FakeAgent twin{site, "agent-1", "two"};
    auto refused = twin.sync();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), Code::kDuplicateIdentity);
    site.clock.us += 5'000'000;
    EXPECT_TRUE(twin.sync());
    EXPECT_EQ(item.agent.sync().error().code(), Code::kDuplicateIdentity);
}

// Broken if a bookmark were called stored before its record is.
TEST(Vault, BookmarkIsStoredWhenItsRecordIs) {
    Site site;
    ProtectedItem item(site);
    Json bookmark = site.call("POST", "/v1/items/web/bookmarks", 201,
                              {{"label", "before the update"}, {"wait_s", 0}});
    EXPECT_EQ(bookmark["state"], "requested");
    auto down = item.agent.sync({live(item.item)});
    ASSERT_EQ(down->items[0].bookmarks.size(), 1u);
    EXPECT_EQ(down->items[0].bookmarks[0].label, "before the update");
    AgentItemStatus made = live(item.item);
    const Sequence sequence = item.appliance.next;
    made.bookmarks = {{down->items[0].bookmarks[0].request_id, sequence, site.clock.now(), {}}};
    ASSERT_TRUE(item.agent.sync({made}));
    const std::string target = "/v1/bookmarks/" + bookmark["id"].get<std::string>();
    EXPECT_EQ(site.call("GET", target, 200)["state"], "made");
    EXPECT_TRUE(item.agent.sync({made})->items[0].bookmarks.empty());
    Bytes records;
    item.appliance.add(records, RecordKind::kPoint, "before the update",
                       static_cast<uint8_t>(PointKind::kBookmark));
    ASSERT_TRUE(item.appliance.send(records));
    EXPECT_EQ(site.call("GET", target, 200)["state"], "stored");
    EXPECT_EQ(site.call("GET", "/v1/items/web/points/before%20the%20update", 200)["sequence"],
              sequence.v);
}

// Broken if whoever waits for a point that cannot be made waits for ever, or gets another one.
TEST(Vault, AFailedBookmarkIsTold) {
    Site site;
    ProtectedItem item(site);
    EXPECT_EQ(site.refused("POST", "/v1/items/web/bookmarks", {{"label", "x"}, {"kind", "crash"}}),
              "malformed");
    const Json bookmark = site.call("POST", "/v1/items/web/bookmarks", 201,
                                    {{"label", "x"}, {"kind", "application"}, {"wait_s", 0}});
    EXPECT_EQ(bookmark["kind"], "application");
    auto down = item.agent.sync({live(item.item)});
    ASSERT_EQ(down->items[0].bookmarks.size(), 1u);
    EXPECT_EQ(down->items[0].bookmarks[0].kind, PointKind::kApplication);
    AgentItemStatus failed = live(item.item);
    failed.bookmarks = {{down->items[0].bookmarks[0].request_id,
                         {},
                         {},
                         AgentItemError{Code::kUnsupported, "no file system", "do without"}}};
    EXPECT_TRUE(item.agent.sync({failed})->items[0].bookmarks.empty());
    EXPECT_EQ(site.refused("GET", "/v1/bookmarks/" + bookmark["id"].get<std::string>()),
              "unsupported");
    EXPECT_NE(site.call("GET", "/v1/events", 200).dump().find("no file system"), std::string::npos);
}

// Broken if an appliance that was fenced off could still append, or a hole were accepted.
TEST(Vault, FencedAppliancesAndHolesAreRefused) {
    Site site;
    ProtectedItem item(site);
    FakeAppliance newer = item.appliance;
    ASSERT_TRUE(newer.acquire());
    Bytes records;
    item.appliance.add(records, RecordKind::kTime);
    auto fenced = item.appliance.send(records);
    ASSERT_FALSE(fenced);
    EXPECT_EQ(fenced.error().code(), Code::kFenced);
    EXPECT_EQ(site.vault()
                  .mark_idle(item.item, item.appliance.lease.epoch, {5}, site.clock.now())
                  .error()
                  .code(),
              Code::kFenced);
    records.clear();
    newer.next = newer.next.next();
    newer.add(records, RecordKind::kTime);
    auto hole = newer.send(records);
    ASSERT_FALSE(hole);
    EXPECT_EQ(hole.error().code(), Code::kSequenceHole);
}

// Broken if RPO, states or health did not follow what happens at the source.
TEST(Vault, StateAndHealthFollowTheSource) {
    Site site;
    ProtectedItem item(site);
    const auto state = [&] {
        return site.call("GET", "/v1/items/web", 200)["state"].get<std::string>();
    };
    // Idle time moves the age of the newest point.
    site.clock.us += 20'000'000;
    ASSERT_TRUE(
        site.vault().mark_idle(item.item, item.appliance.lease.epoch, {5}, site.clock.now()));
    ASSERT_TRUE(item.agent.sync({live(item.item)}));
    site.vault().tend();
    EXPECT_EQ(site.call("GET", "/v1/items/web", 200)["rpo_s"], 0.0);
    // A source whose clock is an hour behind, then right again: the RPO is the same, and health
    // tells.
    site.clock.us += 30'000'000;
    const TimePoint behind{site.clock.now().us - 3'600'000'000};
    item.agent.clock_ahead_us = -3'600'000'000;
    ASSERT_TRUE(item.agent.sync({live(item.item)}));
    Json skewed = site.call("GET", "/v1/items/web", 200);
    EXPECT_EQ(skewed["clock_ahead_s"], -3600.0);
    EXPECT_EQ(skewed["troubles"][0]["code"], "clock-skew");
    EXPECT_EQ(skewed["rpo_s"], 0.0) << "the newest point is from the hour that is to come";
    ASSERT_TRUE(site.vault().mark_idle(item.item, item.appliance.lease.epoch, {5}, behind));
    item.agent.clock_ahead_us = 0;
    ASSERT_TRUE(
        site.vault().mark_idle(item.item, item.appliance.lease.epoch, {5}, site.clock.now()));
    ASSERT_TRUE(item.agent.sync({live(item.item)}));
    EXPECT_EQ(site.call("GET", "/v1/items/web", 200)["rpo_s"], 0.0);
    // Silence: first behind, then critical.
    site.clock.us += 40'000'000;
    site.vault().tend();
    Json now = site.call("GET", "/v1/items/web", 200);
    EXPECT_EQ(now["state"], "catching-up");
    EXPECT_EQ(now["rpo_s"], 40.0);
    EXPECT_EQ(now["health"], "critical");
    EXPECT_EQ(now["troubles"][0]["code"], "agent-lost");
    ASSERT_TRUE(
        site.vault().mark_idle(item.item, item.appliance.lease.epoch, {5}, site.clock.now()));
    AgentItemStatus gap = live(item.item);
    gap.state = AgentItemState::kGap;
    gap.gap_open = true;
    gap.error = AgentItemError{Code::kNoSpace, "the spill is full", "free some room"};
    ASSERT_TRUE(item.agent.sync({gap}));
    site.vault().tend();
    EXPECT_EQ(state(), "resynchronising");
    EXPECT_EQ(site.call("GET", "/v1/items/web", 200)["troubles"][0]["code"], "no-space");
    ASSERT_TRUE(item.agent.sync({live(item.item)}));
    site.vault().tend();
    now = site.call("GET", "/v1/items/web", 200);
    EXPECT_EQ(now["state"], "protected");
    EXPECT_EQ(now["health"], "normal");
    EXPECT_EQ(now["rpo_worst_s"], 40.0);
    const Json events = site.call("GET", "/v1/events?item=web", 200);
    EXPECT_GE(events["events"].size(), 5u);
}

// Broken if unprotecting left objects behind, deleted before the machine was let go, or went on
// while somebody reads.
TEST(Vault, UnprotectDetachesThenDeletes) {
    Site site;
    ProtectedItem item(site);
    auto lease = (*site.vault().replica(item.item))->lease({5}, "a reader", 60'000'000);
    ASSERT_TRUE(lease);
    EXPECT_EQ(site.refused("DELETE", "/v1/items/web"), "wrong-state");
    ASSERT_TRUE((*site.vault().replica(item.item))->release(lease->id));
    const Json job = site.call("DELETE", "/v1/items/web", 202);
    const std::string target = fmt::format("/v1/jobs/{}", job["id"].get<int>());
    EXPECT_EQ(site.call("GET", target, 200)["ended"], nullptr);
    EXPECT_EQ(item.agent.sync()->items[0].desired, Desired::kRemove);
    EXPECT_EQ(item.appliance.acquire().error().code(), Code::kWrongState);
    EXPECT_FALSE(site.vault().store().list(item_object_name(item.item), "", 1)->empty());
    AgentItemStatus removed = live(item.item);
    removed.state = AgentItemState::kRemoved;
    ASSERT_TRUE(item.agent.sync({removed}));
    // The job's pauses follow the test's clock.
    Json now;
    ASSERT_TRUE(wait_until(20'000, 5, [&] {
        site.clock.us += 100'000;
        return site.vault().job(job["id"].get<uint64_t>(), 0)->over();
    }));
    now = site.call("GET", target, 200);
    EXPECT_EQ(now["state"], "succeeded") << now;
    EXPECT_TRUE(site.vault().store().list("items/", "", 1)->empty());
    EXPECT_EQ(site.refused("GET", "/v1/items/web"), "item-not-found");
    EXPECT_TRUE(item.agent.sync()->items.empty());
}

// Broken if what an appliance still had under way stayed in the store for good, or an item that is
// there were swept because one of its id was deleted once.
TEST(Vault, WhatLandsBehindADeletionGoesToo) {
    Site site;
    ProtectedItem item(site);
    const std::string late = item_prefix(item.item) + "log/late";
    const auto ended = [&](const Json& job) {
        return wait_until(20'000, 5, [&] {
            site.clock.us += 100'000;
            return site.vault().job(job["id"].get<uint64_t>(), 0)->over();
        });
    };
    ASSERT_TRUE(ended(site.call("DELETE", "/v1/items/web?force=true", 202)));
    const auto is_there = [&] { return !site.vault().store().list("items/", "", 1)->empty(); };
    for (const int64_t pause_s : {10, 3600, 100'000}) {
        ASSERT_TRUE(site.vault().store().put(late, ByteView()));
        site.vault().tend();
        EXPECT_TRUE(is_there()) << "each round lists the store for it";
        site.clock.us += pause_s * 1'000'000;
        site.start();
        site.vault().tend();
        EXPECT_FALSE(is_there()) << pause_s;
    }
    ProtectedItem other(site);
    DatabaseOptions options;
    options.path = site.directory + "/vault/farshore.db";
    options.postgresql = site.database;
    auto database = Database::open(options, site.clock);
    ASSERT_TRUE(database) << database.error().to_string();
    ASSERT_TRUE(put_deleted_item(**database, {other.item, site.clock.now(), 0}));
    site.vault().tend();
    EXPECT_TRUE(is_there());
    for (const DeletedItem& left : *deleted_items_due(**database, {INT64_MAX}, 10))
        EXPECT_NE(left.item, other.item);
}

// What agent-1 asks about its item: the first block of the disk, as a source has it that wrote one
// character over the first `written` bytes.
CompareQuestion first_block(Sequence at_least, char written, size_t bytes = 4096) {
    Bytes block(kSumBlockBytes);
    std::fill_n(block.begin(), bytes, static_cast<uint8_t>(written));
    CompareQuestion question;
    question.key.fill(0x31);
    question.at_least = at_least;
    question.length_bytes = kSumBlockBytes;
    BlockSummer summer(question.key);
    const BlockSum sum = summer.block(0, 0, block);
    question.sum = summer.run(0, 0, {&sum, 1});
    return question;
}

CompareVerdict verdict(Site& site, const ItemId& item, const CompareQuestion& question) {
    auto answer = site.vault().compare("agent-1", item, question);
    EXPECT_TRUE(answer) << answer.error().to_string();
    return answer ? answer->verdict : CompareVerdict::kNothing;
}

// Broken if an agent could learn what another machine's replica has, or a source took its replica
// for equal before the replica has what it asks about.
TEST(Vault, ComparesForTheItemsAgent) {
    Site site;
    ProtectedItem item(site);
    EXPECT_EQ(verdict(site, item.item, first_block({5}, 'x')), CompareVerdict::kEqual);
    auto other = site.vault().compare("agent-1", item.item, first_block({5}, 'y'));
    ASSERT_TRUE(other);
    EXPECT_EQ(other->verdict, CompareVerdict::kSums);
    EXPECT_EQ(other->sums.size(), 1u);
    EXPECT_EQ(verdict(site, item.item, first_block({6}, 'x')), CompareVerdict::kNotYet);

    EXPECT_EQ(site.vault().compare("agent-2", item.item, first_block({5}, 'x')).error().code(),
              Code::kForbidden);
    EXPECT_EQ(site.vault().compare("", item.item, first_block({5}, 'x')).error().code(),
              Code::kForbidden);
    ItemId nobodys;
    nobodys.raw.fill(3);
    EXPECT_EQ(site.vault().compare("agent-1", nobodys, first_block({5}, 'x')).error().code(),
              Code::kItemNotFound);
    CompareQuestion bad = first_block({5}, 'x');
    bad.offset_bytes = 7;
    EXPECT_EQ(site.vault().compare("agent-1", item.item, bad).error().code(), Code::kMalformed);
}

// Broken if a source whose replica is empty waited for ever instead of copying.
TEST(Vault, NothingStoredIsNothingToCompareWith) {
    Site site;
    ASSERT_TRUE(site.vault().local_party(PartyKind::kAgent, "agent-1"));
    const ItemId item = id_of(site.call("POST", "/v1/items", 201,
                                        {{"name", "web"}, {"disks", {"/disks/a"}}, {"wait_s", 0}}));
    FakeAgent agent{site};
    ASSERT_TRUE(agent.sync());
    ASSERT_TRUE(agent.sync({live(item)}));
    EXPECT_EQ(verdict(site, item, first_block({0}, 'x')), CompareVerdict::kNothing);
    EXPECT_EQ(verdict(site, item, first_block({1}, 'x')), CompareVerdict::kNotYet);
}

// Broken if each question opened the replica anew, an older state answered a question about a newer
// one, or a state was read for longer than what it reads is kept.
TEST(Vault, AComparisonKeepsItsReaderWhileItRuns) {
    Site site;
    ProtectedItem item(site);
    const auto equal = [&](uint64_t at_least, char written) {
        return verdict(site, item.item, first_block({at_least}, written)) == CompareVerdict::kEqual;
    };
    const auto write = [&](char what) {
        Bytes records;
        item.appliance.add(records, RecordKind::kWrite, std::string(4096, what));
        EXPECT_TRUE(item.appliance.send(records));
    };
    EXPECT_TRUE(equal(5, 'x'));
    write('y');
    EXPECT_TRUE(equal(5, 'x')) << "the reader of the first question";
    EXPECT_TRUE(equal(6, 'y')) << "which has not this";
    EXPECT_TRUE(equal(5, 'y'));
    // Nobody asks for a while: it is closed.
    write('z');
    EXPECT_TRUE(equal(6, 'y'));
    site.clock.us += 29'000'000;
    site.vault().tend();
    EXPECT_TRUE(equal(6, 'y'));
    site.clock.us += 31'000'000;
    site.vault().tend();
    EXPECT_TRUE(equal(6, 'z'));
    // It is used all the time, but grows old.
    write('w');
    for (int round = 0; round < 14; ++round) {
        site.clock.us += 20'000'000;
        site.vault().tend();
        EXPECT_TRUE(equal(7, 'z')) << round;
    }
    site.clock.us += 20'000'000;
    EXPECT_TRUE(equal(7, 'w'));
}

// Broken if a replica that lost an object made a resynchronisation impossible, nobody were told, or
// the vault went on with a reader of what is gone.
TEST(Vault, ADamagedReplicaIsComparedAndTold) {
    Site site;
    ProtectedItem item(site);
    EXPECT_EQ(verdict(site, item.item, first_block({5}, 'x')), CompareVerdict::kEqual);
    item.appliance.next = {6};
    Bytes records;
    item.appliance.add(records, RecordKind::kWrite, std::string(4096, 'y'));
    auto second = item.appliance.build(records);
    ASSERT_TRUE(second);
    ASSERT_TRUE(item.appliance.link.register_segment(*second));
    // Open at this state, and gone before it is read.
    CompareQuestion beside = first_block({6}, 'y');
    beside.offset_bytes = 4 * kSumBlockBytes;
    EXPECT_EQ(site.vault().compare("agent-1", item.item, beside)->sums.at(0), kZeroSum);
    ASSERT_TRUE(site.vault().store().remove(second->object_name));
    auto answer = site.vault().compare("agent-1", item.item, first_block({6}, 'y'));
    ASSERT_TRUE(answer) << answer.error().to_string();
    EXPECT_EQ(answer->verdict, CompareVerdict::kSums);
    EXPECT_EQ(answer->unreadable, 1u);
    EXPECT_EQ(verdict(site, item.item, first_block({6}, 'y')), CompareVerdict::kSums);
    const Json events = site.call("GET", "/v1/events", 200);
    EXPECT_EQ(
        std::ranges::count_if(events["events"],
                              [](const Json& event) { return event["code"] == "replica-damaged"; }),
        1)
        << "once, not with each question";
    // Opened anew, it cannot be: everything is copied.
    site.clock.us += 301'000'000;
    EXPECT_EQ(verdict(site, item.item, first_block({6}, 'y')), CompareVerdict::kNothing);
}

// Broken if a restart lost an item, its points or its token, or let the log go on with an old lease
// that a newer vault does not know.
TEST(Vault, RestartKeepsEverything) {
    Site site;
    ProtectedItem item(site);
    const std::string token = to_text(site.vault().admin_token().reveal());
    const Epoch epoch = site.vault().info().epoch;
    site.start();
    EXPECT_EQ(to_text(site.vault().admin_token().reveal()), token);
    EXPECT_GT(site.vault().info().epoch, epoch);
    EXPECT_EQ(site.call("GET", "/v1/items/web", 200)["state"], "protected");
    EXPECT_EQ(site.call("GET", "/v1/items/web/points/latest", 200)["sequence"], 5);
}

void lose_database(Site& site) {
    site.server.reset();
    site.remove_database();
}

// Broken if the database were the only place where something is known.
TEST(Vault, LostDatabaseIsRebuiltFromTheStore) {
    Site site;
    { ProtectedItem item(site); }
    lose_database(site);
    site.start();
    const Json item = site.call("GET", "/v1/items/web", 200);
    EXPECT_EQ(item["state"], "catching-up");
    EXPECT_EQ(item["machine"]["cpus"], 1);
    EXPECT_EQ(site.call("GET", "/v1/items/web/points/latest", 200)["sequence"], 5);
    EXPECT_EQ(site.call("GET", "/v1/events", 200)["events"][0]["code"], "rebuilt-from-store");
}

bool has_event(const Json& events, const std::string& code, const std::string& item) {
    return std::ranges::any_of(events["events"], [&](const Json& event) {
        return event["code"] == code && event.value("item", "") == item;
    });
}

// Two items in a store; the objects of one are damaged while there is no database.
struct DamagedSite : Site {
    DamagedSite() {
        ProtectedItem web(*this);
        bad = web.item;
        // With so many behind it, the loss of the first segment shows.
        for (uint64_t i = 0; i <= kMaxSegmentsAhead; ++i) {
            Bytes records;
            web.appliance.add(records, RecordKind::kTime);
            EXPECT_TRUE(web.appliance.send(records));
        }
        good = ProtectedItem(*this, "db", "/disks/b").item;
    }
    // Objects of the damaged item whose names hold `part`, in order.
    std::vector<std::filesystem::path> objects(const std::string& part) const {
        std::vector<std::filesystem::path> found;
        const std::string own = directory + "/store/items/" + bad.to_string();
        for (const auto& entry : std::filesystem::recursive_directory_iterator(own))
            if (entry.is_regular_file() &&
                entry.path().string().substr(own.size()).find(part) != std::string::npos)
                found.push_back(entry.path());
        std::ranges::sort(found);
        return found;
    }
    void expect_set_aside(const std::string& name, const std::string& code) {
        const std::string item = "/v1/items/" + name;
        const Json shown = call("GET", item, 200);
        EXPECT_EQ(shown["health"], "critical");
        EXPECT_EQ(shown["troubles"][0]["code"], code) << shown;
        EXPECT_NE(shown["troubles"][0]["cause"].get<std::string>().find(bad.to_string()),
                  std::string::npos);
        const Json events = call("GET", "/v1/events?item=" + name, 200);
        EXPECT_TRUE(has_event(events, "item-set-aside", name)) << events;
        EXPECT_EQ(refused("GET", item + "/points"), code);
        EXPECT_EQ(refused("GET", item + "/points/latest"), code);
        EXPECT_EQ(refused("POST", item + "/bookmarks", {{"label", "x"}}), code);
        EXPECT_EQ(refused("POST", item + "/resynchronise"), code);
        EXPECT_EQ(refused("DELETE", item), code);
        FakeAppliance appliance{*this, vault(), bad, {}, {}, {}, {1}};
        EXPECT_EQ(code_name(appliance.acquire().error().code()), code);
        SegmentRegistration registration;
        registration.item = bad;
        EXPECT_EQ(code_name(vault().register_segment(registration).error().code()), code);
    }
    ItemId bad, good;
};

// Broken if one damaged item stopped a vault without a database, if its half of a ledger were
// trusted, if it were not named, or if it stayed set aside once its objects are whole again.
TEST(Vault, ADamagedItemDoesNotStopTheOthers) {
    struct Damage {
        const char* what;
        const char* object;  // the first one whose name holds this
        enum { kFlipped, kCut, kLost } how;
        const char* code;
        bool known;  // its name can be read
    };
    for (const Damage& damage :
         {Damage{"segment damaged", ".seg", Damage::kFlipped, "corrupt", true},
          Damage{"segment cut", ".seg", Damage::kCut, "truncated", true},
          Damage{"segment lost", ".seg", Damage::kLost, "corrupt", true},
          Damage{"item object damaged", "/item", Damage::kFlipped, "corrupt", false},
          Damage{"item object lost", "/item", Damage::kLost, "corrupt", false}}) {
        SCOPED_TRACE(damage.what);
        DamagedSite site;
        lose_database(site);
        const auto path = site.objects(damage.object).front();
        const Bytes whole = *read_whole_file(site.files, path.string(), 1 << 20);
        std::filesystem::remove(path);
        if (damage.how != Damage::kLost) {
            Bytes bytes = whole;
            bytes[40] ^= 1;
            if (damage.how == Damage::kCut) bytes.resize(3);
            ASSERT_TRUE(write_file_durably(site.files, path.string(), bytes));
        }
        const std::string name = damage.known ? "web" : "item-" + site.bad.to_string().substr(0, 8);
        // Twice: the next start tries again, and remembers as well.
        for (int start = 0; start < 2; ++start) {
            site.start();
            EXPECT_EQ(site.call("GET", "/v1/items/db/points/latest", 200)["sequence"], 5);
            site.expect_set_aside(name, damage.code);
            site.vault().tend();
            // Its agent is told nothing of it, and what it says of it disturbs nobody.
            EXPECT_TRUE(site.vault().local_party(PartyKind::kAgent, "agent-1"));
            FakeAgent agent{site};
            auto down = agent.sync({live(site.bad), live(site.good)});
            ASSERT_TRUE(down) << down.error().to_string();
            ASSERT_EQ(down->items.size(), 1u);
            EXPECT_EQ(down->items[0].item, site.good);
        }
        site.server.reset();
        std::filesystem::remove(path);
        ASSERT_TRUE(write_file_durably(site.files, path.string(), whole));
        site.start();
        EXPECT_EQ(site.call("GET", "/v1/items/web/points/latest", 200)["sequence"],
                  6 + kMaxSegmentsAhead);
        EXPECT_EQ(site.call("GET", "/v1/items/db/points/latest", 200)["sequence"], 5);
        EXPECT_TRUE(has_event(site.call("GET", "/v1/events", 200), "item-rebuilt", "web"));
        FakeAppliance appliance{site, site.vault(), site.bad, {}, {}, {}, {1}};
        ASSERT_TRUE(appliance.acquire());
        Bytes records;
        appliance.add(records, RecordKind::kTime);
        EXPECT_TRUE(appliance.send(records));
    }
}

// Broken if what is left of a damaged item could never be got rid of.
TEST(Vault, ADamagedItemCanBeRemovedByForce) {
    DamagedSite site;
    lose_database(site);
    std::filesystem::remove(site.objects("/item").front());
    site.start();
    const std::string name = "item-" + site.bad.to_string().substr(0, 8);
    const Json job = site.call("DELETE", "/v1/items/" + name + "?force=true", 202);
    ASSERT_TRUE(wait_until(20'000, 5, [&] {
        site.clock.us += 100'000;
        return site.vault().job(job["id"].get<uint64_t>(), 0)->over();
    }));
    EXPECT_EQ(site.call("GET", fmt::format("/v1/jobs/{}", job["id"].get<int>()), 200)["state"],
              "succeeded");
    EXPECT_TRUE(site.vault().store().list("items/" + site.bad.to_string() + "/", "", 1)->empty());
    EXPECT_EQ(site.refused("GET", "/v1/items/" + name), "item-not-found");
    site.start();
    EXPECT_EQ(site.call("GET", "/v1/items", 200)["items"].size(), 1u);
}

// Broken if a wrong key were taken for damage of every item.
TEST(Vault, AWrongKeyIsNoDamage) {
    DamagedSite site;
    lose_database(site);
    std::filesystem::remove(site.directory + "/vault/key");
    ASSERT_TRUE(
        save_key_file(site.files, site.directory + "/vault/key", make_key_file(site.random)));
    VaultOptions options = site.options().vault;
    auto opened = Vault::open(options, site.files, site.clock, site.random);
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code(), Code::kWrongKey);
}

Code open_error(Site& site) {
    VaultOptions options = site.options().vault;
    auto opened = Vault::open(options, site.files, site.clock, site.random);
    return opened ? Code::kInternal : opened.error().code();
}

// Broken if a vault started on what is not its own: each is a named error, and nothing is changed.
TEST(Vault, RefusesWhatIsNotItsOwn) {
    Site site;
    { ProtectedItem item(site); }
    EXPECT_EQ(open_error(site), Code::kDuplicateIdentity);  // it runs
    site.server.reset();
    // Another key, no key.
    std::filesystem::rename(site.directory + "/vault/key", site.directory + "/kept");
    EXPECT_EQ(open_error(site), Code::kWrongKey);
    ASSERT_TRUE(
        save_key_file(site.files, site.directory + "/vault/key", make_key_file(site.random)));
    EXPECT_EQ(open_error(site), Code::kWrongKey);
    std::filesystem::rename(site.directory + "/kept", site.directory + "/vault/key");
    // Another vault's store, and a directory that is no store.
    std::filesystem::rename(site.directory + "/store", site.directory + "/kept");
    EXPECT_NE(open_error(site), Code::kInternal) << "a store that is not there is no new store";
    EXPECT_FALSE(std::filesystem::exists(site.directory + "/store"));
    std::filesystem::create_directories(site.directory + "/store");
    EXPECT_EQ(open_error(site), Code::kForeignStore);
    EXPECT_FALSE(std::filesystem::exists(site.directory + "/store/farshore-store"))
        << "an empty directory, a mount point without its file system, became a store";
    ASSERT_TRUE(write_file_durably(site.files, site.directory + "/store/photo", as_bytes("x")));
    EXPECT_EQ(open_error(site), Code::kForeignStore);
    std::filesystem::remove_all(site.directory + "/store");
    std::filesystem::rename(site.directory + "/kept", site.directory + "/store");
    site.start();
    EXPECT_EQ(site.call("GET", "/v1/items/web/points/latest", 200)["sequence"], 5);
}

// Broken if an older vault went on registering on a store that a newer one has taken over.
TEST(Vault, TheOlderVaultOnAStoreIsFenced) {
    Site site;
    ProtectedItem item(site);
    const std::string other = fresh_directory();
    {
        VaultOptions options;
        options.data_directory = other;
        options.store_location = site.directory + "/store";
        options.key_file = site.directory + "/vault/key";
        options.tend_interval_us = 0;
        auto newer = Vault::open(options, site.files, site.clock, site.random);
        ASSERT_TRUE(newer) << newer.error().to_string();
        EXPECT_EQ((*newer)->item("web")->replica->stored.v, 5u);
        Bytes records;
        item.appliance.add(records, RecordKind::kTime);
        auto fenced = item.appliance.send(records);
        ASSERT_FALSE(fenced);
        EXPECT_EQ(fenced.error().code(), Code::kFenced);
        EXPECT_TRUE(site.call("GET", "/v1/server", 200)["fenced"].get<bool>());
    }
    std::filesystem::remove_all(other);
}

// Broken if a vault that was replaced fenced the newer one by merely being started again, or if the
// guard stood in the way of an ordinary start. Taking over on purpose must learn what the newer one
// did: its segments, and what it deleted.
TEST(Vault, AReplacedVaultComesBackOnPurposeOnly) {
    SKIP_ON_POSTGRES();
    Site site;
    ProtectedItem item(site);
    site.start();  // again: nobody else was there
    const Epoch mine = site.vault().info().epoch;
    // Nothing happens there: the copy is as good as one of a vault that was stopped.
    const std::string copy = fresh_directory();
    for (const char* part : {"/vault", "/pki"})
        std::filesystem::copy(site.directory + part, copy + part,
                              std::filesystem::copy_options::recursive);
    Epoch newer;
    {
        // A copy of everything but the store, as a replacement machine would have it.
        VaultOptions options;
        options.data_directory = copy;
        options.store_location = site.directory + "/store";
        options.tend_interval_us = 0;
        auto other = Vault::open(options, site.files, site.clock, site.random);
        ASSERT_TRUE(other) << other.error().to_string();
        newer = (*other)->info().epoch;
        EXPECT_GT(newer, mine);
        FakeAppliance appliance{site, **other, item.item, {}, {}, {}, {1}};
        ASSERT_TRUE(appliance.acquire());
        Bytes records;
        appliance.add(records, RecordKind::kTime);
        ASSERT_TRUE(appliance.send(records));
    }
    site.server.reset();
    EXPECT_EQ(open_error(site), Code::kVaultReplaced);
    EXPECT_EQ(open_error(site), Code::kVaultReplaced);  // refusing changes nothing
    {
        VaultOptions options = site.options().vault;
        options.take_over = true;
        auto back = Vault::open(options, site.files, site.clock, site.random);
        ASSERT_TRUE(back) << back.error().to_string();
        EXPECT_GT((*back)->info().epoch, newer);
        EXPECT_EQ((*back)->item("web")->replica->stored.v, 6u);
    }
    site.start();  // from now on an ordinary start
    // The other way round, and this time the other deleted the item.
    site.server.reset();
    {
        VaultOptions options;
        options.data_directory = copy;
        options.store_location = site.directory + "/store";
        options.tend_interval_us = 0;
        auto refused = Vault::open(options, site.files, site.clock, site.random);
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code(), Code::kVaultReplaced);
        options.take_over = true;
        ASSERT_TRUE(Vault::open(options, site.files, site.clock, site.random));
        std::filesystem::remove_all(site.directory + "/store/items");
    }
    {
        VaultOptions options = site.options().vault;
        options.take_over = true;
        auto back = Vault::open(options, site.files, site.clock, site.random);
        ASSERT_TRUE(back) << back.error().to_string();
        EXPECT_EQ((*back)->item("web")->replica->stored.v, 0u);
    }
    site.start();
    EXPECT_EQ(site.call("GET", "/v1/events", 200)["events"][0]["code"], "points-gone");
    std::filesystem::remove_all(copy);
}

}  // namespace
}  // namespace farshore
