// The vault's metadata in one SQLite file: items, jobs, parties, events and the ledgers of all
// replicas. Opening brings the schema up to this version (forward only); everything else goes
// through the use-case functions of this folder, so no SQL stands anywhere else.
//
// Durable: write-ahead log with synchronous=FULL; a committed change survives a power cut, an
// uncommitted one leaves no trace. One process at a time owns the file (the vault's lock sees to
// it). Any thread may call; writers take turns, readers do not wait for them.
//
// Errors of every call over it: kNoSpace when the disk is full (nothing is half done; try again
// when there is room), kIo, kCorrupt (the file is damaged), kUnavailable (busy for longer than
// kDatabaseBusyMs).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/seams.h"

namespace farshore {

inline constexpr int kDatabaseBusyMs = 10'000;
// SQLite's application_id of our files: "FSHV".
inline constexpr int32_t kDatabaseApplicationId = 0x46534856;

struct DatabaseOptions {
    std::string path;
    // For tests: the file may not grow past so many pages (of 4 KiB); 0: no limit.
    uint32_t max_pages = 0;
};

class Database {
  public:
    // Makes the file when there is none. kNewerVersion when a newer Farshore has written it,
    // kForeignStore when it is a database of another program, kCorrupt when it is none or a
    // migration in it is not the one that we know.
    static Result<std::unique_ptr<Database>> open(const DatabaseOptions& options, Clock& clock);
    ~Database();
    Database(const Database&) = delete;
    Database& operator=(const Database&) = delete;

    int schema_version() const;
    // What the newest write failed with, when that was the disk's doing (kNoSpace, kIo, kForbidden,
    // kCorrupt); none when it went well.
    std::optional<Error> trouble() const;
    // For tests: changes the limit of DatabaseOptions::max_pages.
    Status set_max_pages(uint32_t pages);

    struct Impl;  // meta/sql.h, for this folder
    Impl& impl() { return *impl_; }

  private:
    explicit Database(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace farshore
