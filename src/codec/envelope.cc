#include "codec/envelope.h"

#include <fmt/core.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <atomic>

namespace farshore {
namespace {

const EVP_CIPHER* algorithm() {
    static const EVP_CIPHER* const kFetched = EVP_CIPHER_fetch(nullptr, "AES-256-GCM", nullptr);
    FS_CHECK(kFetched != nullptr);
    return kFetched;
}

// A context per direction: OpenSSL expands the key for one direction at a time.
struct ThreadCipher {
    EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
    uint64_t key_identity = 0;
    ~ThreadCipher() { EVP_CIPHER_CTX_free(context); }

    void start(uint64_t identity, const Secret& key, const SealNonce& nonce, bool sealing) {
        const bool known = identity == key_identity;
        const uint8_t* raw = known ? nullptr : key.reveal().data();
        const EVP_CIPHER* cipher = known ? nullptr : algorithm();
        FS_CHECK(EVP_CipherInit_ex(context, cipher, nullptr, raw, nonce.data(), sealing ? 1 : 0) ==
                 1);
        key_identity = identity;
    }

    // 1 GiB at a time keeps the length an int; nothing here comes near.
    void update(uint8_t* out, ByteView in) {
        FS_CHECK(in.size() <= (1u << 30));
        int n = 0;
        FS_CHECK(EVP_CipherUpdate(context, out, &n, in.data(), static_cast<int>(in.size())) == 1);
    }
};

ThreadCipher& thread_cipher(bool sealing) {
    thread_local ThreadCipher ciphers[2];
    return ciphers[sealing ? 1 : 0];
}

}  // namespace

SealNonce counter_nonce(uint64_t counter) {
    SealNonce nonce{};
    store_u64(nonce.data(), counter);
    return nonce;
}

SealKey::SealKey(const Secret& key) : key_(key) {
    static std::atomic<uint64_t> next{1};
    identity_ = next.fetch_add(1, std::memory_order_relaxed);
}

Result<SealKey> SealKey::make(const Secret& key) {
    if (key.reveal().size() != kKeyBytes)
        return fail(Code::kInvalidArgument,
                    fmt::format("a key has {} bytes, not {}", kKeyBytes, key.reveal().size()));
    return SealKey(key);
}

void SealKey::seal(const SealNonce& nonce, ByteView associated, ByteView plain,
                   MutableByteView out) const {
    FS_CHECK(out.size() == plain.size() + kSealTagBytes);
    ThreadCipher& cipher = thread_cipher(true);
    cipher.start(identity_, key_, nonce, true);
    if (!associated.empty()) cipher.update(nullptr, associated);
    if (!plain.empty()) cipher.update(out.data(), plain);
    int n = 0;
    uint8_t* tag = out.data() + plain.size();
    FS_CHECK(EVP_CipherFinal_ex(cipher.context, tag, &n) == 1 && n == 0);
    FS_CHECK(EVP_CIPHER_CTX_ctrl(cipher.context, EVP_CTRL_AEAD_GET_TAG, kSealTagBytes, tag) == 1);
}

Status SealKey::open(const SealNonce& nonce, ByteView associated, ByteView sealed,
                     MutableByteView out) const {
    if (sealed.size() < kSealTagBytes)
        return fail(Code::kTruncated, fmt::format("sealed data of {} bytes", sealed.size()));
    FS_CHECK(out.size() + kSealTagBytes == sealed.size());
    ThreadCipher& cipher = thread_cipher(false);
    cipher.start(identity_, key_, nonce, false);
    if (!associated.empty()) cipher.update(nullptr, associated);
    if (!out.empty()) cipher.update(out.data(), sealed.first(out.size()));
    // OpenSSL takes the expected tag through a pointer that it does not write to.
    auto* tag = const_cast<uint8_t*>(sealed.data() + out.size());
    FS_CHECK(EVP_CIPHER_CTX_ctrl(cipher.context, EVP_CTRL_AEAD_SET_TAG, kSealTagBytes, tag) == 1);
    int n = 0;
    uint8_t rest[kSealTagBytes];
    if (EVP_CipherFinal_ex(cipher.context, rest, &n) != 1) {
        if (!out.empty()) OPENSSL_cleanse(out.data(), out.size());
        return fail(Code::kCorrupt, "sealed data does not match its tag",
                    "the data was damaged or changed, or belongs somewhere else");
    }
    return {};
}

Secret make_key(Random& random) {
    Bytes raw(kKeyBytes);
    random.fill(raw);
    return Secret(std::move(raw));
}

Result<Bytes> wrap_key(const Secret& wrapping, const Secret& key, ByteView associated,
                       Random& random) {
    FS_ASSIGN(SealKey sealer, SealKey::make(wrapping));
    if (key.reveal().size() != kKeyBytes)
        return fail(Code::kInvalidArgument,
                    fmt::format("a key has {} bytes, not {}", kKeyBytes, key.reveal().size()));
    SealNonce nonce;
    random.fill(nonce);
    Bytes out(kWrappedKeyBytes);
    std::copy(nonce.begin(), nonce.end(), out.begin());
    sealer.seal(nonce, associated, key.reveal(), MutableByteView(out).subspan(kSealNonceBytes));
    return out;
}

Result<Secret> unwrap_key(const Secret& wrapping, ByteView wrapped, ByteView associated) {
    FS_ASSIGN(SealKey opener, SealKey::make(wrapping));
    if (wrapped.size() != kWrappedKeyBytes)
        return fail(Code::kMalformed, fmt::format("a wrapped key has {} bytes, not {}",
                                                  kWrappedKeyBytes, wrapped.size()));
    SealNonce nonce;
    std::copy_n(wrapped.begin(), kSealNonceBytes, nonce.begin());
    Bytes raw(kKeyBytes);
    if (!opener.open(nonce, associated, wrapped.subspan(kSealNonceBytes), raw))
        return fail(Code::kWrongKey, "the key does not open this wrapped key",
                    "give the key file that this store was made with");
    return Secret(std::move(raw));
}

}  // namespace farshore
