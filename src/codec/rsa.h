// RSA-OAEP with SHA-256 (RFC 8017): a key sealed for whoever holds the private half. Keys are PEM.
// Any thread may call.
#pragma once

#include "base/bytes.h"
#include "base/error.h"
#include "base/secret.h"

namespace farshore {

// As long as the modulus. kMalformed: no public key in it; kInvalidArgument: not RSA, or of less
// than 2048 bits.
Result<Bytes> rsa_seal(ByteView public_key_pem, const Secret& plain);
// kMalformed: no private key in it (or one under a password); kWrongKey: not the one that it was
// sealed for.
Result<Secret> rsa_open(const Secret& private_key_pem, ByteView sealed);

}  // namespace farshore
