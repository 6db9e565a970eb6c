// For tests of this folder and of src/recovery: a QEMU without a guest system, and a server that
// says what the test wants.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "os/process.h"
#include "os/program_files.h"
#include "os/test_directory.h"
#include "os/unix_stream.h"
#include "os/waiting.h"

namespace farshore {

// A process that ends with the test, whatever happens.
class TestProcess {
  public:
    TestProcess(std::vector<std::string> arguments, std::string log) {
        ProcessOptions options;
        options.arguments = std::move(arguments);
        options.output = options.error = StdStream::file(std::move(log));
        options.die_with_parent = true;
        auto process = Process::spawn(options);
        EXPECT_TRUE(process) << process.error().to_string();
        if (process) process_ = std::make_unique<Process>(std::move(*process));
    }
    ~TestProcess() { kill(); }
    void kill() {
        if (!process_) return;
        (void)process_->kill(SIGKILL);
        (void)process_->wait(10'000'000);
        process_.reset();
    }
    bool alive() const { return process_ && process_->is_alive(); }
    pid_t pid() const { return process_->pid(); }

  private:
    std::unique_ptr<Process> process_;
};

inline bool wait_for_socket(const std::string& path) {
    return wait_until(20'000, 5, [&] { return unix_socket_accepts(path); });
}

// Runs a program to its end and gives its standard output; a failure fails the test.
inline std::string run_tool(std::vector<std::string> arguments) {
    ProcessOptions options;
    options.arguments = std::move(arguments);
    const auto result = run_command(options);
    EXPECT_TRUE(result) << (result ? "" : result.error().to_string());
    if (!result) return {};
    EXPECT_TRUE(result->exit.success()) << result->output << result->error;
    return result->output;
}

// Accepts connections on a unix socket and answers the first with `greeting`, then each line with
// the next of `answers`; an empty greeting says nothing. Ends with the test.
class FakeMonitor {
  public:
    FakeMonitor(std::string path, const std::string& greeting,
                const std::vector<std::string>& answers)
        : path_(std::move(path)) {
        listener_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::strncpy(address.sun_path, path_.c_str(), sizeof address.sun_path - 1);
        EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address),
                  0);
        EXPECT_EQ(::listen(listener_.get(), 4), 0);
        thread_ = std::thread([this, greeting, answers] {
            const UniqueFd client(::accept(listener_.get(), nullptr, nullptr));
            if (!client) return;
            (void)!::send(client.get(), greeting.data(), greeting.size(), MSG_NOSIGNAL);
            char byte = 0;
            for (const std::string& answer : answers) {
                while (::recv(client.get(), &byte, 1, 0) == 1 && byte != '\n') {
                }
                (void)!::send(client.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
            }
            while (::recv(client.get(), &byte, 1, 0) == 1) {
            }
        });
    }
    ~FakeMonitor() {
        ::shutdown(listener_.get(), SHUT_RDWR);
        thread_.join();
    }

  private:
    std::string path_;
    UniqueFd listener_;
    std::thread thread_;
};

}  // namespace farshore
