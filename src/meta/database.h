// The vault's metadata: items, jobs, parties, events and the ledgers of all replicas, in one SQLite
// file, or in a PostgreSQL database that several vault nodes share. Opening brings the schema up to
// this version (forward only); everything else goes through the use-case functions of this folder,
// so no SQL stands anywhere else.
//
// Durable: a committed change survives a power cut, an uncommitted one leaves no trace. SQLite has
// a write-ahead log with synchronous=FULL and one process at a time (the vault's lock sees to it);
// on PostgreSQL as durable as that server is. Any thread may call. Writers take turns: on
// PostgreSQL those that change one item's ledger, and all others; readers do not wait for them.
//
// Errors of every call over it: kNoSpace when the disk is full (nothing is half done; try again
// when there is room), kIo, kCorrupt (the file is damaged), kUnavailable (busy for longer than
// kDatabaseBusyMs, or the server is away: after a lost COMMIT nobody knows whether it was done),
// kFenced (another vault node leads now, see nodes.h).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/seams.h"

namespace farshore {

inline constexpr int kDatabaseBusyMs = 10'000;
inline constexpr int kDatabaseConnectS = 5;
// SQLite's application_id of our files: "FSHV".
inline constexpr int32_t kDatabaseApplicationId = 0x46534856;

struct DatabaseOptions {
    std::string path;  // of the SQLite file
    // A libpq connection string or URI: PostgreSQL instead of a file. Without a password, which
    // belongs into a password file (passfile=, PGPASSFILE).
    std::string postgresql;
    // Of PostgreSQL, for writers, and as many for readers.
    size_t sessions = 6;
    // For tests: the SQLite file may not grow past so many pages (of 4 KiB); 0: no limit.
    uint32_t max_pages = 0;
};

class Database {
  public:
    // Makes the file, or the tables, when there are none. kNewerVersion when a newer Farshore has
    // written it, kForeignStore when it is a database of another program, kCorrupt when it is none
    // or a migration in it is not the one that we know; of PostgreSQL also kUnavailable,
    // kForbidden, kNotFound (no such database) and kInvalidArgument (the connection string).
    static Result<std::unique_ptr<Database>> open(const DatabaseOptions& options, Clock& clock);
    ~Database();
    Database(const Database&) = delete;
    Database& operator=(const Database&) = delete;

    int schema_version() const;
    // The file, or host and name of the database; without secrets.
    const std::string& place() const;
    bool is_shared() const;  // by several nodes: PostgreSQL
    // What the newest write failed with, when that was the database's doing (kNoSpace, kIo,
    // kForbidden, kCorrupt, kUnavailable); none when it went well.
    std::optional<Error> trouble() const;
    // For tests, of SQLite: changes the limit of DatabaseOptions::max_pages.
    Status set_max_pages(uint32_t pages);

    struct Impl;  // meta/sql.h, for this folder
    Impl& impl() { return *impl_; }

  private:
    explicit Database(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace farshore
