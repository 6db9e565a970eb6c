#include "cli/compute_commands.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "cli/test_terminal.h"
#include "os/real.h"
#include "os/test_directory.h"

namespace farshore {
namespace {

using ::testing::HasSubstr;

constexpr const char* kHost =
    R"({"name":"rack","uri":"qemu+tls://h/system","accelerator":"auto","disks":"tls",)"
    R"("disks_address":"v","disks_ports":"49200-49999","pki_directory":"/p","etag":"\"1\""})";

// Broken if a setting that was not named were lost by a change, or one could not be taken away.
TEST(ComputeCommands, WhatIsNotNamedStays) {
    Terminal t;
    t.script = {
        {R"(POST /v1/compute-hosts {"disks_address":"v","name":"rack","uri":"qemu+tls://h/system"})",
         kHost}};
    EXPECT_EQ(
        t.run({"compute", "add", "rack", "--uri", "qemu+tls://h/system", "--disks-address", "v"}),
        0);
    EXPECT_THAT(t.out.str(), HasSubstr("tls, v ports 49200-49999"));
    t.script = {{"GET /v1/compute-hosts/rack", kHost},
                {R"(If-Match "1": PUT /v1/compute-hosts/rack {"accelerator":"tcg","disks":"tls",)"
                 R"("disks_address":"v","disks_ports":"49200-49999","uri":"qemu+tls://h/system"})",
                 kHost}};
    EXPECT_EQ(
        t.run({"compute", "change", "rack", "--accelerator", "tcg", "--pki-directory", "none"}), 0);
    t.script = {{"GET /v1/compute-hosts", std::string(R"({"compute_hosts":[)") + kHost + "]}"}};
    EXPECT_EQ(t.run({"compute", "list"}), 0);
    EXPECT_THAT(t.out.str(), HasSubstr("qemu+tls://h/system"));
    t.script = {{"DELETE /v1/compute-hosts/rack", ""}};
    EXPECT_EQ(t.run({"compute", "remove", "rack"}), 0);
    t.script = {{"DELETE /v1/compute-hosts/rack?force=true", ""}};
    EXPECT_EQ(t.run({"compute", "remove", "rack", "--force"}), 0);
    EXPECT_NE(t.run({"compute", "add", "rack"}), 0) << "without a URI";
}

TEST(ComputeCommands, AnItemsHostIsShownAndSet) {
    Terminal t;
    t.script = {{"GET /v1/items/web/compute", R"({"item":"web","host":"local"})"}};
    EXPECT_EQ(t.run({"item", "compute", "web"}), 0);
    EXPECT_THAT(t.out.str(), HasSubstr("vault's machine"));
    t.script = {
        {R"(PUT /v1/items/web/compute {"host":"rack"})", R"({"item":"web","host":"rack"})"}};
    EXPECT_EQ(t.run({"item", "compute", "web", "rack"}), 0);
    EXPECT_THAT(t.out.str(), HasSubstr("'rack'"));
}

// Broken if the key could be read by others, a file that was there were lost, or a key were asked
// for that cannot be written.
TEST(ComputeCommands, CredentialsAreWrittenOnce) {
    const TestDirectory directory;
    PosixFileSystem files;
    const std::string out = directory / "new/rack";
    const std::string answer =
        R"({"certificate":"C\n","key":"K","authority":"A","expires_at":"2030-01-02T00:00:00.000000Z"})";
    Terminal t;
    t.script = {{"POST /v1/compute-hosts/rack/credentials", answer}};
    EXPECT_EQ(t.run({"compute", "credentials", "rack", "--out", out.c_str()}), 0);
    EXPECT_THAT(t.out.str(), HasSubstr("2030-01-02"));
    for (const auto& [name, text, mode] :
         {std::tuple("ca-cert.pem", "A", 0644u), std::tuple("client-cert.pem", "C\n", 0644u),
          std::tuple("client-key.pem", "K", 0600u)}) {
        const std::string path = out + "/" + name;
        EXPECT_EQ(as_text(*read_whole_file(files, path, 100)), text);
        struct stat info {};
        ASSERT_EQ(::stat(path.c_str(), &info), 0);
        EXPECT_EQ(info.st_mode & 0777, mode) << name;
    }
    struct stat info {};
    ASSERT_EQ(::stat(out.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0700u);
    EXPECT_NE(t.run({"compute", "credentials", "rack", "--out", out.c_str()}), 0);
    EXPECT_THAT(t.err.str(), HasSubstr("is there"));
    t.script = {{"POST /v1/compute-hosts/rack/credentials", answer}};
    EXPECT_EQ(t.run({"compute", "credentials", "rack", "--out", out.c_str(), "--force"}), 0);
}

}  // namespace
}  // namespace farshore
