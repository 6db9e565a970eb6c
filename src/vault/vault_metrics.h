// The numbers of a vault, family by family: what api_metrics.cc gathers, as metrics. Pure.
#pragma once

#include <span>
#include <vector>

#include "meta/alarms.h"
#include "meta/jobs.h"
#include "meta/nodes.h"
#include "os/metrics_text.h"
#include "vault/vault.h"

namespace farshore {

// All of them, those of its object store apart (store/store_metrics.h); docs/operations/metrics.md
// has each.
std::span<const MetricFamily> vault_metric_families();

// `health` 0 normal, 1 warning, 2 critical, and all else of one item.
void add_item_metrics(MetricsText& text, const ItemReport& report);
// `until` 0: not known.
void add_party_metrics(MetricsText& text, const PartyReport& report, TimePoint until);
// Every severity has a sample, so that an alert has something to look at before the first alarm.
void add_alarm_metrics(MetricsText& text, const std::vector<AlarmRecord>& standing);
void add_job_metrics(MetricsText& text, const std::vector<JobCount>& counts);
void add_node_metrics(MetricsText& text, const VaultLease& lease,
                      const std::vector<VaultNode>& nodes);

// "leads", "ready" or "away".
std::string_view node_role(const VaultLease& lease, const VaultNode& node);

// Seconds since 1970.
inline double metric_time(TimePoint time) { return static_cast<double>(time.us) / 1e6; }

}  // namespace farshore
