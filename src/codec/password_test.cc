#include "codec/password.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

class CountingRandom final : public Random {
  public:
    void fill(MutableByteView out) override {
        for (uint8_t& byte : out) byte = next_++;
    }

  private:
    uint8_t next_ = 1;
};

const KdfCost kCheap{.memory_kib = 64, .passes = 1, .lanes = 1};

Secret secret(std::string_view text) { return Secret(as_bytes(text)); }

// Broken if another password opened the door, or the right one did not.
TEST(Password, OnlyTheRightOneIsTaken) {
    CountingRandom random;
    const auto hashed = hash_password(secret("a long password"), kCheap, random);
    ASSERT_TRUE(hashed) << hashed.error().to_string();
    EXPECT_TRUE(hashed->starts_with("$argon2id$v=19$m=64,t=1,p=1$")) << *hashed;
    EXPECT_TRUE(*is_password(secret("a long password"), *hashed));
    EXPECT_FALSE(*is_password(secret("a long passworD"), *hashed));
    EXPECT_FALSE(*is_password(secret("a long password "), *hashed));
    EXPECT_FALSE(is_password(secret(""), *hashed));
    EXPECT_NE(*hash_password(secret("a long password"), kCheap, random), *hashed)
        << "each has a salt of its own";
}

// Broken if a text that another program made in the same form were not understood: this one is
// `echo -n password | argon2 somesalt -id -t 2 -m 16 -p 1` of the reference implementation.
TEST(Password, TheFormIsTheUsualOne) {
    const auto good = is_password(secret("password"),
                                  "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$"
                                  "CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc");
    ASSERT_TRUE(good) << good.error().to_string();
    EXPECT_TRUE(*good);
}

// Broken if what is no hash let somebody in, or made the machine work without bounds.
TEST(Password, WhatIsNoHashIsRefused) {
    for (const char* bad :
         {"", "$", "$$$$$$", "password", "$argon2i$v=19$m=64,t=1,p=1$c29tZXNhbHQ$AAAA",
          "$argon2id$v=16$m=64,t=1,p=1$c29tZXNhbHQ$AAAA",
          "$argon2id$v=19$m=64,t=1$c29tZXNhbHQ$AAAA", "$argon2id$v=19$m=64,t=1,p=1,$c29t$AAAA",
          "$argon2id$v=19$m=99999999,t=1,p=1$c29tZXNhbHQ$AAAA",
          "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$AAAA", "$argon2id$v=19$m=64,t=1,p=1$!!!!$AAAA$",
          "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$"})
        EXPECT_FALSE(is_password(secret("a long password"), bad)) << bad;
    EXPECT_FALSE(check_new_password(secret("short")));
    EXPECT_FALSE(check_new_password(secret(std::string(kMaxPassphraseBytes + 1, 'x'))));
    EXPECT_TRUE(check_new_password(secret("a long password")));
}

}  // namespace
}  // namespace farshore
