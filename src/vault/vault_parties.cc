// Certificates of parties that go on: renewed by themselves, and refused when they were removed.
#include <fmt/core.h>

#include <algorithm>

#include "base/party_names.h"
#include "meta/certificates.h"
#include "meta/parties.h"
#include "os/log.h"
#include "vault/vault_impl.h"

namespace farshore {

Result<std::vector<std::string>> Vault::refused_agents(const std::vector<std::string>& agents) {
    std::vector<std::string> refused;
    for (const std::string& name : agents) {
        if (is_compute_name(name)) {
            refused.push_back(name);
            continue;
        }
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
    impl_->forget_party(name);
    FS_TRY(keep_certificate(*impl_->database, name, certificate.not_after));
    event(Severity::kInformation, "certificate-renewed", nullptr,
          fmt::format("the certificate of {} '{}' was renewed, until {}",
                      party_kind_name(party.kind), name, to_rfc3339(certificate.not_after)));
    return certificate_pem + authority_pem();
}

Result<ComputeCredentials> Vault::issue_compute_credentials(const std::string& host) {
    const std::string name = compute_name(host);
    FS_ASSIGN(Credentials made,
              impl_->authority->issue_with_key(
                  {.common_name = name, .now = impl_->clock.now(), .client_only = true}));
    FS_ASSIGN(const CertificateInfo certificate, inspect_certificate(made.certificate_pem));
    event(Severity::kInformation, "compute-credentials-issued", nullptr,
          fmt::format("a certificate was issued for the QEMU of compute host '{}', until {}", host,
                      to_rfc3339(certificate.not_after)));
    return ComputeCredentials{std::move(made), name, certificate.fingerprint_hex(),
                              certificate.not_after};
}

Result<Credentials> Vault::issue_disk_server(const std::string& server_name) {
    // It lives as long as the machines that read through it, whatever that is.
    constexpr int64_t kDays = 1825;
    return impl_->authority->issue_with_key({.common_name = compute_name("/disks"),
                                             .alternative_names = {server_name},
                                             .now = impl_->clock.now(),
                                             .valid_days = kDays});
}

void Vault::Impl::forget_party(const std::string& name) {
    const std::lock_guard hold(mutex);
    parties.erase(name);
}

// When agents were heard of, for a vault that starts: all in one transaction, now and then.
void Vault::Impl::tend_contacts() {
    constexpr int64_t kSaveUs = 10'000'000;
    const int64_t now_us = clock.steady_us();
    if (now_us - contacts_saved_us < kSaveUs) return;
    std::vector<std::pair<std::string, TimePoint>> seen;
    {
        const std::lock_guard hold(mutex);
        for (const auto& [name, contact] : contacts)
            if (contact.heard_us > contacts_saved_us)
                seen.emplace_back(name, TimePoint{clock.now().us - (now_us - contact.heard_us)});
    }
    contacts_saved_us = now_us;
    if (seen.empty()) return;
    if (Status saved = parties_seen(*database, seen); !saved)
        log::debug("vault", "when agents were heard of: {}", saved.error().to_string());
}

// Many agents together ask no more often than the vault can answer beside its work.
int64_t Vault::Impl::sync_interval_us() {
    constexpr int64_t kEachUs = 1000, kLeastUs = 200'000, kMostUs = 10'000'000;
    const std::lock_guard hold(mutex);
    return std::clamp(static_cast<int64_t>(contacts.size()) * kEachUs, kLeastUs, kMostUs);
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
