#include "sim/buggify.h"

#include <fmt/core.h>

#include <algorithm>
#include <iterator>

namespace farshore {
namespace {

// A site is on in this share of the seeds, with one of these rates.
constexpr uint32_t kOnPpm = 400'000;
constexpr uint32_t kRatesPpm[] = {1'000, 10'000, 50'000, 200'000};

}  // namespace

FaultSites::Site& FaultSites::site(std::string_view name) {
    const auto found = sites_.find(name);
    if (found != sites_.end()) return found->second;
    Site& made = sites_[std::string(name)];
    made.rng = Rng(seed_).fork(hash_name(name) ^ 0x73697465u);
    if (made.rng.chance_ppm(kOnPpm))
        made.per_million = kRatesPpm[made.rng.below(std::size(kRatesPpm))];
    return made;
}

bool FaultSites::fire(std::string_view name) {
    Site& at = site(name);
    ++at.hits;
    if (!(enabled_ || at.forced) || !at.rng.chance_ppm(at.per_million)) return false;
    ++at.fired;
    return true;
}

void FaultSites::force(std::string_view name, uint32_t per_million) {
    Site& at = site(name);
    at.per_million = per_million;
    at.forced = true;
}

std::vector<FaultSiteCount> FaultSites::counts() const {
    std::vector<FaultSiteCount> out;
    out.reserve(sites_.size());
    for (const auto& [name, at] : sites_) out.push_back({name, at.hits, at.fired});
    std::ranges::sort(out, {}, &FaultSiteCount::name);
    return out;
}

void FaultSiteTable::add(const FaultSites& sites) {
    ++worlds_;
    for (const FaultSiteCount& count : sites.counts()) {
        Row& row = rows_[count.name];
        row.hits += count.hits;
        row.fired += count.fired;
        row.worlds += count.fired != 0;
    }
}

std::vector<std::string> FaultSiteTable::never_fired() const {
    std::vector<std::string> out;
    for (const auto& [name, row] : rows_)
        if (row.fired == 0) out.push_back(name);
    std::ranges::sort(out);
    return out;
}

std::string FaultSiteTable::to_text() const {
    std::vector<std::pair<std::string, Row>> rows(rows_.begin(), rows_.end());
    std::ranges::sort(rows, {}, [](const auto& row) { return row.first; });
    std::string text =
        fmt::format("{:<36} {:>10} {:>8} {:>7}\n", "fault site", "hits", "fired", "worlds");
    for (const auto& [name, row] : rows)
        text += fmt::format("{:<36} {:>10} {:>8} {:>7}\n", name, row.hits, row.fired, row.worlds);
    text += fmt::format("{} worlds; never fired:", worlds_);
    const auto never = never_fired();
    if (never.empty()) text += " none";
    for (const std::string& name : never) text += " " + name;
    return text + "\n";
}

}  // namespace farshore
