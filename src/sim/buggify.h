// Named fault sites. A site is a place in a simulated seam where something unlikely but legal may
// happen. Per seed each site is drawn on or off, and when on, how often it fires: runs in which one
// fault is frequent and the others silent find what an even sprinkle of everything hides.
//
// What is drawn for a site depends on the seed and its name alone. Lives in a SimWorld, one thread.
// FaultSiteTable sums many worlds, so that a test can show which sites never fired in any seed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "sim/rng.h"

namespace farshore {

struct FaultSiteCount {
    std::string name;
    uint64_t hits = 0;   // times the site was asked
    uint64_t fired = 0;  // times it said yes
};

class FaultSites {
  public:
    explicit FaultSites(uint64_t seed) : seed_(seed) {}

    // Off (the default): sites are counted and never fire. A test that wants calm for a while, say
    // to let the system settle before it checks it, switches off and on again.
    void enable(bool on) { enabled_ = on; }
    bool enabled() const { return enabled_; }

    // Whether the site fires now.
    bool fire(std::string_view site);
    // Forces what would be drawn: 0 silences the site, 1'000'000 fires it always.
    void force(std::string_view site, uint32_t per_million);

    // By name.
    std::vector<FaultSiteCount> counts() const;

  private:
    struct Site {
        Rng rng{0};
        uint32_t per_million = 0;
        bool forced = false;
        uint64_t hits = 0;
        uint64_t fired = 0;
    };
    struct Hash {
        using is_transparent = void;
        size_t operator()(std::string_view text) const noexcept { return hash_name(text); }
    };
    Site& site(std::string_view name);

    uint64_t seed_;
    bool enabled_ = false;
    std::unordered_map<std::string, Site, Hash, std::equal_to<>> sites_;
};

class FaultSiteTable {
  public:
    void add(const FaultSites& sites);
    // A site that there is: when no world reaches it, it counts as one that never fired.
    void expect(const std::string& site) { rows_.try_emplace(site); }
    // Sites that were reached or are expected, and fired in no world added so far, by name.
    std::vector<std::string> never_fired() const;
    // One line a site: name, hits, fired, worlds in which it fired; then the never-fired list.
    std::string to_text() const;

  private:
    struct Row {
        uint64_t hits = 0, fired = 0, worlds = 0;
    };
    uint64_t worlds_ = 0;
    std::unordered_map<std::string, Row> rows_;
};

}  // namespace farshore
