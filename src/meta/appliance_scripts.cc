#include "meta/appliance_scripts.h"

#include <fmt/core.h>

#include "meta/sql.h"

namespace farshore {
namespace {

using L = long long;
using T = std::string;

template <typename... Args>
std::vector<ApplianceScriptRecord> select_scripts(SqlSession& sql, std::string_view condition,
                                                  const Args&... args) {
    std::vector<ApplianceScriptRecord> scripts;
    select<T, T, T, L, L, T>(
        sql,
        "SELECT handle, appliance, document, taken, ending, outcome FROM appliance_scripts " +
            std::string(condition),
        [&](const T& handle, const T& appliance, const T& document, L taken, L ending,
            const T& outcome) {
            scripts.push_back({handle, appliance, document, taken != 0, ending != 0, outcome});
        },
        args...);
    return scripts;
}

Result<ApplianceScriptRecord> read_script(SqlSession& sql, const std::string& handle) {
    auto found = select_scripts(sql, "WHERE handle = :h", handle);
    if (found.empty())
        return fail(Code::kNotFound,
                    fmt::format("no appliance is to run '{}'", handle.substr(0, 64)));
    return std::move(found.front());
}

}  // namespace

Status add_appliance_script(Database& database, const ApplianceScriptRecord& script) {
    return in_transaction(
        database, "adding a script of an appliance", [&](SqlSession& sql) -> Status {
            if (!select_scripts(sql, "WHERE handle = :h", script.handle).empty()) return {};
            const L taken = script.taken ? 1 : 0, ending = script.ending ? 1 : 0;
            execute(sql,
                    "INSERT INTO appliance_scripts(handle, appliance, document, taken, ending, "
                    "outcome) VALUES (:h, :a, :d, :t, :e, :o)",
                    script.handle, script.appliance, script.document, taken, ending,
                    script.outcome);
            return {};
        });
}

Result<ApplianceScriptRecord> get_appliance_script(Database& database, const std::string& handle) {
    return in_one_read(database, "reading a script of an appliance",
                       [&](SqlSession& sql) { return read_script(sql, handle); });
}

Result<std::vector<ApplianceScriptRecord>> scripts_of_appliance(Database& database,
                                                                const std::string& appliance,
                                                                size_t most) {
    return in_one_read(database, "reading an appliance's scripts",
                       [&](SqlSession& sql) -> Result<std::vector<ApplianceScriptRecord>> {
                           const L limit = static_cast<L>(most);
                           return select_scripts(
                               sql, "WHERE appliance = :a ORDER BY taken DESC, handle LIMIT :m",
                               appliance, limit);
                       });
}

Result<ApplianceScriptRecord> change_appliance_script(
    Database& database, const std::string& handle,
    const std::function<Status(ApplianceScriptRecord&)>& change) {
    return in_transaction(
        database, "changing a script of an appliance",
        [&](SqlSession& sql) -> Result<ApplianceScriptRecord> {
            FS_ASSIGN(ApplianceScriptRecord script, read_script(sql, handle));
            FS_TRY(change(script));
            const L taken = script.taken ? 1 : 0, ending = script.ending ? 1 : 0;
            execute(sql,
                    "UPDATE appliance_scripts SET taken = :t, ending = :e, outcome = :o "
                    "WHERE handle = :h",
                    taken, ending, script.outcome, handle);
            return script;
        });
}

Result<std::vector<std::string>> appliance_script_handles(Database& database) {
    return in_one_read(database, "listing scripts of appliances",
                       [&](SqlSession& sql) -> Result<std::vector<std::string>> {
                           std::vector<std::string> handles;
                           select<T>(sql, "SELECT handle FROM appliance_scripts ORDER BY handle",
                                     [&](const T& handle) { handles.push_back(handle); });
                           return handles;
                       });
}

Status drop_appliance_script(Database& database, const std::string& handle) {
    return in_transaction(
        database, "forgetting a script of an appliance", [&](SqlSession& sql) -> Status {
            execute(sql, "DELETE FROM appliance_scripts WHERE handle = :h", handle);
            return {};
        });
}

}  // namespace farshore
