// A process's dealings with its object store as metrics: the same families in vault and appliance.
#pragma once

#include "os/metrics_text.h"
#include "store/counting_store.h"

namespace farshore {

inline constexpr MetricFamily kStoreMetrics[] = {
    {"farshore_store_requests_total", "to the object store, by this process", MetricType::kCounter},
    {"farshore_store_failed_requests_total", "of these", MetricType::kCounter},
    {"farshore_store_bytes_total", "payload to and from the object store", MetricType::kCounter},
};

inline void add_store_metrics(MetricsText& text, const StoreCounts& counts) {
    for (size_t i = 0; i < counts.requests.size(); ++i)
        text.add("farshore_store_requests_total", counts.requests[i],
                 {{"kind", std::string(kStoreRequestNames[i])}});
    text.add("farshore_store_failed_requests_total", counts.failed);
    text.add("farshore_store_bytes_total", counts.bytes_put, {{"direction", "out"}});
    text.add("farshore_store_bytes_total", counts.bytes_got, {{"direction", "in"}});
}

}  // namespace farshore
