#include "vault/vault_metrics.h"

#include <array>
#include <map>

#include "vault/item_drive.h"
#include "vault/node_seat.h"

namespace farshore {
namespace {

constexpr auto kGauge = MetricType::kGauge;
constexpr auto kCounter = MetricType::kCounter;

constexpr MetricFamily kFamilies[] = {
    {"farshore_vault_info", "what runs here", kGauge},
    {"farshore_vault_start_time_seconds", "when it started", kGauge},
    {"farshore_vault_certificate_expiry_time_seconds", "when the API's certificate ends", kGauge},
    {"farshore_vault_fenced", "another vault has taken over the store", kGauge},
    {"farshore_vault_node", "1 for the role that a vault node has", kGauge},
    {"farshore_vault_database_trouble", "the database could not be read or written just now",
     kGauge},
    {"farshore_api_requests_total", "answered, by the class of their status", kCounter},
    {"farshore_api_request_seconds", "from when a request had come to its answer",
     MetricType::kHistogram},
    {"farshore_party_connected", "whether an agent or appliance was heard of lately", kGauge},
    {"farshore_party_certificate_expiry_time_seconds", "when its certificate ends", kGauge},
    {"farshore_jobs", "kept in the list of jobs", kGauge},
    {"farshore_alarms", "that stand", kGauge},
    {"farshore_item_info", "1; joins the id, which agent and appliance show, with the name",
     kGauge},
    {"farshore_item_state", "1 for the state that the item has", kGauge},
    {"farshore_item_health", "0 normal, 1 warning, 2 critical", kGauge},
    {"farshore_item_rpo_seconds", "age of the newest point", kGauge},
    {"farshore_item_rpo_worst_seconds", "the worst in the last hour", kGauge},
    {"farshore_item_oldest_point_time_seconds", "time of the oldest point", kGauge},
    {"farshore_item_newest_point_time_seconds", "time of the newest point", kGauge},
    {"farshore_item_agent_seen_time_seconds", "when its agent was heard of last", kGauge},
    {"farshore_item_lag_bytes", "captured and not yet received", kGauge},
    {"farshore_item_upload_waiting_bytes", "received and not yet stored", kGauge},
    {"farshore_item_upload_limited", "a bandwidth limit holds back what is old by now", kGauge},
    {"farshore_item_stored_bytes", "in the object store", kGauge},
    {"farshore_item_written_bytes_total", "written by the machine", kCounter},
    {"farshore_item_stored_sequence", "newest sequence stored", kGauge},
    {"farshore_item_tap_restarts_total", "of the tap, since the agent started", kCounter},
};

}  // namespace

std::span<const MetricFamily> vault_metric_families() { return kFamilies; }

void add_item_metrics(MetricsText& text, const ItemReport& report) {
    const MetricLabels item{{"item", report.record.name}};
    text.add("farshore_item_info", 1,
             {{"item", report.record.name},
              {"item_id", report.record.id.to_string()},
              {"capture", std::string(capture_mode_name(report.record.mode))}});
    text.add("farshore_item_state", 1,
             {{"item", report.record.name},
              {"state", std::string(item_state_name(report.record.state))}});
    const std::string_view health = health_name(report.troubles);
    text.add("farshore_item_health", health == "critical" ? 2 : health == "warning" ? 1 : 0, item);
    const auto seconds = [&](const char* name, const std::optional<int64_t>& us) {
        if (us) text.add(name, static_cast<double>(*us) / 1e6, item);
    };
    seconds("farshore_item_rpo_seconds", report.rpo_us);
    seconds("farshore_item_rpo_worst_seconds", report.rpo_worst_us);
    if (report.agent_seen)
        text.add("farshore_item_agent_seen_time_seconds", metric_time(*report.agent_seen), item);
    if (report.agent) {
        text.add("farshore_item_lag_bytes",
                 report.agent->ring_used_bytes + report.agent->spill_used_bytes, item);
        text.add("farshore_item_tap_restarts_total", report.agent->tap_restarts, item);
    }
    if (report.upload) {
        text.add("farshore_item_upload_waiting_bytes", report.upload->waiting_bytes, item);
        text.add("farshore_item_upload_limited", report.upload->limited, item);
    }
    if (!report.replica) return;
    const ReplicaStatus& replica = *report.replica;
    text.add("farshore_item_stored_bytes", replica.stored_bytes, item);
    text.add("farshore_item_written_bytes_total", replica.written_bytes, item);
    text.add("farshore_item_stored_sequence", replica.stored.v, item);
    if (replica.oldest)
        text.add("farshore_item_oldest_point_time_seconds", metric_time(replica.oldest_time), item);
    if (replica.newest)
        text.add("farshore_item_newest_point_time_seconds", metric_time(replica.newest_time), item);
}

void add_party_metrics(MetricsText& text, const PartyReport& report, TimePoint until) {
    const MetricLabels party{{"party", report.record.name},
                             {"kind", std::string(party_kind_name(report.record.kind))}};
    text.add("farshore_party_connected", report.connected, party);
    if (until.us != 0)
        text.add("farshore_party_certificate_expiry_time_seconds", metric_time(until), party);
}

void add_alarm_metrics(MetricsText& text, const std::vector<AlarmRecord>& standing) {
    std::array<std::array<uint64_t, 2>, 3> counts{};
    for (const AlarmRecord& alarm : standing)
        ++counts.at(static_cast<size_t>(alarm.severity))[alarm.acknowledged.us != 0 ? 1 : 0];
    for (const Severity severity : {Severity::kWarning, Severity::kCritical})
        for (const bool acknowledged : {false, true})
            text.add("farshore_alarms", counts[static_cast<size_t>(severity)][acknowledged ? 1 : 0],
                     {{"severity", std::string(severity_name(severity))},
                      {"acknowledged", acknowledged ? "true" : "false"}});
}

void add_job_metrics(MetricsText& text, const std::vector<JobCount>& counts) {
    for (const JobCount& one : counts)
        text.add("farshore_jobs", one.jobs,
                 {{"kind", one.kind}, {"state", std::string(job_state_name(one.state))}});
}

void add_node_metrics(MetricsText& text, const VaultLease& lease,
                      const std::vector<VaultNode>& nodes) {
    for (const VaultNode& node : nodes)
        text.add("farshore_vault_node", 1,
                 {{"node", node.name}, {"role", std::string(node_role(lease, node))}});
}

std::string_view node_role(const VaultLease& lease, const VaultNode& node) {
    if (lease.left_us > 0 && lease.node == node.name) return "leads";
    return node.silent_us < kNodeAwayUs ? "ready" : "away";
}

}  // namespace farshore
