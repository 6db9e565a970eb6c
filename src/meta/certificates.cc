#include "meta/certificates.h"

#include "meta/sql.h"

namespace farshore {

Status keep_certificate(Database& database, const std::string& name, TimePoint until) {
    return in_transaction(database, "a party's certificate", [&](SqlSession& sql) -> Status {
        execute(sql,
                "INSERT INTO party_certificates (name, until_us, warned_us) VALUES (:n, :u, 0) ON "
                "CONFLICT(name) DO UPDATE SET until_us = excluded.until_us, warned_us = 0",
                name, until);
        return {};
    });
}

Result<TimePoint> certificate_until(Database& database, const std::string& name) {
    return in_snapshot(database, "reading a certificate's end",
                       [&](SqlSession& sql) -> Result<TimePoint> {
                           TimePoint until;
                           select<long long>(
                               sql, "SELECT until_us FROM party_certificates WHERE name = :n",
                               [&](long long us) { until.us = us; }, name);
                           return until;
                       });
}

Result<std::vector<EndingCertificate>> warn_of_certificates(Database& database, TimePoint before) {
    return in_transaction(
        database, "certificates that end",
        [&](SqlSession& sql) -> Result<std::vector<EndingCertificate>> {
            std::vector<EndingCertificate> ending;
            select<std::string, std::string, long long>(
                sql,
                "SELECT p.name, p.kind, c.until_us FROM party_certificates c JOIN parties p ON "
                "p.name = c.name WHERE c.until_us < :b AND c.warned_us = 0 ORDER BY p.name LIMIT "
                "1000",
                [&](const std::string& name, const std::string& kind, long long until) {
                    ending.push_back(
                        {name, party_kind_from_name(kind).value_or(PartyKind::kAgent), {until}});
                },
                before);
            for (const EndingCertificate& one : ending)
                execute(sql, "UPDATE party_certificates SET warned_us = :t WHERE name = :n",
                        database.impl().clock->now(), one.name);
            return ending;
        });
}

}  // namespace farshore
