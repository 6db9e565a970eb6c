#include "os/bridge_port.h"

#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>

namespace farshore {
namespace {

// Broken if a mistyped bridge were an errno, or the vault's own interface were taken for one.
TEST(BridgePort, WhatIsNoBridgeIsNamed) {
    for (const char* name : {"no-such-one", "lo"}) {
        const Status checked = check_bridge(name);
        ASSERT_FALSE(checked) << name;
        EXPECT_EQ(checked.error().code(), Code::kDependencyMissing);
        EXPECT_NE(checked.error().what().find(name), std::string::npos);
        EXPECT_EQ(open_bridge_port(name).error().code(), Code::kDependencyMissing);
    }
    for (const char* name : {"", "..", "a/b", "a-name-that-is-too-long"})
        EXPECT_EQ(check_bridge(name).error().code(), Code::kInvalidArgument) << name;
}

// Broken if an interface that is no bridge were offered for machines.
TEST(BridgePort, OnlyBridgesAreListed) {
    const auto bridges = list_bridges();
    ASSERT_TRUE(bridges) << bridges.error().to_string();
    for (const std::string& name : *bridges) {
        const Status checked = check_bridge(name);
        EXPECT_TRUE(checked || checked.error().code() == Code::kForbidden) << name;
    }
    EXPECT_EQ(std::ranges::find(*bridges, "lo"), bridges->end());
}

// Broken if a machine's QEMU had the right of its vault to change the host's networks, or the vault
// lost it.
TEST(BridgePort, TheRightIsNotInherited) {
    constexpr int kCapNetAdmin = 12;
    // What systemd does for AmbientCapabilities: only a right that may be inherited can be raised.
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct before[2], with[2];
    ASSERT_EQ(::syscall(SYS_capget, &header, before), 0);
    std::copy(std::begin(before), std::end(before), std::begin(with));
    with[0].inheritable |= 1u << kCapNetAdmin;
    ASSERT_EQ(::syscall(SYS_capset, &header, with), 0);
    ASSERT_EQ(::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, kCapNetAdmin, 0, 0), 0);
    const auto is_set = [] {
        return ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, kCapNetAdmin, 0, 0);
    };
    {
        const WithoutNetworkRight without;
        EXPECT_EQ(is_set(), 0);
    }
    EXPECT_EQ(is_set(), 1);
    EXPECT_EQ(::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER, kCapNetAdmin, 0, 0), 0);
    EXPECT_EQ(::syscall(SYS_capset, &header, before), 0);
}

}  // namespace
}  // namespace farshore
