#include "codec/passphrase.h"

#include <argon2.h>
#include <fmt/core.h>

#include "codec/envelope.h"

namespace farshore {

Status check_kdf_cost(const KdfCost& cost) {
    if (cost.lanes < 1 || cost.lanes > 16 || cost.passes < 1 || cost.passes > 64 ||
        cost.memory_kib < 8 * cost.lanes || cost.memory_kib > 1u << 20)
        return fail(Code::kMalformed,
                    fmt::format("Argon2id with {} KiB, {} passes, {} lanes", cost.memory_kib,
                                cost.passes, cost.lanes),
                    "at most 1 GiB, 64 passes and 16 lanes are taken");
    return {};
}

Result<Secret> derive_key(const Secret& passphrase, ByteView salt, const KdfCost& cost) {
    FS_TRY(check_kdf_cost(cost));
    if (salt.size() < 8 || salt.size() > 64)
        return fail(Code::kMalformed, fmt::format("a salt of {} bytes", salt.size()));
    const ByteView text = passphrase.reveal();
    if (text.empty()) return fail(Code::kInvalidArgument, "the passphrase is empty");
    if (text.size() > kMaxPassphraseBytes)
        return fail(Code::kInvalidArgument,
                    fmt::format("a passphrase has at most {} bytes", kMaxPassphraseBytes));
    Bytes key(kKeyBytes);
    const int done =
        argon2id_hash_raw(cost.passes, cost.memory_kib, cost.lanes, text.data(), text.size(),
                          salt.data(), salt.size(), key.data(), key.size());
    if (done == ARGON2_MEMORY_ALLOCATION_ERROR || done == ARGON2_THREAD_FAIL)
        return fail(Code::kLimitReached,
                    fmt::format("Argon2id needs {} KiB of memory and {} threads", cost.memory_kib,
                                cost.lanes));
    if (done != ARGON2_OK)
        return fail(Code::kInternal, fmt::format("Argon2id: {}", argon2_error_message(done)));
    return Secret(std::move(key));
}

Status check_new_passphrase(const Secret& passphrase) {
    const size_t bytes = passphrase.reveal().size();
    if (bytes < kMinPassphraseBytes || bytes > kMaxPassphraseBytes)
        return fail(Code::kInvalidArgument, fmt::format("the passphrase has {} bytes", bytes),
                    fmt::format("take one of {} to {} bytes, from a generator rather than from "
                                "memory",
                                kMinPassphraseBytes, kMaxPassphraseBytes));
    return {};
}

Secret trim_passphrase(ByteView text) {
    while (!text.empty() && (text.back() == '\n' || text.back() == '\r'))
        text = text.first(text.size() - 1);
    return Secret(text);
}

}  // namespace farshore
