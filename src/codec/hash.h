// SHA-256 (FIPS 180-4), through OpenSSL.
#pragma once

#include <memory>

#include "base/bytes.h"
#include "base/types.h"

namespace farshore {

// Any thread may call.
Digest sha256(ByteView bytes);

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
