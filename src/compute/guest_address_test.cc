#include "compute/guest_address.h"

#include <fmt/core.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "compute/guest_agent.h"
#include "compute/test_support.h"
#include "os/real.h"

namespace farshore {
namespace {

// Broken if something else than an address reached the guest's shell, or a mistake were only found
// there.
TEST(GuestAddress, IsCheckedBeforeItIsSet) {
    EXPECT_TRUE(check_guest_address({"10.1.2.3/24", "10.1.2.1", {"10.1.2.1", "2001:db8::1"}}));
    EXPECT_TRUE(check_guest_address({"2001:db8::3/64", "fe80::1", {}}));
    EXPECT_TRUE(check_guest_address({"10.1.2.3/32", "", {}}));
    for (const GuestAddress& bad : std::vector<GuestAddress>{
             {"", "", {}},
             {"10.1.2.3", "", {}},
             {"10.1.2.3/", "", {}},
             {"10.1.2.3/0", "", {}},
             {"10.1.2.3/33", "", {}},
             {"10.1.2.3/24 ", "", {}},
             {"10.1.2/24", "", {}},
             {"$(reboot)/24", "", {}},
             {"2001:db8::3/129", "", {}},
             {"10.1.2.3/24", "2001:db8::1", {}},
             {"10.1.2.3/24", "10.1.2.1/24", {}},
             {"10.1.2.3/24", "", {"ns.example.org"}},
             {"10.1.2.3/24", "", {"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"}}})
        EXPECT_EQ(check_guest_address(bad).error().code(), Code::kInvalidArgument) << bad.address;
}

// Broken if what somebody means is taken for something else, or a word of nobody's is taken.
TEST(GuestAddress, WhoGivesItIsAWord) {
    for (const AddressBy by : {AddressBy::kAgent, AddressBy::kDhcp, AddressBy::kCloudInit})
        EXPECT_EQ(address_by_from_name(address_by_name(by)).value_or(AddressBy::kAgent), by);
    for (const char* word : {"", "Agent", "cloudinit", "dhcp "})
        EXPECT_EQ(address_by_from_name(word).error().code(), Code::kInvalidArgument) << word;
}

// A network namespace with a card in it, in the place of a guest.
class GuestNetwork : public testing::Test {
  protected:
    void SetUp() override {
        space_ = fmt::format("fst{}", ::getpid());
        ASSERT_TRUE(run({"ip", "netns", "add", space_}).exit.success())
            << "this user may make no network namespace: run the tests as root";
        made_ = true;
        ip({"link", "add", "other", "type", "bridge"});
        ip({"link", "add", "card", "address", kMac, "type", "bridge"});
        ip({"addr", "add", "192.0.2.9/24", "dev", "card"});
        ip({"addr", "add", "192.0.2.10/24", "dev", "other"});
    }
    void TearDown() override {
        if (made_) {
            EXPECT_TRUE(run({"ip", "netns", "del", space_}).exit.success());
        }
    }
    static CommandResult run(std::vector<std::string> arguments) {
        ProcessOptions process;
        process.arguments = std::move(arguments);
        auto done = run_command(process);
        EXPECT_TRUE(done);
        return done ? std::move(*done) : CommandResult{};
    }
    std::string ip(const std::vector<std::string>& arguments) {
        std::vector<std::string> all{"ip", "-n", space_};
        all.insert(all.end(), arguments.begin(), arguments.end());
        return run(std::move(all)).output;
    }
    static constexpr const char* kMac = "52:54:00:00:00:01";
    TestDirectory directory_;
    std::string space_;
    bool made_ = false;
};

// Broken if a guest's card were found wrongly, kept its old address, or its routes and name servers
// were not what was asked for.
TEST_F(GuestNetwork, TheScriptSetsWhatWasAsked) {
    const auto script = [&](const std::string& mac, const GuestAddress& address) {
        std::vector<std::string> all{"ip", "netns", "exec", space_, "/bin/sh"};
        for (std::string& word : guest_address_arguments(mac, address, directory_ / "resolv.conf"))
            all.push_back(std::move(word));
        return run(all);
    };
    const GuestAddress wanted{"10.1.2.3/24", "10.1.2.1", {"10.1.2.1", "10.1.2.2"}};
    for (int twice = 0; twice < 2; ++twice) {
        const CommandResult done = script(kMac, wanted);
        EXPECT_TRUE(done.exit.success()) << done.output;
        const std::string card = ip({"-4", "addr", "show", "dev", "card"});
        EXPECT_NE(card.find("inet 10.1.2.3/24"), std::string::npos) << card;
        EXPECT_EQ(card.find("192.0.2.9"), std::string::npos) << card;
        EXPECT_NE(ip({"-4", "addr", "show", "dev", "other"}).find("192.0.2.10"), std::string::npos);
        EXPECT_NE(ip({"route"}).find("default via 10.1.2.1 dev card"), std::string::npos);
    }
    PosixFileSystem files;
    EXPECT_EQ(to_text(read_whole_file(files, directory_ / "resolv.conf", 4096).value_or(Bytes{})),
              "nameserver 10.1.2.1\nnameserver 10.1.2.2\n");
    EXPECT_TRUE(script(kMac, {"2001:db8::3/64", "", {}}).exit.success());
    EXPECT_NE(ip({"-4", "addr", "show", "dev", "card"}).find("10.1.2.3"), std::string::npos)
        << "the other family stays";
}

// Broken if the agent's answer were not waited for, or a guest that did not take its address passed
// for one that did.
TEST_F(GuestNetwork, TheAgentSetsItInside) {
    const std::string socket = directory_ / "qga.sock";
    TestProcess agent({"ip", "netns", "exec", space_, "qemu-ga", "-m", "unix-listen", "-p", socket,
                       "-t", directory_.path(), "-f", directory_ / "pid"},
                      directory_ / "log");
    ASSERT_TRUE(wait_for_socket(socket)) << tail_of_file(directory_ / "log");
    constexpr int kLimitMs = 10'000;
    auto asked = GuestAgent::connect(socket, kLimitMs);
    ASSERT_TRUE(asked) << asked.error().to_string();
    // Without name servers: those of a namespace are this machine's.
    const Status set = set_guest_address(*asked, kMac, {"10.1.2.3/24", "10.1.2.1", {}}, kLimitMs);
    ASSERT_TRUE(set) << set.error().to_string();
    EXPECT_NE(ip({"-4", "addr", "show", "dev", "card"}).find("10.1.2.3/24"), std::string::npos);
    const Status none =
        set_guest_address(*asked, "52:54:00:00:00:99", {"10.1.2.3/24", "", {}}, kLimitMs);
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().code(), Code::kGuestFailed);
    EXPECT_NE(none.error().what().find("52:54:00:00:00:99"), std::string::npos)
        << none.error().what();
    const Status far =
        set_guest_address(*asked, kMac, {"10.1.2.3/24", "203.0.113.1", {}}, kLimitMs);
    ASSERT_FALSE(far) << "a gateway that is not on its network";
    EXPECT_EQ(far.error().code(), Code::kGuestFailed);
}

}  // namespace
}  // namespace farshore
