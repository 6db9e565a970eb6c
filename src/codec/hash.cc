#include "codec/hash.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/error.h"

namespace farshore {
namespace {
const EVP_MD* algorithm() {
    // Fetched once: an implicit fetch costs more than hashing a header.
    static const EVP_MD* const kFetched = EVP_MD_fetch(nullptr, "SHA256", nullptr);
    FS_CHECK(kFetched != nullptr);
    return kFetched;
}
}  // namespace

struct Sha256::State {
    EVP_MD_CTX* context = EVP_MD_CTX_new();
    State() { start(); }
    ~State() { EVP_MD_CTX_free(context); }
    void start() { FS_CHECK(EVP_DigestInit_ex(context, algorithm(), nullptr) == 1); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {}
Sha256::~Sha256() = default;

void Sha256::update(ByteView bytes) {
    FS_CHECK(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()) == 1);
}

Digest Sha256::finish() {
    Digest digest{};
    unsigned int n = 0;
    FS_CHECK(EVP_DigestFinal_ex(state_->context, digest.data(), &n) == 1 && n == digest.size());
    state_->start();
    return digest;
}

Digest sha256(ByteView bytes) {
    thread_local Sha256 hash;
    hash.update(bytes);
    return hash.finish();
}

Digest hmac_sha256(ByteView key, ByteView message) {
    Digest out{};
    unsigned int n = 0;
    FS_CHECK(HMAC(algorithm(), key.data(), static_cast<int>(key.size()), message.data(),
                  message.size(), out.data(), &n) != nullptr &&
             n == out.size());
    return out;
}

Bytes md5_checksum(ByteView bytes) {
    static const EVP_MD* const kFetched = EVP_MD_fetch(nullptr, "MD5", nullptr);
    FS_CHECK(kFetched != nullptr);
    Bytes out(16);
    unsigned int n = 0;
    FS_CHECK(EVP_Digest(bytes.data(), bytes.size(), out.data(), &n, kFetched, nullptr) == 1 &&
             n == out.size());
    return out;
}

std::string to_base64(ByteView bytes) {
    // With room for the zero that OpenSSL writes behind it.
    std::string out((bytes.size() + 2) / 3 * 4 + 1, '\0');
    const int n = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()), bytes.data(),
                                  static_cast<int>(bytes.size()));
    out.resize(static_cast<size_t>(n));
    return out;
}

Result<Bytes> from_base64(std::string_view text) {
    const auto bad = [] { return fail(Code::kMalformed, "it is no base64"); };
    const size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
    if (text.size() % 4 != 0 || text.size() > 1u << 24) return bad();
    // OpenSSL passes over spaces, and takes '=' wherever it stands.
    if (text.find_first_of("= \t\r\n") < text.size() - padding) return bad();
    Bytes out(text.size() / 4 * 3);
    const int n = EVP_DecodeBlock(out.data(), reinterpret_cast<const unsigned char*>(text.data()),
                                  static_cast<int>(text.size()));
    if (n < 0 || static_cast<size_t>(n) != out.size()) return bad();
    out.resize(out.size() - padding);
    return out;
}

}  // namespace farshore
