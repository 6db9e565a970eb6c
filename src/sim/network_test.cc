#include "sim/network.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace farshore {
namespace {

using testing::ElementsAre;

// A client and a server, each on a host of its own, and one connection between them.
struct Peer {
    std::unique_ptr<Connection> connection;
    std::vector<std::string> frames;
    std::vector<Code> closed;
    int drained = 0;
    bool in_call = false;

    void start(std::unique_ptr<Connection> made) {
        connection = std::move(made);
        in_call = true;
        connection->start({[this](ByteView frame) {
                               EXPECT_FALSE(in_call);
                               EXPECT_TRUE(closed.empty()) << "a frame after the end";
                               frames.push_back(to_text(frame));
                           },
                           [this](const Error& error) {
                               EXPECT_FALSE(in_call);
                               closed.push_back(error.code());
                           },
                           [this] {
                               EXPECT_FALSE(in_call);
                               ++drained;
                           }});
        in_call = false;
    }
    void send(std::string_view text) {
        in_call = true;
        connection->send(to_bytes(as_bytes(text)));
        in_call = false;
    }
};

struct Fixture {
    explicit Fixture(uint64_t seed)
        : world(seed),
          network(world),
          a(world.add_host("a")),
          b(world.add_host("b")),
          client(a.add_process("client")),
          server(b.add_process("server")) {
        client.start();
        server.start();
        listen();
    }
    // Peers are the test's own objects here; their connections must go before the world.
    ~Fixture() {
        near.connection.reset();
        far.connection.reset();
        listener.reset();
    }
    void listen() {
        auto made =
            network.listen(server, server.executor(), "b:1", "server-name",
                           [this](std::unique_ptr<Connection> c) { far.start(std::move(c)); });
        ASSERT_TRUE(made);
        listener = std::move(*made);
    }
    void dial() {
        dialer = network.dialer(client, "client-name");
        dial_error.reset();
        dialer->dial(client.executor(), "b:1", [this](Result<std::unique_ptr<Connection>> made) {
            if (made) {
                near.start(std::move(*made));
            } else {
                dial_error = made.error().code();
            }
        });
    }
    void connect() {
        dial();
        ASSERT_TRUE(world.run_until([&] { return near.connection && far.connection; }, 1'000'000));
    }
    void on_client(const std::function<void()>& body) { client.run(body); }
    void on_server(const std::function<void()>& body) { server.run(body); }

    SimWorld world;
    SimNetwork network;
    SimHost& a;
    SimHost& b;
    SimProcess& client;
    SimProcess& server;
    Peer near, far;
    std::unique_ptr<SimListener> listener;
    std::unique_ptr<Dialer> dialer;
    std::optional<Code> dial_error;
};

std::vector<std::string> numbers(size_t n) {
    std::vector<std::string> out;
    for (size_t i = 0; i < n; ++i) out.push_back(std::to_string(i));
    return out;
}

// Broken: frames lost, doubled or reordered on a healthy link; names mixed up.
TEST(SimNetwork, FramesArriveInOrderBothWays) {
    for (uint64_t seed = 1; seed <= 20; ++seed) {
        Fixture f(seed);
        f.connect();
        EXPECT_EQ(f.near.connection->peer_name(), "server-name");
        EXPECT_EQ(f.far.connection->peer_name(), "client-name");
        for (int i = 0; i < 50; ++i) {
            f.on_client([&] { f.near.send(std::to_string(i)); });
            f.on_server([&] { f.far.send(std::to_string(i)); });
            if (i % 7 == 0) f.world.run_for_us(300);
        }
        f.world.run_for_us(1'000'000);
        EXPECT_EQ(f.far.frames, numbers(50));
        EXPECT_EQ(f.near.frames, numbers(50));
        EXPECT_TRUE(f.near.closed.empty());
    }
}

// Broken: a slow receiver does not push back, or the sender is never told to go on.
TEST(SimNetwork, QueuedBytesGrowAndDrain) {
    Fixture f(1);
    LinkProfile slow;
    slow.bandwidth_bytes_per_s = 10'000'000;
    f.network.set_profile(slow);
    f.connect();
    f.on_client([&] {
        for (int i = 0; i < 10; ++i) f.near.send(std::string(200'000, 'x'));
        EXPECT_EQ(f.near.connection->queued_bytes(), 2'000'000u);
    });
    f.world.run_for_us(50'000);
    EXPECT_GT(f.near.connection->queued_bytes(), 500'000u);
    EXPECT_EQ(f.near.drained, 0);
    f.world.run_for_us(2'000'000);
    EXPECT_EQ(f.near.connection->queued_bytes(), 0u);
    EXPECT_EQ(f.near.drained, 1);
    EXPECT_EQ(f.far.frames.size(), 10u);
}

// Broken: a stall loses frames, or does not stall.
TEST(SimNetwork, AClogOnlyDelays) {
    Fixture f(1);
    f.connect();
    f.network.clog(f.a, f.b, 2'000'000);
    f.on_client([&] {
        for (int i = 0; i < 5; ++i) f.near.send(std::to_string(i));
    });
    f.on_server([&] { f.far.send("back"); });
    f.world.run_for_us(1'900'000);
    EXPECT_TRUE(f.far.frames.empty());
    EXPECT_THAT(f.near.frames, ElementsAre("back"));  // the other direction is free
    f.world.run_for_us(1'000'000);
    EXPECT_EQ(f.far.frames, numbers(5));
}

// Broken: a short partition breaks connections, or a long one is never noticed.
TEST(SimNetwork, APartitionStallsAndIsNoticedInTime) {
    for (uint64_t seed = 1; seed <= 20; ++seed) {
        Fixture f(seed);
        f.connect();
        f.network.partition(f.a, f.b);
        f.on_client([&] { f.near.send("through"); });
        f.world.run_for_us(1'000'000);
        EXPECT_TRUE(f.far.frames.empty());
        f.network.heal(f.a, f.b);
        f.world.run_for_us(1'000'000);
        EXPECT_THAT(f.far.frames, ElementsAre("through"));
        f.network.partition(f.a, f.b);
        f.world.run_for_us(70'000'000);
        EXPECT_THAT(f.near.closed, ElementsAre(Code::kTimeout));
        EXPECT_THAT(f.far.closed, ElementsAre(Code::kTimeout));
        EXPECT_EQ(f.network.open_connections(), 0u);
        f.near.connection.reset();
        f.dial();
        f.world.run_for_us(6'000'000);
        EXPECT_EQ(f.dial_error, Code::kTimeout);
    }
}

// Broken: a reset delivers a frame behind a lost one, reports the end twice or not at all, or
// always loses or always keeps what was in flight.
TEST(SimNetwork, AResetLosesASuffix) {
    std::set<size_t> arrived;
    for (uint64_t seed = 1; seed <= 60; ++seed) {
        Fixture f(seed);
        f.connect();
        f.on_client([&] {
            for (int i = 0; i < 10; ++i) f.near.send(std::to_string(i));
        });
        f.world.run_for_us(300);
        f.network.reset(f.a, f.b);
        f.world.run_for_us(60'000'000);
        EXPECT_EQ(f.far.frames, numbers(f.far.frames.size())) << "seed " << seed;
        EXPECT_THAT(f.near.closed, ElementsAre(Code::kConnectionLost)) << "seed " << seed;
        EXPECT_THAT(f.far.closed, ElementsAre(Code::kConnectionLost)) << "seed " << seed;
        arrived.insert(f.far.frames.size());
    }
    EXPECT_GE(arrived.size(), 4u);
}

// Broken: the peer of a killed process is not told, or is told with certainty what had arrived.
TEST(SimNetwork, AKilledPeerIsNoticedSoonPowerLossLate) {
    std::set<size_t> arrived;
    for (uint64_t seed = 1; seed <= 60; ++seed) {
        Fixture f(seed);
        f.connect();
        f.on_client([&] {
            for (int i = 0; i < 10; ++i) f.near.send(std::to_string(i));
        });
        f.world.run_for_us(200);
        const bool power = seed % 2 == 0;
        if (power) {
            f.a.lose_power();
        } else {
            f.client.kill();
        }
        f.world.run_for_us(1'000'000);
        EXPECT_EQ(f.far.closed.size(), power ? 0u : 1u) << "seed " << seed;
        f.world.run_for_us(60'000'000);
        EXPECT_EQ(f.far.closed.size(), 1u) << "seed " << seed;
        EXPECT_EQ(f.far.frames, numbers(f.far.frames.size())) << "seed " << seed;
        EXPECT_TRUE(f.near.closed.empty());  // the dead hear nothing
        arrived.insert(f.far.frames.size());
    }
    EXPECT_GE(arrived.size(), 4u);
}

// Broken: half-open connections do not exist, or are never found out when used.
TEST(SimNetwork, AHalfOpenConnectionIsFoundByUsingIt) {
    Fixture f(1);
    f.connect();
    f.network.half_open(f.a, f.b);
    f.world.run_for_us(100'000'000);
    EXPECT_THAT(f.near.closed, ElementsAre(Code::kTimeout));
    EXPECT_TRUE(f.far.closed.empty());
    f.on_server([&] { f.far.send("anybody"); });
    f.world.run_for_us(1'000'000);
    EXPECT_THAT(f.far.closed, ElementsAre(Code::kConnectionLost));
    EXPECT_TRUE(f.near.frames.empty());
}

// Broken: close() or destruction runs callbacks that it must not, or the peer never hears.
TEST(SimNetwork, ClosingTellsThePeer) {
    std::set<size_t> arrived;
    for (uint64_t seed = 1; seed <= 40; ++seed) {
        Fixture f(seed);
        f.connect();
        f.on_client([&] {
            for (int i = 0; i < 5; ++i) f.near.send(std::to_string(i));
            if (seed % 2 == 0) {
                f.near.in_call = true;
                f.near.connection->close();
                f.near.in_call = false;
            } else {
                f.near.connection.reset();
            }
        });
        f.world.run_for_us(40'000'000);
        EXPECT_EQ(f.near.closed.size(), seed % 2 == 0 ? 1u : 0u);
        EXPECT_THAT(f.far.closed, ElementsAre(Code::kConnectionLost));
        EXPECT_EQ(f.far.frames, numbers(f.far.frames.size()));
        arrived.insert(f.far.frames.size());
        EXPECT_EQ(f.network.open_connections(), 0u);
    }
    EXPECT_TRUE(arrived.contains(5));
    EXPECT_TRUE(arrived.contains(0));
}

// Broken: a callback may not destroy its own connection.
TEST(SimNetwork, AConnectionMayDieInItsOwnCallback) {
    Fixture f(1);
    f.connect();
    f.far.connection.reset();
    f.world.run_for_us(60'000'000);
    f.near = Peer();
    f.dial();
    std::unique_ptr<Connection> kept;
    int seen = 0;
    f.listener.reset();
    auto listener = f.network.listen(f.server, f.server.executor(), "b:1", "s",
                                     [&](std::unique_ptr<Connection> c) {
                                         kept = std::move(c);
                                         kept->start({[&](ByteView) {
                                                          ++seen;
                                                          kept.reset();
                                                      },
                                                      {},
                                                      {}});
                                     });
    ASSERT_TRUE(listener);
    ASSERT_TRUE(f.world.run_until([&] { return f.near.connection != nullptr; }, 1'000'000));
    f.on_client([&] {
        f.near.send("a");
        f.near.send("b");
    });
    f.world.run_for_us(60'000'000);
    EXPECT_EQ(seen, 1);
    EXPECT_EQ(f.near.closed.size(), 1u);
}

// Broken: dialling nobody hangs or succeeds, an address can be taken twice, or a restarted server
// cannot have it back.
TEST(SimNetwork, DiallingAndListening) {
    Fixture f(1);
    auto twice = f.network.listen(f.server, f.server.executor(), "b:1", "x", [](auto) {});
    EXPECT_EQ(twice.error().code(), Code::kAlreadyExists);
    f.server.kill();
    f.dial();
    f.world.run_for_us(1'000'000);
    EXPECT_EQ(f.dial_error, Code::kConnectionLost);
    f.b.lose_power();
    f.dial();
    f.world.run_for_us(1'000'000);
    EXPECT_FALSE(f.dial_error);
    f.world.run_for_us(5'000'000);
    EXPECT_EQ(f.dial_error, Code::kTimeout);
    f.b.power_on();
    f.listen();
    f.connect();
    f.on_client([&] { f.near.send("again"); });
    f.world.run_for_us(1'000'000);
    EXPECT_THAT(f.far.frames, ElementsAre("again"));
}

// Broken: a plain call between processes has an outcome that no real request has, or lacks one.
TEST(SimNetwork, CallsAreLostBeforeAndAfterAndDoubled) {
    Fixture f(1);
    int ran = 0;
    const auto call = [&] {
        Status result;
        f.on_client([&] { result = f.network.call(f.client, f.server, [&] { ++ran; }); });
        return result;
    };
    EXPECT_TRUE(call());
    EXPECT_EQ(ran, 1);
    f.world.faults().force("net.answer_lost", 1'000'000);
    EXPECT_EQ(call().error().code(), Code::kTimeout);
    EXPECT_EQ(ran, 2);
    f.world.faults().force("net.answer_lost", 0);
    f.world.faults().force("net.request_lost", 1'000'000);
    EXPECT_EQ(call().error().code(), Code::kTimeout);
    EXPECT_EQ(ran, 2);
    f.world.faults().force("net.request_lost", 0);
    f.world.faults().force("net.request_twice", 1'000'000);
    EXPECT_TRUE(call());
    EXPECT_EQ(ran, 4);
    f.network.partition(f.a, f.b);
    EXPECT_EQ(call().error().code(), Code::kTimeout);
    f.network.heal_all();
    f.server.kill();
    EXPECT_EQ(call().error().code(), Code::kUnavailable);
    EXPECT_EQ(ran, 4);
    f.server.start();
    f.server.plan_death({1, DeathPlan::Moment::kAfter, false});
    Status result;
    f.on_client([&] {
        result =
            f.network.call(f.client, f.server, [&] { (void)f.server.file_system().exists("x"); });
    });
    EXPECT_EQ(result.error().code(), Code::kConnectionLost);
}

// Broken: under all faults at once order is lost, an end never comes, or something runs away.
TEST(SimNetwork, UnderEveryFaultFramesStayAPrefix) {
    FaultSiteTable table;
    uint64_t whole = 0, cut = 0;
    for (uint64_t seed = 1; seed <= 200; ++seed) {
        Fixture f(seed);
        f.world.faults().enable(true);
        f.dial();
        f.world.run_for_us(10'000'000);
        if (f.near.connection) {
            for (int i = 0; i < 60; ++i) {
                f.on_client([&] { f.near.send(std::to_string(i)); });
                f.world.run_for_us(static_cast<int64_t>(f.world.rng().below(2000)));
            }
        }
        f.world.run_for_us(100'000'000);
        EXPECT_EQ(f.far.frames, numbers(f.far.frames.size())) << "seed " << seed;
        EXPECT_LE(f.near.closed.size(), 1u);
        EXPECT_LE(f.far.closed.size(), 1u);
        if (f.far.connection && f.near.connection && f.near.closed.empty() &&
            f.far.closed.empty()) {
            EXPECT_EQ(f.far.frames.size(), 60u) << "seed " << seed << "\n" << f.world.report(40);
        }
        ++(f.far.frames.size() == 60 ? whole : cut);
        table.add(f.world.faults());
    }
    EXPECT_GT(whole, 50u);
    EXPECT_GT(cut, 20u);
    EXPECT_TRUE(table.never_fired().empty()) << table.to_text();
}

}  // namespace
}  // namespace farshore
