// A directory for one test, removed with everything in it at the end.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/error.h"

namespace farshore {

class TestDirectory {
  public:
    explicit TestDirectory(const std::string& parent = "/tmp") {
        std::string path = parent + "/farshore-test-XXXXXX";
        FS_CHECK(::mkdtemp(path.data()) != nullptr);
        path_ = path;
    }
    ~TestDirectory() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TestDirectory(const TestDirectory&) = delete;
    TestDirectory& operator=(const TestDirectory&) = delete;

    const std::string& path() const { return path_; }
    std::string operator/(const std::string& name) const { return path_ + "/" + name; }

  private:
    std::string path_;
};

}  // namespace farshore
