#include "appliance/appliance_metrics.h"

#include "base/version.h"

namespace farshore {
namespace {

constexpr auto kGauge = MetricType::kGauge;
constexpr auto kCounter = MetricType::kCounter;

constexpr MetricFamily kFamilies[] = {
    {"farshore_appliance_info", "what runs here", kGauge},
    {"farshore_appliance_start_time_seconds", "when it started", kGauge},
    {"farshore_appliance_certificate_expiry_time_seconds", "when its certificate ends", kGauge},
    {"farshore_appliance_vault_answered_time_seconds", "when the vault answered last", kGauge},
    {"farshore_appliance_agents", "whose connections there are", kGauge},
    {"farshore_appliance_connections_total", "of agents, that were taken", kCounter},
    {"farshore_appliance_spool_limit_bytes", "what the spool of one item may hold", kGauge},
    {"farshore_intake_connected", "its agent is connected", kGauge},
    {"farshore_intake_error", "something has kept its records from being received or stored",
     kGauge},
    {"farshore_intake_received_sequence", "newest sequence in the spool or behind it", kGauge},
    {"farshore_intake_stored_sequence", "newest sequence stored", kGauge},
    {"farshore_intake_received_time_seconds", "of the newest record received", kGauge},
    {"farshore_intake_stored_time_seconds", "of the newest record stored", kGauge},
    {"farshore_intake_received_bytes_total", "of records, since the start", kCounter},
    {"farshore_intake_uploaded_bytes_total", "of objects, since the start", kCounter},
    {"farshore_intake_segments_total", "registered, since the start", kCounter},
    {"farshore_intake_spool_bytes", "on the disk of the spool", kGauge},
    {"farshore_intake_queued_bytes", "received and in no segment yet", kGauge},
    {"farshore_intake_waiting_bytes", "received and not stored", kGauge},
    {"farshore_intake_upload_limit_bytes_per_second", "the bandwidth limit that counts, if any",
     kGauge},
    {"farshore_intake_upload_limited", "that limit holds back what is old by now", kGauge},
};

double seconds(TimePoint time) { return static_cast<double>(time.us) / 1e6; }

void add_intake(MetricsText& text, const IntakeStatus& intake) {
    const MetricLabels item{{"item_id", intake.item.to_string()}};
    text.add("farshore_intake_connected", intake.connected, item);
    text.add("farshore_intake_error", !intake.last_error.empty(), item);
    text.add("farshore_intake_received_sequence", intake.received.v, item);
    text.add("farshore_intake_stored_sequence", intake.stored.v, item);
    if (intake.received_time.us != 0)
        text.add("farshore_intake_received_time_seconds", seconds(intake.received_time), item);
    if (intake.stored_time.us != 0)
        text.add("farshore_intake_stored_time_seconds", seconds(intake.stored_time), item);
    text.add("farshore_intake_received_bytes_total", intake.received_bytes, item);
    text.add("farshore_intake_uploaded_bytes_total", intake.uploaded_bytes, item);
    text.add("farshore_intake_segments_total", intake.segments, item);
    text.add("farshore_intake_spool_bytes", intake.spool_bytes, item);
    text.add("farshore_intake_queued_bytes", intake.queued_bytes, item);
    text.add("farshore_intake_waiting_bytes", intake.upload.waiting_bytes, item);
    if (intake.upload.rate != kUnlimited)
        text.add("farshore_intake_upload_limit_bytes_per_second", intake.upload.rate, item);
    text.add("farshore_intake_upload_limited", intake.upload.limited, item);
}

}  // namespace

std::span<const MetricFamily> appliance_metric_families() { return kFamilies; }

void add_appliance_metrics(MetricsText& text, const ApplianceNumbers& numbers,
                           TimePoint certificate_until) {
    text.add("farshore_appliance_info", 1,
             {{"version", kFarshoreVersion}, {"appliance", numbers.name}});
    text.add("farshore_appliance_start_time_seconds", seconds(numbers.started));
    if (certificate_until.us != 0)
        text.add("farshore_appliance_certificate_expiry_time_seconds", seconds(certificate_until));
    if (numbers.vault_answered.us != 0)
        text.add("farshore_appliance_vault_answered_time_seconds", seconds(numbers.vault_answered));
    text.add("farshore_appliance_agents", numbers.agents);
    text.add("farshore_appliance_connections_total", numbers.connections);
    text.add("farshore_appliance_spool_limit_bytes", numbers.spool_limit_bytes);
    for (const IntakeStatus& intake : numbers.items) add_intake(text, intake);
}

}  // namespace farshore
