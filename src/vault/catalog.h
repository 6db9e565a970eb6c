// The vault's database anew, from the store and the key file alone: the same code as the start of a
// vault on an empty directory, with a report of what came back.
//
// It claims the store, as every start does: a vault that runs on it elsewhere is fenced. Blocking.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/seams.h"
#include "vault/vault.h"

namespace farshore {

struct CatalogItem {
    std::string name;
    ItemId id;
    std::optional<Error> set_aside;  // why nothing else is known of it
    ReplicaStatus status;
    std::vector<OfferedRange> ranges;  // between them lie gaps
    uint64_t named_points = 0;
};

struct CatalogReport {
    std::string moved_to;  // where the database is that was there; empty: there was none
    std::string store_id;
    std::vector<CatalogItem> items;
};

// Data, store and key of `options` count, and take_over. `replace`: a database that is there is
// renamed to farshore.db.DATE, whatever is in it; without it one that holds items, or cannot be
// read, is kAlreadyExists. kDuplicateIdentity: a vault runs on the directory. kForeignStore,
// kNotFound: there is no store to build it from. Those of Vault::open; the old database is back in
// its place then.
Result<CatalogReport> rebuild_catalog(const VaultOptions& options, bool replace, FileSystem& files,
                                      Clock& clock, Random& random);

struct MigrationReport {
    uint64_t tables = 0, rows = 0;
    std::string place;     // of the new database
    std::string moved_to;  // what the file is called now
};

// The vault's database from DATA/vault/farshore.db into the PostgreSQL database `to`, in one
// transaction. The file is renamed behind it, so that no vault goes on with it by mistake. No vault
// may run on the data directory (kDuplicateIdentity). kNotFound: there is no such file.
Result<MigrationReport> migrate_database(const std::string& data_directory, const std::string& to,
                                         FileSystem& files, Clock& clock);

}  // namespace farshore
