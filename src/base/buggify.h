// Lets the simulation make what is rare in production happen often: a queue that is full, a batch
// of one, a retry although it went well. Product code asks at the place where it may happen:
//
//   if (buggify(options_.buggify, "intake.cut_now")) return cut();
//
// What a site does must be legal at any moment: something that production may do as well, if only
// once in a year. Production has no Buggify: the question costs a comparison with null, and no
// state is shared. docs/design/simulation.md §7.
#pragma once

#include <string_view>

namespace farshore {

// Borrowed by whoever asks, and outlives it. One thread: that of the simulated world.
class Buggify {
  public:
    virtual ~Buggify() = default;
    // Whether the site ("part.what") fires now.
    virtual bool fire(std::string_view site) = 0;
};

inline bool buggify(Buggify* sites, std::string_view site) {
    return sites != nullptr && sites->fire(site);
}

}  // namespace farshore
