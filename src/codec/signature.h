// Signatures of JSON web tokens: RS256 (RSASSA-PKCS1-v1_5) and ES256 (ECDSA P-256), each with
// SHA-256 (RFC 7518 sections 3.3 and 3.4). Numbers are big-endian bytes, as they stand in a JWK.
// Any thread may call.
#pragma once

#include "base/bytes.h"
#include "base/error.h"

namespace farshore {

// Whether `signature` is that of `message`. kInvalidArgument: no such key, or an RSA modulus below
// 2048 or above 8192 bits.
Result<bool> verify_rs256(ByteView modulus, ByteView exponent, ByteView message,
                          ByteView signature);
// The signature is r and s, 32 bytes each. kInvalidArgument: not a point of the curve.
Result<bool> verify_es256(ByteView x, ByteView y, ByteView message, ByteView signature);

}  // namespace farshore
