#include "vault/tags.h"

#include "meta/json_fields.h"
#include "vault/etag.h"
#include "vault/json_text.h"
#include "vault/policy.h"

namespace farshore {
namespace {

Json rights(Role role, const Scope& scope) {
    Json json{{"role", std::string(role_name(role))}, {"all", scope.all}, {"items", Json::array()}};
    for (const std::string& item : scope.items) json["items"].push_back(item);
    return json;
}

}  // namespace

std::string tag_of(const ItemRecord& item) {
    JsonText text;
    text.begin()
        .member("id", item.id.to_string())
        .member("name", item.name)
        .member("mode", capture_mode_name(item.mode))
        .member("qmp_socket", item.qmp_socket);
    write_policy(text, "policy", item.policy);
    text.member("policy_name", item.policy_name).begin_list("disks");
    for (const DesiredDisk& disk : item.disks)
        text.begin()
            .member("index", disk.index)
            .member("path", disk.path)
            .member("removed", disk.removed)
            .end();
    return etag_of_text(text.end_list().end().text());
}

std::string tag_of(const PolicyRecord& policy) {
    // One that was removed and made again is another.
    return etag_of(
        {{"name", policy.name}, {"version", policy.version}, {"created", policy.created.us}});
}

std::string tag_of(const GroupRecord& group) {
    return etag_of(
        {{"name", group.name}, {"version", group.version}, {"created", group.created.us}});
}

std::string tag_of(const UserRecord& user) {
    return etag_of({{"name", user.name},
                    {"created", user.created.us},
                    {"rights", rights(user.role, user.scope)},
                    {"disabled", user.disabled}});
}

std::string tag_of(const AccessTokenRecord& token) {
    return etag_of({{"id", token.id}, {"revoked", token.revoked.us}});
}

std::string tag_of(const PlanRecord& plan) {
    return etag_of({{"name", plan.name}, {"created", plan.created.us}, {"version", plan.version}});
}

std::string tag_of(const ComputeHostRecord& host) {
    return etag_of({{"name", host.name}, {"created", host.created.us}, {"version", host.version}});
}

std::string tag_of(const SiteRecord& site) {
    return etag_of({{"name", site.name}, {"created", site.created.us}, {"version", site.version}});
}

std::string tag_of(const NotifierRecord& notifier) {
    return etag_of({{"name", notifier.name},
                    {"created", notifier.created.us},
                    {"target", notifier.target},
                    {"settings", notifier.settings_file},
                    {"severity", std::string(severity_name(notifier.least))}});
}

std::string tag_of(const StoreReport& store) {
    return etag_of({{"name", store.name}, {"location", store.location}, {"id", store.store_id}});
}

std::string tag_of(const CopyRecord& copy) {
    return etag_of({{"item", copy.item.to_string()},
                    {"store", copy.store},
                    {"created", copy.created.us},
                    {"window_s", copy.window_s},
                    {"keep", copy.keep},
                    {"removing", copy.removing}});
}

std::string tag_of(const AlarmRecord& alarm) {
    return etag_of({{"id", alarm.id},
                    {"severity", std::string(severity_name(alarm.severity))},
                    {"acknowledged", alarm.acknowledged.us},
                    {"cleared", alarm.cleared.us}});
}

std::string tag_of(const PartyRecord& party) {
    return etag_of({{"name", party.name}, {"fingerprint", party.fingerprint}});
}

std::string tag_of(const JobRecord& job) {
    return etag_of({{"id", job.id},
                    {"state", std::string(job_state_name(job.state))},
                    {"cancel", job.cancel_requested}});
}

}  // namespace farshore
