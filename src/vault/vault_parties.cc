// Certificates of parties that go on: renewed by themselves, and refused when they were removed.
#include <fmt/core.h>

#include "meta/certificates.h"
#include "meta/parties.h"
#include "vault/vault_impl.h"

namespace farshore {

Result<std::vector<std::string>> Vault::refused_agents(const std::vector<std::string>& agents) {
    std::vector<std::string> refused;
    for (const std::string& name : agents) {
        const auto party = get_party(*impl_->database, name);
        if (party ? party->kind != PartyKind::kAgent : party.error().code() == Code::kNotFound)
            refused.push_back(name);
        else if (!party)
            return tl::unexpected(party.error());
    }
    return refused;
}

Result<std::string> Vault::renew(const std::string& name, const std::string& request_pem) {
    FS_ASSIGN(PartyRecord party, check_party(name));
    FS_ASSIGN(
        const std::string certificate_pem,
        impl_->authority->issue(request_pem, {.common_name = name, .now = impl_->clock.now()}));
    FS_ASSIGN(const CertificateInfo certificate, inspect_certificate(certificate_pem));
    party.fingerprint = certificate.fingerprint_hex();
    FS_TRY(enrol_party(*impl_->database, party));
    FS_TRY(keep_certificate(*impl_->database, name, certificate.not_after));
    event(Severity::kInformation, "certificate-renewed", nullptr,
          fmt::format("the certificate of {} '{}' was renewed, until {}",
                      party_kind_name(party.kind), name, to_rfc3339(certificate.not_after)));
    return certificate_pem + authority_pem();
}

Status Vault::warn_of_certificates() {
    FS_ASSIGN(const auto ending,
              farshore::warn_of_certificates(*impl_->database,
                                             {impl_->clock.now().us + kCertificateWarnUs}));
    for (const EndingCertificate& one : ending)
        event(
            Severity::kWarning, "certificate-ending", nullptr,
            fmt::format("the certificate of {} '{}' ends at {}, and it has not asked for a new one",
                        party_kind_name(one.kind), one.name, to_rfc3339(one.until)),
            "start it, or look at its log: it renews by itself; after that time enrol it anew");
    return {};
}

}  // namespace farshore
