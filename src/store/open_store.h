// The store that a location and its settings name (store_settings.h), for every program that uses
// one.
#pragma once

#include <memory>

#include "base/seams.h"
#include "store/counting_store.h"
#include "store/object_store.h"
#include "store/retrying_store.h"
#include "store/store_settings.h"

namespace farshore {

// One attempt a call. `files`, `clock` and `random` outlive the store; the settings are copied.
// `create`: an empty place becomes a store, a directory is made when it is missing (a bucket or
// container is not); without it a place that holds no Farshore store is kForeignStore. Opening asks
// a remote store once: kUnavailable, kTimeout, kForbidden, kNotFound (no such bucket) and the rest
// of its errors. kForeignStore also for a place that holds something else.
Result<std::unique_ptr<ObjectStore>> open_store(FileSystem& files, Clock& clock, Random& random,
                                                const StoreSettings& settings, bool create);

// The same behind a RetryingStore when it is remote: its calls, opening included, try again what
// can succeed later, for as long as `sleep` waits. A directory is opened as it is. `counted`: set
// to what counts every attempt, a part of the store.
Result<std::unique_ptr<ObjectStore>> open_retrying_store(FileSystem& files, Clock& clock,
                                                         Random& random,
                                                         const StoreSettings& settings, bool create,
                                                         RetryingStore::Sleep sleep,
                                                         const CountingStore** counted = nullptr);

// For threads that may block and programs whose end waits for their calls.
bool sleep_for_retry(int64_t delay_us);

}  // namespace farshore
