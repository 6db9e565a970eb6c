#include "os/bridge_port.h"

#include <gtest/gtest.h>
#include <sys/prctl.h>

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

// Broken if a machine's QEMU had the right of its vault to change the host's networks, or the vault
// lost it.
TEST(BridgePort, TheRightIsNotInherited) {
    constexpr int kCapNetAdmin = 12;
    if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, kCapNetAdmin, 0, 0) != 0)
        GTEST_SKIP() << "this user has no right to pass on";
    const auto is_set = [] {
        return ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, kCapNetAdmin, 0, 0);
    };
    {
        const WithoutNetworkRight without;
        EXPECT_EQ(is_set(), 0);
    }
    EXPECT_EQ(is_set(), 1);
    EXPECT_EQ(::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER, kCapNetAdmin, 0, 0), 0);
}

}  // namespace
}  // namespace farshore
