// SQLite as the vault's database.
#include <fmt/core.h>
#include <soci/sqlite3/soci-sqlite3.h>

#include "meta/sql.h"

namespace farshore {
namespace {

soci::sqlite3_session_backend* backend_of(soci::session& session) {
    return static_cast<soci::sqlite3_session_backend*>(session.get_backend());
}

class SqliteBackend final : public Backend {
  public:
    explicit SqliteBackend(const DatabaseOptions& options) : options_(options) {}

    std::string place() const override { return options_.path; }
    bool is_shared() const override { return false; }
    size_t sessions() const override { return 1; }

    Status open(soci::session& session) override {
        if (options_.path.find('"') != std::string::npos)
            return fail(Code::kInvalidArgument, "the path of the database must not contain '\"'");
        session.open(soci::sqlite3, fmt::format("dbname=\"{}\"", options_.path));
        session << fmt::format("PRAGMA busy_timeout = {}", kDatabaseBusyMs);
        session << "PRAGMA journal_mode = WAL";
        session << "PRAGMA synchronous = FULL";
        session << "PRAGMA foreign_keys = ON";
        // Checkpoints keep the log short; the rest of the limit is a log that a burst has grown.
        session << "PRAGMA journal_size_limit = 67108864";
        if (options_.max_pages != 0)
            session << fmt::format("PRAGMA max_page_count = {}", options_.max_pages);
        return {};
    }

    void make_reader(soci::session& session) override { session << "PRAGMA query_only = ON"; }
    bool is_alive(soci::session&) noexcept override { return true; }
    void reconnect(soci::session&) override {}

    Status take(soci::session& session) override {
        long long owner = 0, tables = 0;
        session << "PRAGMA application_id", soci::into(owner);
        session << "SELECT count(*) FROM sqlite_master", soci::into(tables);
        if (owner != kDatabaseApplicationId && (owner != 0 || tables != 0))
            return fail(Code::kForeignStore,
                        fmt::format("{} is a database of another program", options_.path),
                        "give an empty data directory, or one of Farshore's");
        session << fmt::format("PRAGMA application_id = {}", kDatabaseApplicationId);
        return {};
    }

    std::string translate(std::string statement) const override { return statement; }

    Status begin(soci::session& session, uint32_t, uint64_t) override {
        session << "BEGIN IMMEDIATE";
        return {};
    }
    void begin_reading(soci::session& session) override { session << "BEGIN"; }
    void begin_alone(soci::session& session) override { session << "BEGIN IMMEDIATE"; }

    void roll_back(soci::session& session) noexcept override {
        try {
            // SQLite ends the transaction by itself after some errors (disk full): asking first
            // keeps SOCI from throwing over it.
            auto* backend = backend_of(session);
            if (backend == nullptr || sqlite_api::sqlite3_get_autocommit(backend->conn_) != 0)
                return;
            session << "ROLLBACK";
        } catch (const std::exception&) {
            // The next BEGIN reports it.
        }
    }

    std::optional<long long> changes(soci::session& session) noexcept override {
        auto* backend = backend_of(session);
        return backend == nullptr ? 0 : sqlite_api::sqlite3_total_changes(backend->conn_);
    }

    Error error_of(const std::exception& thrown, std::string_view what) const override {
        int result = SQLITE_ERROR;
        if (const auto* sqlite = dynamic_cast<const soci::sqlite3_soci_error*>(&thrown))
            result = sqlite->result();
        const std::string words = fmt::format("database, {}: {}", what, message_of(thrown));
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

  private:
    const DatabaseOptions options_;
};

}  // namespace

std::unique_ptr<Backend> sqlite_backend(const DatabaseOptions& options) {
    return std::make_unique<SqliteBackend>(options);
}

}  // namespace farshore
