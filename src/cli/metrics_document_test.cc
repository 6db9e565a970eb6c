// docs/operations/metrics.md and the dashboard against what the parts say.
#include <gtest/gtest.h>

#include <array>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <sstream>

#include "agent/agent_metrics.h"
#include "appliance/appliance_metrics.h"
#include "os/test_paths.h"
#include "store/store_metrics.h"
#include "vault/vault_metrics.h"

namespace farshore {
namespace {

std::string text_of(const std::string& path) {
    std::ifstream file(test_source_directory() + "/" + path);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
}

// Name and type of each row of its tables.
std::map<std::string, std::string> documented() {
    const std::string text = text_of("docs/operations/metrics.md");
    const std::regex row(
        R"(\n\| `(farshore_\w+)` \| (gauge|counter|histogram) \| [^|]+ \| [^|]* \| [^|]+ \|)");
    std::map<std::string, std::string> found;
    for (std::sregex_iterator at(text.begin(), text.end(), row), end; at != end; ++at)
        EXPECT_TRUE(found.emplace((*at)[1], (*at)[2]).second) << (*at)[1] << " is there twice";
    return found;
}

constexpr std::array kTypes = {"gauge", "counter", "histogram"};  // as MetricType has them

std::map<std::string, std::string> said() {
    std::map<std::string, std::string> all;
    for (const auto& table : {vault_metric_families(), std::span<const MetricFamily>(kStoreMetrics),
                              appliance_metric_families(), agent_metric_families()})
        for (const MetricFamily& family : table)
            EXPECT_TRUE(
                all.emplace(family.name, kTypes.at(static_cast<size_t>(family.type))).second)
                << family.name << " is said twice";
    return all;
}

// Broken if somebody looked up a number and found nothing, or another kind of number.
TEST(MetricsDocument, HasEachNumberThatAPartSays) { EXPECT_EQ(documented(), said()); }

// Broken if the unit of a number could not be told from its name.
TEST(MetricsDocument, CountersAndTimesAreNamedSo) {
    for (const auto& [name, type] : said())
        EXPECT_EQ(name.ends_with("_total"), type == "counter") << name;
    const std::string text = text_of("docs/operations/metrics.md");
    const std::regex row(R"(\n\| `(farshore_\w+)` \| \w+ \| ([^|]+) \|)");
    for (std::sregex_iterator at(text.begin(), text.end(), row), end; at != end; ++at) {
        const std::string name = (*at)[1], unit = (*at)[2];
        EXPECT_EQ(name.find("_seconds") != std::string::npos && !name.ends_with("per_second"),
                  unit == "s" || unit == "s since 1970")
            << name;
        EXPECT_EQ(name.find("_bytes") != std::string::npos, unit == "bytes" || unit == "bytes/s")
            << name;
    }
}

// Broken if a panel of the dashboard were empty for ever, since nobody says its number.
TEST(MetricsDocument, TheDashboardAsksForWhatThereIs) {
    const auto known = said();
    const auto dashboard =
        nlohmann::json::parse(text_of("packaging/grafana/farshore.json"), nullptr, false);
    ASSERT_TRUE(dashboard.is_object());
    const std::regex word(R"(farshore_\w+)");
    std::set<std::string> asked;
    std::vector<std::string> expressions;
    for (const auto& panel : dashboard["panels"])
        for (const auto& target : panel.value("targets", nlohmann::json::array()))
            expressions.push_back(target["expr"]);
    for (const auto& variable : dashboard["templating"]["list"])
        if (variable["type"] == "query") expressions.push_back(variable["query"]["query"]);
    // The page's own examples, too.
    expressions.push_back(text_of("docs/operations/metrics.md"));
    for (const std::string& text : expressions)
        for (std::sregex_iterator at(text.begin(), text.end(), word), end; at != end; ++at)
            asked.insert(at->str());
    asked.erase("farshore_capture_");  // "those of farshore_capture_…"
    EXPECT_GT(asked.size(), 40u);
    for (const std::string& name : asked) {
        const std::string family = name.substr(0, name.rfind("_bucket"));
        const auto found = known.find(family);
        ASSERT_NE(found, known.end()) << name;
        EXPECT_TRUE(family == name || found->second == "histogram") << name;
    }
}

}  // namespace
}  // namespace farshore
