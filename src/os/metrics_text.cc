#include "os/metrics_text.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>

#include "base/error.h"

namespace farshore {

MetricsText::MetricsText(std::initializer_list<std::span<const MetricFamily>> tables) {
    for (const auto& table : tables)
        for (const MetricFamily& family : table)
            if (std::ranges::none_of(families_, [&](const Family& known) {
                    return std::string_view(known.family->name) == family.name;
                }))
                families_.push_back({&family, {}});
}

void MetricsText::add(std::string_view name, double value, const MetricLabels& labels) {
    const auto found = std::ranges::find_if(
        families_, [&](const Family& known) { return known.family->name == name; });
    FS_CHECK(found != families_.end());
    found->samples.push_back({labels, value});
}

std::string MetricsText::text() const {
    std::vector<prometheus::MetricFamily> all;
    for (const Family& family : families_) {
        prometheus::MetricFamily& out = all.emplace_back();
        out.name = family.family->name;
        out.help = family.family->help;
        const bool counter = family.family->type == MetricType::kCounter;
        out.type = counter ? prometheus::MetricType::Counter : prometheus::MetricType::Gauge;
        for (const Sample& sample : family.samples) {
            prometheus::ClientMetric& metric = out.metric.emplace_back();
            for (const auto& [label, value] : sample.labels) metric.label.push_back({label, value});
            (counter ? metric.counter.value : metric.gauge.value) = sample.value;
        }
    }
    return prometheus::TextSerializer().Serialize(all);
}

}  // namespace farshore
