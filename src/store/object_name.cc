#include "store/object_name.h"

#include <fmt/core.h>

#include <algorithm>

namespace farshore {
namespace {

constexpr size_t kMaxPartBytes = 255;  // what file systems take

bool allowed(char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

}  // namespace

Status check_object_name(std::string_view name) {
    const auto bad = [&](std::string_view why) {
        return fail(Code::kInvalidArgument,
                    fmt::format("'{}' is no object name: {}", name.substr(0, 80), why));
    };
    if (name.empty()) return bad("it is empty");
    if (name.size() > kMaxObjectNameBytes) return bad("it is too long");
    for (std::string_view rest = name;;) {
        const size_t slash = rest.find('/');
        const std::string_view part = rest.substr(0, slash);
        if (part.empty()) return bad("it has an empty part");
        if (part == "." || part == "..") return bad("it has a part of dots");
        if (part.size() > kMaxPartBytes) return bad("a part is too long");
        if (!std::ranges::all_of(part, allowed))
            return bad("only a-z 0-9 . _ - and / belong there");
        if (slash == std::string_view::npos) return {};
        rest = rest.substr(slash + 1);
    }
}

bool is_object_name_prefix(std::string_view prefix) {
    return prefix.size() <= kMaxObjectNameBytes &&
           std::ranges::all_of(prefix, [](char c) { return allowed(c) || c == '/'; });
}

}  // namespace farshore
