#include "compute/child_files.h"

#include "os/real.h"

namespace farshore {

Status remove_if_there(const std::string& path) {
    PosixFileSystem files;
    const Status removed = files.remove(path);
    if (!removed && removed.error().code() != Code::kNotFound) return removed;
    return {};
}

Code code_of_last_error(std::string_view log) {
    constexpr std::string_view kMark = "error: ";
    size_t at = log.rfind('\n') + 1;  // 0 when there is one line only
    while ((at = log.find(kMark, at)) != log.npos) {
        at += kMark.size();
        const size_t colon = log.find(':', at);
        if (colon == log.npos) break;
        const Code code = code_from_name(log.substr(at, colon - at));
        if (code != Code::kInternal) return code;
    }
    return Code::kUnavailable;
}

}  // namespace farshore
