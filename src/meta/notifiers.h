// Who is told of events, and how far each was told. Any thread may call.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "meta/records.h"

namespace farshore {

class Database;

inline constexpr size_t kMaxNotifierNameBytes = 32;
inline constexpr size_t kMaxNotifiers = 32;

enum class NotifierKind : uint8_t { kWebhook, kMail };
std::string_view notifier_kind_name(NotifierKind kind);  // "webhook", "mail"
Result<NotifierKind> notifier_kind_from_name(std::string_view name);

struct NotifierRecord {
    std::string name;
    NotifierKind kind = NotifierKind::kWebhook;
    std::string target;         // a URL; or addresses, separated by commas
    std::string settings_file;  // what of it is secret (vault/notifier.h); absolute
    Severity least = Severity::kWarning;
    uint64_t cursor = 0;  // the newest event that it was told, or that is below `least`
    TimePoint created;
    TimePoint delivered;             // when something arrived last; 0: never
    std::optional<ItemError> error;  // of the newest attempt
    TimePoint failing_since;
};

// [a-z0-9-], with a letter: kInvalidArgument.
Status check_notifier_name(const std::string& name);
// It is told of what happens from now on. kAlreadyExists, kLimitReached.
Result<NotifierRecord> add_notifier(Database& database, const NotifierRecord& record);
// kNotFound.
Result<NotifierRecord> get_notifier(Database& database, const std::string& name);
Result<std::vector<NotifierRecord>> list_notifiers(Database& database);  // by name
Status remove_notifier(Database& database, const std::string& name);
// Events up to `cursor` need not be told any more; `arrived`: some of them were.
Status notifier_told(Database& database, const std::string& name, uint64_t cursor, bool arrived);
Status notifier_failed(Database& database, const std::string& name, const ItemError& error);

}  // namespace farshore
