// Where a test finds what it does not make itself. From the place of its own program (CMakePresets:
// SOURCE/build/PRESET/bin), not from definitions of the compiler: objects then are the same in each
// clone, and one finds in the compiler cache what another has compiled.
#pragma once

#include <filesystem>
#include <string>

namespace farshore {

// Of the build, without a slash at its end.
inline std::string test_build_directory() {
    return std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path().string();
}

inline std::string test_source_directory() {
    return std::filesystem::path(test_build_directory()).parent_path().parent_path().string();
}

}  // namespace farshore
