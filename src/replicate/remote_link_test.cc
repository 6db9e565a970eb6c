#include "replicate/remote_link.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

struct RecordingVault final : VaultLink {
    Result<LogLease> acquire_log(const ItemId& item, const std::string& appliance) override {
        EXPECT_EQ(item.raw[0], 5);
        EXPECT_EQ(appliance, "appliance-1");
        LogLease lease;
        lease.epoch = {3};
        lease.next_segment = {9};
        lease.previous_header[31] = 7;
        lease.stored = {1ull << 60};
        lease.agent = "agent-1";
        lease.bandwidth = "2MB/s";
        lease.time_zone = "Asia/Tokyo";
        lease.item_key = Secret(Bytes(32, 0x42));
        return lease;
    }
    Status register_segment(const SegmentRegistration& r) override {
        registered = r;
        return fail(Code::kFenced, "newer epoch");
    }
    Status mark_idle(const ItemId&, Epoch epoch, Sequence sequence, TimePoint time) override {
        EXPECT_EQ(epoch.v, 3u);
        EXPECT_EQ(sequence.v, 4u);
        EXPECT_EQ(time.us, -5);
        return {};
    }
    Result<std::string> sync_agent(const std::string& agent, const std::string& status) override {
        return agent + "/" + status;
    }
    Result<std::string> enrol(const std::string& token, const std::string& pem) override {
        return token + pem;
    }
    Result<CompareAnswer> compare(const std::string& agent, const ItemId& item,
                                  const CompareQuestion& question) override {
        EXPECT_EQ(agent, "agent-1");
        EXPECT_EQ(item.raw[0], 5);
        compared = question;
        if (question.disk == 9) return fail(Code::kForbidden, "another agent's");
        return answer;
    }
    Result<std::string> renew(const std::string& party, const std::string& request) override {
        return "new " + request + " of " + party;
    }
    Result<std::vector<std::string>> refused_agents(
        const std::vector<std::string>& agents) override {
        return std::vector<std::string>{agents.back()};
    }
    Result<ApplianceOrders> sync_appliance(const std::string& appliance,
                                           const ApplianceStatus& status) override {
        EXPECT_EQ(appliance, "appliance-1");
        said = status;
        return ApplianceOrders{
            "Europe/Berlin", {{status.uploads.at(0).item, "1MB/s"}}, {status.uploads.at(1).item}};
    }
    ApplianceStatus said;
    SegmentRegistration registered;
    CompareQuestion compared;
    CompareAnswer answer;
};

// Broken if an appliance in a process of its own saw other values than one beside the vault.
TEST(RemoteLink, CarriesEveryCall) {
    RecordingVault vault;
    RemoteVaultLink link([&](const std::string& method, const std::string& body) {
        return serve_link(vault, method, body);
    });
    ItemId item;
    item.raw[0] = 5;
    auto lease = link.acquire_log(item, "appliance-1");
    ASSERT_TRUE(lease) << lease.error().to_string();
    EXPECT_EQ(lease->stored.v, 1ull << 60);
    EXPECT_EQ(lease->previous_header[31], 7);
    EXPECT_EQ(lease->agent, "agent-1");
    EXPECT_EQ(lease->bandwidth, "2MB/s");
    EXPECT_EQ(lease->time_zone, "Asia/Tokyo");
    EXPECT_EQ(lease->item_key.reveal()[31], 0x42);
    SegmentRegistration registration;
    registration.item = item;
    registration.number = {8};
    registration.last_time = {77};
    registration.object_name = "items/x";
    EXPECT_EQ(link.register_segment(registration).error().code(), Code::kFenced);
    EXPECT_EQ(vault.registered.number.v, 8u);
    EXPECT_EQ(vault.registered.last_time.us, 77);
    EXPECT_EQ(vault.registered.object_name, "items/x");
    EXPECT_TRUE(link.mark_idle(item, {3}, {4}, {-5}));
    EXPECT_EQ(*link.sync_agent("a", "{\"x\":1}"), "a/{\"x\":1}");
    EXPECT_EQ(*link.enrol("t", "p"), "tp");
    EXPECT_EQ(*link.renew("a", "p"), "new p of a");
    EXPECT_EQ(*link.refused_agents({"a", "b"}), std::vector<std::string>{"b"});
    EXPECT_EQ(link.refused_agents(std::vector<std::string>(5000, "a")).error().code(),
              Code::kTooLarge);
    ApplianceStatus status;
    status.address = "10.0.0.1:9443";
    status.site = "berlin";
    status.version = "1";
    status.load = {120, 340, 5};
    status.spool_used_bytes = 1;
    status.spool_free_permille = 2;
    status.certificate_until = {99};
    status.uploads = {{item, 5, true, true, 6, 7, 8}, {item, kUnlimited, false, false, 0, -1, 0}};
    auto orders = link.sync_appliance("appliance-1", status);
    ASSERT_TRUE(orders) << orders.error().to_string();
    EXPECT_EQ(orders->time_zone, "Europe/Berlin");
    ASSERT_EQ(orders->items.size(), 1u);
    EXPECT_EQ(orders->items[0].item, item);
    EXPECT_EQ(orders->items[0].bandwidth, "1MB/s");
    EXPECT_EQ(orders->gone, std::vector{item});
    EXPECT_EQ(vault.said.address, "10.0.0.1:9443");
    EXPECT_EQ(vault.said.site, "berlin");
    EXPECT_EQ(vault.said.version, "1");
    EXPECT_EQ(vault.said.load.cpu_permille, 120);
    EXPECT_EQ(vault.said.load.memory_permille, 340);
    EXPECT_EQ(vault.said.load.process_bytes, 5u);
    EXPECT_EQ(vault.said.spool_used_bytes, 1u);
    EXPECT_EQ(vault.said.spool_free_permille, 2);
    EXPECT_EQ(vault.said.certificate_until.us, 99);
    const std::vector<UploadStatus>& uploads = vault.said.uploads;
    ASSERT_EQ(uploads.size(), 2u);
    EXPECT_EQ(uploads[0].rate, 5u);
    EXPECT_TRUE(uploads[0].total_counts);
    EXPECT_TRUE(uploads[0].limited);
    EXPECT_EQ(uploads[0].waiting_bytes, 6u);
    EXPECT_EQ(uploads[0].eta_s, 7);
    EXPECT_EQ(uploads[0].sent_bytes, 8u);
    EXPECT_EQ(uploads[1].rate, kUnlimited);
}

// Broken if a comparison through an appliance of its own found something else than one beside the
// vault.
TEST(RemoteLink, CarriesComparisons) {
    RecordingVault vault;
    RemoteVaultLink link([&](const std::string& method, const std::string& body) {
        return serve_link(vault, method, body);
    });
    ItemId item;
    item.raw[0] = 5;
    CompareQuestion question;
    question.key.fill(0xfe);
    question.at_least = {1ull << 62};
    question.disk = 3;
    question.offset_bytes = 1ull << 40;
    question.length_bytes = kMaxCompareBytes;
    question.sum.fill(0x80);
    vault.answer.verdict = CompareVerdict::kSums;
    vault.answer.sums.assign(kMaxCompareBlocks, kUnreadableSum);
    vault.answer.sums[1] = kZeroSum;
    vault.answer.unreadable = 1023;
    auto answer = link.compare("agent-1", item, question);
    ASSERT_TRUE(answer) << answer.error().to_string();
    EXPECT_EQ(answer->verdict, CompareVerdict::kSums);
    EXPECT_EQ(answer->sums, vault.answer.sums);
    EXPECT_EQ(answer->unreadable, 1023u);
    EXPECT_EQ(vault.compared.key, question.key);
    EXPECT_EQ(vault.compared.at_least.v, question.at_least.v);
    EXPECT_EQ(vault.compared.disk, 3);
    EXPECT_EQ(vault.compared.offset_bytes, question.offset_bytes);
    EXPECT_EQ(vault.compared.length_bytes, question.length_bytes);
    EXPECT_EQ(vault.compared.sum, question.sum);
    vault.answer = {CompareVerdict::kNotYet, {}, 0};
    EXPECT_EQ(link.compare("agent-1", item, question)->verdict, CompareVerdict::kNotYet);
    question.disk = 9;
    EXPECT_EQ(link.compare("agent-1", item, question).error().code(), Code::kForbidden);
    // What goes out of range is refused before the vault is asked.
    question.offset_bytes = 1;
    EXPECT_EQ(link.compare("agent-1", item, question).error().code(), Code::kMalformed);
    EXPECT_EQ(vault.compared.offset_bytes, 1ull << 40);
    for (const char* body :
         {R"({"agent":"a","frame":""})", R"({"agent":"a","frame":"zz"})",
          R"({"agent":"a","frame":3})", R"({"agent":3,"frame":""})", R"({"frame":"00"})"}) {
        const auto refused = serve_link(vault, "compare", body);
        ASSERT_FALSE(refused) << body;
        EXPECT_EQ(refused.error().retry(), Retry::kNever) << body;
    }
    for (const char* reply : {"{}", R"({"frame":""})", R"({"frame":"0102"})", "nonsense"}) {
        RemoteVaultLink liar([&](const std::string&, const std::string&) -> Result<std::string> {
            return std::string(reply);
        });
        question.offset_bytes = 0;
        EXPECT_FALSE(liar.compare("agent-1", item, question)) << reply;
    }
}

// Broken if a peer that talks nonsense could end the vault.
TEST(RemoteLink, NonsenseIsANamedError) {
    RecordingVault vault;
    for (const char* body : {"", "[]", "{", "{\"item\":3}", "{\"item\":\"zz\"}"})
        for (const char* method :
             {"acquire-log", "register-segment", "mark-idle", "sync-agent", "enrol", "compare"})
            EXPECT_EQ(serve_link(vault, method, body).error().code(), Code::kMalformed);
    EXPECT_EQ(serve_link(vault, "delete-everything", "{}").error().code(), Code::kNotFound);
}

}  // namespace
}  // namespace farshore
