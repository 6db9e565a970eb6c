#include <gtest/gtest.h>

#include "cli/serve_common.h"

namespace farshore {
namespace {

// Broken if a part that was told no name were refused by its vault for having none.
TEST(PartyName, IsTheHostsWhereNoneIsGiven) {
    EXPECT_EQ(party_name("harbour").value(), "harbour");
    const auto host = party_name("");
    ASSERT_TRUE(host);
    EXPECT_FALSE(host->empty());
    EXPECT_EQ(host->find('.'), std::string::npos);
}

}  // namespace
}  // namespace farshore
