// The simulator's own random numbers: xoshiro256** seeded through splitmix64.
//
// Own code and not <random>, because the standard's distributions differ between libraries and a
// seed must mean the same everywhere. A stream is a value; fork() makes an independent stream that
// depends on the seed and a name alone, so that a new component does not shift what others draw.
// Not cryptographic, not thread-safe.
//
// Source: D. Blackman, S. Vigna, "Scrambled linear pseudorandom number generators" (2018).
#pragma once

#include <cstdint>
#include <string_view>

#include "base/bytes.h"

namespace farshore {

constexpr uint64_t splitmix64(uint64_t& state) {
    uint64_t z = (state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

// FNV-1a, for names.
constexpr uint64_t hash_name(std::string_view text) {
    uint64_t h = 0xcbf29ce484222325ull;
    for (const char c : text) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
    return h;
}

class Rng {
  public:
    explicit constexpr Rng(uint64_t seed) : seed_(seed) {
        uint64_t state = seed;
        for (uint64_t& word : s_) word = splitmix64(state);
    }

    constexpr uint64_t next() {
        const uint64_t result = rotate(s_[1] * 5, 7) * 9;
        const uint64_t t = s_[1] << 17;
        s_[2] ^= s_[0];
        s_[3] ^= s_[1];
        s_[1] ^= s_[2];
        s_[0] ^= s_[3];
        s_[2] ^= t;
        s_[3] = rotate(s_[3], 45);
        return result;
    }
    // Uniform in [0, bound); 0 when bound is 0.
    constexpr uint64_t below(uint64_t bound) {
        return static_cast<uint64_t>((static_cast<Wide>(next()) * bound) >> 64);
    }
    // Uniform in [low, high].
    constexpr int64_t between(int64_t low, int64_t high) {
        return low + static_cast<int64_t>(below(static_cast<uint64_t>(high - low) + 1));
    }
    // True `per_million` times out of a million.
    constexpr bool chance_ppm(uint32_t per_million) {
        return per_million != 0 && below(1'000'000) < per_million;
    }
    constexpr bool coin() { return (next() >> 63) != 0; }
    void fill(MutableByteView out) {
        size_t at = 0;
        for (; at + 8 <= out.size(); at += 8) store_u64(out.data() + at, next());
        if (at < out.size()) {
            uint8_t rest[8];
            store_u64(rest, next());
            std::memcpy(out.data() + at, rest, out.size() - at);
        }
    }
    constexpr Rng fork(std::string_view name) const { return fork(hash_name(name)); }
    constexpr Rng fork(uint64_t number) const {
        uint64_t state = seed_ ^ rotate(number, 32) ^ 0x6a09e667f3bcc909ull;
        const uint64_t a = splitmix64(state);
        state ^= number;
        return Rng(a ^ splitmix64(state));
    }

  private:
    __extension__ using Wide = unsigned __int128;
    static constexpr uint64_t rotate(uint64_t v, int by) { return (v << by) | (v >> (64 - by)); }
    uint64_t seed_;
    uint64_t s_[4]{};
};

}  // namespace farshore
