// The database after a power cut at any operation: SQLite itself, on files that write down what it
// does (sim/crash_images.h) instead of the kernel's. Every image opens, holds whole transactions,
// and all of those that had been committed.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <iostream>
#include <map>
#include <set>

#include <soci/sqlite3/soci-sqlite3.h>
#include "meta/database.h"
#include "meta/items.h"
#include "meta/parties.h"
#include "meta/policies.h"

#include "meta/sql.h"
#include "meta/test_database.h"
#include "os/real.h"
#include "sim/crash_images.h"
#include "sim/seeds.h"
#include "sim/world.h"

namespace farshore {
namespace {

using namespace sqlite_api;  // where SOCI puts the names of sqlite3.h

constexpr char kPath[] = "/d/farshore.db";

// What SQLite's own layer for Unix does, over CrashFiles, for the connections of one thread: they
// take turns, so that of the locks only that on the file itself matters, by which the last one to
// close knows that it is.
struct OpenFile;
struct Disk {
    CrashFiles* files = nullptr;
    CrashFiles temporary;
    uint64_t temporaries = 0;
    std::map<std::pair<CrashFiles*, std::string>, std::map<int, std::vector<uint64_t>>> shared;
    std::vector<OpenFile*> open;
};
Disk& disk() {
    thread_local Disk here;
    return here;
}

struct OpenFile {
    sqlite3_file base;
    File* file;
    CrashFiles* on;
    std::string* path;
    bool sync_directory;  // with the next sync, as a new log's
    bool delete_on_close;
    int lock;
};
OpenFile& open_file(sqlite3_file* file) { return *reinterpret_cast<OpenFile*>(file); }
int code(const Status& status) { return status ? SQLITE_OK : SQLITE_IOERR; }

int vfs_close(sqlite3_file* given) {
    OpenFile& file = open_file(given);
    if (file.delete_on_close) (void)file.on->remove(*file.path);
    delete file.file;
    delete file.path;
    std::erase(disk().open, &file);
    return SQLITE_OK;
}
int vfs_read(sqlite3_file* given, void* out, int bytes, sqlite3_int64 at) {
    const MutableByteView into(static_cast<uint8_t*>(out), static_cast<size_t>(bytes));
    const auto got = open_file(given).file->read_at(static_cast<uint64_t>(at), into);
    if (!got) return SQLITE_IOERR_READ;
    std::fill(into.begin() + static_cast<ptrdiff_t>(*got), into.end(), 0);
    return *got == into.size() ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
}
int vfs_write(sqlite3_file* given, const void* data, int bytes, sqlite3_int64 at) {
    return code(open_file(given).file->write_at(
        static_cast<uint64_t>(at),
        {static_cast<const uint8_t*>(data), static_cast<size_t>(bytes)}));
}
int vfs_truncate(sqlite3_file* given, sqlite3_int64 size) {
    return code(open_file(given).file->truncate(static_cast<uint64_t>(size)));
}
int vfs_sync(sqlite3_file* given, int) {
    OpenFile& file = open_file(given);
    Status synced = file.file->sync();
    if (synced && file.sync_directory) {
        synced = file.on->sync_directory(parent_directory(*file.path));
        file.sync_directory = false;
    }
    return code(synced);
}
int vfs_size(sqlite3_file* given, sqlite3_int64* size) {
    *size = static_cast<sqlite3_int64>(*open_file(given).file->size());
    return SQLITE_OK;
}
int vfs_lock(sqlite3_file* given, int lock) {
    OpenFile& file = open_file(given);
    for (const OpenFile* other : disk().open)
        if (other != &file && other->on == file.on && *other->path == *file.path &&
            (other->lock > SQLITE_LOCK_SHARED
                 ? lock > SQLITE_LOCK_SHARED
                 : other->lock == SQLITE_LOCK_SHARED && lock == SQLITE_LOCK_EXCLUSIVE))
            return SQLITE_BUSY;
    file.lock = std::max(file.lock, lock);
    return SQLITE_OK;
}
int vfs_unlock(sqlite3_file* given, int lock) {
    open_file(given).lock = lock;
    return SQLITE_OK;
}
int vfs_reserved(sqlite3_file*, int* out) {
    *out = 0;
    return SQLITE_OK;
}
int vfs_control(sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; }
int vfs_sector(sqlite3_file*) { return 4096; }
int vfs_characteristics(sqlite3_file*) { return SQLITE_IOCAP_POWERSAFE_OVERWRITE; }
int vfs_shm_map(sqlite3_file* given, int page, int bytes, int extend, void volatile** out) {
    OpenFile& file = open_file(given);
    auto& pages = disk().shared[{file.on, *file.path}];
    *out = nullptr;
    if (extend != 0 && pages[page].empty()) pages[page].resize(static_cast<size_t>(bytes) / 8);
    if (!pages[page].empty()) *out = pages[page].data();
    return SQLITE_OK;
}
int vfs_shm_lock(sqlite3_file*, int, int, int) { return SQLITE_OK; }
void vfs_shm_barrier(sqlite3_file*) {}
int vfs_shm_unmap(sqlite3_file* given, int remove) {
    if (remove != 0) disk().shared.erase({open_file(given).on, *open_file(given).path});
    return SQLITE_OK;
}
const sqlite3_io_methods kMethods = {2,
                                     vfs_close,
                                     vfs_read,
                                     vfs_write,
                                     vfs_truncate,
                                     vfs_sync,
                                     vfs_size,
                                     vfs_lock,
                                     vfs_unlock,
                                     vfs_reserved,
                                     vfs_control,
                                     vfs_sector,
                                     vfs_characteristics,
                                     vfs_shm_map,
                                     vfs_shm_lock,
                                     vfs_shm_barrier,
                                     vfs_shm_unmap,
                                     nullptr,
                                     nullptr};

int vfs_open(sqlite3_vfs*, const char* name, sqlite3_file* given, int flags, int* out_flags) {
    OpenFile& file = open_file(given);
    file.base.pMethods = nullptr;
    CrashFiles* on = name == nullptr ? &disk().temporary : disk().files;
    const std::string path =
        name == nullptr ? fmt::format("t{}", ++disk().temporaries) : std::string(name);
    const bool create = (flags & SQLITE_OPEN_CREATE) != 0;
    const bool there = *on->exists(path);
    auto opened = on->open(path, create ? OpenMode::kCreate : OpenMode::kReadWrite);
    if (!opened) return SQLITE_CANTOPEN;
    const bool log = (flags & (SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL)) != 0;
    file = {{&kMethods},           opened->release(), on,
            new std::string(path), log && !there,     (flags & SQLITE_OPEN_DELETEONCLOSE) != 0,
            SQLITE_LOCK_NONE};
    disk().open.push_back(&file);
    if (out_flags != nullptr) *out_flags = flags;
    return SQLITE_OK;
}
int vfs_delete(sqlite3_vfs*, const char* name, int sync_directory) {
    const Status removed = disk().files->remove(name);
    if (!removed)
        return removed.error().code() == Code::kNotFound ? SQLITE_IOERR_DELETE_NOENT
                                                         : SQLITE_IOERR_DELETE;
    if (sync_directory == 0) return SQLITE_OK;
    return code(disk().files->sync_directory(parent_directory(name)));
}
int vfs_access(sqlite3_vfs*, const char* name, int, int* out) {
    *out = *disk().files->exists(name) ? 1 : 0;
    return SQLITE_OK;
}
int vfs_full_path(sqlite3_vfs*, const char* name, int bytes, char* out) {
    sqlite3_snprintf(bytes, out, "%s", name);
    return SQLITE_OK;
}

// SQLite on CrashFiles from here on, until the end of the process or of this.
class CrashSqlite {
  public:
    CrashSqlite() {
        before_ = sqlite3_vfs_find(nullptr);
        vfs_ = *before_;
        vfs_.iVersion = 2;
        vfs_.szOsFile = sizeof(OpenFile);
        vfs_.pNext = nullptr;
        vfs_.zName = "crash-files";
        vfs_.xOpen = vfs_open;
        vfs_.xDelete = vfs_delete;
        vfs_.xAccess = vfs_access;
        vfs_.xFullPathname = vfs_full_path;
        sqlite3_vfs_register(&vfs_, 1);
    }
    ~CrashSqlite() {
        sqlite3_vfs_register(before_, 1);
        sqlite3_vfs_unregister(&vfs_);
    }

  private:
    sqlite3_vfs* before_;
    sqlite3_vfs vfs_;
};

struct Totals {
    std::atomic<uint64_t> cuts = 0, images = 0;
};

// Transactions 1, 2, …: each writes its number twice, and something large.
class Vault {
  public:
    explicit Vault(CrashFiles& files) : files_(files) {}
    ~Vault() {
        // Not what is to be cut: an orderly end copies the log away.
        disk().files = &files_;
        database_.reset();
    }
    std::string open() {
        disk().files = &files_;
        database_.reset();
        // A start of the host: no shared memory of before.
        std::erase_if(disk().shared, [&](const auto& one) { return one.first.first == &files_; });
        auto database = Database::open({kPath}, clock_);
        if (!database) return "does not open: " + database.error().to_string();
        database_ = std::move(*database);
        // Copies the log into the file often.
        database_->impl().writers.at(0) << "PRAGMA wal_autocheckpoint = 6";
        return {};
    }
    void commit(size_t payload_bytes) {
        const auto number = static_cast<int64_t>(begun_.size()) + 1;
        begun_.push_back(files_.operations());
        const Status committed = in_transaction(*database_, "test", [&](SqlSession& sql) -> Status {
            for (const char* key : {"one", "two"})
                execute(sql, "INSERT OR REPLACE INTO settings VALUES (:k, :v)", key,
                        std::to_string(number));
            execute(sql, "INSERT OR REPLACE INTO settings VALUES (:k, :v)",
                    fmt::format("payload{}", number % 3),
                    std::string(payload_bytes, static_cast<char>('a' + number % 20)));
            return {};
        });
        FS_CHECK(committed);
        committed_.push_back(files_.operations());
    }
    std::string check(size_t operations, CrashFiles& image) const {
        Vault after(image);
        if (auto broken = after.open(); !broken.empty()) return broken;
        const auto number_of = [&](const char* key) -> int64_t {
            auto text = get_setting(*after.database_, key);
            return !text ? -1 : text->empty() ? 0 : std::stoll(*text);
        };
        const int64_t one = number_of("one"), two = number_of("two");
        if (one != two) return fmt::format("half a transaction: {} and {}", one, two);
        const auto least = std::ranges::count_if(
            committed_, [&](size_t committed) { return committed <= operations; });
        const auto most =
            std::ranges::count_if(begun_, [&](size_t begun) { return begun < operations; });
        if (one < least || one > most)
            return fmt::format("transaction {}, not {} to {}", one, least, most);
        std::string intact;
        after.database_->impl().readers.at(0) << "PRAGMA integrity_check", soci::into(intact);
        return intact == "ok" ? "" : intact;
    }

  private:
    CrashFiles& files_;
    ManualClock clock_;
    std::unique_ptr<Database> database_;
    std::vector<size_t> begun_, committed_;
};

using Interference = std::function<CrashFiles::Verdict(DiskOp, const std::string&)>;

std::string run(uint64_t seed, const Interference& interfere, Totals& totals) {
    CrashFiles files;
    FS_CHECK(files.make_directories("/d"));
    Vault vault(files);
    if (auto broken = vault.open(); !broken.empty()) return broken;
    files.interfere = interfere;
    Rng draw(seed);
    // Making the file is looked at by the first seed alone, and not in slow motion: it has many
    // operations, and what is left of one is made anew.
    const size_t first = seed == 1 && !kSanitized ? 3 : files.operations();
    for (int i = 0; i < 6; ++i) {
        vault.commit(1 + draw.below(draw.coin() ? 100 : 9000));
        if (draw.below(6) == 0)
            if (auto broken = vault.open(); !broken.empty()) return broken;
    }
    const CrashReport report = for_each_crash_image(
        files,
        {.first_operation = first,
         .all_subsets = 3,
         .all_single = 12,
         .samples = 2,
         .torn = 2,
         .seed = seed},
        [&](size_t operations, CrashFiles& image) { return vault.check(operations, image); });
    totals.cuts += report.cuts;
    totals.images += report.images;
    return report.ok() ? "" : report.text();
}

// Broken: a power cut loses or halves a transaction, or the database does not open after it.
TEST(DatabaseCrash, EveryImageHasTheCommittedTransactions) {
    const CrashSqlite sqlite;
    Totals totals;
    const SeedReport report = run_seeds("database-crash", {.count = fewer_when_sanitized(3)},
                                        [&](uint64_t seed) { return run(seed, {}, totals); });
    EXPECT_TRUE(report.ok()) << report.text();
    std::cout << totals.images << " images of " << totals.cuts << " cuts\n";
}

// Broken: a vault that dies while a policy is edited leaves items that have other values than their
// policy, or than each other.
TEST(DatabaseCrash, APolicyIsWithAllItsItemsOrNone) {
    const CrashSqlite sqlite;
    constexpr uint32_t kItems = 12;
    CrashFiles files;
    ManualClock clock;
    FS_CHECK(files.make_directories("/d"));
    const auto open = [&](CrashFiles& on) {
        disk().files = &on;
        std::erase_if(disk().shared, [&](const auto& one) { return one.first.first == &on; });
        return Database::open({kPath}, clock);
    };
    const auto id_of = [](uint32_t n) {
        ItemId id;
        store_u32(id.raw.data(), n + 1);
        return id;
    };
    auto database = open(files);
    ASSERT_TRUE(database) << database.error().to_string();
    PolicyRecord policy;
    policy.name = "gold";
    policy.values.window_s = 1000;
    ASSERT_TRUE(create_policy(**database, policy));
    for (uint32_t n = 0; n < kItems; ++n) {
        ItemRecord item;
        item.id = id_of(n);
        item.name = fmt::format("item{}", n);
        item.policy_name = "gold";
        ASSERT_TRUE(create_item(**database, item));
    }
    const size_t first = files.operations();
    for (const uint32_t window_s : {2000u, 3000u})
        ASSERT_TRUE(change_policy(
            **database, "gold",
            [&](PolicyRecord& to) -> Status {
                to.values.window_s = window_s;
                return {};
            },
            [](const ItemRecord&, const ItemPolicy&) { return Status(); }));
    std::set<uint32_t> seen;
    const CrashReport report = for_each_crash_image(
        files,
        {.first_operation = first,
         .all_subsets = 3,
         .all_single = 8,
         .samples = 1,
         .torn = 1,
         .seed = 1},
        [&](size_t, CrashFiles& image) -> std::string {
            auto after = open(image);
            if (!after) return "does not open: " + after.error().to_string();
            const auto values = get_policy(**after, "gold")->values;
            seen.insert(values.window_s);
            std::string broken;
            for (uint32_t n = 0; n < kItems; ++n)
                if (const auto item = get_item(**after, id_of(n)); !item || item->policy != values)
                    broken = fmt::format("item {} has {}, its policy {}", n,
                                         item ? item->policy.window_s : 0, values.window_s);
            disk().files = &image;
            return broken;
        });
    EXPECT_TRUE(report.ok()) << report.text();
    EXPECT_EQ(seen, (std::set<uint32_t>{1000, 2000, 3000}));
    std::cout << report.images << " images of " << report.cuts << " cuts\n";
    disk().files = &files;
    database->reset();
}

// Broken: the test does not see what it is there for.
TEST(DatabaseCrash, AMissingSyncIsFound) {
    const CrashSqlite sqlite;
    for (const std::string& path : {std::string(kPath), std::string(kPath) + "-wal"}) {
        bool found = false;
        Totals totals;
        for (uint64_t seed = 2; seed <= 6 && !found; ++seed)
            found = !run(
                         seed,
                         [&](DiskOp op, const std::string& at) {
                             return op == DiskOp::kSync && at == path
                                        ? CrashFiles::Verdict::kLeftOut
                                        : CrashFiles::Verdict::kHappens;
                         },
                         totals)
                         .empty();
        EXPECT_TRUE(found) << path;
    }
}

}  // namespace
}  // namespace farshore
