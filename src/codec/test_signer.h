// Signs like an OpenID provider, with new keys: for tests only.
#pragma once

#include <gtest/gtest.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>

#include <string>

#include "codec/hash.h"

namespace farshore {

inline std::string test_base64url(ByteView bytes) {
    std::string text = to_base64(bytes);
    while (!text.empty() && text.back() == '=') text.pop_back();
    for (char& c : text) c = c == '+' ? '-' : c == '/' ? '_' : c;
    return text;
}

class TestSigner {
  public:
    explicit TestSigner(bool rsa) : rsa_(rsa), key_(rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256")) {
        EXPECT_NE(key_, nullptr);
    }
    ~TestSigner() { EVP_PKEY_free(key_); }
    TestSigner(const TestSigner&) = delete;
    TestSigner& operator=(const TestSigner&) = delete;

    // Modulus or x; exponent or y.
    Bytes first() const { return number(rsa_ ? OSSL_PKEY_PARAM_RSA_N : OSSL_PKEY_PARAM_EC_PUB_X); }
    Bytes second() const { return number(rsa_ ? OSSL_PKEY_PARAM_RSA_E : OSSL_PKEY_PARAM_EC_PUB_Y); }
    Bytes sign(ByteView message) const {
        EVP_MD_CTX* context = EVP_MD_CTX_new();
        size_t length = 0;
        EXPECT_EQ(EVP_DigestSignInit(context, nullptr, EVP_sha256(), nullptr, key_), 1);
        EXPECT_EQ(EVP_DigestSign(context, nullptr, &length, message.data(), message.size()), 1);
        Bytes signature(length);
        EXPECT_EQ(
            EVP_DigestSign(context, signature.data(), &length, message.data(), message.size()), 1);
        signature.resize(length);
        EVP_MD_CTX_free(context);
        if (rsa_) return signature;
        const unsigned char* der = signature.data();
        ECDSA_SIG* parts = d2i_ECDSA_SIG(nullptr, &der, static_cast<long>(signature.size()));
        Bytes raw(64);
        EXPECT_EQ(BN_bn2binpad(ECDSA_SIG_get0_r(parts), raw.data(), 32), 32);
        EXPECT_EQ(BN_bn2binpad(ECDSA_SIG_get0_s(parts), raw.data() + 32, 32), 32);
        ECDSA_SIG_free(parts);
        return raw;
    }
    // A JWK.
    std::string jwk(const std::string& id) const {
        const std::string a = test_base64url(first()), b = test_base64url(second());
        return rsa_ ? R"({"kty":"RSA","use":"sig","kid":")" + id + R"(","n":")" + a + R"(","e":")" +
                          b + "\"}"
                    : R"({"kty":"EC","crv":"P-256","kid":")" + id + R"(","x":")" + a +
                          R"(","y":")" + b + "\"}";
    }
    // A token with these claims.
    std::string token(const std::string& id, const std::string& claims,
                      const std::string& algorithm = {}) const {
        const std::string header = R"({"alg":")" +
                                   (algorithm.empty() ? (rsa_ ? "RS256" : "ES256") : algorithm) +
                                   R"(","kid":")" + id + "\"}";
        const std::string text =
            test_base64url(as_bytes(header)) + "." + test_base64url(as_bytes(claims));
        return text + "." + test_base64url(sign(as_bytes(text)));
    }

  private:
    Bytes number(const char* name) const {
        BIGNUM* value = nullptr;
        EXPECT_EQ(EVP_PKEY_get_bn_param(key_, name, &value), 1);
        Bytes bytes(rsa_ ? static_cast<size_t>(BN_num_bytes(value)) : 32);
        BN_bn2binpad(value, bytes.data(), static_cast<int>(bytes.size()));
        BN_free(value);
        return bytes;
    }
    const bool rsa_;
    EVP_PKEY* key_;
};

}  // namespace farshore
