#include "os/metrics_text.h"

#include <prometheus/histogram.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>

#include "base/error.h"

namespace farshore {
namespace {

// One is at the 50 ms that a page may take.
const prometheus::Histogram::BucketBoundaries kUpToSeconds = {
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10};

prometheus::MetricType type_of(MetricType type) {
    switch (type) {
        case MetricType::kGauge:
            return prometheus::MetricType::Gauge;
        case MetricType::kCounter:
            return prometheus::MetricType::Counter;
        case MetricType::kHistogram:
            return prometheus::MetricType::Histogram;
    }
    return prometheus::MetricType::Untyped;
}

}  // namespace

struct DurationHistogram::Impl {
    prometheus::Histogram histogram{kUpToSeconds};
};
DurationHistogram::DurationHistogram() : impl_(std::make_unique<Impl>()) {}
DurationHistogram::~DurationHistogram() = default;
void DurationHistogram::add_us(int64_t us) {
    impl_->histogram.Observe(static_cast<double>(us) / 1e6);
}

struct MetricsText::Family {
    const MetricFamily* family;
    std::vector<prometheus::ClientMetric> samples;

    prometheus::ClientMetric& add(prometheus::ClientMetric sample, const MetricLabels& labels) {
        for (const auto& [label, value] : labels) sample.label.push_back({label, value});
        return samples.emplace_back(std::move(sample));
    }
};

MetricsText::MetricsText(std::initializer_list<std::span<const MetricFamily>> tables) {
    for (const auto& table : tables)
        for (const MetricFamily& family : table)
            if (std::ranges::none_of(families_, [&](const Family& known) {
                    return std::string_view(known.family->name) == family.name;
                }))
                families_.push_back({&family, {}});
}

MetricsText::~MetricsText() = default;

MetricsText::Family& MetricsText::family(std::string_view name) {
    const auto found = std::ranges::find_if(
        families_, [&](const Family& known) { return known.family->name == name; });
    FS_CHECK(found != families_.end());
    return *found;
}

void MetricsText::add(std::string_view name, double value, const MetricLabels& labels) {
    Family& of = family(name);
    prometheus::ClientMetric& sample = of.add({}, labels);
    (of.family->type == MetricType::kCounter ? sample.counter.value : sample.gauge.value) = value;
}

void MetricsText::add(std::string_view name, const DurationHistogram& durations,
                      const MetricLabels& labels) {
    Family& of = family(name);
    FS_CHECK(of.family->type == MetricType::kHistogram);
    of.add(durations.impl().histogram.Collect(), labels);
}

std::string MetricsText::text() const {
    std::vector<prometheus::MetricFamily> all;
    for (const Family& family : families_) {
        prometheus::MetricFamily& out = all.emplace_back();
        out.name = family.family->name;
        out.help = family.family->help;
        out.type = type_of(family.family->type);
        out.metric = family.samples;
    }
    return prometheus::TextSerializer().Serialize(all);
}

}  // namespace farshore
