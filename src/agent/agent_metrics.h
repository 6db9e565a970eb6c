// The numbers of an agent, its taps and capture processes as metrics. Pure;
// docs/operations/metrics.md has each.
#pragma once

#include <span>

#include "agent/agent.h"
#include "os/metrics_text.h"

namespace farshore {

std::span<const MetricFamily> agent_metric_families();

// `certificate_until` 0: not known.
void add_agent_metrics(MetricsText& text, const AgentNumbers& numbers, TimePoint certificate_until);

}  // namespace farshore
