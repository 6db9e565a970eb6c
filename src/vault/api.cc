#include "vault/api.h"

#include <fmt/core.h>

#include <charconv>

#include "base/version.h"
#include "meta/drills.h"
#include "meta/items.h"
#include "meta/jobs.h"
#include "meta/json_fields.h"
#include "meta/parties.h"
#include "os/log.h"
#include "replicate/remote_link.h"
#include "vault/api_call.h"
#include "vault/group_views.h"
#include "vault/list_filters.h"
#include "vault/policy.h"
#include "vault/policy_desk.h"
#include "vault/recovery_desk.h"
#include "vault/tags.h"
#include "vault/vault_holds.h"
#include "vault/views.h"

namespace farshore {

bool same_secret(ByteView a, ByteView b) {
    // The length of the token is no secret.
    if (a.size() != b.size()) return false;
    volatile uint8_t difference = 0;
    for (size_t i = 0; i < a.size(); ++i)
        difference = static_cast<uint8_t>(difference | (a[i] ^ b[i]));
    return difference == 0;
}

namespace {

// An agent answers within a round or two, and the tap within two seconds.
constexpr int64_t kCancelWaitUs = 10'000'000;

std::vector<std::string> split(const std::string& path) {
    std::vector<std::string> parts;
    for (size_t from = 1; from <= path.size();) {
        const size_t end = std::min(path.find('/', from), path.size());
        parts.push_back(path.substr(from, end - from));
        from = end + 1;
    }
    return parts;
}

}  // namespace

Result<RecoveryDesk*> Api::desk() {
    if (recovery_ == nullptr)
        return fail(Code::kUnsupported, "this vault has no recovery of its own");
    return recovery_;
}

Result<HttpResponse> Api::route(const HttpRequest& request, Attempt& attempt) {
    if (request.body.size() > kMaxRequestBytes)
        return fail(Code::kTooLarge,
                    fmt::format("a request has at most {} bytes", kMaxRequestBytes));
    Call call{request, attempt, split(request.path), {}};
    if (call.part(0) == "internal") {
        if (call.part(1) == "v1" && call.part(2) == "link" && call.parts.size() == 4 &&
            call.is("POST"))
            return link(request, call.part(3), attempt);
        return no_such_resource(request);
    }
    if (request.path == "/v1/health" && (call.is("GET") || call.is("HEAD"))) {
        // Whether the database answers is what "serves" means.
        FS_TRY(get_setting(vault_.database(), "vault_id"));
        return answer({{"status", "ok"}});
    }
    const auto found = find_operation(request.method, call.parts);
    if (found) attempt.operation = found->operation;
    if (!found || found->operation->reach != Reach::kOpen) {
        FS_ASSIGN(attempt.who, access_.identify(request.bearer_token(), attempt.detail));
    }
    if (!found) return no_such_resource(request);
    attempt.item = found->item;
    FS_TRY(check_role(attempt.who, *found->operation));
    if (!found->item.empty()) FS_TRY(check_item(call, found->item));
    if (!request.body.empty()) {
        FS_ASSIGN(call.body, parse_json(request.body, "the request's body", kMaxRequestBytes));
    }
    describe(call);
    return found->operation->reach == Reach::kOpen ? dispatch(call) : dispatch_once(call);
}

// By the resource; what the table of vault/access.h lets through.
Result<HttpResponse> Api::dispatch(Call& call) {
    if (call.part(0) == "metrics") return metrics(call);
    call.parts.erase(call.parts.begin());
    const std::string& resource = call.part(0);
    if (resource == "enrol") return enrol(call);
    if (resource == "login" || resource == "logout") return login(call);
    if (resource == "me") return me(call);
    if (resource == "users") return users(call);
    if (resource == "access-tokens") return access_tokens(call);
    if (resource == "audit") return audit(call);
    if (resource == "server") return server(call);
    if (resource == "plan") return plan(call);
    if (resource == "recovery-plans") return recovery_plans(call);
    if (resource == "plan-runs") return plan_runs(call);
    if (resource == "drills" || resource == "drill-budget") return drills(call);
    if (resource == "plan-callbacks") return plan_callbacks(call);
    if (resource == "changes") return changes(call);
    if (resource == "policies") return policies(call);
    if (resource == "groups") return groups(call);
    if (resource == "items") return call.parts.size() <= 1 ? items(call) : item(call);
    if (resource == "bookmarks" || resource == "exports")
        return resource == "exports" ? exports(call) : bookmarks(call);
    if (resource == "jobs") return jobs(call);
    if (resource == "events") return events(call);
    if (resource == "keys") return keys(call);
    if (resource == "stores") return stores(call);
    if (resource == "compute-hosts") return compute_hosts(call);
    if (resource == "notifiers") return notifiers(call);
    if (resource == "nodes") return nodes(call);
    if (resource == "alarms") return alarms(call);
    if (resource == "appliances") return appliances(call);
    if (resource == "sites") return sites(call);
    if (resource == "networks") return networks(call);
    if (resource == "health-limits") return health_limits(call);
    if (resource == "agents" || resource == "enrolment-tokens") return parties(call);
    return no_such_resource(call.request);
}

Result<HttpResponse> Api::enrol(const Call& call) {
    FS_ASSIGN(const JsonFields fields, call.fields({"token", "request_pem"}));
    FS_ASSIGN(const std::string token, fields.required_text("token", 1024));
    FS_ASSIGN(const std::string request_pem, fields.required_text("request_pem", 64u << 10));
    FS_ASSIGN(const std::string certificate, vault_.enrol(token, request_pem));
    if (const auto info = inspect_certificate(certificate)) {
        call.attempt.who.kind = IdentityKind::kParty;
        call.attempt.who.name = info->common_name;
    }
    return answer({{"certificate_pem", certificate}});
}

Result<HttpResponse> Api::link(const HttpRequest& request, const std::string& method,
                               Attempt& attempt) {
    if (method != "enrol") {
        attempt.detail = "certificate of " + request.peer_certificate_name;
        if (request.peer_certificate_name.empty())
            return fail(Code::kUnauthenticated, "this needs the certificate of an appliance");
        FS_ASSIGN(const PartyRecord party, vault_.check_party(request.peer_certificate_name));
        if (party.kind != PartyKind::kAppliance)
            return fail(
                Code::kForbidden,
                fmt::format("'{}' is an agent; agents speak through an appliance", party.name));
    }
    if (method == "renew") {
        // Its own, or that of an agent, for which it speaks in everything else, too.
        FS_ASSIGN(const Json json,
                  parse_json(request.body, "the request's body", kMaxRequestBytes));
        FS_ASSIGN(const JsonFields fields, JsonFields::of(json, "body"));
        FS_ASSIGN(const std::string name, fields.required_text("party", 256));
        FS_ASSIGN(const PartyRecord party, vault_.check_party(name));
        if (name != request.peer_certificate_name && party.kind != PartyKind::kAgent)
            return fail(Code::kForbidden,
                        fmt::format("'{}' cannot renew the certificate of another appliance",
                                    request.peer_certificate_name));
    }
    if (method == "acquire-log" || method == "sync-appliance" || method == "report-trouble" ||
        method == "open-return" || method == "shared-point") {
        FS_ASSIGN(const Json json,
                  parse_json(request.body, "the request's body", kMaxRequestBytes));
        FS_ASSIGN(const JsonFields fields, JsonFields::of(json, "body"));
        FS_ASSIGN(const std::string name, fields.required_text("appliance", 256));
        if (name != request.peer_certificate_name)
            return fail(Code::kForbidden,
                        fmt::format("'{}' cannot speak as '{}'", request.peer_certificate_name,
                                    name.substr(0, 64)));
    }
    FS_ASSIGN(std::string body, serve_link(vault_, method, request.body));
    return HttpResponse::json(std::move(body));
}

// ---- items

Result<HttpResponse> Api::items(const Call& call) {
    if (call.is("GET")) {
        FS_ASSIGN(const size_t limit, call.limit());
        FS_ASSIGN(const ItemFilter filter, item_filter(call));
        return answer_page(
            "items", limit, call.query("after"),
            [&](const std::string& after, size_t rows) {
                return vault_.items(filter.query, filter.health, after, rows);
            },
            [&](const ItemReport& row) {
                return call.sees(row.record.id, row.record.name) && filter.matches(row);
            },
            item_text, [](const ItemReport& report) { return report.record.name; });
    }
    if (!call.is("POST")) return no_such_resource(call.request);
    FS_ASSIGN(const JsonFields fields,
              call.fields({"name", "qmp_socket", "agent", "disks", "devices", "seeds", "policy",
                           "policy_name", "wait_s"}));
    ProtectRequest protect;
    FS_ASSIGN(protect.name, fields.required_text("name", kMaxItemNameBytes));
    FS_ASSIGN(protect.qmp_socket, fields.text("qmp_socket", kMaxPathBytes));
    FS_ASSIGN(protect.agent, fields.text("agent", 64));
    FS_ASSIGN(const Json* disks, fields.array("disks", kMaxDisks));
    for (size_t i = 0; disks != nullptr && i < disks->size(); ++i) {
        if (!(*disks)[i].is_string()) return fields.wrong("disks", "must be a list of paths");
        protect.disks.push_back((*disks)[i].get<std::string>());
    }
    FS_ASSIGN(const Json* devices, fields.array("devices", kMaxDisks));
    for (size_t i = 0; devices != nullptr && i < devices->size(); ++i) {
        if (!(*devices)[i].is_string()) return fields.wrong("devices", "must be a list of paths");
        protect.devices.push_back((*devices)[i].get<std::string>());
    }
    FS_ASSIGN(const Json* seeds, fields.array("seeds", kMaxDisks));
    for (size_t i = 0; seeds != nullptr && i < seeds->size(); ++i) {
        if (!(*seeds)[i].is_string()) return fields.wrong("seeds", "must be a list of texts");
        protect.seeds.push_back((*seeds)[i].get<std::string>());
    }
    FS_ASSIGN(protect.policy_name, fields.text("policy_name", kMaxPolicyNameBytes));
    // An object without members says nothing.
    const Json* values = fields.find("policy");
    const bool own = values != nullptr && !(values->is_object() && values->empty());
    if (own && !protect.policy_name.empty())
        return fields.wrong("policy_name", "goes without policy");
    if (!own && protect.policy_name.empty()) protect.policy_name = kDefaultPolicy;
    if (!protect.policy_name.empty()) {
        FS_ASSIGN(const PolicyRecord policy, get_policy(vault_.database(), protect.policy_name));
        protect.policy = policy.values;
    }
    FS_ASSIGN(protect.policy, read_policy(fields, protect.policy));
    FS_ASSIGN(const uint64_t wait_s, fields.u64("wait_s", 30, 60));
    // Of a site's scope it is none yet: no appliance has it.
    if (!call.who().may_see(protect.name, protect.name))
        return fail(Code::kForbidden,
                    fmt::format("'{}' is not among the items that are yours", protect.name),
                    "an owner can change that: `farshore user set`");
    for (const std::string& seed : protect.seeds) FS_TRY(check_seed(call, seed));
    call.attempt.item = protect.name;
    FS_ASSIGN(ItemReport report, vault_.protect(protect));
    FS_ASSIGN(report, vault_.wait_for_item(
                          report.record.id,
                          std::min<int64_t>(static_cast<int64_t>(wait_s), kMaxWaitS) * 1'000'000,
                          [](const ItemReport& now) {
                              if (now.record.error) return true;
                              // Nothing is captured before it was read.
                              if (now.seed && now.seed->state < SeedState::kComparing) return true;
                              if (now.record.state == ItemState::kEnabling) return false;
                              return now.record.mode != CaptureMode::kInPath ||
                                     !now.record.nbd_socket.empty();
                          }));
    return tagged_text(call, item_text(report), tag_of(report.record), 201);
}

Result<HttpResponse> Api::item(const Call& call) {
    const std::string& name = call.part(1);
    const std::string& what = call.part(2);
    if (call.parts.size() == 2) {
        if (call.is("GET")) {
            FS_ASSIGN(const ItemReport report, vault_.item(name));
            return tagged_text(call, item_text(report), tag_of(report.record));
        }
        if (call.is("PATCH")) {
            FS_ASSIGN(const JsonFields fields, call.fields({"policy", "policy_name"}));
            FS_ASSIGN(const std::string follow, fields.text("policy_name", kMaxPolicyNameBytes));
            if (!follow.empty()) {
                if (fields.has("policy")) return fields.wrong("policy_name", "goes without policy");
                FS_ASSIGN(const ItemRecord item, find_item(vault_.database(), name));
                FS_TRY(give_policy(vault_, follow, {item}));
            } else {
                FS_TRY(vault_.change_policy(name, [&](const ItemRecord& item) {
                    return read_policy(fields, item.policy);
                }));
            }
            FS_ASSIGN(const ItemReport report, vault_.item(name));
            return tagged_text(call, item_text(report), tag_of(report.record));
        }
        if (call.is("DELETE")) {
            const bool force = call.query("force") == "true";
            if (recovery_ != nullptr) {
                FS_ASSIGN(const ItemReport report, vault_.item(name));
                FS_TRY(recovery_->prepare_unprotect(report.record, force));
            }
            FS_ASSIGN(const JobRecord job, vault_.unprotect(name, force));
            return answer(job_view(job), 202);
        }
        return no_such_resource(call.request);
    }
    if (what == "resynchronise" && call.parts.size() == 3 && call.is("POST")) {
        FS_ASSIGN(const JsonFields fields, call.fields({"when"}));
        FS_ASSIGN(const std::string when, fields.text("when", 32, "now"));
        if (when != "now" && when != "in-window")
            return fail(Code::kInvalidArgument, "when must be now or in-window");
        FS_ASSIGN(const ItemReport report, vault_.resynchronise(name, when == "in-window"));
        return HttpResponse::json(item_text(report), 202);
    }
    if (what == "seed" && call.parts.size() == 3 && call.is("POST")) {
        FS_ASSIGN(const JsonFields fields, call.fields({"action"}));
        FS_ASSIGN(const std::string action, fields.required_text("action", 64));
        FS_ASSIGN(const ItemReport report, vault_.decide_seed(name, action));
        return HttpResponse::json(item_text(report));
    }
    if (what == "disks") return disks(call);
    if (what == "drills" || what == "drill-policy") return item_drills(call);
    if (what == "nics") return nics(call);
    if (what == "compute") return item_compute(call);
    if (what == "key") return item_key(call);
    if (what == "resynchronise" && call.part(3) == "cancel" && call.parts.size() == 4 &&
        call.is("POST")) {
        FS_ASSIGN(const ItemReport report, vault_.cancel_resync(name, kCancelWaitUs));
        return HttpResponse::json(item_text(report));
    }
    if (what == "scrub" && call.parts.size() == 3) {
        if (call.is("GET")) {
            FS_ASSIGN(const ScrubReport report, vault_.scrub_report(name));
            return answer(scrub_view(report));
        }
        if (call.is("POST")) {
            FS_ASSIGN(const JobRecord job, vault_.scrub(name));
            return answer(job_view(job), 202);
        }
    }
    if (what == "points") return points(call);
    if (what == "holds") return holds(call);
    if (what == "copies") return copies(call);
    if (what == "cost" && call.parts.size() == 3 && call.is("GET")) {
        FS_ASSIGN(const ItemReport report, vault_.item(name));
        const ItemPolicy& policy = report.record.policy;
        FS_ASSIGN(const uint64_t window_s, call.number("window_s", policy.window_s, UINT32_MAX));
        const bool asked = call.request.query.contains("keep");
        FS_ASSIGN(const Json cost, cost_of(vault_, name, static_cast<uint32_t>(window_s),
                                           asked ? call.query("keep") : policy.keep));
        return answer(cost);
    }
    if (what == "bookmarks" && call.parts.size() == 3) return bookmarks(call);
    if (what == "exports" && call.parts.size() == 3) return exports(call);
    if (what == "materialise" && call.parts.size() == 3 && call.is("POST")) {
        FS_ASSIGN(const JsonFields fields, call.fields({"point", "copy", "to", "settings", "disk",
                                                        "replace", "throttle_bytes_per_s"}));
        MaterialiseRequest request;
        request.item = name;
        FS_ASSIGN(request.point, fields.required_text("point", 1024));
        FS_ASSIGN(request.copy, fields.text("copy", kMaxStoreNameBytes));
        FS_ASSIGN(request.target, fields.required_text("to", kMaxPathBytes + 64));
        FS_ASSIGN(request.settings_file, fields.text("settings", kMaxPathBytes));
        FS_ASSIGN(const uint64_t disk, fields.u64("disk", 0, kMaxDisks - 1));
        request.disk = static_cast<DiskIndex>(disk);
        FS_ASSIGN(request.replace_existing, fields.boolean("replace", false));
        FS_ASSIGN(request.throttle_bytes_per_s, fields.u64("throttle_bytes_per_s"));
        FS_ASSIGN(const JobRecord job, vault_.materialise(request));
        return answer(job_view(job), 202);
    }
    if (what == "appliance") return item_appliance(call);
    if (what == "return") return way_home(call);
    if (what == "states") return states(call);
    if (what == "failovers" && call.parts.size() == 3) {
        FS_ASSIGN(RecoveryDesk * recovery, desk());
        if (call.is("GET")) {
            FS_ASSIGN(const auto states, recovery->failovers(name));
            Json list = Json::array();
            for (const RecoveryState& state : states) list.push_back(failover_view(state));
            return answer({{"failovers", std::move(list)}});
        }
        if (call.is("POST")) {
            FS_ASSIGN(
                const JsonFields fields,
                call.fields({"action", "point", "copy", "shut_down", "planned", "power_off",
                             "timeout_s", "note", "id", "then", "after_s", "network", "compute"}));
            FS_ASSIGN(const std::string action, fields.required_text("action", 64));
            FS_ASSIGN(const std::string point, fields.text("point", 1024, "latest"));
            FS_ASSIGN(const std::string copy, fields.text("copy", kMaxStoreNameBytes));
            FS_ASSIGN(FailoverChoice choice, read_failover_choice(fields));
            FS_ASSIGN(choice.note, fields.text("note", kMaxRecoveryNoteBytes));
            FS_ASSIGN(choice.recovery, fields.text("id", 64));
            if (!choice.note.empty() && action != "test" && action != "start")
                return fields.wrong("note", "goes with test and start");
            const bool places = action == "test" || action == "start" || action == "move";
            if (choice.network && !places)
                return fields.wrong("network", "goes with test, start and move");
            if (!choice.compute.empty() && !places)
                return fields.wrong("compute", "goes with test, start and move");
            if (choice.undecided != Undecided::kWaits && action != "start")
                return fields.wrong("then", "goes with start");
            if (!choice.recovery.empty() && action != "cleanup")
                return fields.wrong("id", "goes with cleanup");
            FS_ASSIGN(const JobRecord job, recovery->failover(name, action, point, copy, choice));
            return answer(job_view(job), 202);
        }
    }
    if (what == "hydration" && call.parts.size() == 3 && call.is("POST")) {
        FS_ASSIGN(RecoveryDesk * recovery, desk());
        FS_ASSIGN(const JsonFields fields,
                  call.fields({"throttle_bytes_per_s", "directory", "format"}));
        RecoveryDesk::HydrationChoice choice;
        FS_ASSIGN(choice.bytes_per_s, fields.u64("throttle_bytes_per_s"));
        FS_ASSIGN(choice.directory, fields.text("directory", 1024));
        FS_ASSIGN(const std::string format, fields.text("format", 16, "qcow2"));
        FS_ASSIGN(choice.format, disk_format_from_name(format));
        FS_ASSIGN(const JobRecord job, recovery->hydrate(name, choice));
        return answer(job_view(job), 202);
    }
    return no_such_resource(call.request);
}

Result<HttpResponse> Api::holds(const Call& call) {
    const std::string& name = call.part(1);
    if (call.parts.size() == 3 && call.is("GET")) {
        FS_ASSIGN(const Json list, list_holds(vault_, name));
        return answer(list);
    }
    if (call.parts.size() == 3 && call.is("POST")) {
        FS_ASSIGN(const JsonFields fields, call.fields({"point", "reason"}));
        FS_ASSIGN(const std::string point, fields.text("point", 1024, "latest"));
        FS_ASSIGN(const std::string reason, fields.required_text("reason", kMaxHoldReasonBytes));
        FS_ASSIGN(const Json hold, place_hold(vault_, name, point, reason));
        return answer(hold, 201);
    }
    if (call.parts.size() == 4 && call.is("DELETE")) {
        FS_TRY(release_hold(vault_, name, call.part(3)));
        return nothing();
    }
    return no_such_resource(call.request);
}

Result<HttpResponse> Api::disks(const Call& call) {
    const std::string& name = call.part(1);
    if (call.parts.size() == 3 && call.is("POST")) {
        FS_ASSIGN(const JsonFields fields, call.fields({"path"}));
        FS_ASSIGN(const std::string path, fields.required_text("path", kMaxPathBytes));
        FS_ASSIGN(const ItemReport report, vault_.add_disk(name, path));
        return HttpResponse::json(item_text(report), 202);
    }
    if (call.parts.size() == 4 && call.is("DELETE")) {
        const std::string& text = call.part(3);
        unsigned index = kMaxDisks;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), index);
        if (error != std::errc() || end != text.data() + text.size() || index >= kMaxDisks)
            return fail(Code::kInvalidArgument,
                        fmt::format("'{}' is not a disk's index", text.substr(0, 40)),
                        fmt::format("a number from 0 to {}", kMaxDisks - 1));
        FS_ASSIGN(const ItemReport report, vault_.remove_disk(name, static_cast<DiskIndex>(index)));
        return HttpResponse::json(item_text(report), 202);
    }
    return no_such_resource(call.request);
}

// ---- points
// ----------------------------------------------------------------------------------------

Result<HttpResponse> Api::points(const Call& call) {
    if (!call.is("GET") || call.parts.size() > 4) return no_such_resource(call.request);
    FS_ASSIGN(const ItemRecord item, find_item(vault_.database(), call.part(1)));
    const std::string copy = call.query("copy");
    FS_ASSIGN(const auto replica, vault_.replica(item.id, copy));
    if (call.parts.size() == 4) {
        FS_ASSIGN(const ResolvedPoint point, replica->resolve(PointSpec::parse(call.part(3))));
        PointQuery exact;
        exact.from = exact.to = point.sequence;
        exact.limit = 1;
        FS_ASSIGN(const PointList named, replica->points(exact));
        for (const KeptRow& kept : named.kept)
            if (kept.sequence == point.sequence) return answer(kept_view(kept));
        FS_ASSIGN(const auto geometry, replica->geometry());
        Json json = !named.points.empty() && named.points.front().sequence == point.sequence
                        ? point_view(named.points.front())
                        : point_view(point.sequence, point.time);
        json["disks"] = point_disks_view(geometry, point.sequence);
        return answer(json);
    }
    PointQuery query;
    query.newest_first = true;
    FS_ASSIGN(query.limit, call.limit());
    query.label = call.query("label");
    if (const std::string kind = call.query("kind"); !kind.empty()) {
        FS_ASSIGN(query.kind, point_kind_from_name(kind));
    }
    FS_ASSIGN(const uint64_t before, call.number("before", 0, UINT64_MAX));
    if (before != 0) query.to = {before - 1};
    FS_ASSIGN(const PointList list, replica->points(query));
    Json points = Json::array();
    FS_ASSIGN(const auto geometry, replica->geometry());
    for (const PointRow& point : list.points) {
        points.push_back(point_view(point));
        points.back()["disks"] = point_disks_view(geometry, point.sequence);
    }
    // All of these are older.
    for (const KeptRow& kept : list.kept) {
        if (points.size() == query.limit) break;
        points.push_back(kept_view(kept));
    }
    FS_TRY(mark_shared_points(vault_.database(), item.id, points));
    Json gaps = Json::array();
    for (size_t i = 0; i + 1 < list.ranges.size(); ++i)
        gaps.push_back(
            {{"after", point_view(list.ranges[i].last, list.ranges[i].last_time)},
             {"before", point_view(list.ranges[i + 1].first, list.ranges[i + 1].first_time)}});
    FS_ASSIGN(const ReplicaStatus status, replica->status());
    if (status.gap_open && !list.ranges.empty())
        gaps.push_back(
            {{"after", point_view(list.ranges.back().last, list.ranges.back().last_time)}});
    if (drills_ != nullptr) {
        FS_ASSIGN(const auto tried, list_drills(vault_.database(), 0, kMaxKeptDrills, item.id));
        for (Json& point : points)
            for (const DrillRecord& drill : tried)
                if (drill.sequence.v == point["sequence"] &&
                    (drill.verdict == "good" || drill.verdict == "bad") && !point.contains("drill"))
                    point["drill"] = drill.verdict;
    }
    Json suspicious = Json::array();
    if (call.query("suspicious") == "true") {
        FS_ASSIGN(const ItemReport report, vault_.item(call.part(1)));
        FS_ASSIGN(const auto found, vault_.suspicious(report.record.id));
        for (const SuspiciousChange& one : found) {
            suspicious.push_back(suspicious_view(one));
            for (Json& point : points) {
                const auto time = from_rfc3339(point["time"].get<std::string>());
                if (time && *time >= one.change.from && *time < one.change.until)
                    point["suspicious"] = std::string(change_reason_name(one.change.reason));
            }
        }
    }
    const bool more = points.size() == query.limit && !points.empty();
    const uint64_t last = more ? points.back()["sequence"].get<uint64_t>() : 0;
    Json json{{"points", std::move(points)}, {"gaps", std::move(gaps)}};
    if (!list.ranges.empty())
        json["window"] = {
            {"oldest", point_view(list.ranges.front().first, list.ranges.front().first_time)},
            {"newest", point_view(list.ranges.back().last, list.ranges.back().last_time)}};
    if (call.query("suspicious") == "true") json["suspicious"] = std::move(suspicious);
    if (more) json["next"] = last;
    return answer(json);
}

Result<HttpResponse> Api::bookmarks(const Call& call) {
    if (call.part(0) == "bookmarks") {
        if (!call.is("GET") || call.parts.size() != 2) return no_such_resource(call.request);
        FS_ASSIGN(const int64_t wait_us, call.wait_us());
        FS_ASSIGN(const BookmarkReport now, vault_.bookmark(call.part(1), 0));
        FS_TRY(check_item(call, now.record.item,
                          Error(Code::kNotFound, fmt::format("there is no bookmark '{}'",
                                                             call.part(1).substr(0, 64)))));
        FS_ASSIGN(const BookmarkReport report, vault_.bookmark(call.part(1), wait_us));
        return answer(bookmark_view(report));
    }
    if (!call.is("POST")) return no_such_resource(call.request);
    FS_ASSIGN(const JsonFields fields, call.fields({"label", "wait_s", "kind"}));
    FS_ASSIGN(const std::string text, fields.required_text("label", kMaxLabelBytes));
    FS_ASSIGN(const uint64_t wait_s, fields.u64("wait_s", 30, 60));
    FS_ASSIGN(const std::string kind, fields.text("kind", 32, "bookmark"));
    FS_ASSIGN(const PointKind point, point_kind_from_name(kind));
    if (point == PointKind::kCrash) return fields.wrong("kind", "must be bookmark or application");
    FS_ASSIGN(BookmarkReport report, vault_.create_bookmark(call.part(1), text, point));
    FS_ASSIGN(report, vault_.bookmark(
                          report.record.id,
                          std::min<int64_t>(static_cast<int64_t>(wait_s), kMaxWaitS) * 1'000'000));
    return answer(bookmark_view(report), 201);
}

Result<HttpResponse> Api::exports(const Call& call) {
    FS_ASSIGN(RecoveryDesk * recovery, desk());
    if (call.part(0) == "items") {
        if (!call.is("POST")) return no_such_resource(call.request);
        FS_ASSIGN(const JsonFields fields, call.fields({"point", "socket", "disk", "copy"}));
        FS_ASSIGN(const std::string point, fields.required_text("point", 1024));
        FS_ASSIGN(const std::string socket, fields.required_text("socket", kMaxPathBytes));
        FS_ASSIGN(const uint64_t disk, fields.u64("disk", 0, kMaxDisks - 1));
        FS_ASSIGN(const std::string copy, fields.text("copy", kMaxStoreNameBytes));
        FS_ASSIGN(const ExportReport report,
                  recovery->start_export(call.part(1), point, static_cast<DiskIndex>(disk), socket,
                                         copy));
        return answer(export_view(report.state, report.size_bytes), 201);
    }
    if (call.parts.size() == 1 && call.is("GET")) {
        Json list = Json::array();
        for (const ExportReport& report : recovery->exports())
            if (call.sees(report.state.item, report.state.item_name))
                list.push_back(export_view(report.state, report.size_bytes));
        return answer({{"exports", std::move(list)}});
    }
    for (const ExportReport& report : recovery->exports())
        if (report.state.id == call.part(1))
            FS_TRY(check_item(call, report.state.item,
                              Error(Code::kNotFound, fmt::format("there is no export {}",
                                                                 call.part(1).substr(0, 64)))));
    if (call.parts.size() == 2 && call.is("GET")) {
        FS_ASSIGN(const ExportReport report, recovery->renew_export(call.part(1)));
        return answer(export_view(report.state, report.size_bytes));
    }
    if (call.parts.size() == 2 && call.is("DELETE")) {
        FS_TRY(recovery->end_export(call.part(1)));
        return nothing();
    }
    return no_such_resource(call.request);
}

// ---- the rest

Result<HttpResponse> Api::jobs(const Call& call) {
    if (call.parts.size() == 1 && call.is("GET")) {
        if (const std::string item = call.query("item"); !item.empty())
            FS_TRY(check_item(call, item));
        FS_ASSIGN(const RowQuery query, call.row_query(vault_.database()));
        const std::string state = call.query("state"), kind = call.query("kind");
        FS_TRY(one_of("state", state, {"queued", "running", "succeeded", "failed", "cancelled"}));
        return answer_page(
            "jobs", query.limit, query.before,
            [&](uint64_t before, size_t rows) {
                return list_jobs(vault_.database(), before, rows, query.item);
            },
            [&](const JobRecord& row) {
                return call.sees(row.item, row.item_name) &&
                       (state.empty() || state == job_state_name(row.state)) &&
                       (kind.empty() || kind == row.kind);
            },
            job_view, [](const JobRecord& row) { return row.id; });
    }
    const std::string& text = call.part(1);
    uint64_t id = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
    if (error != std::errc() || end != text.data() + text.size())
        return fail(Code::kNotFound, fmt::format("there is no job '{}'", text.substr(0, 64)));
    FS_ASSIGN(const JobRecord asked, get_job(vault_.database(), id));
    call.attempt.item = asked.item_name;
    if (!call.sees(asked.item, asked.item_name)) {
        call.attempt.outcome = "out-of-scope";
        return fail(Code::kNotFound, fmt::format("there is no job {}", id));
    }
    if (call.parts.size() == 2 && call.is("GET")) {
        FS_ASSIGN(const int64_t wait_us, call.wait_us());
        FS_ASSIGN(const JobRecord job, vault_.job(id, wait_us));
        FS_ASSIGN(const auto messages, job_messages(vault_.database(), id));
        Json json = job_view(job);
        const std::string etag = tag_of(job);
        json["messages"] = Json::array();
        for (const JobMessage& message : messages)
            json["messages"].push_back(
                {{"time", to_rfc3339(message.time)}, {"text", message.text}});
        HttpResponse response = answer(json);
        response.headers.emplace_back("ETag", etag);
        return response;
    }
    if (call.parts.size() == 3 && call.part(2) == "cancel" && call.is("POST")) {
        FS_TRY(vault_.cancel_job(id));
        FS_ASSIGN(const JobRecord job, vault_.job(id, 0));
        return answer(job_view(job), 202);
    }
    if (call.parts.size() == 3 && call.part(2) == "retry" && call.is("POST")) {
        FS_ASSIGN(const JobRecord job, vault_.retry_job(id));
        return answer(job_view(job), 202);
    }
    return no_such_resource(call.request);
}

Result<HttpResponse> Api::events(const Call& call) {
    if (call.parts.size() != 1 || !call.is("GET")) return no_such_resource(call.request);
    if (const std::string item = call.query("item"); !item.empty()) FS_TRY(check_item(call, item));
    FS_ASSIGN(const RowQuery query, call.row_query(vault_.database()));
    const std::string severity = call.query("severity");
    FS_TRY(one_of("severity", severity, {"information", "warning", "critical"}));
    const EventQuery wanted{query.item, call.query("code"),
                            severity_from_name(severity).value_or(Severity::kInformation)};
    return answer_page(
        "events", query.limit, query.before,
        [&](uint64_t before, size_t rows) {
            return list_events(vault_.database(), before, rows, wanted);
        },
        [&](const EventRecord& row) { return call.sees(row.item, row.item_name); }, event_view,
        [](const EventRecord& row) { return row.id; });
}

Result<HttpResponse> Api::parties(const Call& call) {
    if (call.part(0) == "enrolment-tokens") {
        if (call.parts.size() != 1 || !call.is("POST")) return no_such_resource(call.request);
        FS_ASSIGN(const JsonFields fields, call.fields({"kind", "name", "valid_s"}));
        FS_ASSIGN(const std::string kind_text, fields.text("kind", 64, "agent"));
        FS_ASSIGN(const PartyKind kind, party_kind_from_name(kind_text));
        FS_ASSIGN(const std::string name, fields.text("name", 64));
        FS_ASSIGN(const uint64_t valid_s, fields.u64("valid_s", 3600, 604'800));
        if (valid_s < 60) return fail(Code::kInvalidArgument, "valid_s must be at least 60");
        TimePoint expires;
        FS_ASSIGN(const std::string token,
                  vault_.create_token(kind, name, static_cast<int64_t>(valid_s), expires));
        Json json{{"token", token}, {"kind", kind_text}, {"expires", to_rfc3339(expires)}};
        if (!name.empty()) json["name"] = name;
        return answer(json, 201);
    }
    if (call.parts.size() == 1 && call.is("GET")) {
        FS_ASSIGN(const size_t limit, call.limit());
        return answer_page(
            "agents", limit, call.query("after"),
            [&](const std::string& after, size_t rows) { return vault_.parties(after, rows); },
            [](const PartyReport&) { return true; }, party_view,
            [](const PartyReport& report) { return report.record.name; });
    }
    if (call.parts.size() == 2 && call.is("DELETE")) {
        FS_TRY(vault_.remove_party(call.part(1)));
        return nothing();
    }
    return no_such_resource(call.request);
}

}  // namespace farshore
