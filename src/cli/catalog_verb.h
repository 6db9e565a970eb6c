// `farshore rebuild-catalog`: the vault's database anew, from the store and the key file alone.
#pragma once

#include <string>

#include "cli/environment.h"

namespace farshore {

struct CatalogArguments {
    std::string data;
    std::string store;           // empty: DATA/store
    std::string store_settings;  // file; of a remote store
    std::string key_file;        // empty: DATA/vault/key
    bool replace = false;        // a database that is there is moved aside
};

// `farshore vault migrate-database`: from the file in DATA to PostgreSQL.
int run_migrate_database(CliEnvironment& environment, const std::string& data,
                         const std::string& to, bool json);
int run_rebuild_catalog(CliEnvironment& environment, const CatalogArguments& arguments, bool json);

}  // namespace farshore
