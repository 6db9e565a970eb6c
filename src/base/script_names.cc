#include "base/script_names.h"

#include <fmt/core.h>

#include "base/plain_name.h"

namespace farshore {

Status check_script_name(std::string_view name) {
    if (is_plain_name(name, kMaxScriptNameBytes)) return {};
    return fail(Code::kInvalidArgument,
                fmt::format("'{}' is not the name of a script", name.substr(0, 128)),
                "the name of a file in the scripts directory: letters, digits, '.', '_' and '-'");
}

bool is_script_handle(std::string_view handle) {
    return !handle.empty() && handle.size() <= 64 &&
           handle.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == handle.npos;
}

}  // namespace farshore
