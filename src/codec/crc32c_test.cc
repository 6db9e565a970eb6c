#include "codec/crc32c.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

// Broken if spools and frames written elsewhere could not be checked: the published check value.
TEST(Crc32c, MatchesPublishedCheckValue) { EXPECT_EQ(crc32c(as_bytes("123456789")), 0xE3069283u); }

TEST(Crc32c, ContinuesFromASeed) {
    EXPECT_EQ(crc32c(as_bytes("6789"), crc32c(as_bytes("12345"))), crc32c(as_bytes("123456789")));
    EXPECT_EQ(crc32c({}), 0u);
}

}  // namespace
}  // namespace farshore
