#include "codec/signature.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>

#include <memory>

namespace farshore {
namespace {

template <auto function>
struct Free {
    template <typename T>
    void operator()(T* object) const {
        function(object);
    }
};
using Key = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;
using KeyContext = std::unique_ptr<EVP_PKEY_CTX, Free<EVP_PKEY_CTX_free>>;
using DigestContext = std::unique_ptr<EVP_MD_CTX, Free<EVP_MD_CTX_free>>;
using Number = std::unique_ptr<BIGNUM, Free<BN_free>>;
using Builder = std::unique_ptr<OSSL_PARAM_BLD, Free<OSSL_PARAM_BLD_free>>;
using Parameters = std::unique_ptr<OSSL_PARAM, Free<OSSL_PARAM_free>>;
using Ecdsa = std::unique_ptr<ECDSA_SIG, Free<ECDSA_SIG_free>>;

constexpr size_t kCoordinateBytes = 32;

Number number(ByteView bytes) {
    return Number(BN_bin2bn(bytes.data(), static_cast<int>(bytes.size()), nullptr));
}

Result<Key> public_key(const char* type, const Builder& builder) {
    const Parameters parameters(OSSL_PARAM_BLD_to_param(builder.get()));
    const KeyContext context(EVP_PKEY_CTX_new_from_name(nullptr, type, nullptr));
    EVP_PKEY* key = nullptr;
    const bool made =
        parameters && context && EVP_PKEY_fromdata_init(context.get()) == 1 &&
        EVP_PKEY_fromdata(context.get(), &key, EVP_PKEY_PUBLIC_KEY, parameters.get()) == 1;
    ERR_clear_error();
    if (!made) return fail(Code::kInvalidArgument, "not a public key");
    return Key(key);
}

bool verify(const Key& key, ByteView message, ByteView signature) {
    const DigestContext context(EVP_MD_CTX_new());
    const bool good =
        context &&
        EVP_DigestVerifyInit(context.get(), nullptr, EVP_sha256(), nullptr, key.get()) == 1 &&
        EVP_DigestVerify(context.get(), signature.data(), signature.size(), message.data(),
                         message.size()) == 1;
    ERR_clear_error();
    return good;
}

}  // namespace

Result<bool> verify_rs256(ByteView modulus, ByteView exponent, ByteView message,
                          ByteView signature) {
    const Number n = number(modulus), e = number(exponent);
    if (!n || !e || BN_num_bits(n.get()) < 2048 || BN_num_bits(n.get()) > 8192 ||
        exponent.size() > 8 || !BN_is_odd(e.get()) || BN_is_one(e.get()))
        return fail(Code::kInvalidArgument, "not an RSA key of 2048 to 8192 bits");
    const Builder builder(OSSL_PARAM_BLD_new());
    if (!builder || OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_N, n.get()) != 1 ||
        OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_E, e.get()) != 1)
        return fail(Code::kInternal, "build an RSA key");
    FS_ASSIGN(const Key key, public_key("RSA", builder));
    return verify(key, message, signature);
}

Result<bool> verify_es256(ByteView x, ByteView y, ByteView message, ByteView signature) {
    if (x.size() != kCoordinateBytes || y.size() != kCoordinateBytes)
        return fail(Code::kInvalidArgument, "not a P-256 key");
    Bytes point{4};  // uncompressed
    point.insert(point.end(), x.begin(), x.end());
    point.insert(point.end(), y.begin(), y.end());
    const Builder builder(OSSL_PARAM_BLD_new());
    if (!builder ||
        OSSL_PARAM_BLD_push_utf8_string(builder.get(), OSSL_PKEY_PARAM_GROUP_NAME, "prime256v1",
                                        0) != 1 ||
        OSSL_PARAM_BLD_push_octet_string(builder.get(), OSSL_PKEY_PARAM_PUB_KEY, point.data(),
                                         point.size()) != 1)
        return fail(Code::kInternal, "build a P-256 key");
    FS_ASSIGN(const Key key, public_key("EC", builder));
    if (signature.size() != 2 * kCoordinateBytes) return false;
    const Ecdsa parts(ECDSA_SIG_new());
    Number r = number(signature.first(kCoordinateBytes));
    Number s = number(signature.subspan(kCoordinateBytes));
    if (!parts || !r || !s || ECDSA_SIG_set0(parts.get(), r.get(), s.get()) != 1)
        return fail(Code::kInternal, "build a signature");
    (void)r.release();
    (void)s.release();
    unsigned char* der = nullptr;
    const int length = i2d_ECDSA_SIG(parts.get(), &der);
    if (length <= 0) return fail(Code::kInternal, "build a signature");
    const bool good = verify(key, message, ByteView(der, static_cast<size_t>(length)));
    OPENSSL_free(der);
    return good;
}

}  // namespace farshore
