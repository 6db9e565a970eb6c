#include "os/certificate_keeper.h"

#include "os/log.h"

namespace farshore {

CertificateKeeper::CertificateKeeper(std::string name, Clock& clock, std::string certificate_pem,
                                     Renew renew, Use use)
    : name_(std::move(name)),
      clock_(clock),
      certificate_pem_(std::move(certificate_pem)),
      renew_(std::move(renew)),
      use_(std::move(use)) {
    if (const auto info = inspect_certificate(certificate_pem_)) until_us_ = info->not_after.us;
}

CertificateKeeper::~CertificateKeeper() {
    if (thread_) thread_->stop();
}

void CertificateKeeper::start(int64_t interval_us) {
    thread_ = std::make_unique<ThreadExecutor>("certificate");
    thread_->post([this, interval_us] { round(interval_us); });
}

void CertificateKeeper::round(int64_t interval_us) {
    auto renewed = look();
    if (!renewed)
        log::warn("certificate", "that of '{}' was not renewed: {}", name_,
                  renewed.error().to_string());
    else if (*renewed)
        log::info("certificate", "that of '{}' was renewed", name_);
    thread_->post_after_us(interval_us, [this, interval_us] { round(interval_us); });
}

Result<bool> CertificateKeeper::look() {
    FS_ASSIGN(const CertificateInfo info, inspect_certificate(certificate_pem_));
    if (!certificate_wants_renewal(info, clock_.now())) return false;
    FS_ASSIGN(const Credentials credentials, renew_());
    FS_TRY(use_(credentials));
    certificate_pem_ = credentials.certificate_pem;
    if (const auto now = inspect_certificate(certificate_pem_)) until_us_ = now->not_after.us;
    return true;
}

}  // namespace farshore
