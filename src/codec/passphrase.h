// A key out of a passphrase: Argon2id (RFC 9106) with a salt and costs that are kept beside what
// the key seals. Any thread may call; a call takes about as long as its costs say (64 MiB and three
// passes: a tenth of a second to half a second) and holds that memory meanwhile.
#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "base/error.h"
#include "base/secret.h"

namespace farshore {

inline constexpr size_t kSaltBytes = 16;
inline constexpr size_t kMinPassphraseBytes = 12;  // of one that something is sealed under
inline constexpr size_t kMaxPassphraseBytes = 1024;

struct KdfCost {
    uint32_t memory_kib = 64u << 10;  // 8 KiB a lane to 1 GiB
    uint32_t passes = 3;              // 1 to 64
    uint32_t lanes = 4;               // 1 to 16
};

// kMalformed: out of range. Costs come out of files, and must not take the machine down.
Status check_kdf_cost(const KdfCost& cost);

// 32 bytes. `salt` has 8 to 64 bytes. kInvalidArgument: passphrase empty or too long;
// kMalformed: salt or cost; kLimitReached: not that much memory.
Result<Secret> derive_key(const Secret& passphrase, ByteView salt, const KdfCost& cost);

// kInvalidArgument: too short or too long to seal anything under.
Status check_new_passphrase(const Secret& passphrase);

// A passphrase as a file holds it: without the line end behind it.
Secret trim_passphrase(ByteView text);

}  // namespace farshore
