#include "codec/signature.h"

#include <gtest/gtest.h>

#include "codec/test_signer.h"

namespace farshore {
namespace {

// Broken if a signature were taken for a message, or by a key, that it is not of.
TEST(Signature, OnlyThatOfThisMessageByThisKey) {
    for (const bool rsa : {true, false}) {
        SCOPED_TRACE(rsa ? "RS256" : "ES256");
        const TestSigner signer(rsa), other(rsa);
        const auto verify = [&](const TestSigner& by, std::string_view message,
                                ByteView signature) {
            return rsa ? verify_rs256(by.first(), by.second(), as_bytes(message), signature)
                       : verify_es256(by.first(), by.second(), as_bytes(message), signature);
        };
        Bytes signature = signer.sign(as_bytes(std::string_view("a message")));
        EXPECT_TRUE(*verify(signer, "a message", signature));
        EXPECT_FALSE(*verify(signer, "a massage", signature));
        EXPECT_FALSE(*verify(other, "a message", signature));
        EXPECT_FALSE(*verify(signer, "a message", {}));
        EXPECT_FALSE(*verify(signer, "a message", Bytes(signature.size())));
        signature[5] ^= 1;
        EXPECT_FALSE(*verify(signer, "a message", signature));
    }
}

// Broken if something were taken for a key that is none, or a weak one.
TEST(Signature, WhatIsNoKeyIsRefused) {
    const Bytes one{1, 0, 1};
    EXPECT_FALSE(verify_rs256({}, one, {}, {}));
    EXPECT_FALSE(verify_rs256(Bytes(128, 0xff), one, {}, {})) << "1024 bits";
    EXPECT_FALSE(verify_rs256(Bytes(256, 0xff), Bytes{1}, {}, {}));
    EXPECT_FALSE(verify_rs256(Bytes(256, 0xff), Bytes{2}, {}, {}));
    EXPECT_FALSE(verify_rs256(Bytes(2000, 0xff), one, {}, {}));
    EXPECT_FALSE(verify_es256(Bytes(32), Bytes(32), {}, Bytes(64))) << "not on the curve";
    EXPECT_FALSE(verify_es256(Bytes(31, 1), Bytes(32, 1), {}, Bytes(64)));
}

}  // namespace
}  // namespace farshore
