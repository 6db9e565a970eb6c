#include "store/open_store.h"

#include <fmt/core.h>

#include "os/waiting.h"
#include "store/directory_store.h"
#include "store/open_azure.h"
#include "store/s3_store.h"
#include "store/store_identity.h"

namespace farshore {
namespace {

// The store without any of its calls made.
Result<std::unique_ptr<ObjectStore>> make_remote(FileSystem& files, Clock& clock, Random& random,
                                                 const StoreSettings& settings,
                                                 const StoreLocation& location) {
    if (location.kind == StoreKind::kAzure) {
        FS_ASSIGN(auto store, make_azure_store(files, clock, random, settings));
        return std::unique_ptr<ObjectStore>(std::move(store));
    }
    if (location.kind == StoreKind::kS3) {
        FS_ASSIGN(auto store, S3Store::make(files, clock, settings, location));
        return std::unique_ptr<ObjectStore>(std::move(store));
    }
    return fail(Code::kUnsupported,
                fmt::format("stores at {} are not built in", settings.location));
}

// What DirectoryStore::open checks of a directory.
Status check_place(ObjectStore& store, const std::string& location, bool create) {
    const auto identity = store.head(kStoreObject);
    if (identity) return {};
    if (identity.error().code() != Code::kNotFound) return fail(identity.error());
    FS_ASSIGN(const bool others, holds_objects(store));
    if (others)
        return fail(Code::kForeignStore,
                    fmt::format("{} holds something, but not a Farshore store ('{}' is missing)",
                                location, kStoreObject),
                    "give an empty place (a PREFIX behind the name is enough), or the one that "
                    "the store is in");
    if (!create)
        return fail(Code::kForeignStore, fmt::format("{} is empty, no Farshore store", location),
                    "name the place that the store is in");
    return {};
}

// Locks that were asked for and are not there would be missed only when it is too late.
Status check_locks(ObjectStore& bare, bool create) {
    if (auto* azure = dynamic_cast<AzureStore*>(&bare); azure != nullptr && azure->lock_us() > 0)
        return check_azure_locks(*azure, create);
    auto* s3 = dynamic_cast<S3Store*>(&bare);
    if (s3 == nullptr || s3->lock_us() == 0) return {};
    FS_TRY(s3->check_lock_configuration());
    if (!create) return {};
    const auto identity = s3->head(kStoreObject);
    // A store that is set up: whether locks hold is tried once.
    if (identity || identity.error().code() != Code::kNotFound) return {};
    return s3->try_lock();
}

}  // namespace

Result<std::unique_ptr<ObjectStore>> open_store(FileSystem& files, Clock& clock, Random& random,
                                                const StoreSettings& settings, bool create) {
    FS_ASSIGN(const StoreLocation location, parse_store_location(settings.location));
    if (!location.remote()) {
        FS_ASSIGN(auto store, DirectoryStore::open(files, random, {location.directory, create}));
        return std::unique_ptr<ObjectStore>(std::move(store));
    }
    FS_ASSIGN(auto store, make_remote(files, clock, random, settings, location));
    FS_TRY(check_place(*store, settings.location, create));
    FS_TRY(check_locks(*store, create));
    return store;
}

Result<std::unique_ptr<ObjectStore>> open_retrying_store(FileSystem& files, Clock& clock,
                                                         Random& random,
                                                         const StoreSettings& settings, bool create,
                                                         RetryingStore::Sleep sleep,
                                                         const CountingStore** counted) {
    FS_ASSIGN(const StoreLocation location, parse_store_location(settings.location));
    const auto count = [counted](std::unique_ptr<ObjectStore> inner) {
        auto counting = std::make_unique<CountingStore>(std::move(inner));
        if (counted != nullptr) *counted = counting.get();
        return counting;
    };
    if (!location.remote()) {
        FS_ASSIGN(auto directory, open_store(files, clock, random, settings, create));
        return std::unique_ptr<ObjectStore>(count(std::move(directory)));
    }
    FS_ASSIGN(auto inner, make_remote(files, clock, random, settings, location));
    ObjectStore& bare = *inner;
    std::unique_ptr<ObjectStore> store =
        std::make_unique<RetryingStore>(count(std::move(inner)), clock, random, std::move(sleep));
    FS_TRY(check_place(*store, settings.location, create));
    FS_TRY(check_locks(bare, create));
    return store;
}

bool sleep_for_retry(int64_t delay_us) {
    pause_ms(static_cast<int>(delay_us / 1000) + 1);
    return true;
}

}  // namespace farshore
