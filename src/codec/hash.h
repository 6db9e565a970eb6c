// SHA-256 (FIPS 180-4), and what signatures of requests are made of; through OpenSSL.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"
#include "base/types.h"

namespace farshore {

// Any thread may call.
Digest sha256(ByteView bytes);
// HMAC-SHA-256 (RFC 2104).
Digest hmac_sha256(ByteView key, ByteView message);
// MD5, only where a protocol wants it as a checksum (Content-MD5); 16 bytes.
Bytes md5_checksum(ByteView bytes);
// With '=' at the end (RFC 4648 section 4).
std::string to_base64(ByteView bytes);
// kMalformed.
Result<Bytes> from_base64(std::string_view text);

// The same over pieces. One thread at a time.
class Sha256 {
  public:
    Sha256();
    ~Sha256();
    Sha256(const Sha256&) = delete;
    Sha256& operator=(const Sha256&) = delete;
    void update(ByteView bytes);
    // The digest of everything so far; starts over.
    Digest finish();

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace farshore
