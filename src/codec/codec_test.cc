// Tests of compress.h, hash.h, envelope.h and key_file.h.
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "codec/compress.h"
#include "codec/envelope.h"
#include "codec/hash.h"
#include "codec/key_file.h"

namespace farshore {
namespace {

class SeededRandom final : public Random {
  public:
    explicit SeededRandom(uint64_t seed) : engine_(seed) {}
    void fill(MutableByteView out) override {
        for (uint8_t& b : out) b = static_cast<uint8_t>(engine_());
    }

  private:
    std::mt19937_64 engine_;
};

Bytes random_bytes(size_t n, uint64_t seed) {
    Bytes out(n);
    SeededRandom(seed).fill(out);
    return out;
}

Bytes text_bytes(size_t n) {
    Bytes out;
    for (size_t i = 0; out.size() < n; ++i) {
        const std::string line = "entry " + std::to_string(i * 7919) + " of the journal\n";
        out.insert(out.end(), line.begin(), line.end());
    }
    out.resize(n);
    return out;
}

// Broken if a chunk could come back different from what was written.
TEST(Compress, RoundTripsEveryCodecAndSize) {
    for (size_t n : {0u, 1u, 15u, 512u, 4096u, 65535u, 65536u, 1u << 20}) {
        for (auto codec : {Compression::kRaw, Compression::kZstd, Compression::kLz4}) {
            for (const Bytes& plain : {text_bytes(n), random_bytes(n, n), Bytes(n)}) {
                Bytes packed;
                const Compression used = compress(codec, plain, packed);
                const ByteView stored = used == Compression::kRaw ? ByteView(plain) : packed;
                ASSERT_LE(stored.size(), plain.size());
                auto back = decompress(used, stored, plain.size());
                ASSERT_TRUE(back) << back.error().to_string();
                ASSERT_EQ(*back, plain);
            }
        }
    }
}

// Broken if a length that lies could write or read outside the buffers, or pass as data.
TEST(Compress, RefusesWrongLengthsAndDamage) {
    const Bytes plain = text_bytes(10000);
    for (auto codec : {Compression::kZstd, Compression::kLz4}) {
        Bytes packed;
        ASSERT_EQ(compress(codec, plain, packed), codec);
        for (size_t n : {0u, 1u, 9999u, 10001u, 20000u}) {
            auto back = decompress(codec, packed, n);
            ASSERT_FALSE(back);
            ASSERT_EQ(back.error().code(), Code::kCorrupt);
        }
        for (size_t n = 0; n < packed.size(); ++n)
            ASSERT_FALSE(decompress(codec, ByteView(packed).first(n), plain.size()));
        ASSERT_EQ(decompress(codec, packed, kMaxPlainBytes + 1).error().code(), Code::kTooLarge);
    }
    EXPECT_EQ(decompress(static_cast<Compression>(9), plain, 5).error().code(),
              Code::kNewerVersion);
}

// Broken if time were spent on data that cannot shrink, or shrinkable data were stored raw.
TEST(Compress, ProbeTellsRandomFromText) {
    for (uint64_t seed = 1; seed <= 200; ++seed)
        ASSERT_TRUE(looks_incompressible(random_bytes(65536, seed))) << seed;
    EXPECT_FALSE(looks_incompressible(text_bytes(65536)));
    EXPECT_FALSE(looks_incompressible(Bytes(65536)));
    Bytes half = random_bytes(65536, 3);
    std::fill(half.begin() + 32768, half.end(), uint8_t{0});
    EXPECT_FALSE(looks_incompressible(half));
    // Every byte is as frequent as any other, and the same page comes sixteen times.
    Bytes repeated;
    const Bytes page = random_bytes(4096, 4);
    for (int i = 0; i < 16; ++i) repeated.insert(repeated.end(), page.begin(), page.end());
    EXPECT_FALSE(looks_incompressible(repeated));
    EXPECT_FALSE(looks_incompressible(random_bytes(100, 1)));
}

// Broken if another reader computed other digests.
TEST(Hash, MatchesPublishedVectors) {
    EXPECT_EQ(to_hex(sha256(as_bytes("abc"))),
              "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    EXPECT_EQ(to_hex(sha256({})),
              "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    Sha256 pieces;
    pieces.update(as_bytes("a"));
    pieces.update(as_bytes("bc"));
    EXPECT_EQ(pieces.finish(), sha256(as_bytes("abc")));
    EXPECT_EQ(pieces.finish(), sha256({}));
}

// Broken if another reader could not open what we seal: test case 14 and 16 of the GCM paper.
TEST(Envelope, MatchesPublishedVectors) {
    auto zero = SealKey::make(Secret(Bytes(32)));
    ASSERT_TRUE(zero);
    Bytes out(32);
    zero->seal(SealNonce{}, {}, Bytes(16), out);
    EXPECT_EQ(to_hex(out), "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");

    auto key = SealKey::make(
        Secret(*from_hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308")));
    const Bytes plain = *from_hex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39");
    const Bytes associated = *from_hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    SealNonce nonce;
    std::ranges::copy(*from_hex("cafebabefacedbaddecaf888"), nonce.begin());
    Bytes sealed(plain.size() + 16);
    key->seal(nonce, associated, plain, sealed);
    EXPECT_EQ(to_hex(ByteView(sealed).last(16)), "76fc6ece0f4e1768cddf8853bb2d551b");
}

// Broken if changed or moved data could pass as what was sealed.
TEST(Envelope, NoticesEveryChange) {
    auto key = SealKey::make(Secret(random_bytes(32, 1)));
    auto other = SealKey::make(Secret(random_bytes(32, 2)));
    const Bytes plain = text_bytes(100), associated = text_bytes(20);
    Bytes sealed(116), out(100);
    key->seal(counter_nonce(7), associated, plain, sealed);
    ASSERT_TRUE(key->open(counter_nonce(7), associated, sealed, out));
    EXPECT_EQ(out, plain);
    EXPECT_EQ(key->open(counter_nonce(8), associated, sealed, out).error().code(), Code::kCorrupt);
    EXPECT_TRUE(all_zero(out)) << "plain text that was not proved must not be left behind";
    EXPECT_FALSE(key->open(counter_nonce(7), text_bytes(19), sealed, out));
    EXPECT_FALSE(other->open(counter_nonce(7), associated, sealed, out));
    for (size_t i = 0; i < sealed.size() * 8; ++i) {
        Bytes bad = sealed;
        bad[i / 8] ^= static_cast<uint8_t>(1u << (i % 8));
        ASSERT_FALSE(key->open(counter_nonce(7), associated, bad, out)) << i;
    }
    ASSERT_TRUE(key->open(counter_nonce(7), associated, sealed, out)) << "must recover";
    EXPECT_EQ(key->open(counter_nonce(7), {}, Bytes(15), out).error().code(), Code::kTruncated);
}

// Broken if threads or keys shared a cipher context, or sealing in place went wrong.
TEST(Envelope, ManyThreadsAndKeysInTurn) {
    std::vector<SealKey> keys;
    for (uint64_t i = 0; i < 4; ++i) keys.push_back(*SealKey::make(Secret(random_bytes(32, i))));
    std::vector<std::thread> threads;
    for (uint64_t t = 0; t < 4; ++t)
        threads.emplace_back([&, t] {
            for (uint64_t i = 0; i < 300; ++i) {
                const Bytes plain = random_bytes(1000 + i, t * 1000 + i);
                const SealKey& key = keys[(t + i) % keys.size()];
                Bytes sealed = plain;
                sealed.resize(plain.size() + kSealTagBytes);
                key.seal(counter_nonce(i), {}, ByteView(sealed).first(plain.size()), sealed);
                Bytes out(plain.size());
                ASSERT_TRUE(key.open(counter_nonce(i), {}, sealed, out));
                ASSERT_EQ(out, plain);
            }
        });
    for (std::thread& thread : threads) thread.join();
}

// Broken if a data key could be opened with the wrong key or for the wrong object.
TEST(Envelope, WrappedKeysComeBackOnlyUnderTheirKeyAndPurpose) {
    SeededRandom random(5);
    const Secret wrapping = make_key(random), other = make_key(random), key = make_key(random);
    auto wrapped = wrap_key(wrapping, key, as_bytes("item 1"), random);
    ASSERT_TRUE(wrapped);
    EXPECT_EQ(wrapped->size(), kWrappedKeyBytes);
    auto back = unwrap_key(wrapping, *wrapped, as_bytes("item 1"));
    ASSERT_TRUE(back);
    EXPECT_TRUE(std::ranges::equal(back->reveal(), key.reveal()));
    EXPECT_EQ(unwrap_key(other, *wrapped, as_bytes("item 1")).error().code(), Code::kWrongKey);
    EXPECT_EQ(unwrap_key(wrapping, *wrapped, as_bytes("item 2")).error().code(), Code::kWrongKey);
    EXPECT_EQ(unwrap_key(wrapping, Bytes(59), {}).error().code(), Code::kMalformed);
    EXPECT_EQ(unwrap_key(Secret(Bytes(31)), *wrapped, {}).error().code(), Code::kInvalidArgument);
}

// Broken if a printed key could not be typed in again, or a mistyped one were taken.
TEST(KeyFile, RoundTripsAndNoticesTyping) {
    SeededRandom random(9);
    const KeyFile made = make_key_file(random);
    const Secret secret_text = format_key_file(made);
    const std::string text = to_text(secret_text.reveal());
    auto back = parse_key_file(text);
    ASSERT_TRUE(back) << back.error().to_string();
    EXPECT_EQ(back->id, made.id);
    EXPECT_TRUE(std::ranges::equal(back->key.reveal(), made.key.reveal()));
    const size_t start = text.find("farshore-key");
    for (size_t i = start; i < text.size() - 1; ++i) {
        std::string bad = text;
        bad[i] = bad[i] == '0' ? '1' : '0';
        ASSERT_FALSE(parse_key_file(bad)) << i;
    }
    for (size_t n = 0; n < text.size() - 1; ++n) ASSERT_FALSE(parse_key_file(text.substr(0, n)));
    EXPECT_EQ(parse_key_file("").error().code(), Code::kMalformed);
    EXPECT_EQ(parse_key_file("farshore-key 2\n").error().code(), Code::kNewerVersion);
    EXPECT_EQ(parse_key_file("-----BEGIN PRIVATE KEY-----\n").error().code(), Code::kMalformed);
    EXPECT_FALSE(parse_key_file("").error().remedy().empty());
    EXPECT_EQ(check_key(made, "0011223344556677").error().code(), Code::kWrongKey);
    EXPECT_TRUE(check_key(made, made.id));
}

// RFC 4231 test case 2, RFC 1321 and RFC 4648 examples. Broken if signed requests were refused
// everywhere.
TEST(Hash, WhatRequestsAreSignedWith) {
    const Digest mac = hmac_sha256(as_bytes("Jefe"), as_bytes("what do ya want for nothing?"));
    EXPECT_EQ(to_hex(mac), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    EXPECT_EQ(to_hex(md5_checksum(as_bytes("abc"))), "900150983cd24fb0d6963f7d28e17f72");
    for (const auto& [plain, text] : std::vector<std::pair<std::string, std::string>>{
             {"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foobar", "Zm9vYmFy"}}) {
        EXPECT_EQ(to_base64(as_bytes(plain)), text);
        auto back = from_base64(text);
        ASSERT_TRUE(back) << text;
        EXPECT_EQ(to_text(*back), plain);
    }
    for (const char* wrong : {"Zg", "Z===", "Zg==Zg==", "Zm9v\n", "Zm 9", "Zm9*", "=Zm9"})
        EXPECT_FALSE(from_base64(wrong)) << wrong;
}

}  // namespace
}  // namespace farshore
