#include "base/error.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <set>

#include "base/bytes.h"

namespace farshore {
namespace {

// Broken if two codes shared a name: scripts and the API tell them apart by it.
TEST(ErrorCodes, NamesAreUniqueAndComeBack) {
    std::set<std::string_view> names;
    for (int i = 0; i <= static_cast<int>(Code::kDependencyMissing); ++i) {
        const Code code = static_cast<Code>(i);
        EXPECT_TRUE(names.insert(code_name(code)).second) << code_name(code);
        EXPECT_EQ(code_from_name(code_name(code)), code);
        EXPECT_GE(code_http_status(code), 400);
        EXPECT_GT(code_exit_status(code), 0);
    }
    EXPECT_EQ(code_from_name("of-the-future"), Code::kInternal);
}

TEST(Error, KnowsWhatAnErrnoMeans) {
    EXPECT_EQ(Error::from_errno(ENOSPC, "x").code(), Code::kNoSpace);
    EXPECT_EQ(Error::from_errno(ECONNRESET, "x").retry(), Retry::kSoon);
    EXPECT_EQ(Error::from_errno(EIO, "x").error_number(), EIO);
}

Result<int> half(int n) {
    if (n % 2 != 0) return fail(Code::kInvalidArgument, "odd");
    return n / 2;
}
Status quarter(int n, int* out) {
    FS_ASSIGN(int h, half(n));
    FS_ASSIGN(*out, half(h));
    return {};
}

TEST(Error, MacrosHandTheFirstErrorOn) {
    int out = 0;
    EXPECT_TRUE(quarter(8, &out));
    EXPECT_EQ(out, 2);
    EXPECT_EQ(quarter(6, &out).error().code(), Code::kInvalidArgument);
}

TEST(Bytes, ReaderNeverReadsPastItsView) {
    Bytes out;
    ByteWriter writer(out);
    writer.u16(1);
    writer.u64(2);
    writer.text("abc");
    ByteReader reader(out);
    EXPECT_EQ(*reader.u16(), 1);
    EXPECT_EQ(*reader.u64(), 2u);
    EXPECT_EQ(reader.text(2).error().code(), Code::kTooLarge);
    ByteReader again(ByteView(out).subspan(10));
    EXPECT_EQ(*again.text(3), "abc");
    EXPECT_TRUE(again.finish());
    EXPECT_EQ(again.u8().error().code(), Code::kTruncated);
}

TEST(Bytes, AllZeroLooksAtEveryByte) {
    Bytes zeroes(100);
    EXPECT_TRUE(all_zero(zeroes));
    EXPECT_TRUE(all_zero({}));
    for (size_t i = 0; i < zeroes.size(); ++i) {
        zeroes[i] = 1;
        EXPECT_FALSE(all_zero(zeroes));
        zeroes[i] = 0;
    }
}

}  // namespace
}  // namespace farshore
