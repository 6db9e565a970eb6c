#include "agent/agent_metrics.h"

#include <algorithm>

#include "base/version.h"

namespace farshore {
namespace {

constexpr auto kGauge = MetricType::kGauge;
constexpr auto kCounter = MetricType::kCounter;

constexpr MetricFamily kFamilies[] = {
    {"farshore_agent_info", "what runs here", kGauge},
    {"farshore_agent_start_time_seconds", "when it started", kGauge},
    {"farshore_agent_certificate_expiry_time_seconds", "when its certificate ends", kGauge},
    {"farshore_agent_connected", "to its appliance", kGauge},
    {"farshore_agent_connections_total", "that it made to its appliance, those of items apart",
     kCounter},
    {"farshore_agent_clock_ahead_seconds", "its clock minus the vault's", kGauge},
    {"farshore_send_connected", "the item's log is being sent", kGauge},
    {"farshore_send_connections_total", "that were made for it", kCounter},
    {"farshore_send_bytes_total", "of records, that were sent", kCounter},
    {"farshore_capture_state", "1 for the state that the capture has", kGauge},
    {"farshore_capture_tap_restarts_total", "since the agent started", kCounter},
    {"farshore_capture_heartbeat_age_seconds", "since tap or capture process showed life", kGauge},
    {"farshore_capture_in_flight_writes", "that the machine waits for", kGauge},
    {"farshore_capture_oldest_write_seconds", "how long the oldest of these is under way", kGauge},
    {"farshore_capture_ring_size_bytes", "memory for records", kGauge},
    {"farshore_capture_ring_used_bytes", "of it", kGauge},
    {"farshore_capture_spill_size_bytes", "disk for records when the ring is full", kGauge},
    {"farshore_capture_spill_used_bytes", "of it", kGauge},
    {"farshore_capture_spilled_bytes_total", "that went through it", kCounter},
    {"farshore_capture_spill_errors_total", "writes to it that failed", kCounter},
    {"farshore_capture_gap_open", "there are no points now", kGauge},
    {"farshore_capture_gaps_total", "in the item's log", kCounter},
    {"farshore_capture_dropped_records_total", "that neither ring nor spill took", kCounter},
    {"farshore_capture_written_bytes_total", "by the machine", kCounter},
    {"farshore_capture_records_total", "that were put into the log", kCounter},
    {"farshore_capture_record_bytes_total", "of these, as they are sent", kCounter},
    {"farshore_capture_backing_errors_total", "of the disk below, that the machine saw", kCounter},
    {"farshore_capture_copied_bytes_total", "read from the disks to copy them", kCounter},
    {"farshore_capture_compared_bytes_total", "read from the disks to compare them", kCounter},
    {"farshore_capture_read_errors_total", "of these reads", kCounter},
    {"farshore_capture_copy_remaining_bytes", "of the copy that runs", kGauge},
    {"farshore_capture_dirty_regions", "that a crash of the host would put in question", kGauge},
    {"farshore_capture_dirty_map_syncs_total", "that writes of the machine waited for", kCounter},
    {"farshore_capture_dirty_map_broken", "after a crash of the host all is compared", kGauge},
    {"farshore_capture_last_sequence", "newest that the machine wrote", kGauge},
    {"farshore_capture_received_sequence", "newest that the appliance has", kGauge},
    {"farshore_capture_stored_sequence", "newest that is stored", kGauge},
    {"farshore_capture_last_record_time_seconds", "time of the newest record", kGauge},
};

double seconds(TimePoint time) { return static_cast<double>(time.us) / 1e6; }

void add_capture(MetricsText& text, const CaptureStatus& capture, const MetricLabels& item) {
    // Never, of one that has not started, has no age.
    if (capture.tap_heartbeat_age_us != INT64_MAX)
        text.add("farshore_capture_heartbeat_age_seconds",
                 static_cast<double>(capture.tap_heartbeat_age_us) / 1e6, item);
    text.add("farshore_capture_in_flight_writes", capture.in_flight, item);
    text.add("farshore_capture_oldest_write_seconds",
             static_cast<double>(capture.oldest_in_flight_us) / 1e6, item);
    text.add("farshore_capture_ring_size_bytes", capture.ring_bytes, item);
    text.add("farshore_capture_spill_size_bytes", capture.spill_bytes, item);
    text.add("farshore_capture_spill_used_bytes", capture.spill_used_bytes, item);
    text.add("farshore_capture_spilled_bytes_total", capture.spilled_bytes, item);
    text.add("farshore_capture_spill_errors_total", capture.spill_errors, item);
    text.add("farshore_capture_gap_open", capture.gap != GapState::kNone, item);
    text.add("farshore_capture_gaps_total", capture.gaps, item);
    text.add("farshore_capture_dropped_records_total", capture.dropped_records, item);
    text.add("farshore_capture_written_bytes_total", capture.guest_bytes, item);
    text.add("farshore_capture_records_total", capture.appended_records, item);
    text.add("farshore_capture_record_bytes_total", capture.appended_bytes, item);
    text.add("farshore_capture_backing_errors_total", capture.backing_errors, item);
    text.add("farshore_capture_copied_bytes_total", capture.copied_bytes, item);
    text.add("farshore_capture_compared_bytes_total", capture.compared_ever_bytes, item);
    text.add("farshore_capture_read_errors_total", capture.copy_errors, item);
    text.add("farshore_capture_copy_remaining_bytes",
             capture.copy_total_bytes - std::min(capture.copy_done_bytes, capture.copy_total_bytes),
             item);
    text.add("farshore_capture_dirty_regions", capture.dirty_regions, item);
    text.add("farshore_capture_dirty_map_syncs_total", capture.dirty_map_syncs, item);
    text.add("farshore_capture_dirty_map_broken", capture.dirty_map_broken, item);
    text.add("farshore_capture_last_sequence", capture.last.v, item);
    text.add("farshore_capture_stored_sequence", capture.stored.v, item);
    if (capture.last_time.us != 0)
        text.add("farshore_capture_last_record_time_seconds", seconds(capture.last_time), item);
}

}  // namespace

std::span<const MetricFamily> agent_metric_families() { return kFamilies; }

void add_agent_metrics(MetricsText& text, const AgentNumbers& numbers,
                       TimePoint certificate_until) {
    text.add("farshore_agent_info", 1, {{"version", kFarshoreVersion}, {"agent", numbers.name}});
    text.add("farshore_agent_start_time_seconds", seconds(numbers.started));
    if (certificate_until.us != 0)
        text.add("farshore_agent_certificate_expiry_time_seconds", seconds(certificate_until));
    text.add("farshore_agent_connected", numbers.connected);
    text.add("farshore_agent_connections_total", numbers.connections);
    if (numbers.clock_ahead_us)
        text.add("farshore_agent_clock_ahead_seconds",
                 static_cast<double>(*numbers.clock_ahead_us) / 1e6);
    for (const AgentItemNumbers& one : numbers.items) {
        const MetricLabels item{{"item_id", one.status.item.to_string()}};
        MetricLabels state = item;
        state.emplace_back("state", std::string(agent_item_state_name(one.status.state)));
        text.add("farshore_capture_state", 1, state);
        text.add("farshore_capture_tap_restarts_total", one.status.tap_restarts, item);
        if (one.capture) {
            text.add("farshore_capture_ring_used_bytes", one.status.ring_used_bytes, item);
            text.add("farshore_capture_received_sequence", one.status.received.v, item);
        }
        text.add("farshore_send_connected", one.sender.connected, item);
        text.add("farshore_send_connections_total", one.sender.reconnects, item);
        text.add("farshore_send_bytes_total", one.sender.sent_bytes, item);
        if (one.capture) add_capture(text, *one.capture, item);
    }
}

}  // namespace farshore
