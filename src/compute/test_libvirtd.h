// A real libvirtd for one test: tests/e2e/private_libvirtd.sh.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>

#include "compute/test_support.h"
#include "os/test_paths.h"

namespace farshore {

class TestLibvirtd {
  public:
    // Its directory is made in `directory`, which is opened for everybody to pass through.
    // `network`: a network namespace to run in; empty: one of its own. `lines`: of libvirtd.conf.
    explicit TestLibvirtd(const std::string& directory, std::string network = {},
                          std::vector<std::string> lines = {})
        : directory_(directory + "/libvirtd"),
          network_(std::move(network)),
          lines_(std::move(lines)) {
        std::filesystem::permissions(directory, std::filesystem::perms(0711));
        start();
    }
    ~TestLibvirtd() { stop(); }

    std::string uri() const { return "qemu+unix:///system?socket=" + socket(); }
    // As after a power cut, until start().
    void stop() {
        process_.reset();
        EXPECT_TRUE(wait_until(20'000, 20, [&] { return !libvirtd_pid(); }));
    }
    void start() {
        std::vector<std::string> arguments;
        if (!network_.empty()) arguments = {"ip", "netns", "exec", network_};
        arguments.push_back(test_source_directory() + "/tests/e2e/private_libvirtd.sh");
        arguments.push_back(directory_);
        if (!network_.empty()) arguments.push_back("--this-network");
        arguments.insert(arguments.end(), lines_.begin(), lines_.end());
        process_ = std::make_unique<TestProcess>(std::move(arguments), directory_ + ".log");
        EXPECT_TRUE(wait_for_socket(socket())) << tail_of_file(directory_ + ".log", 4000);
    }
    // The daemon alone; its machines run on, and it is started anew.
    void kill_daemon() {
        const auto pid = libvirtd_pid();
        ASSERT_TRUE(pid);
        ASSERT_EQ(::kill(*pid, SIGKILL), 0);
        EXPECT_TRUE(wait_until(20'000, 20, [&] {
            const auto now = libvirtd_pid();
            return now && *now != *pid;
        }));
        EXPECT_TRUE(wait_for_socket(socket()));
    }
    // What `virsh` prints.
    std::string virsh(std::vector<std::string> arguments) const {
        arguments.insert(arguments.begin(), {"virsh", "-c", uri(), "-q"});
        return run_tool(std::move(arguments));
    }

  private:
    std::string socket() const { return directory_ + "/sock/libvirt-sock"; }
    std::optional<pid_t> libvirtd_pid() const {
        ProcessOptions options;
        options.arguments = {"pgrep", "-f", "^libvirtd .*" + directory_ + "/libvirtd.conf"};
        const auto found = run_command(options);
        if (!found || found->output.empty()) return std::nullopt;
        return static_cast<pid_t>(std::stol(found->output));
    }

    std::string directory_, network_;
    std::vector<std::string> lines_;
    std::unique_ptr<TestProcess> process_;
};

}  // namespace farshore
