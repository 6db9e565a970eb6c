#include "codec/hash.h"

#include <openssl/evp.h>

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

}  // namespace farshore
