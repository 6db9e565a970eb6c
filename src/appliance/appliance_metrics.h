// The numbers of an appliance as metrics. Pure; docs/operations/metrics.md has each.
#pragma once

#include <span>

#include "appliance/appliance.h"
#include "os/metrics_text.h"

namespace farshore {

// All of them, those of its object store apart (store/store_metrics.h).
std::span<const MetricFamily> appliance_metric_families();

// `certificate_until` 0: not known.
void add_appliance_metrics(MetricsText& text, const ApplianceNumbers& numbers,
                           TimePoint certificate_until);

}  // namespace farshore
