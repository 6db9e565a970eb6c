// Sessions of a database with the statements that they have compiled: most of a small statement's
// time would go into compiling it. Private to src/meta.
//
// A session belongs to one thread at a time, from its lease on until the lease's end.
#pragma once

#include <soci/soci.h>

#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

namespace farshore {

// A compiled statement, of whatever columns.
class SqlStatement {
  public:
    SqlStatement() = default;
    virtual ~SqlStatement() = default;
    SqlStatement(const SqlStatement&) = delete;
    SqlStatement& operator=(const SqlStatement&) = delete;
};

// With the places its columns are read into and its parameters are taken from.
template <typename Row, typename Values>
class SqlStatementOf final : public SqlStatement {
  public:
    // Throws what SOCI throws. `session` outlives this.
    SqlStatementOf(soci::session& session, const std::string& text, const Values& first)
        : values(first), statement_(session) {
        const auto into = [&](auto&... column) { (statement_.exchange(soci::into(column)), ...); };
        const auto use = [&](auto&... value) { (statement_.exchange(soci::use(value)), ...); };
        std::apply(into, row);
        std::apply(use, values);
        statement_.alloc();
        statement_.prepare(text, soci::details::st_repeatable_query);
        statement_.define_and_bind();
    }
    // For one that gives no rows; returns how many it changed.
    long long execute() {
        statement_.execute(true);
        return static_cast<long long>(statement_.get_affected_rows());
    }
    // Calls `on_row` when `row` has the next one, until there is none.
    template <typename OnRow>
    void fetch(OnRow&& on_row) {
        statement_.execute(false);
        while (statement_.fetch()) on_row();
    }

    // What it holds on to until it runs again.
    size_t text_bytes() const {
        const auto of = [](const auto& column) -> size_t {
            if constexpr (std::is_same_v<std::decay_t<decltype(column)>, std::string>)
                return column.capacity();
            else
                return 0;
        };
        const auto sum = [&](const auto&... columns) { return (size_t{0} + ... + of(columns)); };
        return std::apply(sum, row) + std::apply(sum, values);
    }

    Row row;
    Values values;

  private:
    soci::statement statement_;
};

// The statements of one session, by their text.
class SqlStatements {
  public:
    // Then all are compiled again: texts with every set of filters are more than are used often.
    static constexpr size_t kMost = 256;
    // One that holds more text than this is not kept.
    static constexpr size_t kMostTextBytes = 64u << 10;

    // Calls `run` with the statement. While it runs nobody else has it: one of the same text within
    // it is compiled of its own. One that threw is not used again.
    template <typename Row, typename Values, typename Run>
    auto with(soci::session& session, std::string_view text, const Values& values, Run&& run) {
        using Statement = SqlStatementOf<Row, Values>;
        std::string key(text);
        std::unique_ptr<SqlStatement> kept = take(key);
        auto* statement = dynamic_cast<Statement*>(kept.get());
        if (statement != nullptr) {
            statement->values = values;
        } else {
            auto made = std::make_unique<Statement>(session, key, values);
            statement = made.get();
            kept = std::move(made);
        }
        struct Return {
            SqlStatements& all;
            std::string& key;
            std::unique_ptr<SqlStatement>& kept;
            const Statement& statement;
            const int thrown = std::uncaught_exceptions();
            ~Return() {
                if (std::uncaught_exceptions() == thrown &&
                    statement.text_bytes() <= kMostTextBytes)
                    all.put(std::move(key), std::move(kept));
            }
        } back{*this, key, kept, *statement};
        return run(*statement);
    }
    void clear() { kept_.clear(); }
    size_t size() const { return kept_.size(); }

  private:
    std::unique_ptr<SqlStatement> take(const std::string& text);
    void put(std::string text, std::unique_ptr<SqlStatement> statement) noexcept;

    std::unordered_map<std::string, std::unique_ptr<SqlStatement>> kept_;
};

// What a transaction works on.
class SqlSession {
  public:
    SqlSession(soci::session& raw, SqlStatements& statements)
        : raw_(raw), statements_(statements) {}
    SqlSession(const SqlSession&) = delete;
    SqlSession& operator=(const SqlSession&) = delete;

    soci::session& raw() { return raw_; }
    SqlStatements& statements() { return statements_; }
    // A statement of its own, which is not kept.
    template <typename Text>
    auto operator<<(const Text& text) {
        return raw_ << text;
    }

  private:
    soci::session& raw_;
    SqlStatements& statements_;
};

// As many sessions as were said. Any thread.
class SqlSessions {
  public:
    explicit SqlSessions(size_t count) : pool_(count), statements_(count), count_(count) {}
    size_t size() const { return count_; }
    // Before any is leased, or when nobody has it.
    soci::session& at(size_t i) { return pool_.at(i); }
    SqlStatements& statements_of(size_t i) { return statements_[i]; }

    // Waits until one is free, and has it from then on.
    class Lease {
      public:
        explicit Lease(SqlSessions& all)
            : all_(all),
              position_(all.pool_.lease()),
              session_(all.pool_.at(position_), all.statements_[position_]) {}
        ~Lease() { all_.pool_.give_back(position_); }
        Lease(const Lease&) = delete;
        Lease& operator=(const Lease&) = delete;
        SqlSession& session() { return session_; }

      private:
        SqlSessions& all_;
        const size_t position_;
        SqlSession session_;
    };

  private:
    soci::connection_pool pool_;
    std::vector<SqlStatements> statements_;  // destroyed before the sessions that they are of
    const size_t count_;
};

}  // namespace farshore
