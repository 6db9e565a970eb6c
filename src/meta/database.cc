#include "meta/database.h"

#include <fmt/core.h>

#include "meta/migrations.h"
#include "meta/sql.h"

namespace farshore {
namespace {

Status open_session(soci::session& session, const DatabaseOptions& options) {
    if (options.path.find('"') != std::string::npos)
        return fail(Code::kInvalidArgument, "the path of the database must not contain '\"'");
    session.open(soci::sqlite3, fmt::format("dbname=\"{}\"", options.path));
    session << fmt::format("PRAGMA busy_timeout = {}", kDatabaseBusyMs);
    session << "PRAGMA journal_mode = WAL";
    session << "PRAGMA synchronous = FULL";
    session << "PRAGMA foreign_keys = ON";
    // Checkpoints keep the log short; the rest of the limit is a log that a burst has grown.
    session << "PRAGMA journal_size_limit = 67108864";
    if (options.max_pages != 0)
        session << fmt::format("PRAGMA max_page_count = {}", options.max_pages);
    return {};
}

// SOCI prepares one statement at a time.
void execute_script(soci::session& session, std::string_view script) {
    size_t from = 0;
    for (size_t end = script.find(';'); end != std::string_view::npos;
         from = end + 1, end = script.find(';', from))
        session << std::string(script.substr(from, end - from));
}

Status check_owner(soci::session& session, const std::string& path) {
    long long owner = 0, tables = 0;
    session << "PRAGMA application_id", soci::into(owner);
    session << "SELECT count(*) FROM sqlite_master", soci::into(tables);
    if (owner == kDatabaseApplicationId || (owner == 0 && tables == 0)) return {};
    return fail(Code::kForeignStore, fmt::format("{} is a database of another program", path),
                "give an empty data directory, or one of Farshore's");
}

Result<int> migrate(soci::session& session, const std::string& path, TimePoint now) {
    session
        << "CREATE TABLE IF NOT EXISTS schema_migrations (version INTEGER PRIMARY KEY NOT NULL, "
           "name TEXT NOT NULL, hash TEXT NOT NULL, applied_us BIGINT NOT NULL)";
    session << fmt::format("PRAGMA application_id = {}", kDatabaseApplicationId);
    int there = 0;
    session << "SELECT coalesce(max(version), 0) FROM schema_migrations", soci::into(there);
    const int ours = migrations().back().version;
    if (there > ours)
        return fail(Code::kNewerVersion,
                    fmt::format("{} has schema {}, this version knows up to {}", path, there, ours),
                    "start the newer version of Farshore that wrote it; there is no way back");
    for (const Migration& migration : migrations()) {
        const std::string hash = fmt::format("{:016x}", migration_hash(migration.sql));
        if (migration.version <= there) {
            std::string applied;
            session << "SELECT hash FROM schema_migrations WHERE version = :version",
                soci::into(applied), soci::use(migration.version);
            if (applied != hash)
                return fail(
                    Code::kCorrupt,
                    fmt::format("schema {} in {} is not the one of this program", migration.version,
                                path),
                    "start the build that wrote it, or rebuild the database from the store");
            continue;
        }
        execute_script(session, migration.sql);
        const std::string name(migration.name);
        const long long applied_us = now.us;
        session << "INSERT INTO schema_migrations (version, name, hash, applied_us) "
                   "VALUES (:version, :name, :hash, :applied)",
            soci::use(migration.version), soci::use(name), soci::use(hash), soci::use(applied_us);
    }
    return ours;
}

}  // namespace

Error error_from_soci(const std::exception& thrown, std::string_view what) {
    int result = SQLITE_ERROR;
    if (const auto* sqlite = dynamic_cast<const soci::sqlite3_soci_error*>(&thrown))
        result = sqlite->result();
    const std::string words = fmt::format("database, {}: {}", what, thrown.what());
    switch (result & 0xff) {
        case SQLITE_FULL:
            return Error(Code::kNoSpace, words, "free space where the data directory lies");
        case SQLITE_IOERR:
        case SQLITE_CANTOPEN:
            return Error(Code::kIo, words, "look at the disk where the data directory lies");
        case SQLITE_READONLY:
        case SQLITE_PERM:
        case SQLITE_AUTH:
            return Error(Code::kForbidden, words, "give this user the data directory");
        case SQLITE_CORRUPT:
        case SQLITE_NOTADB:
            return Error(Code::kCorrupt, words, "rebuild the database from the object store");
        case SQLITE_BUSY:
        case SQLITE_LOCKED:
            return Error(Code::kUnavailable, words,
                         "end the other program that holds the database");
        case SQLITE_CONSTRAINT:
            return Error(Code::kAlreadyExists, words);
        default:
            return Error(Code::kInternal, words);
    }
}

void roll_back(soci::session& sql) noexcept {
    try {
        // SQLite ends the transaction by itself after some errors (disk full): asking first keeps
        // SOCI from throwing over it.
        auto* backend = static_cast<soci::sqlite3_session_backend*>(sql.get_backend());
        if (backend == nullptr || sqlite_api::sqlite3_get_autocommit(backend->conn_) != 0) return;
        sql << "ROLLBACK";
    } catch (const std::exception&) {
        // The next BEGIN reports it.
    }
}

Database::Database(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Database::~Database() = default;

Result<std::unique_ptr<Database>> Database::open(const DatabaseOptions& options, Clock& clock) {
    auto impl = std::make_unique<Impl>();
    impl->clock = &clock;
    impl->path = options.path;
    try {
        FS_TRY(open_session(impl->writer, options));
        FS_TRY(check_owner(impl->writer, options.path));
    } catch (const std::exception& thrown) {
        return fail(error_from_soci(thrown, "opening " + options.path));
    }
    std::unique_ptr<Database> database(new Database(std::move(impl)));
    auto version = in_transaction(*database, "migrating", [&](soci::session& sql) {
        return migrate(sql, options.path, clock.now());
    });
    if (!version) return tl::unexpected(std::move(version).error());
    database->impl_->version = *version;
    try {
        FS_TRY(open_session(database->impl_->reader, options));
        database->impl_->reader << "PRAGMA query_only = ON";
    } catch (const std::exception& thrown) {
        return fail(error_from_soci(thrown, "opening " + options.path));
    }
    return database;
}

long long Database::Impl::changes() {
    auto* backend = static_cast<soci::sqlite3_session_backend*>(writer.get_backend());
    return backend == nullptr ? 0 : sqlite_api::sqlite3_total_changes(backend->conn_);
}

void Database::Impl::wrote(std::optional<Error> error, long long changes_before) {
    if (!error) {
        if (changes() == changes_before) return;
    } else {
        const Code code = error->code();
        if (code != Code::kNoSpace && code != Code::kIo && code != Code::kForbidden &&
            code != Code::kCorrupt)
            return;
    }
    const std::lock_guard lock(trouble_mutex);
    trouble = std::move(error);
}

std::optional<Error> Database::trouble() const {
    const std::lock_guard lock(impl_->trouble_mutex);
    return impl_->trouble;
}

int Database::schema_version() const { return impl_->version; }

Status Database::set_max_pages(uint32_t pages) {
    const std::lock_guard lock(impl_->write_mutex);
    try {
        impl_->writer << fmt::format("PRAGMA max_page_count = {}",
                                     pages == 0 ? 1073741823u : pages);
    } catch (const std::exception& thrown) {
        return fail(error_from_soci(thrown, "limiting"));
    }
    return {};
}

}  // namespace farshore
