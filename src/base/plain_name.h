// What people may call things that become names of files, parts of paths and words of commands.
#pragma once

#include <string_view>

namespace farshore {

// 1 to `most` letters, digits, '.', '_' and '-', with neither '.' nor '-' in front.
inline bool is_plain_name(std::string_view name, size_t most) {
    return !name.empty() && name.size() <= most && name.front() != '.' && name.front() != '-' &&
           name.find_first_not_of(
               "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == name.npos;
}

}  // namespace farshore
