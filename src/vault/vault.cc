#include "vault/vault.h"

#include <fmt/core.h>

#include "base/party_names.h"
#include "codec/hash.h"
#include "meta/certificates.h"
#include "meta/nodes.h"
#include "os/waiting.h"
#include "replica/item_object.h"
#include "store/open_store.h"
#include "store/store_identity.h"
#include "vault/group_desk.h"
#include "vault/log_about.h"
#include "vault/second_stores.h"
#include "vault/vault_impl.h"

namespace farshore {
namespace {

constexpr int64_t kTendPauses = 4;  // times as long as a round took
constexpr int64_t kMostTendPauseUs = 10'000'000;

constexpr size_t kTokenBytes = 32;
constexpr size_t kKeptClaims = 32;
constexpr size_t kMaxTokenFileBytes = 4096;

std::string random_hex(Random& random, size_t bytes) {
    Bytes raw(bytes);
    random.fill(raw);
    return to_hex(raw);
}

Error not_enrolled(const std::string& name) {
    return Error(Code::kUnauthenticated,
                 fmt::format("'{}' is not enrolled, or was removed", name.substr(0, 128)),
                 "enrol it with a new token");
}

}  // namespace

// ---- opening
// ---------------------------------------------------------------------------------------

Status Vault::Impl::open_store() {
    // A vault that had a store makes no other one: the place may be a file system that is not
    // mounted.
    FS_ASSIGN(const std::string known, get_setting(*database, "store_id"));
    FS_ASSIGN(const StoreSettings settings,
              load_store_settings(files, store_location, options.store_settings_file));
    FS_ASSIGN(auto opened, farshore::open_store(files, clock, random, settings, known.empty()));
    bare_store = std::make_unique<CountingStore>(std::move(opened));
    store = std::make_unique<RetryingStore>(*bare_store, clock, random, [this](int64_t us) {
        if (ending) return false;
        pause_ms(static_cast<int>(us / 1000));
        return !ending;
    });
    FS_ASSIGN(const StoreIdentity identity, known.empty()
                                                ? ensure_store_identity(*store, clock, random)
                                                : read_store_identity(*store));
    info.store_id = identity.id.to_string();
    if (!known.empty() && known != info.store_id)
        return fail(
            Code::kForeignStore,
            fmt::format("the store at {} is {}, this vault's is {}", store_location, info.store_id,
                        known),
            "give the vault its own store, or an empty data directory to take this one over");
    if (known.empty()) FS_TRY(set_setting(*database, "store_id", info.store_id));
    return {};
}

// Nodes that share a database share what they are known by: their agents, appliances and people
// must not notice which of them leads. The database knows it by its hash only.
Status Vault::Impl::check_shared(const std::string& setting, const std::string& file,
                                 ByteView content) {
    if (!database->is_shared()) return {};
    FS_ASSIGN(const std::string known, get_setting(*database, setting));
    const std::string ours = content.empty() ? std::string() : to_hex(sha256(content));
    if (known.empty() && !ours.empty()) return set_setting(*database, setting, ours);
    if (known == ours) return {};
    return fail(
        ours.empty() ? Code::kNotFound : Code::kForeignStore,
        fmt::format("{} is not that of the other vault nodes on {}", file, database->place()),
        "copy pki/ca.crt, pki/ca.key, vault/admin.token and vault/key (or name the same "
        "--key-source) from the data directory of another node");
}

Status Vault::Impl::open_authority() {
    FS_TRY(files.make_directories(pki_directory));
    const std::string path = pki_directory + "/ca";
    FS_ASSIGN(const bool there, files.exists(path + ".key"));
    if (!there) {
        FS_TRY(check_shared("authority", path, {}));
        FS_ASSIGN(authority, CertificateAuthority::create("farshore-" + info.vault_id.substr(0, 8),
                                                          clock.now()));
        FS_TRY(save_credentials(files, path, authority->credentials()));
    } else {
        FS_ASSIGN(const Credentials credentials, load_credentials(files, path));
        FS_ASSIGN(authority, CertificateAuthority::load(credentials));
    }
    return check_shared("authority", path, as_bytes(authority->certificate_pem()));
}

Status Vault::Impl::open_token() {
    const std::string path = vault_directory + "/admin.token";
    FS_ASSIGN(const bool there, files.exists(path));
    if (!there) {
        FS_TRY(check_shared("admin_token", path, {}));
        const std::string text = random_hex(random, kTokenBytes) + "\n";
        FS_TRY(write_file_durably(files, path, as_bytes(text)));
    }
    FS_ASSIGN(Bytes text, read_whole_file(files, path, kMaxTokenFileBytes));
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
    if (text.size() < 2 * kTokenBytes)
        return fail(Code::kMalformed, fmt::format("{} holds no token", path),
                    "remove the file: a new token is made at the next start");
    FS_TRY(check_shared("admin_token", path, text));
    admin_token = Secret(std::move(text));
    return {};
}

std::string Vault::Impl::new_claim_id() { return random_hex(random, 16); }

// A vault that was replaced must not come back by itself (a host that boots again, a unit that
// restarts its program): it would fence the vault that runs now, with a database that knows nothing
// of what happened since. So the database remembers its newest claim, by epoch and by an id that no
// copy or backup of the database can have of a later claim. A database without one - new, or lost -
// takes the store over: that is what setting up a vault on a store means.
Status Vault::Impl::claim_store() {
    FS_ASSIGN(const std::string known, get_setting(*database, "claim_epoch"));
    FS_ASSIGN(const std::string known_id, get_setting(*database, "claim_id"));
    FS_ASSIGN(const VaultFence::Claim newest, VaultFence::newest(*store));
    // The id is written before the claim is made: a crash in between leaves a claim of ours.
    FS_ASSIGN(std::string claims, get_setting(*database, "claim_ids"));
    // Of several nodes on a database, one that was asleep may have claimed behind the others.
    const bool ours = !newest.id.empty() &&
                      (newest.id == known_id || claims.find(newest.id) != std::string::npos);
    const std::string newest_text = fmt::format("{:016x}", newest.epoch.v);
    if (!known_id.empty() && !ours && newest_text > known) {
        if (!options.take_over)
            return fail(Code::kVaultReplaced,
                        fmt::format("another vault has claimed the store at {} since this one ran: "
                                    "its epoch is {}, ours was {}",
                                    store_location, newest.epoch.v,
                                    std::strtoull(known.c_str(), nullptr, 16)),
                        "end the other vault, then start this one with --take-over: it learns from "
                        "the store what the other one did");
        // What this database knows of the store is old. Kept until done: a crash repeats it.
        FS_TRY(set_setting(*database, "taking_over", "1"));
        FS_TRY(set_setting(*database, "rebuilt", ""));
        log::warn("vault", "takes the store over from the vault of epoch {}", newest.epoch.v);
    }
    const std::string id = new_claim_id();
    FS_TRY(set_setting(*database, "claim_epoch", newest_text));
    FS_TRY(set_setting(*database, "claim_id", id));
    if (database->is_shared()) {
        claims = id + " " + claims;
        FS_TRY(
            set_setting(*database, "claim_ids", claims.substr(0, kKeptClaims * (id.size() + 1))));
    }
    FS_ASSIGN(fence, VaultFence::claim(*store, clock, random, info.vault_id, id));
    return set_setting(*database, "claim_epoch", fmt::format("{:016x}", fence->epoch().v));
}

// After a take-over: items whose points the other vault deleted. The ledger would name objects that
// are gone; without it, protection begins anew with the next log lease.
Status Vault::Impl::forget_lost_items() {
    FS_ASSIGN(const std::string taking_over, get_setting(*database, "taking_over"));
    if (taking_over.empty()) return {};
    std::string after;
    while (true) {
        FS_ASSIGN(const auto records, list_items(*database, after, 500));
        if (records.empty()) return {};
        after = records.back().name;
        for (const ItemRecord& record : records) {
            FS_ASSIGN(const bool there, is_described(record.id));
            if (there) continue;
            if (why_set_aside(record.id)) continue;
            DatabaseLedger ledger(*database, record.id);
            FS_ASSIGN(const LedgerState state, ledger.state());
            if (state.stored.v == 0) continue;
            FS_TRY(remove_ledger(*database, record.id));
            FS_TRY(add_event(*database, {.severity = Severity::kCritical,
                                         .code = "points-gone",
                                         .item = record.id,
                                         .item_name = record.name,
                                         .cause = "another vault that had the store deleted the "
                                                  "recovery points of this item",
                                         .remedy = "they can't be had back; protection goes on "
                                                   "anew, or `farshore unprotect` ends it"}));
        }
    }
}

Status Vault::Impl::open() {
    FS_ASSIGN(scrub_limit, BandwidthLimit::parse(options.scrub_bandwidth, options.time_zone));
    vault_directory = options.data_directory + "/vault";
    pki_directory = options.data_directory + "/pki";
    store_location =
        options.store_location.empty() ? options.data_directory + "/store" : options.store_location;
    FS_TRY(files.make_directories(vault_directory));
    FS_ASSIGN(lock, InstanceLock::acquire(vault_directory + "/lock", kInstanceLockPatienceMs));
    FS_ASSIGN(database, Database::open({.path = vault_directory + "/farshore.db",
                                        .postgresql = options.database},
                                       clock));
    fence_by_vault_lease(*database, options.node_epoch, options.node);
    FS_ASSIGN(info.vault_id, get_setting(*database, "vault_id"));
    if (info.vault_id.empty()) {
        info.vault_id = random_hex(random, 16);
        FS_TRY(set_setting(*database, "vault_id", info.vault_id));
    }
    FS_TRY(open_store());
    FS_TRY(open_key());
    FS_TRY(claim_store());
    info.epoch = fence->epoch();
    info.started = clock.now();
    info.time_zone = options.time_zone;
    FS_TRY(open_authority());
    FS_TRY(load_appliances());
    FS_TRY(load_returns());
    started_us = clock.steady_us();
    FS_TRY(open_token());
    FS_TRY(load_second_stores());
    FS_TRY(rebuild_items());
    FS_TRY(forget_lost_items());
    FS_TRY(set_setting(*database, "taking_over", ""));
    return set_setting(*database, "key_id", kek().id);
}

Result<std::unique_ptr<Vault>> Vault::open(const VaultOptions& options, FileSystem& files,
                                           Clock& clock, Random& random) {
    auto impl = std::make_unique<Impl>(options, files, clock, random);
    FS_TRY(impl->open());
    std::unique_ptr<Vault> vault(new Vault(std::move(impl)));
    Vault* self = vault.get();
    self->impl_->groups = std::make_shared<GroupDesk>(*self);
    self->set_resumer("unprotect", [self](const JobRecord& job) -> JobWork {
        const ItemId id = job.item.value_or(ItemId{});
        const bool force = job.input == "force";
        return [self, id, force](JobRun& run) {
            return self->impl_->delete_everything(*self, run, id, force);
        };
    });
    self->set_resumer("copy-removal", [self](const JobRecord& job) -> JobWork {
        return self->impl_->copy_removal_work(*self, job.item.value_or(ItemId{}), job.input);
    });
    self->set_resumer("key-rotation", [self](const JobRecord&) -> JobWork {
        return [self](JobRun& run) { return self->impl_->run_key_rotation(*self, run); };
    });
    self->set_resumer("key-destruction", [self](const JobRecord& job) -> JobWork {
        const ItemId id = job.item.value_or(ItemId{});
        return [self, id](JobRun& run) { return self->impl_->run_key_destruction(*self, run, id); };
    });
    if (options.tend_interval_us > 0) {
        self->impl_->tender = std::make_unique<ThreadExecutor>("fs-vault-tend");
        // The task posts itself again; it ends with its executor.
        auto round = std::make_shared<std::function<void()>>();
        ThreadExecutor* tender = self->impl_->tender.get();
        *round = [self, tender, weak = std::weak_ptr(round), interval = options.tend_interval_us] {
            const int64_t from_us = self->clock().steady_us();
            self->tend();
            // With very many items a fifth of a processor's time. But after a round that was long
            // because ten thousand alarms had to be written, the next ones wait for no minutes.
            const int64_t took_us = self->clock().steady_us() - from_us;
            const int64_t pause_us =
                std::max(interval, std::min(kTendPauses * took_us, kMostTendPauseUs));
            self->impl_->tend_period_us = self->clock().steady_us() - from_us + pause_us;
            if (auto again = weak.lock()) tender->post_after_us(pause_us, [again] { (*again)(); });
        };
        tender->post([round] { (*round)(); });
    }
    for (const auto& second : self->impl_->all_second_stores())
        self->impl_->start_worker(*self, second);
    return vault;
}

Vault::Vault(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Vault::~Vault() {
    end_jobs();
    if (impl_->tender) impl_->tender->stop();
    impl_->end_workers();
    if (impl_->weigher) impl_->weigher->stop();
}

void Vault::end_jobs() {
    stop_waiting();
    std::map<uint64_t, std::unique_ptr<ThreadExecutor>> threads;
    {
        const std::lock_guard lock(impl_->jobs_mutex);
        threads.swap(impl_->job_threads);
    }
    for (auto& [id, thread] : threads) thread->stop();
}

void Vault::stop_waiting() {
    impl_->ending = true;
    impl_->groups->stop();
    impl_->notify();
}

// ---- waiting
// ---------------------------------------------------------------------------------------

void Vault::Impl::notify() {
    {
        const std::lock_guard hold(change_mutex);
        ++change_counter;
    }
    change_signal.notify_all();
}

uint64_t Vault::Impl::change_count() {
    const std::lock_guard hold(change_mutex);
    return change_counter;
}

bool Vault::Impl::wait_change(uint64_t seen, int64_t until_us) {
    std::unique_lock hold(change_mutex);
    while (change_counter == seen && !ending) {
        const int64_t left_us = until_us - clock.steady_us();
        if (left_us <= 0) return false;
        change_signal.wait_for(hold,
                               std::chrono::microseconds(std::min<int64_t>(left_us, 1'000'000)));
    }
    return !ending;
}

// ---- plain questions
// -------------------------------------------------------------------------------

VaultInfo Vault::info() const {
    VaultInfo info = impl_->info;
    info.fenced = impl_->fenced;
    info.certificate_until.us = impl_->certificate_until_us;
    info.key_id = impl_->kek().id;
    return info;
}
Database& Vault::database() { return *impl_->database; }
ObjectStore& Vault::store() { return *impl_->store; }

StoreCounts Vault::store_counts() const { return impl_->bare_store->counts(); }
Clock& Vault::clock() { return impl_->clock; }
Random& Vault::random() { return impl_->random; }
const KdfCost& Vault::kdf_cost() const { return impl_->options.kdf; }
const std::string& Vault::directory() const { return impl_->vault_directory; }
const std::string& Vault::authority_pem() const { return impl_->authority->certificate_pem(); }
const Secret& Vault::admin_token() const { return impl_->admin_token; }

// ---- identities
// ------------------------------------------------------------------------------------

Result<Credentials> Vault::server_credentials(const std::vector<std::string>& names) {
    IssueOptions issue;
    issue.common_name = "farshore-vault";
    issue.alternative_names = {"localhost", "127.0.0.1", "::1"};
    for (const std::string& name : names) issue.alternative_names.push_back(name);
    issue.now = impl_->clock.now();
    const std::string path = impl_->pki_directory + "/vault";
    auto kept = load_credentials(impl_->files, path);
    if (kept) {
        auto certificate = inspect_certificate(kept->certificate_pem);
        bool good = certificate && !certificate_wants_renewal(*certificate, issue.now);
        for (const std::string& name : issue.alternative_names)
            good = good && std::find(certificate->alternative_names.begin(),
                                     certificate->alternative_names.end(),
                                     name) != certificate->alternative_names.end();
        if (good) {
            impl_->certificate_until_us = certificate->not_after.us;
            return kept;
        }
    }
    FS_ASSIGN(const Credentials made, impl_->authority->issue_with_key(issue));
    FS_ASSIGN(const CertificateInfo certificate, inspect_certificate(made.certificate_pem));
    FS_TRY(save_credentials(impl_->files, path, made));
    impl_->certificate_until_us = certificate.not_after.us;
    return made;
}

Result<Credentials> Vault::local_party(PartyKind kind, const std::string& name) {
    const std::string path =
        fmt::format("{}/{}-{}", impl_->pki_directory, party_kind_name(kind), "local");
    const TimePoint now = impl_->clock.now();
    Credentials credentials;
    bool good = false, had = false;
    if (auto kept = load_credentials(impl_->files, path)) {
        auto certificate = inspect_certificate(kept->certificate_pem);
        had = true;
        good = certificate && certificate->common_name == name &&
               !certificate_wants_renewal(*certificate, now);
        if (good) credentials = std::move(*kept);
    }
    if (!good) {
        FS_ASSIGN(credentials,
                  impl_->authority->issue_with_key({.common_name = name,
                                                    .alternative_names = {"localhost", "127.0.0.1"},
                                                    .now = now}));
        FS_TRY(save_credentials(impl_->files, path, credentials));
    }
    FS_ASSIGN(const CertificateInfo certificate, inspect_certificate(credentials.certificate_pem));
    PartyRecord party;
    party.name = name;
    party.kind = kind;
    party.fingerprint = certificate.fingerprint_hex();
    FS_TRY(enrol_party(*impl_->database, party));
    impl_->forget_party(party.name);
    FS_TRY(keep_certificate(*impl_->database, name, certificate.not_after));
    if (!good && had)
        event(Severity::kInformation, "certificate-renewed", nullptr,
              fmt::format("the certificate of {} '{}' was renewed, until {}", party_kind_name(kind),
                          name, to_rfc3339(certificate.not_after)));
    return credentials;
}

Result<std::string> Vault::create_token(PartyKind kind, const std::string& name, int64_t valid_s,
                                        TimePoint& expires) {
    if (name.size() > kMaxPartyNameBytes)
        return fail(Code::kInvalidArgument,
                    fmt::format("a party's name has at most {} bytes", kMaxPartyNameBytes));
    if (name == kRecoveryAgent || name == kRecoveryAppliance)
        return fail(Code::kInvalidArgument, fmt::format("'{}' is the vault's own", name),
                    "choose another name");
    if (is_compute_name(name))
        return fail(Code::kInvalidArgument,
                    fmt::format("names that begin with '{}' are those of compute hosts",
                                kComputeNamePrefix),
                    "choose another name");
    const std::string text = random_hex(impl_->random, kTokenBytes);
    expires = {impl_->clock.now().us + valid_s * 1'000'000};
    EnrolmentToken token;
    token.hash = sha256(as_bytes(text));
    token.kind = kind;
    token.name = name;
    token.expires = expires;
    FS_TRY(add_token(*impl_->database, token));
    return text;
}

// The name that is asked for, when it is one and nobody has it; else one of our own. A token that
// names nobody must not let its bearer take the place of a party that is known.
std::string Vault::Impl::free_party_name(PartyKind kind, const std::string& request_pem) {
    const auto asked = requested_name(request_pem);
    const bool good = asked && !asked->empty() && asked->size() <= kMaxPartyNameBytes &&
                      asked->find_first_not_of(
                          "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
                          std::string::npos;
    if (good) {
        const auto known = get_party(*database, *asked);
        if (!known && known.error().code() == Code::kNotFound) return *asked;
    }
    return fmt::format("{}-{}", party_kind_name(kind), random_hex(random, 4));
}

Result<std::string> Vault::enrol(const std::string& token_text, const std::string& request_pem) {
    FS_ASSIGN(const EnrolmentToken token,
              use_token(*impl_->database, sha256(as_bytes(token_text))));
    PartyRecord party;
    party.kind = token.kind;
    party.name = token.name.empty() ? impl_->free_party_name(token.kind, request_pem) : token.name;
    // A token of before that was so.
    if (is_compute_name(party.name)) return fail(not_enrolled(party.name));
    FS_ASSIGN(const std::string certificate_pem,
              impl_->authority->issue(request_pem,
                                      {.common_name = party.name, .now = impl_->clock.now()}));
    FS_ASSIGN(const CertificateInfo certificate, inspect_certificate(certificate_pem));
    party.fingerprint = certificate.fingerprint_hex();
    FS_TRY(enrol_party(*impl_->database, party));
    impl_->forget_party(party.name);
    FS_TRY(keep_certificate(*impl_->database, party.name, certificate.not_after));
    event(Severity::kInformation, "party-enrolled", nullptr,
          fmt::format("{} '{}' was enrolled", party_kind_name(party.kind), party.name));
    return certificate_pem + authority_pem();
}

Result<PartyRecord> Vault::check_party(const std::string& name) {
    if (is_compute_name(name)) return fail(not_enrolled(name));
    {
        const std::lock_guard hold(impl_->mutex);
        if (const auto known = impl_->parties.find(name); known != impl_->parties.end())
            return known->second;
    }
    auto party = get_party(*impl_->database, name);
    if (party) {
        const std::lock_guard hold(impl_->mutex);
        impl_->parties[name] = *party;
        // Removed while it was read.
        if (!get_party(*impl_->database, name)) impl_->parties.erase(name);
    }
    if (!party && party.error().code() == Code::kNotFound) return fail(not_enrolled(name));
    return party;
}

Status Vault::remove_party(const std::string& name) {
    FS_TRY(get_party(*impl_->database, name));
    FS_TRY(farshore::remove_party(*impl_->database, name));
    FS_TRY(forget_appliance(*impl_->database, name));
    {
        const std::lock_guard hold(impl_->mutex);
        impl_->appliances.erase(name);
        impl_->told_appliances.reset();
        impl_->parties.erase(name);
    }
    event(Severity::kInformation, "party-removed", nullptr,
          fmt::format("'{}' was removed; its certificate is refused from now on", name));
    return {};
}

Result<std::vector<PartyReport>> Vault::parties(const std::string& after, size_t limit) {
    FS_ASSIGN(auto records, list_parties(*impl_->database, after, limit));
    std::vector<PartyReport> reports;
    const std::lock_guard hold(impl_->mutex);
    const int64_t now_us = impl_->clock.steady_us();
    for (PartyRecord& record : records) {
        const auto contact = impl_->contacts.find(record.name);
        const bool connected =
            contact != impl_->contacts.end() && now_us - contact->second.heard_us < kAgentLostUs;
        if (contact != impl_->contacts.end())
            record.last_seen = {impl_->clock.now().us - (now_us - contact->second.heard_us)};
        PartyReport report{std::move(record), connected, {}, {}};
        if (connected) report.clock_ahead_us = contact->second.clock_ahead_us;
        if (connected) report.load = contact->second.load;
        reports.push_back(std::move(report));
    }
    return reports;
}

void Vault::event(Severity severity, const std::string& code, const ItemRecord* item,
                  const std::string& cause, const std::string& remedy) {
    EventRecord record;
    record.severity = severity;
    record.code = code;
    if (item != nullptr) {
        record.item = item->id;
        record.item_name = item->name;
    }
    record.cause = cause;
    record.remedy = remedy;
    const std::string who = item == nullptr ? std::string() : "'" + item->name + "': ";
    log::About whose = item == nullptr ? log::About{} : about(*item);
    whose.code = code;
    if (severity == Severity::kInformation)
        log::info("vault", whose, "{}{}", who, cause);
    else
        log::warn("vault", whose, "{}{}", who, cause);
    if (auto added = add_event(*impl_->database, record); !added)
        log::error("vault", about(added.error()), "an event could not be kept: {}",
                   added.error().to_string());
}

}  // namespace farshore
