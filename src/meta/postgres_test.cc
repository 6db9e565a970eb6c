// What only the shared database does. Run by tests/services/postgres.py; without a server there is
// nothing to test here.
#include <fmt/core.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "meta/copy_database.h"
#include "meta/database_ledger.h"
#include "meta/items.h"
#include "meta/jobs.h"
#include "meta/nodes.h"
#include "meta/parties.h"
#include "meta/sql.h"
#include "meta/test_database.h"
#include "os/fd.h"

namespace farshore {
namespace {

// Of epoch 5, with a point at its end, 9.
RegistrationCommit first_segment() {
    RegistrationCommit commit;
    commit.segment.number = {1};
    commit.segment.epoch = {5};
    commit.segment.object_name = "seg";
    commit.segment.first = {1};
    commit.segment.last = {9};
    commit.points.push_back({{9}, PointKind::kCrash, {1}, "label"});
    return commit;
}

// Stands between a database and its server, and loses the answer to the next COMMIT with the
// connection when it is told to.
class LosingRelay {
  public:
    LosingRelay(const std::string& server, const std::string& here) : server_(server + kName) {
        const sockaddr_un at = address(here + kName);
        listener_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        FS_CHECK(::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&at), sizeof(at)) == 0);
        FS_CHECK(::listen(listener_.get(), 16) == 0);
        acceptor_ = std::thread([this] {
            for (;;) {
                UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
                if (!client) return;
                carriers_.emplace_back([this, fd = client.release()] { carry(UniqueFd(fd)); });
            }
        });
    }
    // Behind the databases that use it.
    ~LosingRelay() {
        ::shutdown(listener_.get(), SHUT_RDWR);
        acceptor_.join();
        for (std::thread& carrier : carriers_) carrier.join();
    }
    void lose_next() { losing_ = true; }
    bool has_lost() const { return !losing_; }

  private:
    static constexpr const char* kName = "/.s.PGSQL.5432";
    static sockaddr_un address(const std::string& path) {
        sockaddr_un at{};
        at.sun_family = AF_UNIX;
        FS_CHECK(path.size() < sizeof(at.sun_path));
        std::memcpy(at.sun_path, path.c_str(), path.size());
        return at;
    }
    void carry(UniqueFd client) {
        UniqueFd server(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        const sockaddr_un at = address(server_);
        if (::connect(server.get(), reinterpret_cast<const sockaddr*>(&at), sizeof(at)) != 0)
            return;
        std::array<pollfd, 2> ends{{{client.get(), POLLIN, 0}, {server.get(), POLLIN, 0}}};
        bool dropping = false;
        for (;;) {
            if (::poll(ends.data(), ends.size(), -1) < 0) return;
            for (size_t i = 0; i < ends.size(); ++i) {
                if (ends[i].revents == 0) continue;
                std::array<char, 65536> bytes;
                const ssize_t got = ::recv(ends[i].fd, bytes.data(), bytes.size(), 0);
                if (got <= 0) return;
                const std::string_view said(bytes.data(), static_cast<size_t>(got));
                if (i == 1 && dropping) return;  // the server has committed, and nobody hears of it
                if (i == 0 && said.find("COMMIT") != std::string_view::npos)
                    dropping = losing_.exchange(false);
                if (::send(ends[1 - i].fd, said.data(), said.size(), MSG_NOSIGNAL) != got) return;
            }
        }
    }

    const std::string server_;
    UniqueFd listener_;
    std::atomic<bool> losing_ = false;
    std::vector<std::thread> carriers_;
    std::thread acceptor_;
};

struct Postgres : testing::Test {
    void SetUp() override {
        if (test_postgres().empty()) GTEST_SKIP() << "needs tests/services/postgres.py";
        test = std::make_unique<TestDatabase>();
    }
    std::unique_ptr<Database> second(std::string name = "farshore") {
        DatabaseOptions options = test->options();
        options.postgresql += " application_name=" + name;
        auto opened = Database::open(options, test->clock);
        EXPECT_TRUE(opened) << opened.error().to_string();
        return opened ? std::move(*opened) : nullptr;
    }
    // As a server that restarts, or a firewall, does it.
    void cut(const std::string& name) {
        FS_CHECK(in_snapshot(*test->database, "cutting", [&](SqlSession& sql) -> Status {
            select<long long>(
                sql,
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE "
                "application_name = :n",
                [](long long) {}, name);
            return {};
        }));
    }
    std::unique_ptr<TestDatabase> test;
};

// Broken if a secret could stand where every user of the machine reads it, or a wrong word in the
// connection string were answered by anything but its name.
TEST_F(Postgres, ConnectionStringsAreChecked) {
    const auto code = [&](const std::string& text) {
        auto opened = Database::open({.postgresql = text}, test->clock);
        return opened ? std::string("ok") : std::string(code_name(opened.error().code()));
    };
    EXPECT_EQ(code("postgresql://u:secret@localhost/x"), "invalid-argument");
    EXPECT_EQ(code("nonsense"), "invalid-argument");
    EXPECT_EQ(code("host=x colour=red"), "invalid-argument");
    EXPECT_EQ(code("host=/nowhere dbname=x"), "unavailable");
    EXPECT_EQ(code(test_postgres() + " dbname=no_such_database"), "not-found");
    auto refused = Database::open({.postgresql = "user=u password=hidden"}, test->clock);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().to_string().find("hidden"), std::string::npos);
}

// Broken if a session that only reads could write once it had lost its server.
TEST_F(Postgres, ReadersStayReaders) {
    const auto other = second("reading");
    ASSERT_NE(other, nullptr);
    for (int i = 0; i < 2; ++i) {
        const auto written = in_one_read(*other, "writing", [](SqlSession& sql) -> Status {
            execute(sql, "DELETE FROM events WHERE id = 1");
            return {};
        });
        ASSERT_FALSE(written);
        EXPECT_NE(written.error().what().find("read-only"), std::string::npos)
            << written.error().to_string();
        cut("reading");
    }
}

// Broken if a restart of the server, or a line that was cut, were more than an error of what was
// under way: what comes next must find the server by itself.
TEST_F(Postgres, LostConnectionsAreFoundAgain) {
    auto database = second("to-be-cut");
    ASSERT_TRUE(set_setting(*database, "a", "1"));
    for (int i = 0; i < 3; ++i) {
        cut("to-be-cut");
        EXPECT_TRUE(set_setting(*database, "a", std::to_string(i)));
        cut("to-be-cut");
        auto read = get_setting(*database, "a");
        ASSERT_TRUE(read) << read.error().to_string();
        EXPECT_EQ(*read, std::to_string(i));
    }
    // In the middle of a transaction: nothing of it is left, and it is said.
    const Status halfway = in_transaction(*database, "test", [&](SqlSession& sql) -> Status {
        execute(sql, "INSERT INTO settings (key, value) VALUES ('b', '1')");
        cut("to-be-cut");
        execute(sql, "INSERT INTO settings (key, value) VALUES ('c', '1')");
        return {};
    });
    ASSERT_FALSE(halfway);
    EXPECT_EQ(halfway.error().code(), Code::kUnavailable) << halfway.error().to_string();
    EXPECT_EQ(*get_setting(*database, "b"), "");
    EXPECT_TRUE(database->trouble());
    EXPECT_TRUE(set_setting(*database, "c", "2"));
    EXPECT_FALSE(database->trouble());
}

// Broken if what was committed without anybody hearing of it were forgotten, or done twice by who
// tries again.
TEST_F(Postgres, ACommitWithoutAnAnswerIsFoundAgain) {
    const std::string given = test_postgres();
    const size_t host = given.find("host=") + 5;
    LosingRelay relay(given.substr(host, given.find(' ', host) - host), test->directory);
    DatabaseOptions options = test->options();
    options.postgresql += " host=" + test->directory;
    auto opened = Database::open(options, test->clock);
    ASSERT_TRUE(opened) << opened.error().to_string();
    Database& database = **opened;
    const auto lost = [&](auto&& change) {
        relay.lose_next();
        const auto answer = change();
        EXPECT_TRUE(relay.has_lost());
        return answer ? Code::kInternal : answer.error().code();
    };

    ItemRecord item;
    item.id = *ItemId::parse(std::string(32, '7'));
    item.name = "web";
    item.agent = "host";
    item.wrapped_key = {1, 2, 3};
    item.disks = {{0, "/disks/1", 4096}};
    const auto create = [&] { return create_item(database, item); };
    EXPECT_EQ(lost(create), Code::kUnavailable);
    EXPECT_EQ(create().error().code(), Code::kAlreadyExists);
    EXPECT_EQ(list_items(database, "", 10)->size(), 1u);
    // What heartbeats are told from memory, too.
    EXPECT_EQ(remembered_items_of_agent(database, "host")->size(), 1u);
    EXPECT_EQ(lost([&] {
                  return change_item(database, item.id, [](ItemRecord& to) -> Status {
                      to.agent = "other";
                      return {};
                  });
              }),
              Code::kUnavailable);
    EXPECT_TRUE(remembered_items_of_agent(database, "host")->empty());
    EXPECT_EQ(remembered_items_of_agent(database, "other")->size(), 1u);

    DatabaseLedger ledger(database, item.id);
    EXPECT_EQ(lost([&] { return ledger.commit_epoch({5}, "a"); }), Code::kUnavailable);
    EXPECT_EQ(ledger.state()->epoch.v, 5u);
    const RegistrationCommit commit = first_segment();
    EXPECT_EQ(lost([&] { return ledger.commit_registration(commit); }), Code::kUnavailable);
    EXPECT_EQ(ledger.state()->stored.v, 9u);
    EXPECT_EQ(ledger.list_points({})->size(), 1u);

    const auto take = [&] { return take_vault_lease(database, "one", "h:1", 60'000'000); };
    EXPECT_EQ(lost(take), Code::kUnavailable);
    EXPECT_EQ(read_vault_lease(database)->node, "one");
    EXPECT_EQ(take()->epoch, 2u) << "it is its own already";
    opened->reset();
}

// Broken if two writers of one ledger saw the same state and both went on from it.
TEST_F(Postgres, WritersOfOneLedgerTakeTurns) {
    auto other = second();
    const ItemId item = *ItemId::parse(std::string(32, '1'));
    constexpr int kEach = 60;
    std::atomic<int> registered{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&, i] {
            DatabaseLedger ledger(i % 2 == 0 ? *test->database : *other, item);
            for (int k = 0; k < kEach; ++k) {
                auto generation = ledger.reserve_generation();
                ASSERT_TRUE(generation) << generation.error().to_string();
                ASSERT_TRUE(set_setting(*other, fmt::format("g{}", *generation), "x"));
                ++registered;
            }
        });
    for (std::thread& thread : threads) thread.join();
    DatabaseLedger ledger(*test->database, item);
    EXPECT_EQ(ledger.state()->generation, static_cast<uint64_t>(registered.load()));
    EXPECT_EQ(registered, 4 * kEach);
}

// Broken if two nodes could lead, or one that lost its lease could still change something.
TEST_F(Postgres, OneNodeLeadsAndTheOthersAreFenced) {
    Database& first = *test->database;
    auto second_node = second();
    constexpr int64_t kLong = 60'000'000;
    auto lease = take_vault_lease(first, "one", "h1:1", kLong);
    ASSERT_TRUE(lease) << lease.error().to_string();
    EXPECT_EQ(lease->epoch, 1u);
    fence_by_vault_lease(first, 1);
    EXPECT_TRUE(set_setting(first, "a", "1"));
    EXPECT_TRUE(remembered_items_of_agent(first, "agent"));

    auto refused = take_vault_lease(*second_node, "two", "h2:2", kLong);
    ASSERT_TRUE(refused);
    EXPECT_EQ(refused->node, "one");
    EXPECT_EQ(refused->address, "h1:1");
    EXPECT_GT(refused->left_us, 0);
    EXPECT_TRUE(renew_vault_lease(first, 1, -1));  // it has ended: nobody renewed it in time

    auto taken = take_vault_lease(*second_node, "two", "h2:2", kLong);
    ASSERT_TRUE(taken);
    EXPECT_EQ(taken->node, "two");
    EXPECT_EQ(taken->epoch, 2u);
    fence_by_vault_lease(*second_node, 2);
    EXPECT_TRUE(set_setting(*second_node, "a", "2"));
    // The first was only asleep.
    EXPECT_EQ(set_setting(first, "a", "3").error().code(), Code::kFenced);
    // Nor does it answer from memory once it may have been overtaken.
    test->clock.time.us += 3'000'000;
    EXPECT_EQ(remembered_items_of_agent(first, "agent").error().code(), Code::kFenced);
    EXPECT_TRUE(remembered_items_of_agent(*second_node, "agent"));
    DatabaseLedger ledger(first, *ItemId::parse(std::string(32, '1')));
    EXPECT_EQ(ledger.commit_epoch({1}, "x").error().code(), Code::kFenced);
    EXPECT_EQ(renew_vault_lease(first, 1, kLong).error().code(), Code::kFenced);
    EXPECT_TRUE(give_up_vault_lease(first, 1));
    EXPECT_EQ(*get_setting(first, "a"), "2");
    EXPECT_EQ(read_vault_lease(first)->epoch, 2u);
    // One that starts again need not wait for itself; one that ends makes room at once.
    EXPECT_EQ(take_vault_lease(*second_node, "two", "h2:2", kLong)->epoch, 3u);
    EXPECT_TRUE(give_up_vault_lease(*second_node, 3));
    EXPECT_EQ(take_vault_lease(first, "one", "h1:1", kLong)->epoch, 4u);
}

// Broken if a change whose check was made before a take-over could be committed after it.
TEST_F(Postgres, NoChangeCommitsBehindATakeOver) {
    auto other = second();
    ASSERT_EQ(take_vault_lease(*test->database, "one", "", -1)->epoch, 1u);
    fence_by_vault_lease(*test->database, 1);
    std::atomic<bool> inside{false}, taken{false};
    std::thread taker;
    const Status changed = in_transaction(*test->database, "slow", [&](SqlSession& sql) -> Status {
        taker = std::thread([&] {
            inside = true;
            EXPECT_EQ(take_vault_lease(*other, "two", "", 60'000'000)->epoch, 2u);
            taken = true;
        });
        while (!inside) std::this_thread::yield();
        // Nothing that this thread does lets the other one in before the commit.
        for (int i = 0; i < 200; ++i)
            execute(sql, "UPDATE settings SET value = 'x' WHERE key = 'none'");
        EXPECT_FALSE(taken);
        execute(sql, "INSERT INTO settings (key, value) VALUES ('k', 'v')");
        return {};
    });
    taker.join();
    EXPECT_TRUE(changed);
    EXPECT_EQ(set_setting(*test->database, "k", "w").error().code(), Code::kFenced);
}

// Broken if the way from SQLite left a table behind, or ids were given twice afterwards.
TEST_F(Postgres, ASqliteDatabaseMovesWholly) {
    const std::string path = test->directory + "/old.db";
    auto old = Database::open({.path = path}, test->clock);
    ASSERT_TRUE(old) << old.error().to_string();
    ItemRecord item;
    item.id = *ItemId::parse(std::string(32, '7'));
    item.name = "web";
    item.wrapped_key = {1, 2, 3};
    item.disks = {{0, "/disks/1", 4096}, {1, "/disks/ü'2", 8192}};
    ASSERT_TRUE(create_item(**old, item));
    for (int i = 0; i < 3; ++i)
        ASSERT_TRUE(add_event(**old, {.code = "x", .item = item.id, .cause = "because"}));
    JobRecord job;
    job.kind = "scrub";
    const uint64_t newest = add_job(**old, job)->id;
    ASSERT_TRUE(set_setting(**old, "vault_id", "v"));
    DatabaseLedger ledger(**old, item.id);
    ASSERT_TRUE(ledger.commit_epoch({5}, "a"));
    const RegistrationCommit commit = first_segment();
    ASSERT_TRUE(ledger.commit_registration(commit));

    auto copy = copy_database(**old, *test->database);
    ASSERT_TRUE(copy) << copy.error().to_string();
    uint64_t tables = 0;
    FS_CHECK(in_snapshot(**old, "tables", [&](SqlSession& sql) -> Status {
        select<long long>(sql,
                          "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name NOT "
                          "LIKE 'sqlite_%'",
                          [&](long long count) { tables = from_column(count); });
        return {};
    }));
    EXPECT_EQ(copy->tables, tables - 1) << "all but the list of migrations";
    const auto moved = get_item(*test->database, item.id);
    ASSERT_TRUE(moved);
    EXPECT_EQ(moved->disks[1].path, "/disks/ü'2");
    DatabaseLedger there(*test->database, item.id);
    EXPECT_EQ(there.state()->stored.v, 9u);
    EXPECT_EQ(there.list_points({})->at(0).label, "label");
    EXPECT_EQ(add_job(*test->database, job)->id, newest + 1);
    EXPECT_EQ(list_events(*test->database, 0, 9)->size(), 3u);
    EXPECT_EQ(copy_database(**old, *test->database).error().code(), Code::kAlreadyExists);
    EXPECT_EQ(copy_database(*test->database, **old).error().code(), Code::kUnsupported);
}

TEST_F(Postgres, NodesAreKnown) {
    ASSERT_TRUE(vault_node_seen(*test->database, {"b", "h:2", "1.0", {5}, 0, 0}));
    ASSERT_TRUE(vault_node_seen(*test->database, {"a", "h:1", "1.0", {6}, 2, 0}));
    ASSERT_TRUE(vault_node_seen(*test->database, {"b", "h:3", "1.1", {7}, 0, 0}));
    auto nodes = list_vault_nodes(*test->database);
    ASSERT_TRUE(nodes);
    ASSERT_EQ(nodes->size(), 2u);
    EXPECT_EQ(nodes->at(0).name, "a");
    EXPECT_EQ(nodes->at(0).machines, 2u);
    EXPECT_EQ(nodes->at(1).address, "h:3");
    EXPECT_EQ(nodes->at(1).started.us, 7);
    EXPECT_GE(nodes->at(1).silent_us, 0);
}

}  // namespace
}  // namespace farshore
