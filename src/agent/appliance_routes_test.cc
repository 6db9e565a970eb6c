#include "agent/appliance_routes.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

// What was dialled, and answers at once: a connection to whoever is there, or nobody.
struct Wire {
    struct Dialled {
        std::string name, address;
        bool operator==(const Dialled&) const = default;
    };
    std::vector<Dialled> dialled;
    std::map<std::string, std::string> there;  // address -> who it proves to be

    class FakeConnection final : public Connection {
      public:
        explicit FakeConnection(std::string peer) : peer_(std::move(peer)) {}
        void start(Handlers) override {}
        void send(Bytes) override {}
        size_t queued_bytes() const override { return 0; }
        void close() override {}
        const std::string& peer_name() const override { return peer_; }

      private:
        const std::string peer_;
    };
    class FakeDialer final : public Dialer {
      public:
        FakeDialer(Wire& wire, std::string name) : wire_(wire), name_(std::move(name)) {}
        void dial(Executor&, const std::string& address,
                  std::function<void(Result<std::unique_ptr<Connection>>)> done) override {
            wire_.dialled.push_back({name_, address});
            const auto found = wire_.there.find(address);
            if (found == wire_.there.end())
                done(fail(Code::kUnavailable, "nobody"));
            else
                done(std::make_unique<FakeConnection>(found->second));
        }

      private:
        Wire& wire_;
        const std::string name_;
    };
    ApplianceRoutes::MakeDialer maker() {
        return
            [this](const std::string& name) { return std::make_unique<FakeDialer>(*this, name); };
    }
};

struct NoExecutor final : Executor {
    void post(Task) override {}
    TimerId post_after_us(int64_t, Task) override { return {}; }
    void cancel(TimerId) override {}
};

// Broken if an agent whose appliance is gone tried nobody else, or dialled the same one under two
// names.
TEST(ApplianceRoutes, TheConversationGoesRound) {
    Wire wire;
    NoExecutor executor;
    wire.there["b:2"] = "b";
    ApplianceRoutes routes({"a:1"}, "", wire.maker());
    EXPECT_TRUE(routes.learn({{"a", "a:1"}, {"b", "b:2"}}));
    EXPECT_FALSE(routes.learn({{"a", "a:1"}, {"b", "b:2"}}));
    const auto talk = [&] {
        bool well = false;
        routes.control().dial(executor, "", [&](auto made) { well = made.has_value(); });
        if (!well) routes.control_failed();
        return well;
    };
    EXPECT_FALSE(talk());
    EXPECT_TRUE(talk());
    EXPECT_EQ(wire.dialled, (std::vector<Wire::Dialled>{{"", "a:1"}, {"b", "b:2"}}));
    // It stays with one that works, whatever else it hears.
    routes.learn({{"0", "0:0"}, {"b", "b:2"}});
    EXPECT_EQ(routes.control_address(), "b:2");
    routes.learn({});
    EXPECT_EQ(routes.control_address(), "a:1");
    // Alone, it is tried again.
    routes.control_failed();
    EXPECT_EQ(routes.control_address(), "a:1");
}

// Broken if an item went to an address that does not work for this host although one is known that
// does, or to an appliance that need not prove its name.
TEST(ApplianceRoutes, AnItemFindsItsAppliance) {
    Wire wire;
    NoExecutor executor;
    wire.there["nat:1"] = "a";
    ApplianceRoutes routes({"nat:1"}, "", wire.maker());
    EXPECT_EQ(routes.find({}), (ApplianceAddress{"", "nat:1"}));
    EXPECT_EQ(routes.find({"a", "inside:9"}), (ApplianceAddress{"a", "inside:9"}));
    routes.control().dial(executor, "", [](auto) {});
    EXPECT_EQ(routes.find({"a", "inside:9"}), (ApplianceAddress{"a", "nat:1"}));
    EXPECT_EQ(routes.find({"b", "b:2"}), (ApplianceAddress{"b", "b:2"}));
    EXPECT_EQ(routes.find({"b", ""}), (ApplianceAddress{"b", "nat:1"}));
    ItemRoute route(routes);
    route.set({"b", "b:2"});
    route.dial(executor, "", [](auto) {});
    EXPECT_EQ(wire.dialled.back(), (Wire::Dialled{"b", "b:2"}));
    EXPECT_EQ(route.appliance(), "b");
}

}  // namespace
}  // namespace farshore
