// Everything that one vault's database holds, into an empty one: the way from SQLite to PostgreSQL.
#pragma once

#include <cstdint>

#include "base/error.h"

namespace farshore {

class Database;

struct DatabaseCopy {
    uint64_t tables = 0, rows = 0;
};

// In one transaction: after an error the target is as empty as before. Nobody else may use either
// meanwhile. `from` is an SQLite file, `to` a PostgreSQL database (kUnsupported otherwise) in which
// no vault has been yet (kAlreadyExists).
Result<DatabaseCopy> copy_database(Database& from, Database& to);

}  // namespace farshore
