// How long the certificates of agents and appliances are good for. Any thread may call; errors of
// the database as in database.h.
#pragma once

#include <string>
#include <vector>

#include "meta/records.h"

namespace farshore {

class Database;

struct EndingCertificate {
    std::string name;  // of the party
    PartyKind kind = PartyKind::kAgent;
    TimePoint until;
};

// A party has got one; also that it was not warned of.
Status keep_certificate(Database& database, const std::string& name, TimePoint until);
// 0: not known, of one that was given out by an older version.
Result<TimePoint> certificate_until(Database& database, const std::string& name);
// Those of enrolled parties that end before `before` and were not warned of, and that they are now.
Result<std::vector<EndingCertificate>> warn_of_certificates(Database& database, TimePoint before);

}  // namespace farshore
