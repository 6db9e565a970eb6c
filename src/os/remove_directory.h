// Taking away what a recovery or a script has left in the file system.
#pragma once

#include <string>

#include "base/seams.h"

namespace farshore {

// Ok when it is not there.
inline Status remove_if_there(FileSystem& files, const std::string& path) {
    const Status removed = files.remove(path);
    if (!removed && removed.error().code() != Code::kNotFound) return removed;
    return {};
}

// A flat directory with everything in it. Ok when it is not there.
inline Status remove_directory(FileSystem& files, const std::string& path) {
    const auto names = files.list(path);
    if (!names) {
        if (names.error().code() == Code::kNotFound) return {};
        return fail(names.error());
    }
    for (const std::string& name : *names) FS_TRY(remove_if_there(files, path + "/" + name));
    return remove_if_there(files, path);
}

}  // namespace farshore
