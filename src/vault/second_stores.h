// Stores beside the vault's own, and the copies in them, as the vault holds them in memory. Private
// to src/vault (vault_stores.cc, vault_copies.cc). docs/design/copies.md.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "meta/database_ledger.h"
#include "meta/stores.h"
#include "os/real.h"
#include "os/worker_pool.h"
#include "replica/item_copy.h"
#include "store/counting_store.h"
#include "store/retrying_store.h"
#include "vault/item_drive.h"

namespace farshore {

struct ItemRuntime;
struct SecondStore;

struct CopyRuntime {
    std::shared_ptr<SecondStore> store;
    std::shared_ptr<ItemRuntime> source;
    std::unique_ptr<DatabaseLedger> ledger;
    std::unique_ptr<ItemCopy> copy;  // not before it could be opened; then for good

    // Held while it moves or is looked after; once `deleting`, it writes nothing any more.
    std::mutex work;
    bool deleting = false;
    int64_t retention_us = 0, mirrored_us = 0, opened_us = 0;  // steady, when last

    std::mutex mutex;  // below
    std::optional<Error> error;
    bool caught_up = false;  // when it was looked at last
};

struct SecondStore {
    std::string name;
    std::string location, settings_file;
    // All that is needed to open it again; set once, before `open`.
    std::unique_ptr<CountingStore> bare;
    std::unique_ptr<RetryingStore> store;
    std::optional<VaultFence> fence;

    std::mutex opening;  // held while it is opened
    std::mutex mutex;    // below
    bool open = false;
    bool closed = false;  // removed: its worker does nothing any more
    std::optional<Error> error;
    int64_t tried_us = 0, documents_us = 0;  // steady, when last
    std::map<ItemId, std::shared_ptr<CopyRuntime>> copies;

    WorkerPool pool{3};  // moves objects side by side, with the worker itself
    std::unique_ptr<ThreadExecutor> worker;
};

}  // namespace farshore
