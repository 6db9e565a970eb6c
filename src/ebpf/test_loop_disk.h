// For tests: a loop device over a file in a temporary directory. Needs root.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "os/process.h"
#include "os/real.h"
#include "os/test_directory.h"

namespace farshore {

inline std::string run_for_test(std::vector<std::string> arguments) {
    ProcessOptions options;
    options.arguments = std::move(arguments);
    auto done = run_command(options);
    EXPECT_TRUE(done && done->exit.success())
        << options.arguments[0] << ": "
        << (done ? done->error + done->exit.to_string() : done.error().to_string());
    std::string output = done ? done->output : "";
    while (output.ends_with('\n')) output.pop_back();
    return output;
}

class LoopDisk {
  public:
    LoopDisk(const std::string& directory, const std::string& name, uint64_t bytes)
        : image_(directory + "/" + name) {
        const int fd = ::open(image_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        EXPECT_GE(fd, 0);
        EXPECT_EQ(::ftruncate(fd, static_cast<off_t>(bytes)), 0);
        ::close(fd);
        device_ = run_for_test({"losetup", "-f", "--show", image_});
    }
    ~LoopDisk() {
        if (!device_.empty()) run_for_test({"losetup", "-d", device_});
    }
    LoopDisk(const LoopDisk&) = delete;
    LoopDisk& operator=(const LoopDisk&) = delete;
    const std::string& device() const { return device_; }
    const std::string& image() const { return image_; }

  private:
    std::string image_, device_;
};

}  // namespace farshore
