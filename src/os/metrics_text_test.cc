#include "os/metrics_text.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

constexpr MetricFamily kBytes{"t_bytes", "held now", MetricType::kGauge};
constexpr MetricFamily kEvents{"t_events_total", "since the start", MetricType::kCounter};
constexpr MetricFamily kTable[] = {kBytes, kEvents};
constexpr MetricFamily kMore[] = {{"t_more", "another table", MetricType::kGauge}, kBytes};

// Broken if a family were written twice, or its samples apart from it: Prometheus refuses the whole
// answer.
TEST(MetricsTextTest, AFamilyStandsOnceWithItsSamplesBehindIt) {
    MetricsText text({kTable, kMore});
    text.add("t_events_total", 3u, {{"kind", "a"}});
    text.add("t_bytes", uint64_t{1} << 50);
    text.add("t_events_total", 0.25, {{"kind", "b"}, {"item", "x"}});
    EXPECT_EQ(text.text(),
              "# HELP t_bytes held now\n# TYPE t_bytes gauge\nt_bytes 1125899906842624\n"
              "# HELP t_events_total since the start\n# TYPE t_events_total counter\n"
              "t_events_total{kind=\"a\"} 3\nt_events_total{kind=\"b\",item=\"x\"} 0.25\n"
              "# HELP t_more another table\n# TYPE t_more gauge\n");
}

// Broken if Prometheus took durations for something else, or could not say how many took longer.
TEST(MetricsTextTest, DurationsStandInBucketsOfSeconds) {
    constexpr MetricFamily kTook[] = {{"t_seconds", "of a page", MetricType::kHistogram}};
    DurationHistogram durations;
    durations.add_us(20'000);
    durations.add_us(60'000);
    durations.add_us(60'000'000);
    MetricsText text(kTook);
    text.add("t_seconds", durations, {{"kind", "read"}});
    const std::string said = text.text();
    for (const char* line :
         {"# TYPE t_seconds histogram\n", "t_seconds_count{kind=\"read\"} 3\n",
          "t_seconds_sum{kind=\"read\"} 60.08\n", "t_seconds_bucket{kind=\"read\",le=\"0.05\"} 1\n",
          "t_seconds_bucket{kind=\"read\",le=\"10\"} 2\n",
          "t_seconds_bucket{kind=\"read\",le=\"+Inf\"} 3\n"})
        EXPECT_NE(said.find(line), std::string::npos) << line << said;
}

// Broken if the name of an item could end its label, and with it the answer.
TEST(MetricsTextTest, LabelsAreEscaped) {
    MetricsText text(kTable);
    text.add("t_bytes", 1, {{"item", "a\"} 7\n\\x \xc3\xa9"}});
    EXPECT_NE(text.text().find("t_bytes{item=\"a\\\"} 7\\n\\\\x \xc3\xa9\"} 1\n"),
              std::string::npos)
        << text.text();
}

}  // namespace
}  // namespace farshore
