#include "meta/database.h"

#include <fmt/core.h>

#include "meta/item_memory.h"
#include "meta/migrations.h"
#include "meta/sql.h"

namespace farshore {
namespace {

// SOCI prepares one statement at a time.
void execute_script(soci::session& session, const Backend& backend, std::string_view script) {
    size_t from = 0;
    for (size_t end = script.find(';'); end != std::string_view::npos;
         from = end + 1, end = script.find(';', from))
        session << backend.translate(std::string(script.substr(from, end - from)));
}

Result<int> migrate(SqlSession& session, Backend& backend, const std::string& place,
                    TimePoint now) {
    FS_TRY(backend.take(session.raw()));
    session << backend.translate(
        "CREATE TABLE IF NOT EXISTS schema_migrations (version INTEGER PRIMARY KEY NOT NULL, "
        "name TEXT NOT NULL, hash TEXT NOT NULL, applied_us BIGINT NOT NULL)");
    int there = 0;
    session.raw() << "SELECT coalesce(max(version), 0) FROM schema_migrations", soci::into(there);
    const int ours = migrations().back().version;
    if (there > ours)
        return fail(
            Code::kNewerVersion,
            fmt::format("{} has schema {}, this version knows up to {}", place, there, ours),
            "start the newer version of Farshore that wrote it; there is no way back");
    for (const Migration& migration : migrations()) {
        const std::string hash = fmt::format("{:016x}", migration_hash(migration.sql));
        if (migration.version <= there) {
            std::string applied;
            select<std::string>(
                session, "SELECT hash FROM schema_migrations WHERE version = :version",
                [&](const std::string& text) { applied = text; }, migration.version);
            if (applied != hash)
                return fail(
                    Code::kCorrupt,
                    fmt::format("schema {} in {} is not the one of this program", migration.version,
                                place),
                    "start the build that wrote it, or rebuild the database from the store");
            continue;
        }
        execute_script(session.raw(), backend, migration.sql);
        execute(session,
                "INSERT INTO schema_migrations (version, name, hash, applied_us) "
                "VALUES (:version, :name, :hash, :applied)",
                migration.version, migration.name, hash, now);
    }
    return ours;
}

}  // namespace

std::string upsert_text(std::string_view table, std::string_view keys, std::string_view columns) {
    std::string values, sets;
    const auto each = [&](std::string_view names, bool set) {
        for (size_t from = 0; from < names.size();) {
            const size_t end = std::min(names.find(", ", from), names.size());
            const std::string_view name = names.substr(from, end - from);
            values += fmt::format("{}:{}", values.empty() ? "" : ", ", name);
            if (set)
                sets += fmt::format("{}{} = excluded.{}", sets.empty() ? "" : ", ", name, name);
            from = end + 2;
        }
    };
    each(keys, false);
    each(columns, true);
    return fmt::format("INSERT INTO {} ({}, {}) VALUES ({}) ON CONFLICT ({}) DO UPDATE SET {}",
                       table, keys, columns, values, keys, sets);
}

uint32_t key_of_ledger(const std::string& ledger) {
    const auto hash = static_cast<uint32_t>(migration_hash(ledger) >> 33);  // 31 bits
    return std::max(hash, kWholeDatabase + 1);
}

std::string to_column(std::string_view text) {
    if (text.find('\0') != std::string_view::npos)
        throw std::invalid_argument("text must not hold a null character");
    return std::string(text);
}

std::string message_of(const std::exception& thrown) {
    const auto* known = dynamic_cast<const soci::soci_error*>(&thrown);
    return known != nullptr ? known->get_error_message() : thrown.what();
}

Database::Impl::Impl(std::unique_ptr<Backend> backend_in)
    : backend(std::move(backend_in)), writers(backend->sessions()), readers(backend->sessions()) {}
Database::Impl::~Impl() = default;

ItemsChange::~ItemsChange() { database_.impl().items->changed(ids_); }

Database::Database(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Database::~Database() = default;

Result<std::unique_ptr<Database>> Database::open(const DatabaseOptions& options, Clock& clock) {
    std::unique_ptr<Backend> backend;
    if (options.postgresql.empty()) {
        backend = sqlite_backend(options);
    } else {
        FS_ASSIGN(backend, postgres_backend(options));
    }
    auto made = std::make_unique<Impl>(std::move(backend));
    made->clock = &clock;
    made->place = made->backend->place();
    std::unique_ptr<Database> database(new Database(std::move(made)));
    Impl& impl = *database->impl_;
    const auto open_all = [&](SqlSessions& sessions, bool reading) -> Status {
        for (size_t i = 0; i < sessions.size(); ++i) {
            FS_TRY(impl.backend->open(sessions.at(i)));
            if (reading) impl.backend->make_reader(sessions.at(i));
        }
        return {};
    };
    try {
        FS_TRY(open_all(impl.writers, false));
    } catch (const std::exception& thrown) {
        return fail(impl.backend->error_of(thrown, "opening " + impl.place));
    }
    auto version = in_transaction(*database, "migrating", [&](SqlSession& sql) {
        return migrate(sql, *impl.backend, impl.place, clock.now());
    });
    if (!version) return tl::unexpected(std::move(version).error());
    impl.version = *version;
    impl.items = memory_of_items(*database);
    try {
        FS_TRY(open_all(impl.readers, true));
    } catch (const std::exception& thrown) {
        return fail(impl.backend->error_of(thrown, "opening " + impl.place));
    }
    return database;
}

void Database::Impl::make_ready(SqlSession& session, bool reader) {
    if (backend->is_alive(session.raw())) return;
    // They are of the server that is gone, and of SOCI's part that goes with it.
    session.statements().clear();
    backend->reconnect(session.raw());
    if (reader) backend->make_reader(session.raw());
}

// A server that was away is found at the first thing that is asked of it.
Status Database::Impl::begin(SqlSession& session, uint32_t key) {
    make_ready(session, false);
    try {
        return backend->begin(session.raw(), key, epoch);
    } catch (const std::exception&) {
        if (backend->is_alive(session.raw())) throw;
    }
    make_ready(session, false);
    return backend->begin(session.raw(), key, epoch);
}

Error Database::Impl::error_of(const std::exception& thrown, std::string_view what) const {
    if (dynamic_cast<const std::invalid_argument*>(&thrown) != nullptr)
        return Error(Code::kInvalidArgument, fmt::format("{}: {}", what, thrown.what()));
    return backend->error_of(thrown, what);
}

void Database::Impl::begin_reading(SqlSession& session) {
    make_ready(session, true);
    try {
        backend->begin_reading(session.raw());
        return;
    } catch (const std::exception&) {
        if (backend->is_alive(session.raw())) throw;
    }
    make_ready(session, true);
    backend->begin_reading(session.raw());
}

void Database::Impl::wrote(const std::optional<Error>& error, bool changed) {
    if (!error) {
        if (!changed) return;
    } else {
        const Code code = error->code();
        if (code != Code::kNoSpace && code != Code::kIo && code != Code::kForbidden &&
            code != Code::kCorrupt && code != Code::kUnavailable)
            return;
    }
    const std::lock_guard lock(trouble_mutex);
    trouble = error;
}

std::optional<Error> Database::trouble() const {
    const std::lock_guard lock(impl_->trouble_mutex);
    return impl_->trouble;
}

int Database::schema_version() const { return impl_->version; }
const std::string& Database::place() const { return impl_->place; }
bool Database::is_shared() const { return impl_->backend->is_shared(); }

Status Database::set_max_pages(uint32_t pages) {
    SqlSessions::Lease writer(impl_->writers);
    try {
        writer.session() << fmt::format("PRAGMA max_page_count = {}",
                                        pages == 0 ? 1073741823u : pages);
    } catch (const std::exception& thrown) {
        return fail(impl_->backend->error_of(thrown, "limiting"));
    }
    return {};
}

}  // namespace farshore
