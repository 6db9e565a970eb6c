#include "os/unix_stream.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <vector>

#include "os/test_directory.h"

namespace farshore {
namespace {

UniqueFd listen_at(const std::string& path, int backlog) {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(fd.get(), backlog), 0);
    return fd;
}

TEST(UnixStream, ErrorsAreNamed) {
    const TestDirectory directory;
    EXPECT_EQ(UnixStream::connect(directory / "none", 10).error().code(), Code::kNotFound);
    { const UniqueFd gone = listen_at(directory / "gone", 1); }
    EXPECT_EQ(UnixStream::connect(directory / "gone", 10).error().code(), Code::kUnavailable);
    EXPECT_FALSE(unix_socket_accepts(directory / "gone"));
    EXPECT_EQ(UnixStream::connect(std::string(kMaxUnixPathBytes + 1, 'x'), 10).error().code(),
              Code::kInvalidArgument);
}

TEST(UnixStream, FullListenerIsNotWaitedForForEver) {
    const TestDirectory directory;
    const UniqueFd listener = listen_at(directory / "s", 0);
    std::vector<std::unique_ptr<UnixStream>> taken;
    for (int i = 0; i < 16; ++i) {
        auto stream = UnixStream::connect(directory / "s", 20);
        if (!stream) {
            EXPECT_EQ(stream.error().code(), Code::kTimeout);
            return;
        }
        taken.push_back(std::move(*stream));
    }
    FAIL() << "a queue of length 0 took 16 connections";
}

TEST(UnixStream, BytesGoBothWaysAndSilenceTimesOut) {
    const TestDirectory directory;
    const UniqueFd listener = listen_at(directory / "s", 4);
    auto stream = UnixStream::connect(directory / "s", 1000);
    ASSERT_TRUE(stream);
    EXPECT_EQ(*(*stream)->peer_pid(), ::getpid());
    EXPECT_EQ(*unix_socket_server_pid(directory / "s"), ::getpid());
    UniqueFd server(::accept(listener.get(), nullptr, nullptr));
    ASSERT_TRUE((*stream)->write_all(as_bytes("ping"), 1000));
    char buffer[16] = {};
    ASSERT_EQ(::recv(server.get(), buffer, sizeof buffer, 0), 4);
    EXPECT_EQ(std::string(buffer), "ping");
    Bytes in(16);
    EXPECT_EQ((*stream)->read_some(in, 10).error().code(), Code::kTimeout);
    ASSERT_EQ(::send(server.get(), "pong", 4, 0), 4);
    EXPECT_EQ(*(*stream)->read_some(in, 1000), 4u);
    // A peer that does not read: writing ends with the time-out instead of hanging.
    EXPECT_EQ((*stream)->write_all(Bytes(8 << 20), 20).error().code(), Code::kTimeout);
    server.reset();
    EXPECT_FALSE((*stream)->write_all(as_bytes("x"), 1000));
}

}  // namespace
}  // namespace farshore
