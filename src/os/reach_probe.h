// Whether a peer can be reached, step by step, so that the step that fails can be named: name
// resolution, TCP (through a proxy's CONNECT where there is one), TLS, clock, one HTTP request.
//
// Plain calls that block, a step for at most kReachStepUs (name resolution: as long as the system's
// resolver takes). Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/seams.h"
#include "base/types.h"
#include "os/http.h"

namespace farshore {

inline constexpr int64_t kReachStepUs = 10'000'000;

enum class ReachState : uint8_t { kOk, kWarning, kFailed };

struct ReachStep {
    std::string name;  // resolve, connect, tls, clock, request, ...
    ReachState state = ReachState::kOk;
    std::string detail;
    std::string remedy;           // empty: none needed
    Code code = Code::kInternal;  // of a failed one
    int64_t ms = 0;

    static ReachStep ok(std::string name, std::string detail);
    static ReachStep warning(std::string name, std::string detail, std::string remedy);
    static ReachStep failed(std::string name, const Error& error);
};

// The peer's clock against ours: a warning above 2 s, a failure (kUnauthenticated, as signatures
// and certificates are refused then) above 60 s.
ReachStep judge_clock(TimePoint peer, TimePoint ours);
// A verified certificate that ends at `not_after`: a warning under 14 days.
ReachStep judge_certificate(std::string_view version, std::string_view name, TimePoint not_after,
                            TimePoint now);

struct ReachAnswer {
    std::vector<ReachStep> steps;  // up to the first that failed
    HttpResponse response;         // of the request, when it was answered

    bool ok() const;
};

// resolve, connect, tls (of https) and clock of `url`, by a GET of it; what its answer means is for
// the caller. With `client.proxy` the proxy resolves the name.
ReachAnswer probe_reach(const std::string& url, const HttpClientOptions& client,
                        const Clock& clock);
// resolve and connect of "http://HOST:PORT".
ReachAnswer probe_proxy(const std::string& url, const Clock& clock);
// Whether "ADDR:PORT" is free to listen on: bound and released. kAlreadyExists, kInvalidArgument,
// kUnavailable (no such address here).
Status probe_listen(const std::string& address);
// Whether another process holds the InstanceLock at `path`; makes no file.
bool instance_lock_held(const std::string& path);

}  // namespace farshore
