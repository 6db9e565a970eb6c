// Stores beside the vault's own: adding, opening, claiming, and the worker of each.
#include <fmt/core.h>

#include "keys/key_document.h"
#include "os/waiting.h"
#include "store/open_store.h"
#include "store/store_identity.h"
#include "vault/log_about.h"
#include "vault/second_stores.h"
#include "vault/vault_impl.h"

namespace farshore {
namespace {

constexpr int64_t kOpenAgainUs = 10'000'000;
constexpr int64_t kDocumentsUs = 600'000'000;

std::string epoch_text(Epoch epoch) { return fmt::format("{:016x}", epoch.v); }

StoreReport report_of(SecondStore& store) {
    StoreReport report;
    report.name = store.name;
    report.location = store.location;
    const std::lock_guard hold(store.mutex);
    report.open = store.open;
    report.error = store.error;
    if (store.open) report.counts = store.bare->counts();
    return report;
}

}  // namespace

Status Vault::Impl::load_second_stores() {
    FS_ASSIGN(const auto records, list_stores(*database));
    for (const StoreRecord& record : records) remember_second_store(record);
    return {};
}

std::shared_ptr<SecondStore> Vault::Impl::remember_second_store(const StoreRecord& record) {
    auto store = std::make_shared<SecondStore>();
    store->name = record.name;
    store->location = record.location;
    store->settings_file = record.settings_file;
    const std::lock_guard hold(stores_mutex);
    return second_stores.insert_or_assign(record.name, std::move(store)).first->second;
}

// One attempt a call, then behind retries that end with the vault.
Status Vault::Impl::open_place(SecondStore& store, bool create) {
    FS_ASSIGN(const StoreSettings settings,
              load_store_settings(files, store.location, store.settings_file));
    FS_ASSIGN(auto opened, farshore::open_store(files, clock, random, settings, create));
    store.bare = std::make_unique<CountingStore>(std::move(opened));
    store.store =
        std::make_unique<RetryingStore>(*store.bare, clock, random, [this, s = &store](int64_t us) {
            const auto ends = [&] {
                const std::lock_guard hold(s->mutex);
                return ending || s->closed;
            };
            if (ends()) return false;
            pause_ms(static_cast<int>(us / 1000));
            return !ends();
        });
    return {};
}

// Opens it when it is not, and claims it: what is put and removed there is this vault's from then
// on.
Status Vault::Impl::open_second(SecondStore& store) {
    const std::lock_guard one(store.opening);
    {
        const std::lock_guard hold(store.mutex);
        if (store.open) return {};
        store.tried_us = clock.steady_us();
    }
    const auto open = [&]() -> Status {
        FS_ASSIGN(const StoreRecord record, get_store(*database, store.name));
        FS_TRY(open_place(store, false));
        FS_ASSIGN(const StoreIdentity identity, read_store_identity(*store.store));
        if (identity.id.to_string() != record.store_id)
            return fail(Code::kForeignStore,
                        fmt::format("the store at {} is {}, and '{}' was {}", store.location,
                                    identity.id.to_string(), store.name, record.store_id),
                        "look whether the right place is mounted or named");
        FS_ASSIGN(const VaultFence::Claim newest, VaultFence::newest(*store.store));
        const std::string newest_text = epoch_text(newest.epoch);
        const bool ours = newest.id == record.claim_id && !newest.id.empty();
        if (!record.claim_id.empty() && !ours && newest_text > record.claim_epoch)
            return fail(Code::kVaultReplaced,
                        fmt::format("another vault has claimed the store '{}' at {}", store.name,
                                    store.location),
                        "end that vault; then remove the store here without its points, and add "
                        "it with --take-over");
        const std::string id = new_claim_id();
        FS_TRY(keep_store_claim(*database, store.name, newest_text, id));
        // Not below our own epoch: what this vault copies there is no newer than its claim.
        FS_ASSIGN(store.fence, VaultFence::claim(*store.store, clock, random, info.vault_id, id,
                                                 fence->epoch()));
        return keep_store_claim(*database, store.name, epoch_text(store.fence->epoch()), id);
    };
    const Status opened = open();
    const std::lock_guard hold(store.mutex);
    if (opened) {
        store.open = true;
        store.error.reset();
    } else {
        store.error = opened.error();
    }
    return opened;
}

Result<std::shared_ptr<SecondStore>> Vault::Impl::second_store(const std::string& name) {
    std::shared_ptr<SecondStore> store;
    {
        const std::lock_guard hold(stores_mutex);
        const auto at = second_stores.find(name);
        if (at == second_stores.end())
            return fail(Code::kNotFound, fmt::format("no store is called '{}'", name.substr(0, 64)),
                        "`farshore store list` shows them");
        store = at->second;
    }
    if (auto opened = open_second(*store); !opened)
        return fail(opened.error().with_context(fmt::format("the store '{}'", name)));
    return store;
}

std::vector<std::shared_ptr<SecondStore>> Vault::Impl::all_second_stores() {
    const std::lock_guard hold(stores_mutex);
    std::vector<std::shared_ptr<SecondStore>> out;
    for (const auto& [name, store] : second_stores) out.push_back(store);
    return out;
}

// What opens keys that are under a passphrase or a service's key: the same there as here.
Status Vault::Impl::mirror_key_documents(SecondStore& second) {
    FS_ASSIGN(const auto wanted, list_all(*store, std::string(kKeyDocumentPrefix)));
    FS_ASSIGN(const auto there, list_all(*second.store, std::string(kKeyDocumentPrefix)));
    const auto has = [](const std::vector<ObjectInfo>& in, const std::string& name) {
        return std::ranges::find(in, name, &ObjectInfo::name) != in.end();
    };
    for (const ObjectInfo& info : wanted) {
        if (has(there, info.name)) continue;
        FS_ASSIGN(const Bytes document, store->get(info.name));
        FS_TRY(put_idempotent(*second.store, info.name, document));
    }
    // Of a place that is not our store any more nothing is learnt.
    FS_TRY(fence->still_mine());
    for (const ObjectInfo& info : there) {
        if (has(wanted, info.name)) continue;
        FS_TRY(second.fence->still_mine());
        FS_TRY(second.store->remove(info.name));
    }
    return {};
}

// ---- the worker

// One round over the store's copies; whether there is more to do at once.
bool Vault::Impl::tend_store(Vault& vault, const std::shared_ptr<SecondStore>& second) {
    if (fenced || ending) return false;
    auto records = list_copies_in(*database, second->name);
    if (!records) {
        log::warn("vault", about(records.error()), "copies cannot be listed: {}",
                  records.error().to_string());
        return false;
    }
    forget_copies(*second, *records);
    if (records->empty()) return false;
    bool was_open = false;
    std::optional<Error> before;
    {
        const std::lock_guard hold(second->mutex);
        if (second->closed) return false;
        was_open = second->open;
        before = second->error;
        if (!was_open && second->tried_us != 0 &&
            clock.steady_us() - second->tried_us < kOpenAgainUs)
            return false;
    }
    if (!was_open) {
        const Status opened = open_second(*second);
        if (!opened) {
            // It is said once for each reason.
            if (!ending && (!before || before->code() != opened.error().code()))
                vault.event(
                    Severity::kCritical, "store-away", nullptr,
                    fmt::format("the store '{}' cannot be used: {}", second->name,
                                opened.error().what()),
                    "what is new waits in the vault's own store; " + opened.error().remedy());
            return false;
        }
        if (before)
            vault.event(Severity::kInformation, "store-back", nullptr,
                        fmt::format("the store '{}' can be used again", second->name));
    }
    if (second->documents_us == 0 || clock.steady_us() - second->documents_us >= kDocumentsUs) {
        if (auto mirrored = mirror_key_documents(*second))
            second->documents_us = clock.steady_us();
        else if (!ending)
            log::warn("vault", about(mirrored.error()), "the store '{}': {}", second->name,
                      mirrored.error().to_string());
    }
    bool more = false;
    for (const CopyRecord& record : *records) {
        if (ending) return false;
        if (!record.removing) more = tend_copy(vault, second, record) || more;
    }
    return more;
}

void Vault::Impl::start_worker(Vault& vault, const std::shared_ptr<SecondStore>& second) {
    if (options.tend_interval_us == 0) return;  // only by tend_copies()
    second->worker = std::make_unique<ThreadExecutor>("fs-copies");
    ThreadExecutor* worker = second->worker.get();
    // The task posts itself again; it ends with its executor, which its store owns.
    auto round = std::make_shared<std::function<void()>>();
    *round = [this, &vault, worker, weak_store = std::weak_ptr(second),
              weak = std::weak_ptr(round)] {
        const auto strong = weak_store.lock();
        if (!strong) return;
        const bool more = tend_store(vault, strong);
        if (auto again = weak.lock())
            worker->post_after_us(more ? 0 : options.tend_interval_us, [again] { (*again)(); });
    };
    worker->post([round] { (*round)(); });
}

void Vault::Impl::end_workers() {
    for (const auto& second : all_second_stores())
        if (second->worker) second->worker->stop();
    for (const auto& second : all_second_stores()) {
        const std::lock_guard hold(second->mutex);
        second->copies.clear();
    }
}

bool Vault::tend_copies() {
    bool more = false;
    for (const auto& second : impl_->all_second_stores())
        more = impl_->tend_store(*this, second) || more;
    return more;
}

// ---- verbs

Result<StoreReport> Vault::add_store(const AddStoreRequest& request) {
    FS_TRY(check_store_name(request.name));
    FS_ASSIGN(const StoreLocation location, parse_store_location(request.location));
    const auto absolute = [](const std::string& path) { return path.empty() || path[0] == '/'; };
    if ((!location.remote() && !absolute(location.directory)) || !absolute(request.settings_file))
        return fail(Code::kInvalidArgument, "the paths must be absolute",
                    "they are of the vault's machine");
    FS_TRY(impl_->check_not_fenced(impl_->fence->still_mine()));
    FS_ASSIGN(const auto known, list_stores(*impl_->database));
    for (const StoreRecord& other : known)
        if (other.name == request.name)
            return fail(Code::kAlreadyExists,
                        fmt::format("a store is called '{}' already", request.name));
    StoreRecord record;
    record.name = request.name;
    record.location = request.location;
    record.settings_file = request.settings_file;
    SecondStore trial;
    trial.location = record.location;
    trial.settings_file = record.settings_file;
    FS_TRY(impl_->open_place(trial, true));
    FS_ASSIGN(const StoreIdentity identity,
              ensure_store_identity(*trial.store, impl_->clock, impl_->random));
    record.store_id = identity.id.to_string();
    if (record.store_id == impl_->info.store_id)
        return fail(Code::kAlreadyExists, "that is the vault's own store",
                    "a second one must be another place");
    FS_ASSIGN(const VaultFence::Claim newest, VaultFence::newest(*trial.store));
    if (newest.epoch.v != 0 && !request.take_over)
        return fail(Code::kVaultReplaced,
                    fmt::format("a vault uses the store at {}, or did", record.location),
                    "when that vault is gone, or was this one before it lost its database: "
                    "--take-over; else choose another bucket or prefix");
    FS_TRY(farshore::add_store(*impl_->database, record));
    const auto second = impl_->remember_second_store(record);
    if (const Status opened = impl_->open_second(*second); !opened) {
        (void)farshore::remove_store(*impl_->database, record.name);
        const std::lock_guard hold(impl_->stores_mutex);
        impl_->second_stores.erase(record.name);
        return fail(opened.error());
    }
    impl_->start_worker(*this, second);
    event(Severity::kInformation, "store-added", nullptr,
          fmt::format("the store '{}' at {} was added", record.name, record.location));
    return report_of(*second);
}

Result<std::vector<StoreReport>> Vault::stores() {
    std::vector<StoreReport> out;
    StoreReport own;
    own.name = "primary";
    own.location = impl_->store_location;
    own.store_id = impl_->info.store_id;
    own.primary = own.open = true;
    own.counts = store_counts();
    out.push_back(std::move(own));
    FS_ASSIGN(const auto records, list_stores(*impl_->database));
    for (const StoreRecord& record : records) {
        StoreReport report;
        report.name = record.name;
        report.location = record.location;
        for (const auto& second : impl_->all_second_stores())
            if (second->name == record.name) report = report_of(*second);
        report.store_id = record.store_id;
        FS_ASSIGN(const auto copies, list_copies_in(*impl_->database, record.name));
        report.copies = copies.size();
        out.push_back(std::move(report));
    }
    return out;
}

Status Vault::remove_store(const std::string& name) {
    FS_TRY(farshore::remove_store(*impl_->database, name));
    std::shared_ptr<SecondStore> second;
    {
        const std::lock_guard hold(impl_->stores_mutex);
        const auto at = impl_->second_stores.find(name);
        if (at != impl_->second_stores.end()) {
            second = at->second;
            impl_->second_stores.erase(at);
        }
    }
    if (second) {
        {
            const std::lock_guard hold(second->mutex);
            second->closed = true;
            second->copies.clear();
        }
        if (second->worker) second->worker->stop();
    }
    event(Severity::kInformation, "store-removed", nullptr,
          fmt::format("the store '{}' was removed; what is in it stays there", name));
    return {};
}

Result<StorePlaceReport> Vault::store_place(const std::string& name) {
    FS_ASSIGN(const StoreRecord record, get_store(*impl_->database, name));
    return StorePlaceReport{record.location, record.settings_file};
}

}  // namespace farshore
