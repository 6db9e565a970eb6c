// Requests that carry an Idempotency-Key: the first is done and its answer kept, each later one
// with the same key and body gets that answer (meta/kept_answers.h). Answers may hold secrets that
// are shown once: in the database they are sealed under a key that is derived from the
// administrator's token, which is not in it; of a body only a keyed hash is there. Any thread may
// call.
#pragma once

#include <optional>
#include <string>

#include "base/secret.h"
#include "os/http.h"
#include "vault/access.h"

namespace farshore {

class Vault;

// An answer larger than this is not kept; its request is still not done twice.
inline constexpr size_t kMaxKeptAnswerBytes = 256u << 10;
inline constexpr std::string_view kReplayedHeader = "Idempotency-Replayed";

class Replays {
  public:
    // Borrows it.
    explicit Replays(Vault& vault);

    // What a request with that key was answered before; none: it is the first, and end() must be
    // called. kInvalidArgument (a key that is none), kKeyReused (another request had it),
    // kInProgress, kOutcomeUnknown (a vault that has ended since was doing it), kLimitReached.
    Result<std::optional<HttpResponse>> begin(const Identity& who, const HttpRequest& request);
    // `error`: what `response` says, if it says one. After one with which nothing was done, and
    // that another attempt may not meet, the key is free again.
    void end(const Identity& who, const HttpRequest& request, const HttpResponse& response,
             const std::optional<Error>& error);

  private:
    Secret derive(const char* purpose) const;
    Vault& vault_;
    const std::string run_;
};

}  // namespace farshore
