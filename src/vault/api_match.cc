// Two callers at once, and one who asks twice: If-Match and Idempotency-Key.
#include <fmt/core.h>

#include <charconv>

#include "meta/alarms.h"
#include "meta/compute_hosts.h"
#include "meta/groups.h"
#include "meta/jobs.h"
#include "meta/notifiers.h"
#include "meta/parties.h"
#include "meta/recovery_plans.h"
#include "meta/stores.h"
#include "vault/api.h"
#include "vault/api_call.h"
#include "vault/tags.h"

namespace farshore {
namespace {

std::optional<uint64_t> number_of(const std::string& text) {
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return {};
    return value;
}

template <typename Record>
Result<std::optional<std::string>> tag_of_found(const Result<Record>& found) {
    if (!found) return tl::unexpected(found.error());
    return std::optional(tag_of(*found));
}

}  // namespace

Result<std::optional<std::string>> Api::current_tag(const Call& call) {
    // parts: {"v1", "items", NAME, ...}
    Database& database = vault_.database();
    const std::string& resource = call.part(1);
    const std::string& name = call.part(2);
    const std::optional<std::string> none;
    if (name.empty()) return none;
    if (resource == "items") {
        FS_ASSIGN(const ItemRecord item, find_item(database, name));
        if (call.part(3) != "copies" || call.part(4).empty()) return std::optional(tag_of(item));
        FS_ASSIGN(const auto copies, list_copies(database, item.id));
        for (const CopyRecord& copy : copies)
            if (copy.store == call.part(4)) return std::optional(tag_of(copy));
        return none;
    }
    if (resource == "policies") return tag_of_found(get_policy(database, name));
    if (resource == "groups") return tag_of_found(get_group(database, name));
    if (resource == "recovery-plans") return tag_of_found(get_plan(database, name));
    if (resource == "compute-hosts") return tag_of_found(get_compute_host(database, name));
    if (resource == "sites") return tag_of_found(get_site(database, name));
    if (resource == "users") return tag_of_found(get_user(database, name));
    if (resource == "agents") return tag_of_found(get_party(database, name));
    if (resource == "access-tokens") {
        FS_ASSIGN(const TokenAndOwner found, get_access_token(database, name));
        return std::optional(tag_of(found.token));
    }
    if (resource == "alarms" || resource == "jobs") {
        const auto id = number_of(name);
        if (!id) return none;
        if (resource == "jobs") return tag_of_found(get_job(database, *id));
        return tag_of_found(get_alarm(database, *id));
    }
    if (resource == "notifiers") {
        FS_ASSIGN(const auto all, list_notifiers(database));
        for (const NotifierRecord& one : all)
            if (one.name == name) return std::optional(tag_of(one));
    }
    if (resource == "stores") {
        FS_ASSIGN(const auto all, vault_.stores());
        for (const StoreReport& one : all)
            if (one.name == name) return std::optional(tag_of(one));
    }
    return none;
}

Result<HttpResponse> Api::dispatch_matched(Call& call) {
    if (call.is("GET") || call.is("HEAD")) return dispatch(call);
    const std::string& wanted = call.request.header("if-match");
    // Those that wait for an agent or for the end of something else do not take turns.
    const bool short_one = !call.is("POST") || call.part(3) == "disks" ||
                           (call.part(1) == "policies" && call.parts.size() > 2);
    std::unique_lock<std::mutex> turn;
    if (short_one)
        turn = std::unique_lock(
            turns_[std::hash<std::string>()(call.part(1) + '/' + call.part(2)) % turns_.size()]);
    if (!wanted.empty()) {
        FS_ASSIGN(const EtagList list, parse_etags(wanted));
        FS_ASSIGN(const auto etag, current_tag(call));
        if (!etag)
            return fail(Code::kPreconditionFailed, "what this names has no version",
                        "leave If-Match out");
        if (!list.matches(*etag, true))
            return fail(Code::kPreconditionFailed,
                        "it has changed since the version that If-Match names",
                        "read it again, and decide again");
    }
    return dispatch(call);
}

Result<HttpResponse> Api::dispatch_once(Call& call) {
    // A private key is not kept, not even sealed; that another one is issued does no harm.
    const bool key = call.part(1) == "compute-hosts" && call.part(3) == "credentials";
    if (!call.is("POST") || key || !call.request.headers.contains("idempotency-key"))
        return dispatch_matched(call);
    FS_ASSIGN(auto replayed, replays_.begin(call.who(), call.request));
    if (replayed) {
        call.attempt.outcome = "replayed";
        return std::move(*replayed);
    }
    auto done = dispatch_matched(call);
    if (done)
        replays_.end(call.who(), call.request, *done, {});
    else
        replays_.end(call.who(), call.request, refusal(done.error()), done.error());
    return done;
}

}  // namespace farshore
