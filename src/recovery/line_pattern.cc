#include "recovery/line_pattern.h"

#include <fmt/core.h>
#include <re2/re2.h>

namespace farshore {
namespace {

constexpr int64_t kMaxMemory = 1 << 20;

}  // namespace

Result<LinePattern> LinePattern::parse(const std::string& pattern) {
    if (pattern.empty() || pattern.size() > kMaxLinePatternBytes)
        return fail(Code::kInvalidArgument,
                    fmt::format("a pattern has 1 to {} bytes", kMaxLinePatternBytes));
    re2::RE2::Options options;
    options.set_log_errors(false);
    options.set_max_mem(kMaxMemory);
    // A serial line says any bytes; the pattern means bytes, too.
    options.set_encoding(re2::RE2::Options::EncodingLatin1);
    LinePattern made;
    made.pattern_ = std::make_shared<re2::RE2>(pattern, options);
    if (!made.pattern_->ok())
        return fail(Code::kInvalidArgument,
                    fmt::format("'{}' is no regular expression: {}", pattern.substr(0, 128),
                                made.pattern_->error()),
                    "write it in RE2's syntax; a '\\' before a sign takes it literally");
    return made;
}

bool LinePattern::feed(std::string_view bytes) {
    bool found = false;
    while (!bytes.empty()) {
        const size_t end = bytes.find_first_of("\r\n");
        line_.append(bytes.substr(0, end));
        if (line_.size() > kMaxMatchedLineBytes)
            line_.erase(0, line_.size() - kMaxMatchedLineBytes);
        found = found || re2::RE2::PartialMatch(line_, *pattern_);
        if (end == bytes.npos) break;
        line_.clear();
        bytes.remove_prefix(end + 1);
    }
    return found;
}

}  // namespace farshore
