// VaultLink between processes: each call is one JSON document there and one back, POSTed to
// /internal/v1/link/<method> over HTTPS with both certificates checked. The transport is the
// caller's; this is only the documents and both ends of them.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "replicate/vault_link.h"

namespace farshore {

// The vault's end: decodes `body`, calls `link`, encodes the answer. Errors of the call and of the
// document come back as errors; the HTTP layer maps them as it maps all others.
// Methods: acquire-log, register-segment, mark-idle, sync-agent, report-trouble, sync-appliance,
// compare, open-return, shared-point, refused-agents, renew, enrol.
Result<std::string> serve_link(VaultLink& link, std::string_view method, std::string_view body);

// The appliance's end. Any thread may call if the transport allows it.
class RemoteVaultLink final : public VaultLink {
  public:
    // Sends `body` to `method`, returns the answer's body, or the error that the vault answered.
    using Transport =
        std::function<Result<std::string>(const std::string& method, const std::string& body)>;
    explicit RemoteVaultLink(Transport transport) : transport_(std::move(transport)) {}

    Result<LogLease> acquire_log(const ItemId& item, const std::string& appliance) override;
    Status register_segment(const SegmentRegistration& registration) override;
    Status mark_idle(const ItemId& item, Epoch epoch, Sequence sequence, TimePoint time) override;
    Result<std::string> sync_agent(const std::string& agent, const std::string& status) override;
    Status report_trouble(const ItemId& item, const std::string& appliance,
                          const std::optional<Error>& trouble) override;
    Result<ApplianceOrders> sync_appliance(const std::string& appliance,
                                           const ApplianceStatus& status) override;
    Result<CompareAnswer> compare(const std::string& agent, const ItemId& item,
                                  const CompareQuestion& question) override;
    Result<BarrierOrder> shared_point_step(const std::string& appliance,
                                           const BarrierReport& report) override;
    Result<ReturnGrant> open_return(const std::string& appliance, const std::string& agent,
                                    const ItemId& item, Sequence to) override;
    Result<std::vector<std::string>> refused_agents(
        const std::vector<std::string>& agents) override;
    Result<std::string> renew(const std::string& party, const std::string& request_pem) override;
    Result<std::string> enrol(const std::string& token, const std::string& request_pem) override;

  private:
    Transport transport_;
};

}  // namespace farshore
