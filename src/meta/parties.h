// Use cases over parties (agents and appliances), enrolment tokens, events and settings. Any thread
// may call; errors of the database as in database.h.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "meta/records.h"

namespace farshore {

class Database;

inline constexpr size_t kMaxParties = 20'000;
inline constexpr size_t kMaxOpenTokens = 10'000;
inline constexpr size_t kMaxKeptEvents = 1'000'000;  // older ones are forgotten

// ---- enrolment -------------------------------------------------------------------------------

// A token is random and never stored; only its SHA-256 is. It admits one party, once, until it
// expires. `name` empty: the party may choose.
struct EnrolmentToken {
    Digest hash{};
    PartyKind kind = PartyKind::kAgent;
    std::string name;
    TimePoint expires;
};
Status add_token(Database& database, const EnrolmentToken& token);
// Uses it up. kUnauthenticated when it is unknown, used or expired (which of these is not told).
Result<EnrolmentToken> use_token(Database& database, const Digest& hash);

// Adds a party or replaces the certificate of one that enrols anew. kAlreadyExists when another
// kind of party has the name.
Status enrol_party(Database& database, const PartyRecord& party);
// kNotFound.
Result<PartyRecord> get_party(Database& database, const std::string& name);
Result<std::vector<PartyRecord>> list_parties(Database& database, const std::string& after,
                                              size_t limit);
// What it said last; `last_seen` becomes now. kNotFound.
Status party_seen(Database& database, const std::string& name, const std::string& instance,
                  const std::string& version, const std::string& status);
// When each was heard of last, in one transaction; those that are not known are left out.
Status parties_seen(Database& database, const std::vector<std::pair<std::string, TimePoint>>& seen);
Status remove_party(Database& database, const std::string& name);

// ---- events ----------------------------------------------------------------------------------

// Of its name; nothing: it is none.
std::optional<Severity> severity_from_name(std::string_view name);

// `id` and `time` are set.
Status add_event(Database& database, const EventRecord& event);
// Which events a list is of; what says nothing is empty.
struct EventQuery {
    std::optional<ItemId> item;
    std::string code;
    Severity least = Severity::kInformation;
};
// Newest first, with an id below `before` (0: from the newest).
Result<std::vector<EventRecord>> list_events(Database& database, uint64_t before, size_t limit,
                                             const EventQuery& query = {});
// Those with a larger id, oldest first.
Result<std::vector<EventRecord>> list_events_after(Database& database, uint64_t after,
                                                   size_t limit);

// ---- settings --------------------------------------------------------------------------------

// Empty when it is not set.
Result<std::string> get_setting(Database& database, const std::string& key);
Status set_setting(Database& database, const std::string& key, const std::string& value);

}  // namespace farshore
