#include "compute/dhcp_address.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

GuestAddress by_dhcp(const std::string& address, const std::string& gateway = {},
                     std::vector<std::string> name_servers = {}) {
    return {address, gateway, std::move(name_servers), AddressBy::kDhcp};
}

// Broken if QEMU's DHCP server gave another address or gateway than was asked for, or if QEMU did
// not start since what it was told does not fit together.
TEST(UserNetwork, IsToldTheGuestsAddressAndWhatItsOwnAre) {
    const auto said = [](const GuestAddress& address, NetworkKind kind) {
        const auto options = user_network_options(address, kind, true);
        return options ? *options : options.error().what();
    };
    EXPECT_EQ(said(by_dhcp("10.1.2.30/24", "10.1.2.254"), NetworkKind::kIsolated),
              ",net=10.1.2.0/24,host=10.1.2.254,dhcpstart=10.1.2.30,dns=10.1.2.1");
    EXPECT_EQ(said(by_dhcp("10.1.2.1/24"), NetworkKind::kUser),
              ",net=10.1.2.0/24,host=10.1.2.2,dhcpstart=10.1.2.1,dns=10.1.2.3");
    EXPECT_EQ(said(by_dhcp("10.1.2.2/29", "10.1.2.1", {"9.9.9.9"}), NetworkKind::kUser),
              ",net=10.1.2.0/29,host=10.1.2.1,dhcpstart=10.1.2.2,dns=9.9.9.9");
    // A test's network names no server, so none is in the way.
    EXPECT_EQ(
        said(by_dhcp("10.1.2.2/29", "10.1.2.1", {"10.1.2.1", "9.9.9.9"}), NetworkKind::kIsolated),
        ",net=10.1.2.0/29,host=10.1.2.1,dhcpstart=10.1.2.2,dns=10.1.2.3");
}

// Broken if what QEMU cannot say were only found when it does not start, or not at all.
TEST(UserNetwork, RefusesWhatQemuCannotSay) {
    for (const GuestAddress& bad :
         {by_dhcp("2001:db8::3/64"), by_dhcp("10.1.2.3/30"), by_dhcp("10.1.2.3/2"),
          by_dhcp("10.1.2.0/24"), by_dhcp("10.1.2.255/24"), by_dhcp("10.1.2.3/24", "10.1.3.1"),
          by_dhcp("10.1.2.3/24", "10.1.2.3"), by_dhcp("10.1.2.3/24", "10.1.2.0"),
          by_dhcp("10.1.2.3/24", "10.1.2.1", {"10.1.2.1"}),
          by_dhcp("10.1.2.3/24", "10.1.2.1", {"9.9.9.9", "8.8.8.8"}),
          by_dhcp("10.1.2.3/24", "10.1.2.1", {"2001:db8::1"})}) {
        const auto options = user_network_options(bad, NetworkKind::kUser, true);
        ASSERT_FALSE(options) << bad.address << " " << *options;
        EXPECT_EQ(options.error().code(), Code::kInvalidArgument);
        EXPECT_FALSE(options.error().remedy().empty()) << bad.address;
    }
    // What the guest sets itself is left as it is; QEMU has what goes beside it.
    const auto beside = user_network_options(
        {"10.1.2.3/24", "10.9.9.1", {"10.1.2.1", "9.9.9.9"}, AddressBy::kCloudInit},
        NetworkKind::kIsolated, false);
    ASSERT_TRUE(beside);
    EXPECT_EQ(*beside, ",net=10.1.2.0/24,host=10.1.2.2,dhcpstart=10.1.2.3,dns=10.1.2.1");
}

// Broken if an address that nobody would give were taken, or the refusal did not say what to do.
TEST(DhcpAddress, IsRefusedWhereNobodyGivesIt) {
    EXPECT_TRUE(check_dhcp_address({NetworkKind::kIsolated}, by_dhcp("10.1.2.3/24")));
    EXPECT_TRUE(check_dhcp_address({NetworkKind::kUser}, by_dhcp("10.1.2.3/24")));
    EXPECT_TRUE(check_dhcp_address({NetworkKind::kLibvirt, "lan"}, by_dhcp("10.1.2.3/30")));
    for (const NetworkChoice& network :
         {NetworkChoice{NetworkKind::kNone}, NetworkChoice{NetworkKind::kSegment, "lab"},
          NetworkChoice{NetworkKind::kBridge, "br0"}}) {
        const Status refused = check_dhcp_address(network, by_dhcp("10.1.2.3/24"));
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code(), Code::kInvalidArgument);
        EXPECT_NE(refused.error().what().find(network_word(network)), std::string::npos);
        EXPECT_NE(refused.error().remedy().find("cloud-init"), std::string::npos);
    }
    EXPECT_FALSE(check_dhcp_address({NetworkKind::kLibvirt, "lan"}, by_dhcp("2001:db8::3/64")));
}

// As libvirt 9.0 describes one.
constexpr const char* kLan = R"(<network connections='1'>
  <name>lan</name>
  <forward mode='nat'><nat><port start='1024' end='65535'/></nat></forward>
  <bridge name='virbr7' stp='on' delay='0'/>
  <ip family='ipv6' address='2001:db8::1' prefix='64'><dhcp><range start='2001:db8::2' end='2001:db8::9'/></dhcp></ip>
  <ip address='10.1.2.1' netmask='255.255.255.0'>
    <dhcp>
      <range start='10.1.2.100' end='10.1.2.200'/>
      <host mac='52:54:00:AA:00:01' name='printer' ip='10.1.2.9'/>
      <host mac='52:54:00:aa:00:02' name='farshore-0a0b0c-t1-0' ip='10.1.2.10'/>
    </dhcp>
  </ip>
  <ip address='10.1.3.1' prefix='24'/>
</network>)";

// Broken if a reservation went to another of a network's <ip>, or where what is asked for is not
// what the network gives.
TEST(LibvirtNetwork, IsReadAndGivesWhatIsItsOwn) {
    const auto lan = read_network_addressing(kLan);
    ASSERT_TRUE(lan) << lan.error().to_string();
    ASSERT_EQ(lan->blocks.size(), 3u);
    EXPECT_TRUE(lan->leads_out);
    EXPECT_EQ(lan->blocks[1].prefix, 24u);
    ASSERT_EQ(lan->blocks[1].reservations.size(), 2u);
    EXPECT_EQ(lan->blocks[1].reservations[0],
              (DhcpReservation{"52:54:00:aa:00:01", "printer", "10.1.2.9"}));
    for (const GuestAddress& good :
         {by_dhcp("10.1.2.3/24"), by_dhcp("10.1.2.3/24", "10.1.2.1", {"10.1.2.1"})}) {
        const auto block = block_for(*lan, "lan", good);
        ASSERT_TRUE(block) << block.error().to_string();
        EXPECT_EQ(*block, 1u);
    }
    for (const GuestAddress& bad :
         {by_dhcp("10.1.3.3/24"), by_dhcp("10.1.2.3/16"), by_dhcp("10.1.2.1/24"),
          by_dhcp("10.1.2.255/24"), by_dhcp("10.1.2.3/24", "10.1.2.2"),
          by_dhcp("10.1.2.3/24", "", {"9.9.9.9"}), by_dhcp("2001:db8::3/64"),
          by_dhcp("192.0.2.3/24")}) {
        const auto block = block_for(*lan, "lan", bad);
        ASSERT_FALSE(block) << bad.address;
        EXPECT_EQ(block.error().code(), Code::kUnsupported);
        EXPECT_FALSE(block.error().remedy().empty());
    }
    const auto closed = read_network_addressing(
        "<network><ip address='10.1.2.1' prefix='24'><dhcp/></ip></network>");
    ASSERT_TRUE(closed);
    EXPECT_TRUE(block_for(*closed, "closed", by_dhcp("10.1.2.3/24")));
    EXPECT_FALSE(block_for(*closed, "closed", by_dhcp("10.1.2.3/24", "10.1.2.1")))
        << "it names no gateway";
    EXPECT_FALSE(block_for({}, "bridged", by_dhcp("10.1.2.3/24")));
    for (const char* text : {"", "<domain/>", "<network", "\x01"})
        EXPECT_FALSE(read_network_addressing(text)) << text;
}

// Broken if somebody else's card or address were taken, or our own reservation of an earlier try
// were in our way.
TEST(LibvirtNetwork, SomebodyElsesReservationIsInTheWay) {
    const auto lan = read_network_addressing(kLan);
    ASSERT_TRUE(lan);
    EXPECT_TRUE(check_free(*lan, "lan", {"52:54:00:aa:00:03", "x", "10.1.2.3"}));
    EXPECT_TRUE(
        check_free(*lan, "lan", {"52:54:00:aa:00:02", "farshore-0a0b0c-t1-0", "10.1.2.10"}));
    EXPECT_TRUE(check_free(*lan, "lan", {"", "", "10.1.2.3"})) << "its card is not known yet";
    for (const DhcpReservation& taken :
         {DhcpReservation{"52:54:00:aa:00:01", "x", "10.1.2.3"},
          DhcpReservation{"52:54:00:aa:00:03", "x", "10.1.2.9"},
          DhcpReservation{"52:54:00:aa:00:01", "x", "10.1.2.9"},
          DhcpReservation{"52:54:00:aa:00:02", "farshore-0a0b0c-t2-0", "10.1.2.10"},
          DhcpReservation{"", "", "10.1.2.9"}}) {
        const Status refused = check_free(*lan, "lan", taken);
        ASSERT_FALSE(refused) << taken.mac << " " << taken.address;
        EXPECT_EQ(refused.error().code(), Code::kAlreadyExists);
        EXPECT_FALSE(refused.error().remedy().empty());
    }
}

// Broken if libvirt were told another card or address, or a name could end the document.
TEST(LibvirtNetwork, AReservationIsWrittenAsLibvirtReadsIt) {
    EXPECT_EQ(reservation_xml({"52:54:00:aa:00:01", "farshore-0a0b0c-t1-0", "10.1.2.3"}),
              R"(<host mac="52:54:00:aa:00:01" name="farshore-0a0b0c-t1-0" ip="10.1.2.3"/>)");
    EXPECT_EQ(reservation_xml({"", "a\"/><b", "10.1.2.3"}),
              R"(<host name="a&quot;/>&lt;b" ip="10.1.2.3"/>)");
}

}  // namespace
}  // namespace farshore
