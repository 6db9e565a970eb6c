#include "codec/rsa.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include <memory>

namespace farshore {
namespace {

struct Free {
    void operator()(BIO* bio) const { BIO_free_all(bio); }
    void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
    void operator()(EVP_PKEY_CTX* context) const { EVP_PKEY_CTX_free(context); }
};
using Bio = std::unique_ptr<BIO, Free>;
using Key = std::unique_ptr<EVP_PKEY, Free>;
using Context = std::unique_ptr<EVP_PKEY_CTX, Free>;

constexpr int kMinBits = 2048;
constexpr size_t kMaxPemBytes = 64u << 10;

Bio bio_of(ByteView pem) { return Bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()))); }

// Nobody is asked at a terminal for the password of a key.
int no_password(char*, int, int, void*) { return 0; }

Context oaep(EVP_PKEY* key, bool sealing) {
    Context context(EVP_PKEY_CTX_new_from_pkey(nullptr, key, nullptr));
    const auto start = sealing ? &EVP_PKEY_encrypt_init : &EVP_PKEY_decrypt_init;
    FS_CHECK(context && start(context.get()) == 1);
    FS_CHECK(EVP_PKEY_CTX_set_rsa_padding(context.get(), RSA_PKCS1_OAEP_PADDING) == 1);
    FS_CHECK(EVP_PKEY_CTX_set_rsa_oaep_md(context.get(), EVP_sha256()) == 1);
    FS_CHECK(EVP_PKEY_CTX_set_rsa_mgf1_md(context.get(), EVP_sha256()) == 1);
    return context;
}

Status check_rsa(const EVP_PKEY* key) {
    if (EVP_PKEY_get_base_id(key) != EVP_PKEY_RSA || EVP_PKEY_get_bits(key) < kMinBits)
        return fail(Code::kInvalidArgument, "this is no RSA key of 2048 bits or more",
                    "make one with `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072`");
    return {};
}

}  // namespace

Result<Bytes> rsa_seal(ByteView public_key_pem, const Secret& plain) {
    if (public_key_pem.size() > kMaxPemBytes) return fail(Code::kMalformed, "no public key");
    const Bio bio = bio_of(public_key_pem);
    const Key key(PEM_read_bio_PUBKEY(bio.get(), nullptr, no_password, nullptr));
    ERR_clear_error();
    if (!key)
        return fail(Code::kMalformed, "no public key in PEM",
                    "`openssl pkey -in PRIVATE.pem -pubout` writes one");
    FS_TRY(check_rsa(key.get()));
    const Context context = oaep(key.get(), true);
    Bytes sealed(static_cast<size_t>(EVP_PKEY_get_size(key.get())));
    size_t bytes = sealed.size();
    const ByteView in = plain.reveal();
    if (EVP_PKEY_encrypt(context.get(), sealed.data(), &bytes, in.data(), in.size()) != 1) {
        ERR_clear_error();
        return fail(Code::kInternal, "RSA-OAEP could not seal");
    }
    sealed.resize(bytes);
    return sealed;
}

Result<Secret> rsa_open(const Secret& private_key_pem, ByteView sealed) {
    if (private_key_pem.reveal().size() > kMaxPemBytes)
        return fail(Code::kMalformed, "no private key");
    const Bio bio = bio_of(private_key_pem.reveal());
    const Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_password, nullptr));
    ERR_clear_error();
    if (!key)
        return fail(Code::kMalformed, "no private key in PEM, or one under a password",
                    "`openssl pkey` takes the password off");
    FS_TRY(check_rsa(key.get()));
    const Context context = oaep(key.get(), false);
    Bytes plain(static_cast<size_t>(EVP_PKEY_get_size(key.get())));
    size_t bytes = plain.size();
    if (EVP_PKEY_decrypt(context.get(), plain.data(), &bytes, sealed.data(), sealed.size()) != 1) {
        ERR_clear_error();
        return fail(Code::kWrongKey, "this private key does not open it",
                    "give the private half of the key that it was sealed for");
    }
    Secret out{ByteView(plain).first(bytes)};
    std::fill(plain.begin(), plain.end(), uint8_t{0});
    return out;
}

}  // namespace farshore
