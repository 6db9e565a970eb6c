// Objects whose members are all known. For .cc files only: it pulls in the whole JSON library.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>

#include "meta/json_fields.h"

namespace farshore {

// kMalformed: a member of the object that is none of `known`; what is misspelt must not be taken
// for unsaid.
inline Status check_members(const Json& object, std::string_view path,
                            std::initializer_list<std::string_view> known) {
    if (!object.is_object()) return {};
    for (const auto& [name, value] : object.items()) {
        if (std::ranges::find(known, name) != known.end()) continue;
        std::string all;
        for (const std::string_view one : known)
            all += fmt::format("{}{}", all.empty() ? "" : ", ", one);
        return fail(Code::kMalformed,
                    fmt::format("{} has no member '{}'", path, name.substr(0, 64)),
                    all.empty() ? "it has none" : "its members are " + all);
    }
    return {};
}

}  // namespace farshore
