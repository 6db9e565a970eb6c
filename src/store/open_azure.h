// From settings (store_settings.h) to Azure Blob storage.
#pragma once

#include <memory>

#include "base/seams.h"
#include "store/azure_store.h"
#include "store/store_settings.h"

namespace farshore {

// How to reach the account with what the settings say; of `settings.location` the container. Reads
// ca_file: kNotFound, kForbidden, kMalformed.
Result<AzureAccess> azure_access_of(FileSystem& files, const StoreSettings& settings);

// Without asking the service anything. `clock` and `random` outlive the store.
Result<std::unique_ptr<AzureStore>> make_azure_store(FileSystem& files, Clock& clock,
                                                     Random& random, const StoreSettings& settings);

// Of a store with locks, when it is set up (`create`, and no store is there yet): whether the
// service keeps them. kUnsupported when it does not.
Status check_azure_locks(AzureStore& store, bool create);

}  // namespace farshore
