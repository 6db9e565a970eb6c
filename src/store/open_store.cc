#include "store/open_store.h"

#include <fmt/core.h>

#include "os/waiting.h"
#include "store/directory_store.h"
#include "store/open_azure.h"
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
    return fail(Code::kUnsupported,
                fmt::format("stores at {} are not built in", settings.location));
}

// What DirectoryStore::open checks of a directory.
Status check_place(ObjectStore& store, const std::string& location, bool create) {
    const auto identity = store.head(kStoreObject);
    if (identity) return {};
    if (identity.error().code() != Code::kNotFound) return fail(identity.error());
    FS_ASSIGN(const auto others, store.list("", "", 1));
    if (!others.empty())
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
    return store;
}

Result<std::unique_ptr<ObjectStore>> open_retrying_store(FileSystem& files, Clock& clock,
                                                         Random& random,
                                                         const StoreSettings& settings, bool create,
                                                         RetryingStore::Sleep sleep) {
    FS_ASSIGN(const StoreLocation location, parse_store_location(settings.location));
    if (!location.remote()) return open_store(files, clock, random, settings, create);
    FS_ASSIGN(auto inner, make_remote(files, clock, random, settings, location));
    std::unique_ptr<ObjectStore> store =
        std::make_unique<RetryingStore>(std::move(inner), clock, random, std::move(sleep));
    FS_TRY(check_place(*store, settings.location, create));
    return store;
}

bool sleep_for_retry(int64_t delay_us) {
    pause_ms(static_cast<int>(delay_us / 1000) + 1);
    return true;
}

}  // namespace farshore
