#include "store/azure_signature.h"

#include <gtest/gtest.h>

#include "os/http.h"

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
}

}  // namespace
}  // namespace farshore
