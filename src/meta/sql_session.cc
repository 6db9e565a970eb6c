#include "meta/sql_session.h"

namespace farshore {

std::unique_ptr<SqlStatement> SqlStatements::take(const std::string& text) {
    const auto found = kept_.find(text);
    if (found == kept_.end()) return nullptr;
    auto statement = std::move(found->second);
    kept_.erase(found);
    return statement;
}

void SqlStatements::put(std::string text, std::unique_ptr<SqlStatement> statement) noexcept {
    try {
        if (kept_.size() >= kMost) kept_.clear();
        kept_.insert_or_assign(std::move(text), std::move(statement));
    } catch (const std::exception&) {
        // No memory: it is compiled again the next time.
    }
}

}  // namespace farshore
