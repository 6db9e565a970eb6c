#include "codec/block_sum.h"

#include <openssl/evp.h>

namespace farshore {
namespace {

// In the nonce, beside the disk: a sum of a block, or of sums.
constexpr uint32_t kOfSums = 1u << 31;

}  // namespace

struct BlockSummer::State {
    EVP_CIPHER* cipher = EVP_CIPHER_fetch(nullptr, "AES-256-GCM", nullptr);
    EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
    ~State() {
        EVP_CIPHER_CTX_free(context);
        EVP_CIPHER_free(cipher);
    }
};

BlockSummer::BlockSummer(const SumKey& key) : state_(std::make_unique<State>()) {
    FS_CHECK(EVP_EncryptInit_ex(state_->context, state_->cipher, nullptr, key.data(), nullptr) ==
             1);
}

BlockSummer::~BlockSummer() = default;

BlockSum BlockSummer::sum(uint32_t what, uint64_t offset_bytes, ByteView data) {
    uint8_t nonce[12];
    store_u32(nonce, what);
    store_u64(nonce + 4, offset_bytes);
    EVP_CIPHER_CTX* const context = state_->context;
    FS_CHECK(EVP_EncryptInit_ex(context, nullptr, nullptr, nullptr, nonce) == 1);
    int length = 0;
    FS_CHECK(EVP_EncryptUpdate(context, nullptr, &length, data.data(),
                               static_cast<int>(data.size())) == 1);
    uint8_t rest[16];
    FS_CHECK(EVP_EncryptFinal_ex(context, rest, &length) == 1);
    BlockSum tag;
    FS_CHECK(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, static_cast<int>(tag.size()),
                                 tag.data()) == 1);
    return tag;
}

BlockSum BlockSummer::block(DiskIndex disk, uint64_t offset_bytes, ByteView data) {
    if (all_zero(data)) return kZeroSum;
    return sum(disk, offset_bytes, data);
}

BlockSum BlockSummer::run(DiskIndex disk, uint64_t offset_bytes, std::span<const BlockSum> blocks) {
    return sum(kOfSums | disk, offset_bytes,
               {reinterpret_cast<const uint8_t*>(blocks.data()), blocks.size_bytes()});
}

}  // namespace farshore
