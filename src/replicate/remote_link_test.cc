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
    SegmentRegistration registered;
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
}

// Broken if a peer that talks nonsense could end the vault.
TEST(RemoteLink, NonsenseIsANamedError) {
    RecordingVault vault;
    for (const char* body : {"", "[]", "{", "{\"item\":3}", "{\"item\":\"zz\"}"})
        for (const char* method :
             {"acquire-log", "register-segment", "mark-idle", "sync-agent", "enrol"})
            EXPECT_EQ(serve_link(vault, method, body).error().code(), Code::kMalformed);
    EXPECT_EQ(serve_link(vault, "delete-everything", "{}").error().code(), Code::kNotFound);
}

}  // namespace
}  // namespace farshore
