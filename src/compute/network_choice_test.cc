#include "compute/network_choice.h"

#include <gtest/gtest.h>

#include <set>

namespace farshore {
namespace {

// Broken if a word that people write, or that is in a file of a running vault, were read as another
// network: a test would be on a bridge of production.
TEST(NetworkChoice, WordsComeBack) {
    for (const char* word : {"isolated", "user", "none", "segment:run-1", "segment:a", "bridge:br0",
                             "bridge:br-lab.100", "bridge:Abc_d@x"}) {
        const auto network = network_from_word(word);
        ASSERT_TRUE(network) << word;
        EXPECT_EQ(network_word(*network), word);
    }
    EXPECT_EQ(network_from_word("isolated")->kind, NetworkKind::kIsolated);
    EXPECT_EQ(network_from_word("segment:x")->kind, NetworkKind::kSegment);
    EXPECT_EQ(network_from_word("bridge:x")->name, "x");
}

// Broken if a name could carry an option of QEMU, a path, or more than the kernel takes.
TEST(NetworkChoice, AnythingElseIsRefused) {
    for (const std::string& word : {std::string(),
                                    std::string("Isolated"),
                                    std::string("isolated:"),
                                    std::string("user:x"),
                                    std::string("segment"),
                                    std::string("segment:"),
                                    std::string("segment:A"),
                                    std::string("segment:a,b"),
                                    std::string("segment:a:b"),
                                    "segment:" + std::string(41, 'a'),
                                    std::string("bridge"),
                                    std::string("bridge:"),
                                    std::string("bridge:."),
                                    std::string("bridge:.."),
                                    std::string("bridge:a/b"),
                                    std::string("bridge:a b"),
                                    std::string("bridge:a:b"),
                                    "bridge:" + std::string(16, 'a'),
                                    std::string("bridge:a\0b", 10),
                                    std::string("bridge:\xc3\xa4"),
                                    std::string(1000, 'x')}) {
        const auto network = network_from_word(word);
        ASSERT_FALSE(network) << word;
        EXPECT_EQ(network.error().code(), Code::kInvalidArgument);
        EXPECT_LT(network.error().what().size(), 120u);
    }
}

// Broken if two vaults, or two segments of one, shared their frames, or if a vault that was
// restarted looked for a segment elsewhere.
TEST(NetworkChoice, EverySegmentHasAnAddressOfItsOwn) {
    const SegmentAddress address = segment_address("vault 1", "run-1");
    EXPECT_EQ(segment_address("vault 1", "run-1").group, address.group);
    EXPECT_EQ(segment_address("vault 1", "run-1").port, address.port);
    EXPECT_EQ(address.group + ":" + std::to_string(address.port), "239.154.35.84:12170")
        << "machines that run are there";
    std::set<std::string> all;
    for (const char* scope : {"vault 1", "vault 2", "vault", ""})
        for (const char* name : {"run-1", "run-2", " 1", "1"}) {
            const SegmentAddress one = segment_address(scope, name);
            EXPECT_TRUE(one.group.starts_with("239."));
            EXPECT_GE(one.port, 10'000);
            EXPECT_LT(one.port, 30'000);
            EXPECT_TRUE(all.insert(one.group + ":" + std::to_string(one.port)).second);
        }
}

// Broken if QEMU were given a card's address that guests do not take, or two cards the same.
TEST(NetworkChoice, MacAddresses) {
    EXPECT_EQ(*check_mac("52:54:00:AB:cd:eF"), "52:54:00:ab:cd:ef");
    for (const char* bad :
         {"", "52:54:00:ab:cd", "52-54-00-ab-cd-ef", "01:00:5e:00:00:01", "00:00:00:00:00:00",
          "ff:ff:ff:ff:ff:ff", "52:54:00:ab:cd:eg", "52:54:00:ab:cd:ef:00"})
        EXPECT_EQ(check_mac(bad).error().code(), Code::kInvalidArgument) << bad;
    EXPECT_EQ(mac_from("a"), mac_from("a"));
    EXPECT_NE(mac_from("a"), mac_from("b"));
    EXPECT_EQ(*check_mac(mac_from("a")), mac_from("a"));
}

}  // namespace
}  // namespace farshore
