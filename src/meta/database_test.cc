#include "meta/database.h"

#include <fmt/core.h>
#include <gtest/gtest.h>
#include <soci/sqlite3/soci-sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "meta/items.h"
#include "meta/jobs.h"
#include "meta/migrations.h"
#include "meta/parties.h"
#include "meta/sql.h"
#include "meta/test_database.h"

namespace farshore {
namespace {

ItemId id_of(uint32_t n) {
    ItemId id;
    store_u32(id.raw.data(), n + 1);
    return id;
}

ItemRecord item_of(uint32_t n) {
    ItemRecord item;
    item.id = id_of(n);
    item.name = fmt::format("item{:05}", n);
    item.mode = CaptureMode::kInPath;
    item.wrapped_key = {1, 2, 3};
    item.disks = {{0, fmt::format("/disks/{}", n), 4096}};
    return item;
}

Status run_sql(Database& database, const std::string& sql) {
    return in_transaction(database, "test", [&](SqlSession& session) -> Status {
        execute(session, sql);
        return {};
    });
}

Result<std::unique_ptr<Database>> reopened(TestDatabase& test) {
    test.database.reset();
    return Database::open(test.options(), test.clock);
}

// Broken if an upgrade could not be told from a downgrade, or a changed migration were not noticed.
TEST(Database, MigrationsGoForwardOnly) {
    TestDatabase test;
    EXPECT_EQ(test.database->schema_version(), migrations().back().version);
    int version = 0;
    for (const Migration& migration : migrations()) {
        EXPECT_GT(migration.version, version);
        version = migration.version;
    }
    test.reopen();  // nothing to do
    ASSERT_TRUE(
        run_sql(*test.database, "INSERT INTO schema_migrations VALUES (999, 'newer', 'x', 1)"));
    EXPECT_EQ(reopened(test).error().code(), Code::kNewerVersion);
}

// Broken if a database of the first version lost an item, or it had consistent points all at once.
TEST(Database, TheFirstVersionIsUpgraded) {
    TestDatabase test;
    ASSERT_TRUE(create_item(*test.database, item_of(1)));
    for (const char* statement : {"DROP INDEX ledgers_by_appliance",
                                  "DROP INDEX events_by_severity",
                                  "DROP INDEX events_by_code",
                                  "DROP TABLE consistent_points",
                                  "ALTER TABLE items DROP COLUMN consistent_interval_s",
                                  "DROP TABLE seeds",
                                  "ALTER TABLE items DROP COLUMN newest_first",
                                  "ALTER TABLE ledger_geometry DROP COLUMN joining",
                                  "ALTER TABLE item_disks DROP COLUMN removed",
                                  "ALTER TABLE item_disks DROP COLUMN joining",
                                  "DROP TABLE resync_plans",
                                  "ALTER TABLE items DROP COLUMN rpo_threshold_s",
                                  "ALTER TABLE items DROP COLUMN resync_windows",
                                  "ALTER TABLE items DROP COLUMN resync_windows_for_all",
                                  "ALTER TABLE items DROP COLUMN verify_interval_s",
                                  "ALTER TABLE items DROP COLUMN bandwidth",
                                  "ALTER TABLE items DROP COLUMN keep",
                                  "DROP TABLE notifiers",
                                  "DROP TABLE users",
                                  "DROP TABLE access_tokens",
                                  "DROP TABLE audit",
                                  "DROP TABLE party_certificates",
                                  "DROP TABLE alarms",
                                  "DROP TABLE shared_point_members",
                                  "DROP TABLE shared_points",
                                  "DROP TABLE group_members",
                                  "DROP TABLE replication_groups",
                                  "DROP TABLE item_nics",
                                  "DROP TABLE item_compute",
                                  "DROP TABLE compute_hosts",
                                  "DROP TABLE deleted_items",
                                  "DROP TABLE sites",
                                  "DROP INDEX appliances_by_site",
                                  "DROP INDEX item_appliances_by_home",
                                  "ALTER TABLE item_appliances DROP COLUMN home",
                                  "DROP TABLE appliance_scripts",
                                  "DROP TABLE recovery_plans",
                                  "DROP TABLE plan_runs",
                                  "DROP TABLE step_answers",
                                  "DROP TABLE drill_policies",
                                  "DROP TABLE drills",
                                  "DROP TABLE returns",
                                  "DROP TABLE policies",
                                  "DROP TABLE kept_answers",
                                  "DROP INDEX items_by_policy",
                                  "ALTER TABLE items DROP COLUMN policy",
                                  "DROP TABLE item_appliances",
                                  "DROP TABLE appliances",
                                  "DROP TABLE vault_lease",
                                  "DROP TABLE vault_nodes",
                                  "ALTER TABLE jobs DROP COLUMN node",
                                  "DROP TABLE copies",
                                  "DROP TABLE stores",
                                  "DROP TABLE ledger_kept",
                                  "ALTER TABLE items DROP COLUMN scrub_interval_s",
                                  "DROP TABLE scrubs",
                                  "DROP TABLE scrub_damage",
                                  "DROP TABLE ledger_changes",
                                  "DROP INDEX ledger_points_by_kind",
                                  "DELETE FROM schema_migrations WHERE version > 1"})
        ASSERT_TRUE(run_sql(*test.database, statement)) << statement;
    test.reopen();
    auto item = get_item(*test.database, id_of(1));
    ASSERT_TRUE(item) << item.error().to_string();
    EXPECT_EQ(item->policy.consistent_interval_s, 0u);
    EXPECT_EQ(item->policy.window_s, item_of(1).policy.window_s);
    ItemPolicy old = item_of(1).policy;
    old.keep.clear();
    EXPECT_EQ(item->policy, old) << "what is new has its default, and nothing more is kept";
    ASSERT_TRUE(change_item(*test.database, id_of(1), [](ItemRecord& to) -> Status {
        to.policy.consistent_interval_s = 900;
        return {};
    }));
    EXPECT_TRUE(get_consistent_state(*test.database, id_of(1))->request.empty());
    ASSERT_TRUE(change_consistent_state(*test.database, id_of(1), [](ConsistentState& state) {
        state.request = "r";
        state.asked.us = 1;
        state.made.us = 2;
        state.error = ItemError{Code::kTimeout, "what", "remedy"};
        state.failed.us = 3;
    }));
    test.reopen();
    EXPECT_EQ(get_item(*test.database, id_of(1))->policy.consistent_interval_s, 900u);
    auto state = get_consistent_state(*test.database, id_of(1));
    ASSERT_TRUE(state);
    EXPECT_EQ(state->request, "r");
    EXPECT_EQ(state->asked.us, 1);
    EXPECT_EQ(state->made.us, 2);
    EXPECT_EQ(state->error->code, Code::kTimeout);
    EXPECT_EQ(state->failed.us, 3);
    ASSERT_TRUE(delete_item(*test.database, id_of(1)));
    EXPECT_TRUE(get_consistent_state(*test.database, id_of(1))->request.empty());
}

// Broken if a comparison that waits, or how it is to be done, were forgotten by a vault that starts
// again.
TEST(Database, PlansOfComparisonsAndTheirPolicyAreKept) {
    TestDatabase test;
    ASSERT_TRUE(create_item(*test.database, item_of(1)));
    EXPECT_EQ(get_resync_plan(*test.database, id_of(1))->stage, ResyncStage::kNone);
    ItemPolicy policy = item_of(1).policy;
    policy.rpo_threshold_s = 7;
    policy.resync_windows = "Sat 00:00-24:00 Europe/Berlin";
    policy.resync_windows_for_all = true;
    policy.verify_interval_s = 604'800;
    policy.bandwidth = "1MB/s";
    auto plan = change_resync_plan(*test.database, id_of(1),
                                   [&](ItemRecord& item, ResyncPlan& to) -> Status {
                                       item.policy = policy;
                                       item.resync_request = "r";
                                       to.stage = ResyncStage::kAsked;
                                       to.kind = ResyncKind::kVerify;
                                       to.request = "r";
                                       to.asked.us = 1;
                                       to.finished.us = 2;
                                       to.cancel = "c";
                                       return {};
                                   });
    ASSERT_TRUE(plan) << plan.error().to_string();
    test.reopen();
    EXPECT_EQ(get_item(*test.database, id_of(1))->policy, policy);
    EXPECT_EQ(get_item(*test.database, id_of(1))->resync_request, "r");
    plan = get_resync_plan(*test.database, id_of(1));
    ASSERT_TRUE(plan);
    EXPECT_EQ(plan->stage, ResyncStage::kAsked);
    EXPECT_EQ(plan->kind, ResyncKind::kVerify);
    EXPECT_EQ(plan->request, "r");
    EXPECT_EQ(plan->asked.us, 1);
    EXPECT_EQ(plan->finished.us, 2);
    EXPECT_EQ(plan->cancel, "c");
    // All or nothing.
    EXPECT_FALSE(change_resync_plan(*test.database, id_of(1),
                                    [&](ItemRecord& item, ResyncPlan& to) -> Status {
                                        item.resync_request.clear();
                                        to.stage = ResyncStage::kNone;
                                        return fail(Code::kWrongState, "no");
                                    }));
    EXPECT_EQ(get_item(*test.database, id_of(1))->resync_request, "r");
    EXPECT_EQ(get_resync_plan(*test.database, id_of(1))->stage, ResyncStage::kAsked);
    ASSERT_TRUE(delete_item(*test.database, id_of(1)));
    EXPECT_EQ(get_resync_plan(*test.database, id_of(1))->stage, ResyncStage::kNone);
}

TEST(Database, AnEditedMigrationIsNoticed) {
    TestDatabase test;
    ASSERT_TRUE(
        run_sql(*test.database, "UPDATE schema_migrations SET hash = 'y' WHERE version = 1"));
    EXPECT_EQ(reopened(test).error().code(), Code::kCorrupt);
}

// Broken if another program's file were taken for ours and written to.
TEST(SqliteDatabase, ForeignFilesAreLeftAlone) {
    SKIP_ON_POSTGRES();
    TestDatabase test;
    test.database.reset();
    std::filesystem::remove(test.path());
    {
        soci::session other(soci::sqlite3, "dbname=" + test.path());
        other << "CREATE TABLE photos (name TEXT)";
    }
    EXPECT_EQ(reopened(test).error().code(), Code::kForeignStore);
    std::filesystem::remove(test.path());
    std::ofstream(test.path()) << std::string(5000, 'g');
    EXPECT_EQ(reopened(test).error().code(), Code::kCorrupt);
    EXPECT_EQ(Database::open({test.directory + "/none/x.db"}, test.clock).error().code(),
              Code::kIo);
}

// Broken if a process that dies in a transaction left part of it, or one that committed lost it.
TEST(Database, DeathInATransactionLeavesNothing) {
    TestDatabase test;
    for (int committed = 0; committed < 2; ++committed) {
        test.database.reset();
        const pid_t child = ::fork();
        if (child == 0) {
            auto database = Database::open(test.options(), test.clock);
            auto status = in_transaction(**database, "test", [&](SqlSession& sql) -> Status {
                execute(sql, "INSERT INTO settings VALUES (:k, 'v')", committed ? "kept" : "lost");
                if (!committed) ::kill(::getpid(), SIGKILL);
                return {};
            });
            ::kill(::getpid(), SIGKILL);
        }
        int how = 0;
        ASSERT_EQ(::waitpid(child, &how, 0), child);
        ASSERT_TRUE(WIFSIGNALED(how));
        test.reopen();
        EXPECT_EQ(*get_setting(*test.database, committed ? "kept" : "lost"), committed ? "v" : "");
    }
}

// Broken if an error of the use case, or one of SQLite in the middle, kept part of a change.
TEST(Database, ErrorsRollBack) {
    TestDatabase test;
    auto status = in_transaction(*test.database, "test", [](SqlSession& sql) -> Status {
        execute(sql, "INSERT INTO settings VALUES ('a', 'b')");
        return fail(Code::kWrongState, "no");
    });
    EXPECT_EQ(status.error().code(), Code::kWrongState);
    status = in_transaction(*test.database, "test", [](SqlSession& sql) -> Status {
        execute(sql, "INSERT INTO settings VALUES ('a', 'b')");
        execute(sql, "INSERT INTO settings VALUES ('a', 'c')");
        return {};
    });
    EXPECT_EQ(status.error().code(), Code::kAlreadyExists);
    EXPECT_EQ(*get_setting(*test.database, "a"), "");
    ASSERT_TRUE(set_setting(*test.database, "a", "d"));
    EXPECT_EQ(*get_setting(*test.database, "a"), "d");
}

// Broken if a full disk lost an item's change, or kept half of one.
TEST(SqliteDatabase, FullDiskKeepsTheOldState) {
    SKIP_ON_POSTGRES();
    TestDatabase test;
    ASSERT_TRUE(create_item(*test.database, item_of(0)));
    ASSERT_TRUE(test.database->set_max_pages(1));
    Result<ItemRecord> changed = fail(Code::kInternal, "");
    std::string machine;
    do {
        machine.append(20'000, 'm');
        changed = change_item(*test.database, id_of(0), [&](ItemRecord& item) -> Status {
            item.machine = machine;
            item.disks.push_back({static_cast<DiskIndex>(item.disks.size()), "", 1});
            return {};
        });
    } while (changed && machine.size() < 10'000'000);
    ASSERT_FALSE(changed);
    EXPECT_EQ(changed.error().code(), Code::kNoSpace);
    auto item = get_item(*test.database, id_of(0));
    EXPECT_EQ(item->machine.size(), machine.size() - 20'000);
    EXPECT_EQ(item->disks.size(), machine.size() / 20'000);
}

TEST(Items, NamesDisksAndStatesAreChecked) {
    TestDatabase test;
    Database& db = *test.database;
    for (const char* bad :
         {"", ".x", "-x", "a b", "a/b", "ä", "0123456789abcdef0123456789abcdef"}) {
        ItemRecord item = item_of(1);
        item.name = bad;
        EXPECT_EQ(create_item(db, item).error().code(), Code::kInvalidArgument) << bad;
    }
    ASSERT_TRUE(create_item(db, item_of(1)));
    ItemRecord same_name = item_of(2);
    same_name.name = item_of(1).name;
    EXPECT_EQ(create_item(db, same_name).error().code(), Code::kAlreadyExists);
    ItemRecord same_disk = item_of(3);
    same_disk.disks = item_of(1).disks;
    EXPECT_EQ(create_item(db, same_disk).error().code(), Code::kAlreadyExists);
    EXPECT_EQ(get_item(db, id_of(3)).error().code(), Code::kItemNotFound);
    EXPECT_EQ(find_item(db, id_of(1).to_string())->name, item_of(1).name);
    auto illegal = change_item(db, id_of(1), [](ItemRecord& item) -> Status {
        item.state = ItemState::kCommitted;
        return {};
    });
    EXPECT_EQ(illegal.error().code(), Code::kWrongState);
    EXPECT_EQ(get_item(db, id_of(1))->state, ItemState::kEnabling);
    ASSERT_TRUE(add_bookmark(db, {"b", id_of(1), "x", PointKind::kBookmark, {}, {}, {}}));
    ASSERT_TRUE(add_failover(db, {.item = id_of(1), .kind = "test", .state = "running"}));
    ASSERT_TRUE(delete_item(db, id_of(1)));
    EXPECT_EQ(get_bookmark(db, "b").error().code(), Code::kNotFound);
    EXPECT_TRUE(list_failovers(db, {}, 10)->empty());
}

TEST(Items, PendingBookmarksAreBounded) {
    TestDatabase test;
    Database& db = *test.database;
    ASSERT_TRUE(create_item(db, item_of(0)));
    const auto bookmark = [&](int n) {
        return BookmarkRecord{
            fmt::format("b{}", n), id_of(0), "x", PointKind::kBookmark, {}, {}, {}};
    };
    for (size_t i = 0; i < kMaxPendingBookmarks; ++i)
        ASSERT_TRUE(add_bookmark(db, bookmark(int(i))));
    EXPECT_EQ(add_bookmark(db, bookmark(999)).error().code(), Code::kLimitReached);
    ASSERT_TRUE(finish_bookmark(db, "b0", {7}, {8}));
    ASSERT_TRUE(finish_bookmark(db, "b0", {9}, {9}));  // said again: the first counts
    EXPECT_EQ(get_bookmark(db, "b0")->sequence.v, 7u);
    EXPECT_TRUE(add_bookmark(db, bookmark(999)));
    EXPECT_EQ(pending_bookmarks(db, id_of(0))->size(), kMaxPendingBookmarks);
}

// Broken if the number of items that a vault is for made it slow or wrong, or more were taken.
TEST(Items, TenThousand) {
    TestDatabase test;
    Database& db = *test.database;
    // In one transaction: it is the queries that are looked at here.
    ASSERT_TRUE(in_transaction(db, "test", [&](SqlSession& sql) -> Status {
        for (uint32_t n = 0; n < kMaxItems; ++n) {
            execute(
                sql,
                "INSERT INTO items VALUES (:i, :n, 'protected', 0, 'in-path', :a, '', '', '', '', "
                "300, 86400, 600, 0, '', '', '', '', 0, 0, 0, 60, '', 0, 0, '', 0, '', 0, '')",
                id_of(n), item_of(n).name, n % 100 == 0 ? "one" : "other");
            execute(sql, "INSERT INTO item_disks VALUES (:i, 0, :p, 1, 0, 0)", id_of(n),
                    item_of(n).disks[0].path);
        }
        return {};
    }));
    EXPECT_EQ(create_item(db, item_of(kMaxItems)).error().code(), Code::kLimitReached);
    size_t seen = 0;
    std::string after;
    while (true) {
        auto page = list_items(db, after, 500);
        ASSERT_TRUE(page);
        if (page->empty()) break;
        EXPECT_GT(page->front().name, after);
        after = page->back().name;
        seen += page->size();
    }
    EXPECT_EQ(seen, kMaxItems);
    EXPECT_EQ(remembered_items_of_agent(db, "one")->size(), kMaxItems / 100);
    EXPECT_EQ(find_item(db, "item09999")->disks[0].path, "/disks/9999");
}

// Broken if a job's end could be taken back, or a cancelled one were not told.
TEST(Jobs, LifeOfAJob) {
    TestDatabase test;
    Database& db = *test.database;
    JobRecord job;
    job.kind = "failover";
    job.cancellable = true;
    job.input = "{\"a\":1}";
    job = *add_job(db, job);
    ASSERT_TRUE(start_job(db, job.id));
    ASSERT_TRUE(report_job(db, job.id, 500, 7, "half"));
    ASSERT_TRUE(report_job(db, job.id, 600, 6, "half"));
    test.reopen();
    Database& again = *test.database;
    ASSERT_EQ(open_jobs(again)->size(), 1u);
    EXPECT_EQ(open_jobs(again)->front().input, "{\"a\":1}");
    EXPECT_EQ(get_job(again, job.id)->progress_permille, 600u);
    EXPECT_EQ(job_messages(again, job.id)->size(), 1u);
    ASSERT_TRUE(cancel_job(again, job.id));
    EXPECT_EQ(report_job(again, job.id, 700, 1, "on").error().code(), Code::kCancelled);
    ASSERT_TRUE(
        end_job(again, job.id, JobState::kCancelled, "", ItemError{Code::kCancelled, "c", ""}));
    ASSERT_TRUE(end_job(again, job.id, JobState::kSucceeded, "{}", {}));
    EXPECT_EQ(get_job(again, job.id)->state, JobState::kCancelled);
    EXPECT_EQ(start_job(again, job.id).error().code(), Code::kWrongState);
    EXPECT_EQ(cancel_job(again, job.id).error().code(), Code::kWrongState);
    JobRecord fixed;
    fixed.kind = "cleanup";
    fixed = *add_job(again, fixed);
    EXPECT_EQ(cancel_job(again, fixed.id).error().code(), Code::kWrongState);
    EXPECT_EQ(get_job(again, 999).error().code(), Code::kNotFound);
    const auto counts = count_jobs(again);
    ASSERT_TRUE(counts) << counts.error().to_string();
    ASSERT_EQ(counts->size(), 2u);
    EXPECT_EQ(counts->at(0).kind, "cleanup");
    EXPECT_EQ(counts->at(0).state, JobState::kQueued);
    EXPECT_EQ(counts->at(1).state, JobState::kCancelled);
    EXPECT_EQ(counts->at(1).jobs, 1u);
}

// Broken if a token admitted twice, late, or a name changed its kind.
TEST(Parties, TokensAndNames) {
    TestDatabase test;
    Database& db = *test.database;
    EnrolmentToken token;
    token.hash[0] = 1;
    token.kind = PartyKind::kAppliance;
    token.name = "a";
    token.expires = {test.clock.time.us + 10};
    ASSERT_TRUE(add_token(db, token));
    EXPECT_EQ(use_token(db, token.hash)->kind, PartyKind::kAppliance);
    EXPECT_EQ(use_token(db, token.hash).error().code(), Code::kUnauthenticated);
    token.hash[0] = 2;
    ASSERT_TRUE(add_token(db, token));
    test.clock.time.us += 10;
    EXPECT_EQ(use_token(db, token.hash).error().code(), Code::kUnauthenticated);
    PartyRecord party;
    party.name = "a";
    party.kind = PartyKind::kAppliance;
    party.fingerprint = "f1";
    ASSERT_TRUE(enrol_party(db, party));
    party.fingerprint = "f2";
    ASSERT_TRUE(enrol_party(db, party));
    EXPECT_EQ(get_party(db, "a")->fingerprint, "f2");
    party.kind = PartyKind::kAgent;
    EXPECT_EQ(enrol_party(db, party).error().code(), Code::kAlreadyExists);
    ASSERT_TRUE(party_seen(db, "a", "i", "v", "s"));
    EXPECT_EQ(party_seen(db, "b", "i", "v", "s").error().code(), Code::kNotFound);
    ASSERT_TRUE(parties_seen(db, {{"b", {5}}, {"a", {77}}}));
    EXPECT_EQ(get_party(db, "a")->last_seen.us, 77);
}

TEST(Events, NewestFirstByItem) {
    TestDatabase test;
    Database& db = *test.database;
    for (int i = 0; i < 5; ++i) {
        EventRecord event;
        event.code = fmt::format("e{}", i);
        event.severity = Severity::kCritical;
        if (i % 2 == 0) event.item = id_of(0);
        ASSERT_TRUE(add_event(db, event));
    }
    EXPECT_EQ(list_events(db, 0, 10)->size(), 5u);
    auto mine = list_events(db, 0, 2, {.item = id_of(0)});
    ASSERT_EQ(mine->size(), 2u);
    EXPECT_EQ(mine->front().code, "e4");
    EXPECT_EQ(list_events(db, mine->back().id, 10, {.item = id_of(0)})->front().code, "e0");
}

}  // namespace
}  // namespace farshore
