// Versions of resources (RFC 9110 section 8.8.3): a hash of what of a resource can be changed, so
// that its live numbers - state, RPO, bytes - do not make another version. Pure; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "meta/json_fields.h"

namespace farshore {

inline constexpr size_t kMaxEtags = 64;  // in one header

// "\"0123456789abcdef0123456789abcdef\"", quotes included.
std::string etag_of(const Json& changeable);
std::string etag_of_text(std::string_view changeable);

struct EtagList {
    bool any = false;  // "*"
    struct Tag {
        bool weak = false;
        std::string text;  // quotes included
    };
    std::vector<Tag> tags;

    // If-Match compares strongly, If-None-Match weakly (RFC 9110 section 8.8.3.2).
    bool matches(std::string_view etag, bool strongly) const;
};
// The value of If-Match or If-None-Match. kMalformed: it is no list of versions.
Result<EtagList> parse_etags(std::string_view text);

}  // namespace farshore
