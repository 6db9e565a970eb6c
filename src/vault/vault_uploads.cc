// What appliances may send to the store, and what becomes of it: bandwidth limits of the policies
// down, how far the sending is up.
#include <fmt/core.h>

#include "replicate/limits.h"
#include "vault/vault_impl.h"

namespace farshore {
namespace {

Trouble trouble_of_limit(const UploadStatus& upload, std::optional<TimePoint> change) {
    Trouble trouble;
    trouble.severity = Severity::kWarning;
    trouble.code = "bandwidth-limited";
    trouble.cause =
        fmt::format("{} of what was written wait: the limit of {} is {}",
                    fmt::format("{:.1f} MB", static_cast<double>(upload.waiting_bytes) / 1e6),
                    upload.total_counts ? "the appliance" : "this item", rate_text(upload.rate));
    if (upload.eta_s >= 0) trouble.cause += fmt::format("; that takes {} s", upload.eta_s);
    if (!upload.total_counts && change)
        trouble.cause += fmt::format("; it changes at {}Z", to_rfc3339(*change).substr(0, 19));
    trouble.remedy =
        upload.total_counts
            ? "raise the appliance's limit (--bandwidth), or wait; nothing is lost"
            : "raise it with `farshore set NAME --bandwidth`, or wait; nothing is lost";
    return trouble;
}

}  // namespace

Result<std::optional<UploadPolicy>> Vault::Impl::take_upload(Vault& vault,
                                                             const std::string& appliance,
                                                             const ItemRecord& record,
                                                             const UploadStatus& upload) {
    std::optional<UploadPolicy> policy;
    if (!record.policy.bandwidth.empty()) policy = {upload.item, record.policy.bandwidth};
    auto item = runtime(upload.item);
    if (!item) return policy;
    bool fresh = false, ended = false;
    {
        const std::lock_guard hold((*item)->mutex);
        const bool before = (*item)->upload && (*item)->upload->limited;
        fresh = upload.limited && !before;
        ended = !upload.limited && before;
        (*item)->upload = upload;
        (*item)->upload_us = clock.steady_us();
    }
    if (fresh) {
        const Trouble trouble = trouble_of_limit(upload, std::nullopt);
        vault.event(trouble.severity, trouble.code, &record,
                    fmt::format("appliance '{}': {}", appliance, trouble.cause), trouble.remedy);
    }
    if (ended)
        vault.event(Severity::kInformation, "bandwidth-sufficient", &record,
                    "what a bandwidth limit held back was sent");
    if (fresh || ended) notify();
    return policy;
}

void Vault::Impl::report_upload(ItemRuntime& item, const ItemRecord& record, ItemReport& report) {
    if (auto limit = BandwidthLimit::parse(record.policy.bandwidth, options.time_zone))
        report.bandwidth_change = limit->next_change(clock.now());
    else
        report.troubles.push_back(
            {Severity::kWarning, std::string(code_name(limit.error().code())),
             "the bandwidth limit cannot be read, there is none: " + limit.error().what(),
             limit.error().remedy()});
    const std::lock_guard hold(item.mutex);
    if (!item.upload || clock.steady_us() - item.upload_us >= kTroubleForgottenUs) return;
    report.upload = item.upload;
    if (item.upload->limited)
        report.troubles.push_back(trouble_of_limit(*item.upload, report.bandwidth_change));
}

}  // namespace farshore
