#include "compute/nbd_server.h"

#include <gtest/gtest.h>

#include "compute/test_support.h"
#include "os/real.h"

namespace farshore {
namespace {

NbdServerOptions memory_in(const std::string& directory) {
    return {.run_directory = directory, .plugin = "memory", .parameters = {{"size", "1M"}}};
}

TEST(NbdServer, OutlivesItsHandleAndIsAdopted) {
    const TestDirectory directory;
    {
        auto server = NbdServer::start(memory_in(directory.path()));
        ASSERT_TRUE(server) << server.error().to_string();
    }
    EXPECT_TRUE(unix_socket_accepts(directory / "nbd.sock")) << "the server ended with its handle";
    EXPECT_EQ(NbdServer::start(memory_in(directory.path())).error().code(), Code::kAlreadyExists);
    auto server = NbdServer::adopt(directory.path());
    ASSERT_TRUE(server) << server.error().to_string();
    EXPECT_EQ(server->socket_path(), directory / "nbd.sock");
    ASSERT_TRUE(server->stop());
    EXPECT_FALSE(server->alive());
    EXPECT_FALSE(unix_socket_accepts(directory / "nbd.sock"));
    EXPECT_EQ(NbdServer::adopt(directory.path()).error().code(), Code::kNotFound);
    EXPECT_TRUE(NbdServer::clean_up(directory.path()));
}

TEST(NbdServer, KilledServerLeavesNothingThatKeepsTheNextFromStarting) {
    const TestDirectory directory;
    for (int i = 0; i < 3; ++i) {
        auto server = NbdServer::start(memory_in(directory.path()));
        ASSERT_TRUE(server) << server.error().to_string();
        ASSERT_TRUE(server->kill());
    }
}

TEST(NbdServer, ConfigurationIsForNobodyElse) {
    const TestDirectory directory;
    NbdServerOptions options = memory_in(directory.path());
    options.plugin = "sh";  // reads a script: anything that takes a file does for this test
    options.parameters.clear();
    options.config_json = "{\"key\": \"secret\"}";
    const auto server = NbdServer::start(options);
    ASSERT_FALSE(server) << "nbdkit's sh plugin took our configuration";
    EXPECT_EQ(server.error().code(), Code::kUnavailable);
    PosixFileSystem files;
    EXPECT_FALSE(*files.exists(directory / "nbd.json"))
        << "a key is left after a start that failed";
}

TEST(NbdServer, PluginThatIsNotThereIsSaidInNbdkitsWords) {
    const TestDirectory directory;
    NbdServerOptions options = memory_in(directory.path());
    options.plugin = "/no/such/plugin.so";
    const auto server = NbdServer::start(options);
    ASSERT_FALSE(server);
    EXPECT_NE(server.error().what().find("/no/such/plugin.so"), std::string::npos)
        << server.error().what();
    options.run_directory = directory / std::string(120, 'x');
    EXPECT_EQ(NbdServer::start(options).error().code(), Code::kInvalidArgument);
}

// Broken if a store that is damaged were called unavailable: its reader would try for ever.
TEST(NbdServer, ErrorOfAPluginKeepsItsCode) {
    const TestDirectory directory;
    const auto end_saying = [&](const std::string& words) {
        NbdServerOptions options = memory_in(directory.path());
        options.plugin = "eval";
        // The eval plugin puts its script's name in front.
        options.parameters = {{"config_complete", "echo 'error: " + words + "' >&2; exit 1"}};
        const auto server = NbdServer::start(options);
        EXPECT_FALSE(server);
        return server ? Code::kInternal : server.error().code();
    };
    EXPECT_EQ(end_saying("corrupt: disk 1: its manifest does not match"), Code::kCorrupt);
    EXPECT_EQ(end_saying("newer-version: the store"), Code::kNewerVersion);
    EXPECT_EQ(end_saying("truncated: a read error: corrupt: x"), Code::kTruncated);
    EXPECT_EQ(end_saying("of the future: x"), Code::kUnavailable);
    EXPECT_EQ(end_saying("corrupt"), Code::kUnavailable);
}

TEST(NbdServer, ServerThatWasNotNotedIsFoundByItsSocket) {
    const TestDirectory directory;
    pid_t pid = 0;
    {
        auto server = NbdServer::start(memory_in(directory.path()));
        ASSERT_TRUE(server) << server.error().to_string();
        pid = server->process_key().pid;
    }
    PosixFileSystem files;
    ASSERT_TRUE(files.remove(directory / "nbd.pid"));
    ASSERT_TRUE(NbdServer::clean_up(directory.path()));
    EXPECT_FALSE(key_of(pid) && Process::adopt(*key_of(pid))) << "a server nobody knows of runs on";
}

}  // namespace
}  // namespace farshore
