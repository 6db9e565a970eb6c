#include "vault/compute_hosts.h"

#include "base/party_names.h"
#include "meta/compute_hosts.h"
#include "recovery/compute_choice.h"
#include "vault/vault.h"

namespace farshore {

ComputeHosts::ComputeHosts(Vault& vault, std::string scope, std::string run_root)
    : vault_(vault), scope_(std::move(scope)), run_root_(std::move(run_root)) {}

Result<std::shared_ptr<LibvirtCompute>> ComputeHosts::named(const std::string& name) {
    // Asked each time: another vault node, or a person, may have changed it.
    FS_ASSIGN(const ComputeHostRecord record, get_compute_host(vault_.database(), name));
    const std::lock_guard hold(mutex_);
    if (const auto at = known_.find(name);
        at != known_.end() && at->second.document == record.document)
        return at->second.compute;
    FS_ASSIGN(const ComputeHostSettings settings, settings_of(record));
    LibvirtOptions options;
    options.name = name;
    options.uri = connection_uri(settings);
    options.scope = scope_;
    options.run_root = run_root_;
    if (settings.accelerator == HostAccelerator::kKvm) options.accelerator = Accelerator::kKvm;
    if (settings.accelerator == HostAccelerator::kTcg) options.accelerator = Accelerator::kTcg;
    if (settings.disks == DisksOver::kTls) {
        options.disks_over_tls = DisksOverTls{
            .address = settings.disks_address,
            .first_port = settings.first_port,
            .last_port = settings.last_port,
            .issue = [this](const std::string& server) { return vault_.issue_disk_server(server); },
            .authority_pem = vault_.authority_pem(),
            .client_name = compute_name(name)};
    } else {
        options.disks_group = disks_group_of(settings);
    }
    auto compute = std::make_shared<LibvirtCompute>(std::move(options));
    known_[name] = {record.document, compute};
    return compute;
}

}  // namespace farshore
