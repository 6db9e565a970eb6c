#include "compute/guest_freezer.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <nlohmann/json.hpp>
#include <thread>

#include "compute/guest_agent.h"
#include "os/process.h"
#include "os/test_directory.h"
#include "os/unix_stream.h"
#include "os/waiting.h"

namespace farshore {
namespace {

using Json = nlohmann::json;

// A machine's end of the socket, as a test wants it: what it answers to a line; empty: nothing.
class FakeGuest {
  public:
    using Answer = std::function<std::string(const Json&)>;
    FakeGuest(std::string path, Answer answer)
        : path_(std::move(path)), answer_(std::move(answer)) {
        listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        path_.copy(address.sun_path, sizeof address.sun_path - 1);
        EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
        EXPECT_EQ(::listen(listener_, 4), 0);
        thread_ = std::thread([this] { serve(); });
    }
    ~FakeGuest() {
        ended_ = true;
        ::shutdown(listener_, SHUT_RDWR);
        const int client = client_;
        if (client >= 0) ::shutdown(client, SHUT_RDWR);
        thread_.join();
        ::close(listener_);
    }
    const std::string& path() const { return path_; }

  private:
    void serve() {
        while (!ended_) {
            const int client = ::accept(listener_, nullptr, nullptr);
            if (client < 0) return;
            client_ = client;
            std::string line;
            char c = 0;
            while (!ended_ && ::read(client, &c, 1) == 1) {
                if (c == '\xff') {
                    line.clear();
                    continue;
                }
                if (c != '\n') {
                    line += c;
                    continue;
                }
                const Json asked = Json::parse(line, nullptr, false);
                line.clear();
                const std::string answer = answer_(asked);
                if (!answer.empty())
                    (void)!::send(client, answer.data(), answer.size(), MSG_NOSIGNAL);
            }
            client_ = -1;
            ::close(client);
        }
    }
    const std::string path_;
    const Answer answer_;
    int listener_ = -1;
    std::atomic<int> client_{-1};
    std::atomic<bool> ended_{false};
    std::thread thread_;
};

std::string synced(const Json& asked) {
    return "\xff" + Json{{"return", asked["arguments"]["id"]}}.dump() + "\n";
}

// One that can freeze: what a good guest answers.
struct GoodGuest {
    std::atomic<bool> frozen{false};
    std::atomic<int> freezes{0}, thaws{0};
    std::string operator()(const Json& asked) {
        const std::string command = asked.value("execute", "");
        if (command == "guest-sync-delimited") return synced(asked);
        if (command == "guest-fsfreeze-status")
            return frozen ? "{\"return\": \"frozen\"}\n" : "{\"return\": \"thawed\"}\n";
        if (command == "guest-fsfreeze-freeze") {
            ++freezes;
            frozen = true;
            return "{\"return\": 2}\n";
        }
        if (command == "guest-fsfreeze-thaw") {
            ++thaws;
            return frozen.exchange(false) ? "{\"return\": 2}\n" : "{\"return\": 0}\n";
        }
        return "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no such\"}}\n";
    }
};

struct Pipes {
    Pipes() {
        EXPECT_EQ(::pipe(in), 0);
        EXPECT_EQ(::pipe(out), 0);
    }
    ~Pipes() {
        end();
        for (const int fd : {in[0], out[0], out[1]}) ::close(fd);
    }
    void end() {
        if (in[1] >= 0) ::close(in[1]);
        in[1] = -1;
    }
    std::string said() {
        char text[64];
        const ssize_t n = ::read(out[0], text, sizeof text);
        return std::string(text, n > 0 ? static_cast<size_t>(n) : 0);
    }
    int in[2], out[2];
};

// Broken if a machine were not frozen when that is said, or not thawed when it is told.
TEST(GuestFreezer, FreezesUntilTold) {
    TestDirectory directory;
    GoodGuest good;
    FakeGuest guest(directory / "qga.sock", std::ref(good));
    Pipes pipes;
    Status result;
    std::thread program([&] {
        result = freeze_guest_until_told({guest.path(), 10'000, false}, pipes.in[0], pipes.out[1]);
    });
    EXPECT_EQ(pipes.said(), "frozen\n");
    EXPECT_TRUE(good.frozen);
    pipes.end();
    program.join();
    EXPECT_TRUE(result) << result.error().to_string();
    EXPECT_FALSE(good.frozen);
    EXPECT_EQ(good.freezes, 1);
}

// Broken if a machine stayed frozen because nobody said anything, or a point were taken for one of
// frozen file systems when they were thawed before.
TEST(GuestFreezer, ThawsWhateverHappens) {
    TestDirectory directory;
    GoodGuest good;
    FakeGuest guest(directory / "qga.sock", std::ref(good));
    {
        Pipes pipes;
        const Status late =
            freeze_guest_until_told({guest.path(), 300, false}, pipes.in[0], pipes.out[1]);
        EXPECT_EQ(late.error().code(), Code::kTimeout);
        EXPECT_FALSE(good.frozen);
    }
    {
        // Somebody else's freeze is left alone.
        good.frozen = true;
        Pipes pipes;
        EXPECT_EQ(freeze_guest_until_told({guest.path(), 300, false}, pipes.in[0], pipes.out[1])
                      .error()
                      .code(),
                  Code::kWrongState);
        EXPECT_TRUE(good.frozen);
        EXPECT_TRUE(freeze_guest_until_told({guest.path(), 300, true}, -1, -1)) << "a leftover";
        EXPECT_FALSE(good.frozen);
    }
    {
        Pipes pipes;
        Status result;
        std::thread program([&] {
            result =
                freeze_guest_until_told({guest.path(), 10'000, false}, pipes.in[0], pipes.out[1]);
        });
        EXPECT_EQ(pipes.said(), "frozen\n");
        good.frozen = false;  // by itself, as Windows does
        pipes.end();
        program.join();
        EXPECT_EQ(result.error().code(), Code::kTimeout);
    }
    EXPECT_TRUE(freeze_guest_until_told({directory / "gone.sock", 300, true}, -1, -1));
}

// Broken if silence, garbage or lies of a guest hung us, or were believed.
TEST(GuestFreezer, BelievesAGuestNothing) {
    TestDirectory directory;
    {
        FakeGuest silent(directory / "silent.sock", [](const Json&) { return ""; });
        auto agent = GuestAgent::connect(silent.path(), 200);
        EXPECT_EQ(agent.error().code(), Code::kTimeout);
    }
    {
        // Left over from somebody before us, and noise, before our own mark.
        FakeGuest noisy(directory / "noisy.sock", [](const Json& asked) {
            if (asked.value("execute", "") == "guest-sync-delimited")
                return "{\"return\": 1}\n\x01\x02{{{\n[1]\n{\"return\": \"frozen\"}\n" +
                       synced(asked);
            return std::string("{\"return\": {\"not\": \"a number\"}}\n");
        });
        auto agent = GuestAgent::connect(noisy.path(), 2'000);
        ASSERT_TRUE(agent) << agent.error().to_string();
        EXPECT_EQ(agent->freeze(1'000).error().code(), Code::kMalformed);
    }
    {
        FakeGuest flood(directory / "flood.sock",
                        [](const Json&) { return std::string(200'000, 'x'); });
        EXPECT_EQ(GuestAgent::connect(flood.path(), 200).error().code(), Code::kTimeout);
    }
    {
        FakeGuest old(directory / "old.sock", [](const Json& asked) {
            if (asked.value("execute", "") == "guest-sync-delimited") return synced(asked);
            return std::string("{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no\"}}\n");
        });
        auto agent = GuestAgent::connect(old.path(), 2'000);
        ASSERT_TRUE(agent);
        EXPECT_EQ(agent->freeze(1'000).error().code(), Code::kUnsupported);
    }
}

// Broken if Debian's own agent were not understood. It is only asked whether something is frozen:
// what it would freeze is this machine.
TEST(GuestFreezer, SpeaksWithTheRealOne) {
    const char* const program = "/usr/sbin/qemu-ga";
    ASSERT_EQ(::access(program, X_OK), 0) << "packaging/debian-packages.txt has it";
    TestDirectory directory;
    const std::string socket = directory / "qga.sock";
    ProcessOptions options;
    options.arguments = {program,          "-m", "unix-listen",    "-p", socket, "-t",
                         directory.path(), "-f", directory / "pid"};
    options.die_with_parent = true;
    auto agent = Process::spawn(options);
    ASSERT_TRUE(agent) << agent.error().to_string();
    ASSERT_TRUE(wait_until(20'000, 50, [&] { return unix_socket_accepts(socket); }));
    for (int i = 0; i < 2; ++i) {
        auto client = GuestAgent::connect(socket, 10'000);
        ASSERT_TRUE(client) << client.error().to_string();
        const auto frozen = client->is_frozen(10'000);
        ASSERT_TRUE(frozen) << frozen.error().to_string();
        EXPECT_FALSE(*frozen);
    }
    (void)agent->terminate(1'000'000);
}

TEST(GuestFreezer, FindsTheSocketInQemusWords) {
    EXPECT_EQ(socket_of_chardev("unix:/run/qga.sock,server=on"), "/run/qga.sock");
    EXPECT_EQ(socket_of_chardev("disconnected:unix:/run/qga.sock,server=on"), "/run/qga.sock");
    EXPECT_EQ(socket_of_chardev("unix:/run/qga.sock,server=on <-> "), "/run/qga.sock");
    EXPECT_EQ(socket_of_chardev("pty:/dev/pts/3"), "");
    EXPECT_EQ(socket_of_chardev("unix:relative,server=on"), "");
}

}  // namespace
}  // namespace farshore
