// Passwords of people as they are kept: Argon2id (RFC 9106) with a salt of its own for each, as one
// text in the usual form, "$argon2id$v=19$m=KIB,t=PASSES,p=LANES$SALT$HASH" (base64 without '=').
//
// Any thread may call; a call takes as long, and holds as much memory, as the costs say.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "base/seams.h"
#include "base/secret.h"
#include "codec/passphrase.h"

namespace farshore {

// kInvalidArgument: shorter than kMinPassphraseBytes or longer than kMaxPassphraseBytes.
Status check_new_password(const Secret& password);

Result<std::string> hash_password(const Secret& password, const KdfCost& cost, Random& random);

// Whether it is that password. The costs are those of the text, within what check_kdf_cost()
// takes. kMalformed: the text is none; kLimitReached: not that much memory.
Result<bool> is_password(const Secret& password, std::string_view hashed);

}  // namespace farshore
