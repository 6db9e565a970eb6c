#include "vault/catalog.h"

#include <fmt/core.h>

#include "meta/copy_database.h"
#include "meta/database.h"
#include "meta/items.h"
#include "os/process.h"
#include "os/real.h"
#include "store/open_store.h"

namespace farshore {
namespace {

constexpr const char* kParts[] = {"", "-wal", "-shm"};
constexpr size_t kPageItems = 500;
constexpr size_t kPagePoints = 10'000;

// What a database is moved to: no name of another try of the same second.
Result<std::string> dated_name(FileSystem& files, const std::string& path, TimePoint now) {
    std::string date;
    for (const char c : to_rfc3339(now).substr(0, 19))
        if (c != '-' && c != ':') date.push_back(c);
    for (int again = 0;; ++again) {
        const std::string name = again == 0 ? fmt::format("{}.{}Z", path, date)
                                            : fmt::format("{}.{}Z-{}", path, date, again);
        FS_ASSIGN(const bool taken, files.exists(name));
        if (!taken) return name;
    }
}

Status move_database(FileSystem& files, const std::string& from, const std::string& to) {
    for (const char* part : kParts) {
        FS_ASSIGN(const bool there, files.exists(from + part));
        if (there) FS_TRY(files.rename(from + part, to + part));
    }
    return files.sync_directory(parent_directory(from));
}

Status remove_database(FileSystem& files, const std::string& path) {
    for (const char* part : kParts)
        if (Status gone = files.remove(path + part);
            !gone && gone.error().code() != Code::kNotFound)
            return gone;
    return {};
}

Status check_replaceable(const std::string& path, Clock& clock) {
    const char* remedy =
        "with --replace it is moved aside under a dated name; a vault that has a good database "
        "needs none of this";
    auto database = Database::open({.path = path}, clock);
    if (!database)
        return fail(Code::kAlreadyExists,
                    fmt::format("there is a database at {}, which cannot be read: {}", path,
                                database.error().what()),
                    remedy);
    auto items = list_items(**database, "", kPageItems);
    if (!items)
        return fail(Code::kAlreadyExists,
                    fmt::format("there is a database at {}, which cannot be read: {}", path,
                                items.error().what()),
                    remedy);
    if (items->empty()) return {};
    return fail(Code::kAlreadyExists,
                fmt::format("the database at {} knows {}{} items", path, items->size(),
                            items->size() == kPageItems ? " or more" : ""),
                remedy);
}

Result<CatalogItem> describe(Vault& vault, const ItemReport& report) {
    CatalogItem item;
    item.name = report.record.name;
    item.id = report.record.id;
    item.set_aside = vault.why_set_aside(report.record.id);
    if (item.set_aside) return item;
    FS_ASSIGN(const auto replica, vault.replica(report.record.id));
    FS_ASSIGN(item.status, replica->status());
    PointQuery query;
    query.limit = kPagePoints;
    while (true) {
        FS_ASSIGN(PointList list, replica->points(query));
        if (query.from.v == 0) item.ranges = std::move(list.ranges);
        item.named_points += list.points.size();
        if (list.points.size() < query.limit) return item;
        query.from = list.points.back().sequence.next();
    }
}

}  // namespace

Result<CatalogReport> rebuild_catalog(const VaultOptions& options, bool replace, FileSystem& files,
                                      Clock& clock, Random& random) {
    const std::string directory = options.data_directory + "/vault";
    const std::string path = directory + "/farshore.db";
    const std::string location =
        options.store_location.empty() ? options.data_directory + "/store" : options.store_location;
    {
        FS_ASSIGN(const StoreSettings settings,
                  load_store_settings(files, location, options.store_settings_file));
        auto store = open_retrying_store(files, clock, random, settings, false, sleep_for_retry);
        if (!store)
            return fail(store.error().with_context(
                "there is no store to build the database from; name it with --store"));
    }
    CatalogReport report;
    {
        FS_TRY(files.make_directories(directory));
        FS_ASSIGN(const auto lock,
                  InstanceLock::acquire(directory + "/lock", kInstanceLockPatienceMs));
        FS_ASSIGN(const bool there, files.exists(path));
        if (there) {
            if (!replace) FS_TRY(check_replaceable(path, clock));
            FS_ASSIGN(report.moved_to, dated_name(files, path, clock.now()));
            FS_TRY(move_database(files, path, report.moved_to));
        }
    }
    const auto build = [&]() -> Status {
        VaultOptions quiet = options;
        quiet.tend_interval_us = 0;
        FS_ASSIGN(const auto vault, Vault::open(quiet, files, clock, random));
        report.store_id = vault->info().store_id;
        std::string after;
        while (true) {
            FS_ASSIGN(const auto items, vault->items(after, kPageItems));
            for (const ItemReport& item : items) {
                FS_ASSIGN(CatalogItem described, describe(*vault, item));
                report.items.push_back(std::move(described));
            }
            if (items.size() < kPageItems) return {};
            after = items.back().record.name;
        }
    };
    if (const Status built = build(); !built) {
        // As it was: a later start must not take half a database for a whole one.
        FS_TRY(remove_database(files, path));
        if (!report.moved_to.empty()) FS_TRY(move_database(files, report.moved_to, path));
        return fail(built.error());
    }
    return report;
}

Result<MigrationReport> migrate_database(const std::string& data_directory, const std::string& to,
                                         FileSystem& files, Clock& clock) {
    const std::string directory = data_directory + "/vault";
    const std::string path = directory + "/farshore.db";
    FS_ASSIGN(const bool there, files.exists(path));
    if (!there)
        return fail(Code::kNotFound, fmt::format("there is no database at {}", path),
                    "give the data directory of a vault that has had its database there");
    FS_ASSIGN(const auto lock, InstanceLock::acquire(directory + "/lock", kInstanceLockPatienceMs));
    MigrationReport report;
    {
        FS_ASSIGN(const auto from, Database::open({.path = path}, clock));
        FS_ASSIGN(const auto target, Database::open({.postgresql = to}, clock));
        FS_ASSIGN(const DatabaseCopy copy, copy_database(*from, *target));
        report.tables = copy.tables;
        report.rows = copy.rows;
        report.place = target->place();
    }
    FS_ASSIGN(report.moved_to, dated_name(files, path, clock.now()));
    FS_TRY(move_database(files, path, report.moved_to));
    return report;
}

}  // namespace farshore
