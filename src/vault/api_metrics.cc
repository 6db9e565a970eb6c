// What the vault is, and its metrics.
#include "base/version.h"
#include "meta/certificates.h"
#include "meta/database.h"
#include "os/metrics_server.h"
#include "store/store_metrics.h"
#include "vault/api.h"
#include "vault/api_call.h"
#include "vault/log_about.h"
#include "vault/vault_metrics.h"

namespace farshore {
namespace {

constexpr size_t kRows = 500;
constexpr const char* kStatusClasses[] = {"1xx", "2xx", "3xx", "4xx", "5xx"};

}  // namespace

Status Api::each_item(const Call& call, const std::function<void(const ItemReport&)>& each) {
    std::string after;
    while (true) {
        FS_ASSIGN(const auto reports, vault_.items(after, kRows));
        if (reports.empty()) return {};
        after = reports.back().record.name;
        for (const ItemReport& report : reports)
            if (call.sees(report.record.id, report.record.name)) each(report);
    }
}

Result<HttpResponse> Api::server(const Call& call) {
    const VaultInfo info = vault_.info();
    uint64_t count = 0, stored = 0, written = 0;
    FS_TRY(each_item(call, [&](const ItemReport& report) {
        ++count;
        if (!report.replica) return;
        stored += report.replica->stored_bytes;
        written += report.replica->written_bytes;
    }));
    return answer({{"version", kFarshoreVersion},
                   {"vault_id", info.vault_id},
                   {"store_id", info.store_id},
                   {"key_id", info.key_id},
                   {"epoch", info.epoch.v},
                   {"time_zone", info.time_zone},
                   {"started", to_rfc3339(info.started)},
                   {"fenced", info.fenced},
                   {"items", count},
                   {"stored_bytes", stored},
                   {"written_bytes", written}});
}

// Of what stands in the database and is not an item.
Status Api::add_rows(const Call& call, MetricsText& text) {
    Database& database = vault_.database();
    std::vector<AlarmRecord> alarms;
    for (uint64_t before = 0;;) {
        FS_ASSIGN(auto rows, list_alarms(database, true, before, kRows));
        for (AlarmRecord& row : rows) {
            before = row.id;
            if (call.sees(row.item, row.item_name)) alarms.push_back(std::move(row));
        }
        if (rows.size() < kRows) break;
    }
    add_alarm_metrics(text, alarms);
    if (!call.who().scope.all) return {};
    FS_ASSIGN(const auto jobs, count_jobs(database));
    add_job_metrics(text, jobs);
    std::string after;
    while (true) {
        FS_ASSIGN(const auto parties, vault_.parties(after, kRows));
        if (parties.empty()) break;
        after = parties.back().record.name;
        for (const PartyReport& party : parties) {
            FS_ASSIGN(const TimePoint until, certificate_until(database, party.record.name));
            add_party_metrics(text, party, until);
        }
    }
    if (!database.is_shared()) return {};
    FS_ASSIGN(const VaultLease lease, read_vault_lease(database));
    FS_ASSIGN(const auto nodes, list_vault_nodes(database));
    add_node_metrics(text, lease, nodes);
    return {};
}

Result<HttpResponse> Api::metrics(const Call& call) {
    MetricsText text({vault_metric_families(), kStoreMetrics});
    const VaultInfo info = vault_.info();
    text.add("farshore_vault_info", 1, {{"version", kFarshoreVersion}, {"vault", info.vault_id}});
    text.add("farshore_vault_start_time_seconds", metric_time(info.started));
    if (info.certificate_until.us != 0)
        text.add("farshore_vault_certificate_expiry_time_seconds",
                 metric_time(info.certificate_until));
    text.add("farshore_vault_fenced", info.fenced);
    for (size_t i = 0; i < std::size(kStatusClasses); ++i)
        text.add("farshore_api_requests_total", answered_[i].load(std::memory_order_relaxed),
                 {{"class", kStatusClasses[i]}});
    text.add("farshore_api_request_seconds", read_took_, {{"kind", "read"}});
    text.add("farshore_api_request_seconds", change_took_, {{"kind", "change"}});
    text.add("farshore_api_request_seconds", party_took_, {{"kind", "party"}});
    add_store_metrics(text, vault_.store_counts());
    // What is missing then is told by the number: an alert on the rest would say the wrong thing.
    Status read =
        each_item(call, [&](const ItemReport& report) { add_item_metrics(text, report); });
    if (read) read = add_rows(call, text);
    if (!read)
        log::warn("api", about(read.error()), "metrics without a part: {}",
                  read.error().to_string());
    text.add("farshore_vault_database_trouble", !read || vault_.database().trouble().has_value());
    return metrics_response(text.text());
}

}  // namespace farshore
