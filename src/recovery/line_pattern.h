// A regular expression that some line of a growing text has to match: what is said at a serial
// line. The line that has not ended yet counts as well, since a prompt has no end.
//
// RE2's syntax and promises: linear in the text, bounded memory, whatever was written down. One
// thread at a time.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/error.h"

namespace re2 {
class RE2;
}

namespace farshore {

inline constexpr size_t kMaxLinePatternBytes = 1000;
// Of a line that is longer the end counts.
inline constexpr size_t kMaxMatchedLineBytes = 4096;

class LinePattern {
  public:
    // kInvalidArgument with what is wrong in it.
    static Result<LinePattern> parse(const std::string& pattern);
    // Of the bytes that have come since the last call: true when a line matches somewhere.
    bool feed(std::string_view bytes);
    // The text begins anew.
    void restart() { line_.clear(); }

  private:
    std::shared_ptr<const re2::RE2> pattern_;
    std::string line_;  // that has not ended
};

}  // namespace farshore
