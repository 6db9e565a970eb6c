// The resources of compute hosts, and of where items' machines are to run.
#include <fmt/core.h>

#include "meta/compute_hosts.h"
#include "meta/items.h"
#include "meta/json_fields.h"
#include "meta/json_members.h"
#include "meta/stores.h"
#include "recovery/compute_choice.h"
#include "vault/api.h"
#include "vault/api_call.h"
#include "vault/recovery_desk.h"
#include "vault/tags.h"

namespace farshore {
namespace {

Result<Json> host_view(const ComputeHostRecord& record) {
    FS_ASSIGN(const ComputeHostSettings settings, settings_of(record));
    Json json = compute_host_json(settings);
    json["name"] = record.name;
    json["etag"] = tag_of(record);
    json["created"] = to_rfc3339(record.created);
    json["updated"] = to_rfc3339(record.updated);
    return json;
}

// The whole of the settings; what is not named is as in a new one.
template <typename CallType>
Result<std::string> document_of_body(const CallType& call) {
    FS_ASSIGN(const ComputeHostSettings settings, compute_host_from_json(call.body, "body"));
    return dump_json(compute_host_json(settings));
}

Json choice_view(const ItemRecord& item, const std::string& host) {
    return {{"item", item.name}, {"host", host}};
}

}  // namespace

// /v1/compute-hosts[/HOST[/check|/credentials]]
Result<HttpResponse> Api::compute_hosts(const Call& call) {
    Database& database = vault_.database();
    const std::string& name = call.part(1);
    if (call.parts.size() == 1 && call.is("GET")) {
        FS_ASSIGN(const auto records, list_compute_hosts(database));
        Json list = Json::array();
        for (const ComputeHostRecord& record : records) {
            FS_ASSIGN(Json view, host_view(record));
            list.push_back(std::move(view));
        }
        return answer({{"compute_hosts", std::move(list)}});
    }
    if (call.parts.size() == 1 && call.is("POST")) {
        FS_ASSIGN(
            const JsonFields fields,
            call.fields({"name", "uri", "accelerator", "disks", "disks_group", "disks_address",
                         "disks_ports", "pki_directory", "ssh_key_file", "known_hosts_file"}));
        FS_ASSIGN(const std::string given, fields.required_text("name", kMaxStoreNameBytes));
        FS_TRY(check_compute_host_name(given));
        FS_ASSIGN(const std::string document, document_of_body(call));
        FS_ASSIGN(const ComputeHostRecord made, add_compute_host(database, given, document));
        FS_ASSIGN(const Json view, host_view(made));
        return tagged(call, view, tag_of(made), 201);
    }
    if (call.parts.size() > 1 && !check_compute_host_name(name))
        return fail(Code::kNotFound,
                    fmt::format("no compute host is called '{}'", name.substr(0, 64)),
                    "`farshore compute list` shows them");
    if (call.parts.size() == 2 && call.is("GET")) {
        FS_ASSIGN(const ComputeHostRecord record, get_compute_host(database, name));
        FS_ASSIGN(const Json view, host_view(record));
        return tagged(call, view, tag_of(record));
    }
    if (call.parts.size() == 2 && call.is("PUT")) {
        FS_TRY(call.fields({"uri", "accelerator", "disks", "disks_group", "disks_address",
                            "disks_ports", "pki_directory", "ssh_key_file", "known_hosts_file"}));
        FS_ASSIGN(const std::string document, document_of_body(call));
        // What runs there would be looked for elsewhere.
        FS_ASSIGN(const ComputeHostRecord known, get_compute_host(database, name));
        FS_ASSIGN(const ComputeHostSettings before, settings_of(known));
        FS_ASSIGN(const ComputeHostSettings after, compute_host_from_json(call.body, "body"));
        if (recovery_ != nullptr && (before.uri != after.uri || before.disks != after.disks ||
                                     before.disks_address != after.disks_address))
            FS_TRY(recovery_->check_unused(name));
        FS_ASSIGN(const ComputeHostRecord changed, change_compute_host(database, name, document));
        FS_ASSIGN(const Json view, host_view(changed));
        return tagged(call, view, tag_of(changed));
    }
    if (call.parts.size() == 2 && call.is("DELETE")) {
        const std::string force = call.query("force");
        if (!force.empty() && force != "true" && force != "false")
            return fail(Code::kInvalidArgument, "force: must be true or false");
        if (recovery_ != nullptr) FS_TRY(recovery_->check_unused(name, force == "true"));
        FS_TRY(remove_compute_host(database, name));
        return nothing();
    }
    if (call.parts.size() == 3 && call.part(2) == "check" && call.is("POST")) {
        FS_TRY(call.fields({}));
        FS_ASSIGN(RecoveryDesk * recovery, desk());
        FS_ASSIGN(const auto host, recovery->compute_hosts().named(name));
        FS_ASSIGN(const LibvirtReport report, host->report());
        return answer({{"hostname", report.hostname},
                       {"libvirt_version", report.libvirt_version},
                       {"hypervisor_version", report.hypervisor_version},
                       {"kvm", report.kvm},
                       {"cpus", report.cpus},
                       {"memory_bytes", report.memory_bytes},
                       {"free_memory_bytes", report.free_memory_bytes},
                       {"networks", report.networks},
                       {"round_trip_us", report.round_trip_us}});
    }
    if (call.parts.size() != 3 || call.part(2) != "credentials" || !call.is("POST"))
        return no_such_resource(call.request);
    FS_TRY(call.fields({}));
    FS_ASSIGN(const ComputeHostRecord record, get_compute_host(database, name));
    FS_ASSIGN(const ComputeHostSettings settings, settings_of(record));
    if (settings.disks != DisksOver::kTls)
        return fail(
            Code::kWrongState,
            fmt::format("'{}' reaches its disks over unix sockets: it needs no certificate", name),
            "`farshore compute change --disks tls` first");
    FS_ASSIGN(const ComputeCredentials made, vault_.issue_compute_credentials(name));
    call.attempt.detail = fmt::format("name={} fingerprint={} expires={}", made.name,
                                      made.fingerprint, to_rfc3339(made.expires));
    HttpResponse response =
        answer({{"certificate", made.credentials.certificate_pem},
                {"key", std::string(as_text(made.credentials.key_pem.reveal()))},
                {"authority", vault_.authority_pem()},
                {"expires_at", to_rfc3339(made.expires)}},
               201);
    response.headers.emplace_back("Cache-Control", "no-store");
    return response;
}

// /v1/items/ITEM/compute
Result<HttpResponse> Api::item_compute(const Call& call) {
    Database& database = vault_.database();
    FS_ASSIGN(const ItemRecord item, find_item(database, call.part(1)));
    if (call.parts.size() != 3) return no_such_resource(call.request);
    const std::string local(kLocalHost);
    if (call.is("GET")) {
        FS_ASSIGN(const auto host, farshore::item_compute(database, item.id));
        return answer(choice_view(item, host.value_or(local)));
    }
    if (call.is("DELETE")) {
        FS_TRY(clear_item_compute(database, item.id));
        return nothing();
    }
    if (!call.is("PUT")) return no_such_resource(call.request);
    FS_ASSIGN(const JsonFields fields, call.fields({"host"}));
    FS_ASSIGN(const std::string host, fields.required_text("host", kMaxStoreNameBytes));
    if (host == local) {
        FS_TRY(clear_item_compute(database, item.id));
    } else {
        FS_TRY(set_item_compute(database, item.id, host));
    }
    return answer(choice_view(item, host));
}

}  // namespace farshore
