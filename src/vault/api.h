// The API of api/openapi.yaml over a vault, and the internal one that appliances use
// (/internal/v1/link/<method>, replicate/remote_link.h). Requests in, responses out: no sockets.
//
// Who may call: health, enrolment and login anybody; /internal a party whose certificate was
// verified and that is enrolled; everything else whose role and scope the table of vault/access.h
// lets. What changes something, and what was refused, is written to the audit. Any thread may call;
// long polls hold theirs for up to kMaxWaitS. The version of what a path names and If-Match, and
// Idempotency-Key: api_match.cc.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <mutex>

#include "os/http.h"
#include "os/metrics_text.h"
#include "vault/access_desk.h"
#include "vault/change_feed.h"
#include "vault/replays.h"
#include "vault/vault.h"

namespace farshore {

class DrillDesk;
class IdTokens;
class JsonFields;
class MetricsText;
class Notifications;
class PlanDesk;
class RecoveryDesk;

inline constexpr int64_t kMaxWaitS = 25;
inline constexpr size_t kMaxRequestBytes = 4u << 20;

class Api {
  public:
    // Borrows both; `recovery` may be null: its verbs are kUnsupported then.
    // `id_tokens` null: nobody logs in by a provider.
    Api(Vault& vault, RecoveryDesk* recovery, Notifications* notifications = nullptr,
        IdTokens* id_tokens = nullptr, PlanDesk* plans = nullptr, DrillDesk* drills = nullptr)
        : vault_(vault),
          recovery_(recovery),
          notifications_(notifications),
          id_tokens_(id_tokens),
          plans_(plans),
          drills_(drills),
          access_(vault),
          replays_(vault),
          feed_(vault, access_) {}
    HttpResponse handle(const HttpRequest& request);

  private:
    struct Call;
    Result<HttpResponse> route(const HttpRequest& request, Attempt& attempt);
    Result<HttpResponse> dispatch(Call& call);
    // dispatch() once for each Idempotency-Key, and after what If-Match says.
    Result<HttpResponse> dispatch_once(Call& call);
    Result<HttpResponse> dispatch_matched(Call& call);
    // The version of what the path names; none: it has none.
    Result<std::optional<std::string>> current_tag(const Call& call);
    Result<HttpResponse> link(const HttpRequest& request, const std::string& method,
                              Attempt& attempt);
    Result<HttpResponse> enrol(const Call& call);
    Result<HttpResponse> login(const Call& call);
    Result<HttpResponse> login_provided(const Call& call);
    Result<HttpResponse> me(const Call& call);
    Result<HttpResponse> users(const Call& call);
    Result<HttpResponse> access_tokens(const Call& call);
    Result<HttpResponse> audit(const Call& call);
    // Of what the caller asks for whether he may see it; else it is not there.
    Status check_item(const Call& call, const std::string& name);
    Status check_item(const Call& call, const std::optional<ItemId>& item, const Error& none);
    Status check_seed(const Call& call, const std::string& seed);
    // What of a request stands in the audit.
    static void describe(Call& call);
    Result<HttpResponse> items(const Call& call);
    Result<HttpResponse> item(const Call& call);
    Result<HttpResponse> disks(const Call& call);
    Result<HttpResponse> changes(const Call& call);
    Result<HttpResponse> policies(const Call& call);
    Result<HttpResponse> groups(const Call& call);
    Result<HttpResponse> group_points(const Call& call);
    Result<std::vector<ItemRecord>> named_items(const Call& call, const JsonFields& fields);
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
    Result<HttpResponse> appliances(const Call& call);
    Result<HttpResponse> sites(const Call& call);
    Result<HttpResponse> networks(const Call& call);
    Result<HttpResponse> item_appliance(const Call& call);
    Result<HttpResponse> health_limits(const Call& call);
    Result<HttpResponse> copies(const Call& call);
    Result<HttpResponse> way_home(const Call& call);
    Result<HttpResponse> states(const Call& call);
    Result<HttpResponse> item_key(const Call& call);
    Result<HttpResponse> plan(const Call& call);
    Result<HttpResponse> recovery_plans(const Call& call);
    Result<HttpResponse> plan_runs(const Call& call);
    Result<HttpResponse> plan_callbacks(const Call& call);
    Result<HttpResponse> drills(const Call& call);
    Result<HttpResponse> item_drills(const Call& call);
    Result<HttpResponse> nics(const Call& call);
    Result<HttpResponse> compute_hosts(const Call& call);
    Result<HttpResponse> item_compute(const Call& call);
    Result<HttpResponse> server(const Call& call);
    Result<HttpResponse> metrics(const Call& call);
    // Of each item that the caller may see, by name.
    Status each_item(const Call& call, const std::function<void(const ItemReport&)>& each);
    Status add_rows(const Call& call, MetricsText& text);
    Result<RecoveryDesk*> desk();

    Vault& vault_;
    RecoveryDesk* recovery_;
    Notifications* notifications_;
    IdTokens* id_tokens_;
    PlanDesk* plans_;
    DrillDesk* drills_;
    AccessDesk access_;
    Replays replays_;
    ChangeFeed feed_;
    // Those who change one resource take turns, so that nothing comes between the look at its
    // version and the change. Of one resource always the same; two may share one.
    std::array<std::mutex, 64> turns_;
    std::array<std::atomic<uint64_t>, 5> answered_{};  // by the class of the status
    DurationHistogram read_took_, change_took_, party_took_;
};

// Compares in a time that does not depend on where the two differ.
bool same_secret(ByteView a, ByteView b);

}  // namespace farshore
