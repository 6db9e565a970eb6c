// Keeps a certificate good: looks at it each hour, and asks for a new one when less than a third of
// its life is left; until it has one it tries again each hour.
//
// Its thread runs from start() to the destructor, which waits for a renewal that is under way: what
// it waits for must be told to end first. look() may be called instead of start() (tests).
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "base/seams.h"
#include "os/pki.h"
#include "os/real.h"

namespace farshore {

inline constexpr int64_t kCertificateLookUs = 3'600'000'000;

class CertificateKeeper {
  public:
    // Makes new credentials and keeps them, so that the next start has them.
    using Renew = std::function<Result<Credentials>()>;
    // Takes them into use.
    using Use = std::function<Status(const Credentials&)>;

    // `name` is for the log. Borrows the clock.
    CertificateKeeper(std::string name, Clock& clock, std::string certificate_pem, Renew renew,
                      Use use);
    ~CertificateKeeper();

    void start(int64_t interval_us = kCertificateLookUs);
    // One look; whether there was a renewal. Errors of the two functions, and of a certificate that
    // cannot be read.
    Result<bool> look();
    // When the certificate that is in use ends; 0: it cannot be read. Any thread.
    TimePoint until() const { return {until_us_.load()}; }

  private:
    void round(int64_t interval_us);

    const std::string name_;
    Clock& clock_;
    std::string certificate_pem_;
    std::atomic<int64_t> until_us_{0};
    const Renew renew_;
    const Use use_;
    std::unique_ptr<ThreadExecutor> thread_;
};

}  // namespace farshore
