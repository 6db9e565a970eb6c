// The numbers of a part, as Prometheus reads them (text exposition format 0.0.4, written by
// prometheus-cpp): what each family is, once, and its samples behind that.
//
//     MetricsText text(kFamilies);
//     text.add("farshore_item_rpo_seconds", 1.5, {{"item", "web"}});
//     return text.text();
//
// The families of a part are one table, so that docs/operations/metrics.md can be held against it;
// a family without samples is written all the same, by its HELP and TYPE alone. One thread. Units
// are in the names: _seconds (times of day since 1970), _bytes; counters end in _total.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace farshore {

inline constexpr std::string_view kMetricsContentType = "text/plain; version=0.0.4; charset=utf-8";

enum class MetricType : unsigned char { kGauge, kCounter, kHistogram };

struct MetricFamily {
    const char* name;
    const char* help;
    MetricType type;
};

using MetricLabels = std::vector<std::pair<std::string, std::string>>;

// How many of many things took how long, from a millisecond to ten seconds. Any thread.
class DurationHistogram {
  public:
    DurationHistogram();
    ~DurationHistogram();
    void add_us(int64_t us);
    struct Impl;
    const Impl& impl() const { return *impl_; }

  private:
    std::unique_ptr<Impl> impl_;
};

class MetricsText {
  public:
    // The tables outlive it; families keep their order, and one in several tables counts once.
    explicit MetricsText(std::initializer_list<std::span<const MetricFamily>> tables);
    explicit MetricsText(std::span<const MetricFamily> table) : MetricsText({table}) {}
    ~MetricsText();

    // `name` is in a table. Label values are any UTF-8 text: they are escaped.
    void add(std::string_view name, double value, const MetricLabels& labels = {});
    // Exact up to 2^53; beyond that to 16 digits.
    template <typename Integer>
    requires std::is_integral_v<Integer>
    void add(std::string_view name, Integer value, const MetricLabels& labels = {}) {
        add(name, static_cast<double>(value), labels);
    }
    // In seconds; `name` is a histogram.
    void add(std::string_view name, const DurationHistogram& durations,
             const MetricLabels& labels = {});

    std::string text() const;

  private:
    struct Family;
    Family& family(std::string_view name);

    std::vector<Family> families_;
};

}  // namespace farshore
