// The API of api/openapi.yaml over a vault, and the internal one that appliances use
// (/internal/v1/link/<method>, replicate/remote_link.h). Requests in, responses out: no sockets.
//
// Who may call: health and enrolment anybody; /internal a party whose certificate was verified and
// that is enrolled; everything else the administrator's bearer token. Any thread may call; long
// polls hold theirs for up to kMaxWaitS.
#pragma once

#include "os/http.h"
#include "vault/vault.h"

namespace farshore {

class Notifications;
class RecoveryDesk;

inline constexpr int64_t kMaxWaitS = 25;
inline constexpr size_t kMaxRequestBytes = 4u << 20;

class Api {
  public:
    // Borrows both; `recovery` may be null: its verbs are kUnsupported then.
    Api(Vault& vault, RecoveryDesk* recovery, Notifications* notifications = nullptr)
        : vault_(vault), recovery_(recovery), notifications_(notifications) {}
    HttpResponse handle(const HttpRequest& request);

  private:
    struct Call;
    Result<HttpResponse> route(const HttpRequest& request);
    Result<HttpResponse> link(const HttpRequest& request, const std::string& method);
    Result<HttpResponse> items(const Call& call);
    Result<HttpResponse> item(const Call& call);
    Result<HttpResponse> disks(const Call& call);
    Result<HttpResponse> points(const Call& call);
    Result<HttpResponse> holds(const Call& call);
    Result<HttpResponse> bookmarks(const Call& call);
    Result<HttpResponse> exports(const Call& call);
    Result<HttpResponse> jobs(const Call& call);
    Result<HttpResponse> parties(const Call& call);
    Result<HttpResponse> events(const Call& call);
    Result<HttpResponse> keys(const Call& call);
    Result<HttpResponse> stores(const Call& call);
    Result<HttpResponse> notifiers(const Call& call);
    Result<HttpResponse> nodes(const Call& call);
    Result<HttpResponse> alarms(const Call& call);
    Result<HttpResponse> copies(const Call& call);
    Result<HttpResponse> item_key(const Call& call);
    Result<HttpResponse> server();
    Result<HttpResponse> metrics();
    Result<RecoveryDesk*> desk();

    Vault& vault_;
    RecoveryDesk* recovery_;
    Notifications* notifications_;
};

// Compares in a time that does not depend on where the two differ.
bool same_secret(ByteView a, ByteView b);

}  // namespace farshore
