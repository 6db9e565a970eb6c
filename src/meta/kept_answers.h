// What was answered to requests that carry a key of their caller's (Idempotency-Key), so that one
// that is sent again gets the same answer and does nothing twice. Any thread may call; errors of
// the database as in database.h. Answers come sealed: this folder cannot read them.
#pragma once

#include <optional>
#include <string>

#include "meta/records.h"

namespace farshore {

class Database;

inline constexpr int64_t kAnswerKeptUs = int64_t{24} * 3600 * 1'000'000;
inline constexpr size_t kMaxKeptAnswers = 100'000;
inline constexpr size_t kMaxRequestKeyBytes = 255;

struct KeptAnswer {
    std::string identity;  // whose key it is
    std::string key;       // 1 to kMaxRequestKeyBytes
    std::string method;    // what was asked for with it
    std::string target;
    std::string fingerprint;  // of the body
    std::string run;          // of the vault that began it
    uint32_t status = 0;      // of the answer; 0: it has not ended
    std::string answer;       // sealed; empty: none, or too large to be kept
    TimePoint created;
};

// Begins what `request` asks for: none when nobody has asked with that key within kAnswerKeptUs,
// else what is known of it, unchanged. kLimitReached.
Result<std::optional<KeptAnswer>> begin_answer(Database& database, const KeptAnswer& request);
Status keep_answer(Database& database, const std::string& identity, const std::string& key,
                   uint32_t status, const std::string& answer);
// Nothing was done: the key may be used again.
Status forget_answer(Database& database, const std::string& identity, const std::string& key);

}  // namespace farshore
