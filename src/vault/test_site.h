// A vault for tests, with the other ends of its conversations: an agent and an appliance that say
// what a test wants. Included by tests only.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <atomic>
#include <filesystem>

#include "meta/json_fields.h"
#include "meta/test_database.h"
#include "os/http.h"
#include "os/real.h"
#include "replica/segment.h"
#include "vault/vault.h"
#include "vault/vault_server.h"

namespace farshore {

// Wall clock and steady clock that a test moves. Atomic: the vault's own threads read them.
class TestClock final : public Clock {
  public:
    TimePoint now() const override { return {us.load()}; }
    int64_t steady_us() const override { return us.load(); }
    // From today: certificates are checked against the machine's clock.
    std::atomic<int64_t> us{RealClock().now().us};
};

// In memory: what a power cut leaves is tested elsewhere, and a slow disk would take minutes.
inline std::string fresh_directory() {
    char pattern[] = "/dev/shm/farshore-vault-XXXXXX";
    return ::mkdtemp(pattern);
}

// A vault behind HTTPS in a directory of its own, without background rounds: the test calls tend().
struct Site {
    Site() : directory(fresh_directory()), database(test_schema(directory)) { start(); }
    virtual ~Site() {
        server.reset();
        std::filesystem::remove_all(directory);
    }
    virtual VaultServerOptions options() const {
        VaultServerOptions options;
        options.vault.data_directory = directory;
        options.vault.database = database;
        options.vault.tend_interval_us = 0;
        options.vault.scrub_bandwidth.clear();  // the test's clock stands still while it waits
        options.listen = "127.0.0.1:0";
        options.recovery = false;
        return options;
    }
    void start() {
        server.reset();
        auto started = VaultServer::start(options(), files, clock, random);
        ASSERT_TRUE(started) << started.error().to_string();
        server = std::move(*started);
        HttpClientOptions client;
        client.authority_pem = vault().authority_pem();
        client.bearer_token = vault().admin_token();
        http = std::make_unique<HttpClient>(client);
    }
    // While no vault runs.
    void remove_database() {
        if (!database.empty()) database = test_schema(fresh_directory());
        for (const char* name : {"farshore.db", "farshore.db-wal", "farshore.db-shm"})
            std::filesystem::remove(directory + "/vault/" + name);
    }
    Vault& vault() { return server->vault(); }

    HttpResponse request(HttpClient& client, const std::string& method, const std::string& target,
                         const Json& body = {}) {
        HttpClientRequest request;
        request.method = method;
        request.url = "https://" + server->address() + target;
        if (!body.is_null()) request.body = dump_json(body);
        auto response = client.request(request);
        EXPECT_TRUE(response) << response.error().to_string();
        return response.value_or(HttpResponse{});
    }
    Json call(const std::string& method, const std::string& target, int status,
              const Json& body = {}) {
        const HttpResponse response = request(*http, method, target, body);
        EXPECT_EQ(response.status, status) << method << " " << target << ": " << response.body;
        if (response.body.empty()) return {};
        return Json::parse(response.body, nullptr, false);
    }
    // The code of the problem that the server answered.
    std::string refused(const std::string& method, const std::string& target,
                        const Json& body = {}) {
        const HttpResponse response = request(*http, method, target, body);
        const Json json = Json::parse(response.body, nullptr, false);
        EXPECT_EQ(response.header("content-type"), "application/problem+json");
        if (!json.is_object() || !json.contains("code")) return "none: " + response.body;
        EXPECT_EQ(response.status,
                  code_http_status(code_from_name(json["code"].get<std::string>())));
        EXPECT_FALSE(json["detail"].get<std::string>().empty());
        return json["code"];
    }

    std::string directory, database;
    PosixFileSystem files;
    TestClock clock;
    RealRandom random;
    std::unique_ptr<VaultServer> server;
    std::unique_ptr<HttpClient> http;
};

// The agent's end of the conversation.
struct FakeAgent {
    Site& site;
    std::string name = "agent-1";
    std::string instance = "one";
    std::optional<int64_t> clock_ahead_us{};
    std::string appliances_id{};  // as it says it

    Result<AgentInstructions> sync(std::vector<AgentItemStatus> items = {}) {
        AgentStatus status{name, instance, "0.1", site.clock.now(), std::move(items)};
        status.clock_ahead_us = clock_ahead_us;
        status.appliances_id = appliances_id;
        FS_ASSIGN(const std::string down, site.vault().sync_agent(name, encode_status(status)));
        return decode_instructions(down);
    }
};

inline AgentItemStatus live(const ItemId& item) {
    AgentItemStatus status;
    status.item = item;
    status.state = AgentItemState::kLive;
    status.nbd_socket = "/run/tap.sock";
    status.disks = {{0, 1 << 20, "/disks/a"}};
    status.machine_description = R"({"name":"web","cpus":1})";
    return status;
}

// The appliance's: builds real segments of real records.
struct FakeAppliance {
    Site& site;
    VaultLink& link;
    ItemId item;
    LogLease lease;
    SegmentNumber number;
    Digest previous{};
    Sequence next{1};

    Status acquire() {
        FS_ASSIGN(lease, link.acquire_log(item, "appliance-1"));
        number = lease.next_segment;
        previous = lease.previous_header;
        next = lease.stored.next();
        return {};
    }
    void add(Bytes& records, RecordKind kind, const std::string& payload = {}, uint8_t flags = 0) {
        RecordHeader header;
        header.kind = kind;
        header.flags = flags;
        header.sequence = next;
        header.time = site.clock.now();
        if (kind == RecordKind::kGeometry) header.offset_bytes = 1 << 20;
        if (header.has_payload()) header.length_bytes = static_cast<uint32_t>(payload.size());
        append_record(records, header, as_bytes(payload));
        next = next.next();
    }
    Result<SegmentRegistration> build(const Bytes& records) {
        SegmentWriter writer;
        FS_TRY(writer.add(records));
        SegmentWriter::BuildOptions options;
        options.item = item;
        options.epoch = lease.epoch;
        options.number = number;
        options.previous_header = previous;
        options.item_key = &lease.item_key;
        options.random = &site.random;
        FS_ASSIGN(const BuiltSegment built, writer.build(options));
        SegmentRegistration registration;
        registration.item = item;
        registration.epoch = lease.epoch;
        registration.number = number;
        registration.object_name = segment_object_name(built.header);
        registration.object_bytes = built.object.size();
        registration.header_hash = built.header.header_hash;
        registration.previous_header = previous;
        registration.first = built.header.first;
        registration.last = built.header.last;
        registration.first_time = built.header.first_time;
        registration.last_time = built.header.last_time;
        FS_TRY(site.vault().store().put(registration.object_name, built.object));
        previous = built.header.header_hash;
        number = number.next();
        return registration;
    }
    Status send(const Bytes& records) {
        FS_ASSIGN(const SegmentRegistration registration, build(records));
        return link.register_segment(registration);
    }
    // A protected machine's first segment: gap, geometry, a write, RESYNCED, a point.
    Status send_first() {
        Bytes records;
        add(records, RecordKind::kGap);
        add(records, RecordKind::kGeometry);
        add(records, RecordKind::kWrite, std::string(4096, 'x'));
        add(records, RecordKind::kResynced);
        add(records, RecordKind::kPoint, "", static_cast<uint8_t>(PointKind::kCrash));
        return send(records);
    }
};

inline ItemId id_of(const Json& item) { return *ItemId::parse(item["id"].get<std::string>()); }

// An item that is captured, with a first segment stored.
struct ProtectedItem {
    explicit ProtectedItem(Site& site_in, const std::string& name = "web",
                           const std::string& disk = "/disks/a")
        : site(site_in), agent{site_in}, appliance{site_in, site_in.vault(), {}, {}, {}, {}, {1}} {
        EXPECT_TRUE(site.vault().local_party(PartyKind::kAgent, "agent-1"));
        document =
            site.call("POST", "/v1/items", 201, {{"name", name}, {"disks", {disk}}, {"wait_s", 0}});
        item = id_of(document);
        appliance.item = item;
        EXPECT_TRUE(std::ranges::any_of(
            agent.sync()->items, [&](const DesiredItem& known) { return known.item == item; }));
        EXPECT_TRUE(agent.sync({live(item)}));
        EXPECT_TRUE(appliance.acquire());
        EXPECT_TRUE(appliance.send_first());
        site.vault().tend();
    }
    Site& site;
    FakeAgent agent;
    FakeAppliance appliance;
    Json document;
    ItemId item;
};

}  // namespace farshore
