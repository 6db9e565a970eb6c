// The provider that people may log in with: its settings, and its keys as they are now. Keys are
// asked for when a token names one that is not known, at most once a minute, and kept for a day.
//
// Any thread may call; check() may wait for the provider, up to ten seconds, one at a time.
#pragma once

#include <mutex>
#include <string>

#include "base/seams.h"
#include "vault/id_token.h"

namespace farshore {

class IdTokens {
  public:
    // Reads and checks the settings file. kNotFound, kMalformed, kInvalidArgument.
    static Result<std::unique_ptr<IdTokens>> open(const std::string& settings_file,
                                                  FileSystem& files, Clock& clock);

    const OidcSettings& settings() const { return settings_; }
    // As check_id_token(); kUnavailable and others of the provider when its keys cannot be had.
    Result<IdTokenUser> check(std::string_view token);

  private:
    IdTokens(OidcSettings settings, std::string authority_pem, FileSystem& files, Clock& clock)
        : settings_(std::move(settings)),
          authority_pem_(std::move(authority_pem)),
          files_(files),
          clock_(clock) {}
    Result<std::vector<SigningKey>> fetch() const;

    const OidcSettings settings_;
    const std::string authority_pem_;
    FileSystem& files_;
    Clock& clock_;
    std::mutex mutex_;
    std::vector<SigningKey> keys_;  // guarded by mutex_
    bool fetched_ = false;          // guarded by mutex_, as the next
    int64_t asked_us_ = 0;          // steady
};

}  // namespace farshore
