// Sealing: AES-256-GCM (NIST SP 800-38D) with a nonce and associated data that the caller gives,
// and keys wrapped under keys: key-encryption key (key_file.h) > item key > data key of one object.
// Source: docs/format/README.md §4.
//
// A nonce must never be used twice under one key. Data keys are random and used for one object, so
// counters do; wrapping uses random nonces.
#pragma once

#include <array>
#include <cstdint>

#include "base/bytes.h"
#include "base/error.h"
#include "base/seams.h"
#include "base/secret.h"

namespace farshore {

inline constexpr size_t kKeyBytes = 32;
inline constexpr size_t kSealTagBytes = 16;
inline constexpr size_t kSealNonceBytes = 12;
// nonce | sealed key | tag
inline constexpr size_t kWrappedKeyBytes = kSealNonceBytes + kKeyBytes + kSealTagBytes;

using SealNonce = std::array<uint8_t, kSealNonceBytes>;
// `counter` little-endian, then four zeroes.
SealNonce counter_nonce(uint64_t counter);

// Seals and opens under one key. Any thread may call: each thread keeps one cipher context and
// expands the key again only when it used another key in between.
class SealKey {
  public:
    // kInvalidArgument when the key has not kKeyBytes.
    static Result<SealKey> make(const Secret& key);

    // `out` takes plain.size() + kSealTagBytes bytes, exactly; it may start where `plain` does.
    void seal(const SealNonce& nonce, ByteView associated, ByteView plain,
              MutableByteView out) const;
    // `out` takes sealed.size() - kSealTagBytes bytes, exactly. kCorrupt when anything differs from
    // what was sealed; `out` is wiped then. kTruncated when `sealed` is shorter than a tag.
    Status open(const SealNonce& nonce, ByteView associated, ByteView sealed,
                MutableByteView out) const;

  private:
    explicit SealKey(const Secret& key);
    Secret key_;
    uint64_t identity_;  // never reused within the process
};

// A fresh random key.
Secret make_key(Random& random);

// kWrappedKeyBytes. `associated` says what the key is for and must be given again to unwrap.
Result<Bytes> wrap_key(const Secret& wrapping, const Secret& key, ByteView associated,
                       Random& random);
// kWrongKey when `wrapping` is not what it was wrapped with (or the bytes were changed).
Result<Secret> unwrap_key(const Secret& wrapping, ByteView wrapped, ByteView associated);

}  // namespace farshore
