#include "compute/nbd_front.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/stat.h>

#include <filesystem>

#include "compute/nbd_server.h"
#include "compute/test_support.h"
#include "os/real.h"
#include "os/test_paths.h"

namespace farshore {
namespace {

constexpr const char* kClient = "qemu-host";

// A TCP socket at 127.0.0.1.
class RawSocket {
  public:
    RawSocket() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {}
    bool connect(uint16_t port) { return call(::connect, port); }
    bool listen(uint16_t port) {
        const int one = 1;
        (void)::setsockopt(fd_.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        return call(::bind, port) && ::listen(fd_.get(), 1) == 0;
    }
    void send(const std::string& text) {
        EXPECT_EQ(::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL),
                  static_cast<ssize_t>(text.size()));
    }
    // At most that many bytes; fewer at the end of the stream or when it is reset.
    std::string receive(size_t bytes) {
        std::string text(bytes, '\0');
        size_t got = 0;
        while (got < bytes) {
            const ssize_t n = ::recv(fd_.get(), text.data() + got, bytes - got, 0);
            if (n <= 0) break;
            got += static_cast<size_t>(n);
        }
        text.resize(got);
        return text;
    }

  private:
    template <typename Call>
    bool call(Call function, uint16_t port) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(port);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        return function(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    }
    UniqueFd fd_;
};

class NbdFrontTest : public testing::Test {
  protected:
    NbdFrontTest()
        : now_(RealClock().now()),
          authority_(CertificateAuthority::create("test-ca", now_).value()) {
        ::setenv("FARSHORE_NBD_FRONT", (test_build_directory() + "/bin/farshore-nbd-front").c_str(),
                 1);
        options_.run_directory = directory_.path();
        options_.listen_address = "127.0.0.1";
        // Below the ports of outgoing connections; other tests run beside this one.
        options_.first_port = static_cast<uint16_t>(20000 + ::getpid() % 120 * 100);
        options_.last_port = static_cast<uint16_t>(options_.first_port + 99);
        options_.target_socket = directory_ / "nbd.sock";
        options_.server = authority_
                              .issue_with_key({.common_name = "site",
                                               .alternative_names = {"127.0.0.1", "site.test"},
                                               .now = now_})
                              .value();
        options_.authority_pem = authority_.certificate_pem();
        options_.client_name = kClient;
    }
    ~NbdFrontTest() override {
        EXPECT_TRUE(NbdFront::clean_up(directory_.path()));
        EXPECT_TRUE(NbdServer::clean_up(directory_.path()));
    }

    NbdServer serve(std::vector<std::pair<std::string, std::string>> more = {},
                    std::vector<std::string> filters = {}) {
        more.emplace_back("size", "64M");
        auto server = NbdServer::start({.run_directory = directory_.path(),
                                        .plugin = "memory",
                                        .parameters = std::move(more),
                                        .filters = std::move(filters)});
        EXPECT_TRUE(server) << server.error().to_string();
        return std::move(server.value());
    }
    NbdFront start() {
        auto front = NbdFront::start(options_);
        EXPECT_TRUE(front) << front.error().to_string();
        return std::move(front.value());
    }
    // A directory with certificates as libnbd and QEMU want them. Without a name: none of its own.
    std::string client_directory(const std::string& name, const CertificateAuthority& issuer) {
        const std::string path = directory_ / ("tls-" + std::to_string(++directories_));
        std::filesystem::create_directory(path);
        PosixFileSystem files;
        const auto put = [&](const char* file, ByteView bytes) {
            EXPECT_TRUE(write_file_durably(files, path + "/" + file, bytes));
        };
        put("ca-cert.pem", as_bytes(authority_.certificate_pem()));
        if (name.empty()) return path;
        const Credentials own = issuer.issue_with_key({.common_name = name, .now = now_}).value();
        put("client-cert.pem", as_bytes(own.certificate_pem));
        put("client-key.pem", own.key_pem.reveal());
        return path;
    }
    std::string client_directory() { return client_directory(kClient, authority_); }
    static std::string uri(const NbdFront& front, const std::string& certificates) {
        return "nbds://" + front.address() + "/?tls-certificates=" + certificates;
    }
    static std::vector<std::string> qemu_img(const NbdFront& front, const std::string& certificates,
                                             const std::string& more_of_tls = {},
                                             const std::string& more = {}) {
        return {
            "qemu-img",
            "info",
            "--object",
            "tls-creds-x509,id=tls,endpoint=client,verify-peer=yes,dir=" + certificates +
                more_of_tls,
            "--image-opts",
            "driver=nbd,host=127.0.0.1,tls-creds=tls,port=" + std::to_string(front.port()) + more};
    }
    static CommandResult run(std::vector<std::string> arguments) {
        ProcessOptions options;
        options.arguments = std::move(arguments);
        auto result = run_command(options);
        EXPECT_TRUE(result) << result.error().to_string();
        return std::move(result.value());
    }
    bool log_says(const std::string& words) {
        const auto there = [&] {
            return tail_of_file(directory_ / "front.log", 1u << 20).find(words) !=
                   std::string::npos;
        };
        return wait_until(20'000, 5, there);
    }
    std::string log() { return tail_of_file(directory_ / "front.log", 1u << 20); }

    TestDirectory directory_;
    TimePoint now_;
    CertificateAuthority authority_;
    NbdFrontOptions options_;
    int directories_ = 0;
};

// Broken if one byte were lost, doubled or put elsewhere, on many connections with full buffers.
TEST_F(NbdFrontTest, DataGoThroughBothWays) {
    const NbdServer server = serve();
    const NbdFront front = start();
    const std::string certificates = client_directory();
    Bytes data(64u << 20);
    uint64_t state = 1;
    for (size_t i = 0; i < data.size(); i += 8) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        store_u64(&data[i], state ^ state >> 29);
    }
    PosixFileSystem files;
    ASSERT_TRUE(write_file_durably(files, directory_ / "in", data));
    run_tool({"nbdcopy", "--connections=4", directory_ / "in", uri(front, certificates)});
    run_tool({"nbdcopy", "nbd+unix:///?socket=" + server.socket_path(), directory_ / "direct"});
    EXPECT_TRUE(read_whole_file(files, directory_ / "direct", 128u << 20) == data)
        << "what was written through the front is not what the server has";
    run_tool({"nbdcopy", "--connections=4", "--request-size=33554432", uri(front, certificates),
              directory_ / "out"});
    EXPECT_TRUE(read_whole_file(files, directory_ / "out", 128u << 20) == data)
        << "what was read through the front is not what the server has";
}

// Broken if the QEMU of a libvirt host did not take our certificates, or our way of TLS.
TEST_F(NbdFrontTest, QemuReadsThroughIt) {
    const NbdServer server = serve();
    const NbdFront front = start();
    const std::string certificates = client_directory();
    for (const char* name : {"", ",tls-hostname=site.test"}) {
        const auto info = run(qemu_img(front, certificates, "", name));
        EXPECT_TRUE(info.exit.success()) << info.error;
        EXPECT_NE(info.output.find("64 MiB"), std::string::npos) << info.output;
    }
    EXPECT_FALSE(
        run(qemu_img(front, certificates, "", ",tls-hostname=elsewhere.test")).exit.success())
        << "QEMU takes us for another host";
    const std::string image =
        "driver=nbd,host=127.0.0.1,tls-creds=tls,port=" + std::to_string(front.port());
    run_tool({"qemu-io", "--object", "tls-creds-x509,id=tls,endpoint=client,dir=" + certificates,
              "--image-opts", image, "-c", "write -P 0x5a 1M 2M", "-c", "flush", "-c",
              "read -P 0x5a 1M 2M"});
}

// Broken if anybody but the one client came to the disks.
TEST_F(NbdFrontTest, OnlyTheOneClientIsLetIn) {
    const NbdServer server = serve();
    const NbdFront front = start();
    auto foreign = CertificateAuthority::create("test-ca", now_).value();
    EXPECT_FALSE(run({"nbdinfo", uri(front, client_directory("", authority_))}).exit.success());
    EXPECT_TRUE(log_says("peer did not return a certificate")) << log();
    EXPECT_FALSE(run({"nbdinfo", uri(front, client_directory(kClient, foreign))}).exit.success());
    EXPECT_TRUE(log_says("certificate verify failed")) << log();
    EXPECT_FALSE(
        run({"nbdinfo", uri(front, client_directory("another", authority_))}).exit.success());
    EXPECT_TRUE(log_says("it is 'another', not 'qemu-host'")) << log();
    EXPECT_FALSE(
        run(qemu_img(front, client_directory(), ",priority=NORMAL:-VERS-TLS1.3")).exit.success());
    EXPECT_TRUE(log_says("unsupported protocol")) << log();
    EXPECT_TRUE(run({"nbdinfo", uri(front, client_directory())}).exit.success()) << log();
}

TEST_F(NbdFrontTest, NothingIsServedInTheClear) {
    using std::string_literals::operator""s;
    const NbdServer server = serve();
    const NbdFront front = start();
    EXPECT_FALSE(run({"nbdinfo", "nbd://" + front.address()}).exit.success());

    RawSocket garbage;
    ASSERT_TRUE(garbage.connect(front.port()));
    EXPECT_EQ(garbage.receive(18), "NBDMAGICIHAVEOPT\x00\x03"s);
    garbage.send("GET / HTTP/1.1\r\n\r\n");
    EXPECT_EQ(garbage.receive(1), "");

    const std::string start_tls = "\0\0\0\3IHAVEOPT\0\0\0\5\0\0\0\0"s;
    RawSocket injected;
    ASSERT_TRUE(injected.connect(front.port()));
    EXPECT_EQ(injected.receive(18).size(), 18u);
    injected.send(start_tls + "IHAVEOPT\0\0\0\3\0\0\0\0"s);
    EXPECT_EQ(injected.receive(1), "") << "STARTTLS was answered although bytes came behind it";
    EXPECT_TRUE(log_says("in the clear came behind its STARTTLS")) << log();

    RawSocket clear;
    ASSERT_TRUE(clear.connect(front.port()));
    EXPECT_EQ(clear.receive(18).size(), 18u);
    clear.send(start_tls);
    EXPECT_EQ(clear.receive(20).size(), 20u);
    clear.send("IHAVEOPT\0\0\0\3\0\0\0\0"s);
    EXPECT_EQ(clear.receive(64).find("IHAVEOPT"), std::string::npos);
    EXPECT_TRUE(log_says("TLS handshake")) << log();
}

// Broken if a server that ended took the front with it, or its clients were left hanging.
TEST_F(NbdFrontTest, ServerMayEndAndComeBack) {
    const std::string requests = directory_ / "requests.log";
    NbdServer server =
        serve({{"delay-read", "1000"}, {"logfile", requests}}, {"log", "delay", "noextents"});
    const NbdFront front = start();
    const std::string certificates = client_directory();
    {
        ProcessOptions options;
        options.arguments = {"nbdcopy", uri(front, certificates), "null:"};
        auto client = Process::spawn(options);
        ASSERT_TRUE(client) << client.error().to_string();
        ASSERT_TRUE(wait_until(20'000, 5, [&] {
            return tail_of_file(requests, 1u << 20).find(" Read ") != std::string::npos;
        })) << tail_of_file(requests);
        ASSERT_TRUE(server.kill());
        const auto ended = client->wait(60'000'000);
        ASSERT_TRUE(ended) << "its connection was kept open: " << ended.error().to_string();
        EXPECT_FALSE(ended->success());
    }
    EXPECT_FALSE(run({"nbdinfo", uri(front, certificates)}).exit.success());
    EXPECT_TRUE(log_says("connect to " + options_.target_socket)) << log();
    EXPECT_TRUE(front.alive());
    serve();
    EXPECT_TRUE(run({"nbdinfo", uri(front, certificates)}).exit.success()) << log();
}

// Broken if the machine that reads through a front could not find it again.
TEST_F(NbdFrontTest, KeepsItsPortUntilItIsCleanedUp) {
    const NbdServer server = serve();
    options_.first_port += 7;  // not the one that a first start takes
    uint16_t port = 0;
    {
        NbdFront front = start();
        port = front.port();
        options_.first_port -= 7;
        // A connection that is cut keeps the port busy for a while.
        RawSocket client;
        ASSERT_TRUE(client.connect(port));
        EXPECT_EQ(client.receive(18).size(), 18u);
        ASSERT_TRUE(front.kill());
        EXPECT_FALSE(front.alive());
    }
    {
        NbdFront front = start();
        EXPECT_EQ(front.port(), port);
        EXPECT_EQ(front.address(), "127.0.0.1:" + std::to_string(port));
        EXPECT_TRUE(run({"nbdinfo", uri(front, client_directory())}).exit.success());
        ASSERT_TRUE(front.kill());
    }
    RawSocket other;
    ASSERT_TRUE(other.listen(port));
    const auto taken = NbdFront::start(options_);
    ASSERT_FALSE(taken) << "it listens where none of its clients looks";
    EXPECT_EQ(taken.error().code(), Code::kUnavailable) << taken.error().to_string();
    EXPECT_NE(taken.error().what().find(std::to_string(port)), std::string::npos);
    EXPECT_FALSE(std::filesystem::exists(directory_ / "front.json"))
        << "a key is left after a start that failed";
    ASSERT_TRUE(NbdFront::clean_up(directory_.path()));
    EXPECT_NE(start().port(), port);
}

TEST_F(NbdFrontTest, OutlivesItsHandleAndIsAdopted) {
    uint16_t port = 0;
    EXPECT_EQ(NbdFront::adopt(directory_.path()).error().code(), Code::kNotFound);
    {
        const NbdFront front = start();
        port = front.port();
    }
    EXPECT_EQ(NbdFront::start(options_).error().code(), Code::kAlreadyExists);
    const auto front = NbdFront::adopt(directory_.path());
    ASSERT_TRUE(front) << front.error().to_string();
    EXPECT_TRUE(front->alive()) << "the front ended with its handle";
    EXPECT_EQ(front->port(), port);
    EXPECT_EQ(front->address(), "127.0.0.1:" + std::to_string(port));
    struct stat info {};
    ASSERT_EQ(::stat((directory_ / "front.json").c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600u) << "everybody may read the key";
    ASSERT_TRUE(NbdFront::clean_up(directory_.path()));
    EXPECT_FALSE(front->alive());
    EXPECT_TRUE(std::filesystem::is_empty(directory_.path()));
    EXPECT_TRUE(NbdFront::clean_up(directory_.path()));
}

TEST_F(NbdFrontTest, SaysWhyItCannotStart) {
    RawSocket other;
    ASSERT_TRUE(other.listen(options_.first_port));
    options_.last_port = options_.first_port;
    const auto full = NbdFront::start(options_);
    ASSERT_FALSE(full);
    EXPECT_EQ(full.error().code(), Code::kLimitReached) << full.error().to_string();
    options_.last_port += 50;
    EXPECT_GT(start().port(), options_.first_port) << "a port that is taken stops the search";
    ASSERT_TRUE(NbdFront::clean_up(directory_.path()));

    const auto code = [&](auto spoil) {
        NbdFrontOptions options = options_;
        spoil(options);
        const auto front = NbdFront::start(options);
        return front ? Code::kInternal : front.error().code();
    };
    EXPECT_EQ(code([](auto& o) { o.listen_address = "192.0.2.1"; }), Code::kUnavailable);
    EXPECT_EQ(code([](auto& o) { o.last_port = 1; }), Code::kInvalidArgument);
    EXPECT_EQ(code([](auto& o) { o.client_name.clear(); }), Code::kInvalidArgument);
    EXPECT_EQ(code([](auto& o) { o.target_socket = std::string(108, 'x'); }),
              Code::kInvalidArgument);
    EXPECT_EQ(code([](auto& o) { o.authority_pem = "none"; }), Code::kMalformed);
    EXPECT_EQ(code([&](auto& o) {
                  o.server.key_pem =
                      authority_.issue_with_key({.common_name = "x", .now = now_}).value().key_pem;
              }),
              Code::kWrongKey);
    ::setenv("FARSHORE_NBD_FRONT", "/no/such/program", 1);
    EXPECT_EQ(code([](auto&) {}), Code::kDependencyMissing);
}

// Broken if strangers that say nothing could use up what the machine has.
TEST_F(NbdFrontTest, ConnectionsAreBounded) {
    const NbdServer server = serve();
    const NbdFront front = start();
    constexpr size_t kBound = 256;
    {
        std::vector<RawSocket> silent(kBound);
        for (RawSocket& socket : silent) {
            ASSERT_TRUE(socket.connect(front.port()));
            ASSERT_EQ(socket.receive(18).size(), 18u);
        }
        RawSocket more;
        ASSERT_TRUE(more.connect(front.port()));
        EXPECT_EQ(more.receive(18), "") << "one more than the bound was served";
    }
    const std::string certificates = client_directory();
    EXPECT_TRUE(wait_until(60'000, 5, [&] {
        return run({"nbdinfo", uri(front, certificates)}).exit.success();
    })) << "those that have gone are counted still";
}

}  // namespace
}  // namespace farshore
