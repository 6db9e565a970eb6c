#include "store/azure_signature.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

// 0, 1, ... 63. The expected values were computed with Python's hmac and hashlib.
constexpr const char* kKey =
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==";
constexpr TimePoint kTime{784'111'777'000'000};  // RFC 9110's example

// Broken if one header, its order or an empty line were wrong: the service refuses every request.
TEST(AzureSignature, SignsAPut) {
    const AzureSigned request{"PUT",
                              "/box/a/b.seg",
                              {},
                              {{"x-ms-version", "2023-11-03"},
                               {"If-None-Match", "*"},
                               {"x-ms-blob-type", "BlockBlob"},
                               {"Content-MD5", content_md5(as_bytes("hello world"))},
                               {"X-Ms-Date", to_http_date(kTime)},
                               {"Content-Type", "application/octet-stream"}},
                              11};
    EXPECT_EQ(azure_string_to_sign("acct", request),
              "PUT\n\n\n11\nXrY7u+Ae7tCTyyK7j1rNww==\napplication/octet-stream\n\n\n\n*\n\n\n"
              "x-ms-blob-type:BlockBlob\nx-ms-date:Sun, 06 Nov 1994 08:49:37 GMT\n"
              "x-ms-version:2023-11-03\n/acct/box/a/b.seg");
    const auto key = decode_account_key(Secret(as_bytes(kKey)));
    ASSERT_TRUE(key);
    EXPECT_EQ(azure_authorization("acct", *key, request),
              "SharedKey acct:IemxUM1IHlNZ1YF3UWlMYEOVHYfaJfZEoUnM6yv6zkQ=");
}

// Broken if the query were signed as it is encoded, in the order it is sent, or the account of an
// emulator's path were left out.
TEST(AzureSignature, SignsAListing) {
    const AzureSigned request{"GET",
                              "/acct/box",
                              {{"restype", "container"}, {"comp", "list"}, {"Prefix", "items/a b"}},
                              {{"x-ms-date", to_http_date(kTime)}, {"x-ms-version", "2023-11-03"}},
                              0};
    EXPECT_EQ(azure_string_to_sign("acct", request),
              "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Sun, 06 Nov 1994 08:49:37 GMT\n"
              "x-ms-version:2023-11-03\n/acct/acct/box\ncomp:list\nprefix:items/a b\n"
              "restype:container");
    const auto key = decode_account_key(Secret(as_bytes(kKey)));
    ASSERT_TRUE(key);
    EXPECT_EQ(azure_authorization("acct", *key, request),
              "SharedKey acct:rcPo5UOrX8gf7C0I6zRRlTd0N+EkAusOoefa+o58XZo=");
}

// Broken if a key that was cut when it was copied signed everything wrongly instead of being named.
TEST(AzureSignature, RefusesWhatIsNoKey) {
    for (const char* text : {"", "=", "abc", "abc*", "AAEC AwQ", "AAECAwQ=x"})
        EXPECT_EQ(decode_account_key(Secret(as_bytes(text))).error().code(), Code::kInvalidArgument)
            << text;
    const auto padded = decode_account_key(Secret(as_bytes("AAEC\n")));
    ASSERT_TRUE(padded);
    EXPECT_EQ(to_hex(padded->reveal()), "000102");
    EXPECT_EQ(to_hex(decode_account_key(Secret(as_bytes("AAE=")))->reveal()), "0001");
    EXPECT_EQ(to_hex(decode_account_key(Secret(as_bytes("AA==")))->reveal()), "00");
    for (const auto& bytes : {Bytes{}, Bytes{0}, Bytes{0, 1}, Bytes{0, 1, 2}})
        if (!bytes.empty())
            EXPECT_EQ(to_bytes(decode_account_key(Secret(as_bytes(base64(bytes))))->reveal()),
                      bytes);
}

// Broken if a clock were off by a day at a month's end, or a stranger's date were believed.
TEST(AzureSignature, DatesGoThereAndBack) {
    EXPECT_EQ(to_http_date(kTime), "Sun, 06 Nov 1994 08:49:37 GMT");
    EXPECT_EQ(to_http_date({0}), "Thu, 01 Jan 1970 00:00:00 GMT");
    EXPECT_EQ(to_http_date({1'709'251'199'999'999}), "Thu, 29 Feb 2024 23:59:59 GMT");
    for (int64_t s : {int64_t{0}, int64_t{784'111'777}, int64_t{1'709'251'199},
                      int64_t{1'798'761'599}, int64_t{4'102'444'800}}) {
        const auto back = from_http_date(to_http_date({s * 1'000'000}));
        ASSERT_TRUE(back);
        EXPECT_EQ(back->us, s * 1'000'000);
    }
    for (const char* text : {"", "Sun, 06 Nov 1994 08:49:37", "Sunday, 06-Nov-94 08:49:37 GMT",
                             "Sun Nov  6 08:49:37 1994", "Sun, 32 Nov 1994 08:49:37 GMT",
                             "Sun, 30 Feb 1994 08:49:37 GMT", "Sun, 06 Nov 1994 24:49:37 GMT",
                             "Sun, -6 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:4x:37 GMT"})
        EXPECT_EQ(from_http_date(text).error().code(), Code::kMalformed) << text;
}

}  // namespace
}  // namespace farshore
