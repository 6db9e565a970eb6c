#include "compute/compute_host.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace farshore {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

ComputeHostSettings remote(const std::string& uri) {
    ComputeHostSettings settings;
    settings.uri = uri;
    settings.disks = DisksOver::kTls;
    settings.disks_address = "vault.example.org";
    return settings;
}

// Broken if a host that is meant could not be named, or were taken for another.
TEST(ComputeHost, UrisAreTakenApart) {
    EXPECT_FALSE(compute_host_uri("qemu:///system")->session);
    EXPECT_TRUE(compute_host_uri("qemu:///session")->session);
    const auto socket = compute_host_uri("qemu+unix:///session?socket=/run/user/7/libvirt-sock");
    ASSERT_TRUE(socket);
    EXPECT_EQ(socket->socket, "/run/user/7/libvirt-sock");
    EXPECT_TRUE(socket->session && !socket->remote());
    const auto tls = compute_host_uri("qemu+tls://kvm-1.example.org:16515/system");
    ASSERT_TRUE(tls);
    EXPECT_EQ(tls->transport, ComputeTransport::kTls);
    EXPECT_EQ(tls->host, "kvm-1.example.org");
    EXPECT_EQ(tls->port, 16515);
    const auto ssh = compute_host_uri("qemu+ssh://farshore@[2001:db8::7]:2222/session");
    ASSERT_TRUE(ssh);
    EXPECT_EQ(ssh->user, "farshore");
    EXPECT_EQ(ssh->host, "2001:db8::7");
    EXPECT_EQ(ssh->port, 2222);
    EXPECT_TRUE(ssh->session && ssh->remote());
    EXPECT_EQ(compute_host_uri("qemu+ssh://192.0.2.4/system")->port, 0);
}

// Broken if a URI could run a program, switch a check off, leave the line open, or have a part that
// ssh would take for an option.
TEST(ComputeHost, OtherUrisAreRefused) {
    for (const std::string& uri : {std::string(),
                                   std::string("qemu"),
                                   std::string("qemu:///"),
                                   std::string("test:///default"),
                                   std::string("xen:///system"),
                                   std::string("QEMU:///system"),
                                   std::string("qemu://host/system"),
                                   std::string("qemu:///system?socket=/x"),
                                   std::string("qemu:///system?"),
                                   std::string("qemu:///system#x"),
                                   std::string("qemu+tcp://host/system"),
                                   std::string("qemu+ext:///system?command=/bin/sh"),
                                   std::string("qemu+libssh://h/system"),
                                   std::string("qemu+unix:///system"),
                                   std::string("qemu+unix:///system?socket="),
                                   std::string("qemu+unix:///system?socket=relative"),
                                   std::string("qemu+unix:///system?socket=/a/../b"),
                                   std::string("qemu+unix:///system?socket=/a&command=x"),
                                   std::string("qemu+unix:///system?socket=/a%20b"),
                                   std::string("qemu+unix://host/system?socket=/a"),
                                   std::string("qemu+tls:///system"),
                                   std::string("qemu+tls://host/session"),
                                   std::string("qemu+tls://u@host/system"),
                                   std::string("qemu+tls://host/system?no_verify=1"),
                                   std::string("qemu+tls://host:/system"),
                                   std::string("qemu+tls://host:0/system"),
                                   std::string("qemu+tls://host:65536/system"),
                                   std::string("qemu+tls://host:1x/system"),
                                   std::string("qemu+tls://host:-1/system"),
                                   std::string("qemu+tls://[::1/system"),
                                   std::string("qemu+tls://[::1]x/system"),
                                   std::string("qemu+tls://[host]/system"),
                                   std::string("qemu+tls://::1/system"),
                                   std::string("qemu+tls://256.1.1.1/system"),
                                   std::string("qemu+tls://a..b/system"),
                                   std::string("qemu+tls://a_b/system"),
                                   std::string("qemu+tls://a-/system"),
                                   std::string("qemu+ssh://-oProxyCommand=x/system"),
                                   std::string("qemu+ssh://-x/system"),
                                   std::string("qemu+ssh://-u@host/system"),
                                   std::string("qemu+ssh://@host/system"),
                                   std::string("qemu+ssh://U@host/system"),
                                   std::string("qemu+ssh://u:p@host/system"),
                                   std::string("qemu+ssh://u@v@host/system"),
                                   std::string("qemu+ssh://host/system/"),
                                   std::string("qemu+ssh://host/system?netcat=x"),
                                   std::string("qemu+ssh://ho st/system"),
                                   std::string("qemu+ssh://host/system\n"),
                                   std::string("qemu+ssh://ho\0st/system", 22),
                                   "qemu+ssh://" + std::string(33, 'u') + "@host/system",
                                   "qemu+ssh://" + std::string(64, 'h') + "/system",
                                   "qemu+unix:///system?socket=/" + std::string(256, 'a')}) {
        const auto refused = compute_host_uri(uri);
        ASSERT_FALSE(refused) << uri;
        EXPECT_EQ(refused.error().code(), Code::kInvalidArgument) << uri;
        EXPECT_THAT(refused.error().what(), StartsWith("uri: ")) << uri;
    }
    EXPECT_THAT(compute_host_uri("qemu+tcp://host/system").error().what(),
                HasSubstr("not encrypted"));
    EXPECT_THAT(compute_host_uri("qemu+tcp://host/system").error().remedy(), HasSubstr("qemu+tls"));
    EXPECT_THAT(compute_host_uri("qemu+ssh://h/system?command=x").error().what(),
                HasSubstr("parameter"));
}

// Broken if settings were kept that cannot work, or that say nothing where they stand.
TEST(ComputeHost, SettingsGoTogether) {
    const auto word = [](const ComputeHostSettings& settings) {
        const auto checked = check_compute_host(settings);
        return checked ? std::string("good") : checked.error().what();
    };
    ComputeHostSettings local;
    local.uri = "qemu:///system";
    EXPECT_EQ(word(local), "good");
    local.disks_group = "kvm";
    EXPECT_EQ(word(local), "good");
    local.disks_group = "-g";
    EXPECT_THAT(word(local), StartsWith("disks_group: "));
    local.disks_group.clear();
    local.disks_address = "10.0.0.1";
    EXPECT_THAT(word(local), StartsWith("disks_address: "));
    local.disks = DisksOver::kTls;
    EXPECT_EQ(word(local), "good") << "also to this machine's own libvirt";
    local.pki_directory = "/etc/pki";
    EXPECT_THAT(word(local), StartsWith("pki_directory: "));

    ComputeHostSettings far = remote("qemu+tls://host/system");
    EXPECT_EQ(word(far), "good");
    far.pki_directory = "/etc/pki/far shore";
    EXPECT_THAT(word(far), StartsWith("pki_directory: "));
    far.pki_directory = "/etc/pki/farshore";
    EXPECT_EQ(word(far), "good");
    far.ssh_key_file = "/k";
    EXPECT_THAT(word(far), StartsWith("ssh_key_file: "));
    far.ssh_key_file.clear();
    far.known_hosts_file = "/k";
    EXPECT_THAT(word(far), StartsWith("known_hosts_file: "));
    far.known_hosts_file.clear();
    for (const char* address : {"", "a b", "10.0.0.1:49200", "10.0.0", "-a"}) {
        far.disks_address = address;
        EXPECT_THAT(word(far), StartsWith("disks_address: ")) << address;
    }
    far.disks_address = "2001:db8::1";
    EXPECT_EQ(word(far), "good");
    far.disks_group = "kvm";
    EXPECT_THAT(word(far), StartsWith("disks_group: "));
    far.disks_group.clear();
    far.first_port = 1023;
    EXPECT_THAT(word(far), StartsWith("disks_ports: "));
    far.first_port = 50'000;
    EXPECT_THAT(word(far), StartsWith("disks_ports: "));
    far.first_port = far.last_port;
    EXPECT_EQ(word(far), "good") << "one port";
    far.disks = DisksOver::kUnix;
    far.disks_address.clear();
    EXPECT_THAT(word(far), StartsWith("disks: "));
}

// Broken if a machine of a system daemon could not open its disks, or another user could open those
// of a session.
TEST(ComputeHost, TheGroupOfTheDisks) {
    ComputeHostSettings settings;
    settings.uri = "qemu:///system";
    EXPECT_EQ(disks_group_of(settings), "libvirt-qemu");
    settings.uri = "qemu:///session";
    EXPECT_EQ(disks_group_of(settings), "");
    settings.disks_group = "kvm";
    EXPECT_EQ(disks_group_of(settings), "kvm");
}

// Broken if libvirt asked a terminal, took another key, or did not check the host's key against the
// file that is set.
TEST(ComputeHost, LibvirtIsGivenTheWholeUri) {
    ComputeHostSettings settings;
    settings.uri = "qemu+unix:///system?socket=/run/x";
    EXPECT_EQ(connection_uri(settings), settings.uri);
    settings = remote("qemu+tls://host/system");
    EXPECT_EQ(connection_uri(settings), settings.uri);
    settings.pki_directory = "/etc/pki/a";
    EXPECT_EQ(connection_uri(settings), "qemu+tls://host/system?pkipath=/etc/pki/a");
    settings = remote("qemu+ssh://u@host:22/system");
    EXPECT_EQ(connection_uri(settings), "qemu+ssh://u@host:22/system?no_tty=1");
    settings.ssh_key_file = "/k/id";
    EXPECT_EQ(connection_uri(settings), "qemu+ssh://u@host:22/system?no_tty=1&keyfile=/k/id");
    settings.known_hosts_file = "/k/known";
    EXPECT_EQ(connection_uri(settings),
              "qemu+libssh://u@host:22/system?known_hosts=/k/known&known_hosts_verify=normal&"
              "sshauth=agent,privkey&keyfile=/k/id");
}

// Broken if what is kept were read as something else, or a wrong member not named.
TEST(ComputeHost, JsonComesBack) {
    ComputeHostSettings settings = remote("qemu+ssh://host/system");
    settings.accelerator = HostAccelerator::kTcg;
    settings.first_port = 50'000;
    settings.last_port = 50'001;
    settings.ssh_key_file = "/k/id";
    settings.known_hosts_file = "/k/known";
    EXPECT_EQ(compute_host_json(settings)["disks_ports"], "50000-50001");
    EXPECT_EQ(*compute_host_from_json(compute_host_json(settings), "x"), settings);
    ComputeHostSettings local;
    local.uri = "qemu:///session";
    local.disks_group = "kvm";
    EXPECT_FALSE(compute_host_json(local).contains("disks_ports"));
    EXPECT_EQ(*compute_host_from_json(compute_host_json(local), "x"), local);

    const json least{{"uri", "qemu+tls://host/system"}, {"disks_address", "10.0.0.1"}};
    const auto usual = compute_host_from_json(least, "body");
    ASSERT_TRUE(usual);
    EXPECT_EQ(usual->disks, DisksOver::kTls) << "of a remote one";
    EXPECT_EQ(usual->first_port, 10'810);
    EXPECT_EQ(usual->last_port, 11'809);
    EXPECT_EQ(compute_host_from_json({{"uri", "qemu:///system"}}, "body")->disks, DisksOver::kUnix);

    for (const auto& [member, value] :
         {std::pair("uri", json(7)), std::pair("uri", json(nullptr)), std::pair("uri", json("")),
          std::pair("uri", json(std::string(257, 'x'))), std::pair("accelerator", json("KVM")),
          std::pair("accelerator", json(1)), std::pair("disks", json("tcp")),
          std::pair("disks", json("unix")), std::pair("disks_ports", json("49200")),
          std::pair("disks_ports", json("1-2-3")), std::pair("disks_ports", json("5000-4000")),
          std::pair("disks_ports", json("5000-70000")),
          std::pair("disks_ports", json(" 5000-6000")),
          std::pair("disks_address", json(json::array())), std::pair("disks_group", json("kvm")),
          std::pair("pki_directory", json("relative")), std::pair("ssh_key_file", json("/k")),
          std::pair("known_hosts_file", json("/k"))}) {
        json object = least;
        object[member] = value;
        const auto refused = compute_host_from_json(object, "body");
        ASSERT_FALSE(refused) << object;
        EXPECT_THAT(refused.error().what(), HasSubstr(member)) << object;
    }
    EXPECT_THAT(
        compute_host_from_json({{"uri", "qemu:///system"}, {"disks_ports", "5000-6000"}}, "x")
            .error()
            .what(),
        StartsWith("disks_ports: "));
    EXPECT_FALSE(compute_host_from_json(json::array(), "body"));
}

}  // namespace
}  // namespace farshore
