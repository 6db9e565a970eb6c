// GET /metrics: what a vault says of itself and its items, for Prometheus.
#include <fmt/core.h>

#include "base/version.h"
#include "vault/api.h"
#include "vault/api_call.h"

namespace farshore {
namespace {

// A metric's label value (exposition format: backslash, quote and line end are escaped).
std::string label(std::string_view text) {
    std::string out;
    for (char c : text) {
        if (c == '\\' || c == '"') out.push_back('\\');
        if (c == '\n')
            out += "\\n";
        else
            out.push_back(c);
    }
    return out;
}

}  // namespace

Result<HttpResponse> Api::metrics() {
    struct Metric {
        const char* name;
        const char* help;
        const char* type;
        std::string lines;
    };
    Metric metrics[] = {
        {"farshore_item_state", "1 for the state that the item has", "gauge", {}},
        {"farshore_item_health", "0 normal, 1 warning, 2 critical", "gauge", {}},
        {"farshore_item_rpo_seconds", "age of the newest point", "gauge", {}},
        {"farshore_item_lag_bytes", "captured and not yet received", "gauge", {}},
        {"farshore_item_stored_bytes", "in the object store", "gauge", {}},
        {"farshore_item_written_bytes_total", "written by the machine", "counter", {}},
        {"farshore_item_stored_sequence", "newest sequence stored", "counter", {}},
        {"farshore_item_tap_restarts_total", "of the tap, since the agent started", "counter", {}},
    };
    std::string after;
    while (true) {
        FS_ASSIGN(const auto reports, vault_.items(after, 500));
        if (reports.empty()) break;
        after = reports.back().record.name;
        for (const ItemReport& report : reports) {
            const std::string item = fmt::format("item=\"{}\"", label(report.record.name));
            const auto add = [&](size_t which, auto value) {
                metrics[which].lines +=
                    fmt::format("{}{{{}}} {}\n", metrics[which].name, item, value);
            };
            metrics[0].lines += fmt::format("{}{{{},state=\"{}\"}} 1\n", metrics[0].name, item,
                                            item_state_name(report.record.state));
            const std::string_view health = health_name(report.troubles);
            add(1, health == "critical" ? 2 : health == "warning" ? 1 : 0);
            if (report.rpo_us) add(2, static_cast<double>(*report.rpo_us) / 1e6);
            if (report.agent) {
                add(3, report.agent->ring_used_bytes + report.agent->spill_used_bytes);
                add(7, report.agent->tap_restarts);
            }
            if (report.replica) {
                add(4, report.replica->stored_bytes);
                add(5, report.replica->written_bytes);
                add(6, report.replica->stored.v);
            }
        }
    }
    const VaultInfo info = vault_.info();
    std::string text = fmt::format(
        "# HELP farshore_vault_info what runs here\n# TYPE farshore_vault_info gauge\n"
        "farshore_vault_info{{version=\"{}\",vault=\"{}\"}} 1\n"
        "# HELP farshore_vault_fenced another vault has taken over the store\n"
        "# TYPE farshore_vault_fenced gauge\nfarshore_vault_fenced {}\n",
        kFarshoreVersion, info.vault_id, info.fenced ? 1 : 0);
    const StoreCounts counts = vault_.store_counts();
    text +=
        "# HELP farshore_store_requests_total to the object store, by this process\n"
        "# TYPE farshore_store_requests_total counter\n";
    for (size_t i = 0; i < counts.requests.size(); ++i)
        text += fmt::format("farshore_store_requests_total{{kind=\"{}\"}} {}\n",
                            kStoreRequestNames[i], counts.requests[i]);
    text += fmt::format(
        "# HELP farshore_store_failed_requests_total of these\n"
        "# TYPE farshore_store_failed_requests_total counter\n"
        "farshore_store_failed_requests_total {}\n"
        "# HELP farshore_store_bytes_total payload to and from the object store\n"
        "# TYPE farshore_store_bytes_total counter\n"
        "farshore_store_bytes_total{{direction=\"out\"}} {}\n"
        "farshore_store_bytes_total{{direction=\"in\"}} {}\n",
        counts.failed, counts.bytes_put, counts.bytes_got);
    for (const Metric& metric : metrics)
        text += fmt::format("# HELP {} {}\n# TYPE {} {}\n{}", metric.name, metric.help, metric.name,
                            metric.type, metric.lines);
    HttpResponse response = HttpResponse::text(std::move(text));
    for (auto& [name, value] : response.headers)
        if (name == "Content-Type" || name == "content-type")
            value = "text/plain; version=0.0.4; charset=utf-8";
    return response;
}

}  // namespace farshore
