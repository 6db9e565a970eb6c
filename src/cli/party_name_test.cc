#include <gtest/gtest.h>

#include "cli/serve_common.h"

namespace farshore {
namespace {

// Broken if a part that was told no name were refused by its vault for having none.
TEST(PartyName, IsTheHostsWhereNoneIsGiven) {
    EXPECT_EQ(party_name("harbour"), "harbour");
    EXPECT_FALSE(party_name("").empty());
}

}  // namespace
}  // namespace farshore
