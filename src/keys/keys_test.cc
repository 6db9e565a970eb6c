// Tests of key_document.h and key_source.h; azure_key_vault_test.cc has the key service.
#include <gtest/gtest.h>
#include <unistd.h>

#include "codec/document.h"
#include "codec/envelope.h"
#include "keys/key_document.h"
#include "keys/key_source.h"
#include "os/real.h"
#include "os/test_directory.h"

namespace farshore {
namespace {

constexpr KdfCost kCheap{64, 1, 1};
const TimePoint kNow{1'700'000'000'000'000};

Code code_of(const auto& result) {
    EXPECT_FALSE(result);
    return result ? Code::kInternal : result.error().code();
}
Secret secret(std::string_view text) { return Secret(as_bytes(text)); }

struct KeySourceTest : ::testing::Test {
    TestDirectory directory;
    PosixFileSystem files;
    RealRandom random;
    std::string path(const std::string& name) const { return directory.path() + "/" + name; }
    void write(const std::string& name, std::string_view text) {
        ASSERT_TRUE(write_file_durably(files, path(name), as_bytes(text)));
    }
    std::unique_ptr<KeySource> source(const std::string& spec) {
        auto made = make_key_source(spec, files, kCheap);
        EXPECT_TRUE(made) << made.error().to_string();
        return made ? std::move(*made) : nullptr;
    }
};

// Broken if a passphrase could not be used again, or another one passed.
TEST_F(KeySourceTest, APassphraseOpensWhatItSealedAndNoOtherDoes) {
    write("right", "a passphrase of some length\n");
    write("wrong", "a passphrase of some lengtH\n");
    write("short", "hunter2\n");
    auto made = source("passphrase:" + path("right"))->make(random, kNow);
    ASSERT_TRUE(made) << made.error().to_string();
    auto opened = source("passphrase:" + path("right"))->open(made->key.id, made->document);
    ASSERT_TRUE(opened) << opened.error().to_string();
    EXPECT_EQ(opened->id, made->key.id);
    EXPECT_TRUE(std::ranges::equal(opened->key.reveal(), made->key.key.reveal()));
    auto wrong = source("passphrase:" + path("wrong"))->open(made->key.id, made->document);
    ASSERT_EQ(code_of(wrong), Code::kWrongKey);
    EXPECT_NE(wrong.error().what().find(made->key.id), std::string::npos);
    EXPECT_EQ(code_of(source("passphrase:" + path("right"))->open(made->key.id, {})),
              Code::kWrongKey);
    EXPECT_EQ(code_of(source("passphrase:" + path("short"))->make(random, kNow)),
              Code::kInvalidArgument);
    EXPECT_EQ(code_of(source("passphrase:" + path("none"))->open(made->key.id, made->document)),
              Code::kNotFound);
    const std::string document(as_text(made->document));
    EXPECT_EQ(document.find("passphrase of"), std::string::npos);
}

// Broken if a descriptor's passphrase were another than a file's, or were needed twice.
TEST_F(KeySourceTest, ADescriptorGivesAPassphraseOnce) {
    write("right", "a passphrase of some length");
    auto made = source("passphrase:" + path("right"))->make(random, kNow);
    ASSERT_TRUE(made);
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    ASSERT_EQ(::write(ends[1], "a passphrase of some length\n", 28), 28);
    ::close(ends[1]);
    auto from = source("passphrase-fd:" + std::to_string(ends[0]));
    ASSERT_TRUE(from);
    EXPECT_TRUE(from->open(made->key.id, made->document));
    EXPECT_TRUE(from->open(made->key.id, made->document));
}

// Broken if a key file were made anew over one that is there, or a wrong one were taken.
TEST_F(KeySourceTest, AFileIsMadeOnceAndNamesTheKeyThatIsWanted) {
    auto file = source("file:" + path("key"));
    auto made = file->make(random, kNow);
    ASSERT_TRUE(made);
    EXPECT_TRUE(made->document.empty());
    auto again = file->make(random, kNow);
    ASSERT_TRUE(again);
    EXPECT_EQ(again->key.id, made->key.id);
    EXPECT_TRUE(file->open(made->key.id, {}));
    auto other = file->open("0123456789abcdef", {});
    ASSERT_EQ(code_of(other), Code::kWrongKey);
    EXPECT_NE(other.error().to_string().find("0123456789abcdef"), std::string::npos);
    EXPECT_EQ(code_of(source("file:" + path("none"))->open("", {})), Code::kNotFound);
}

// Broken if a source that is misspelt were taken for a file, or a variable of others were read.
TEST_F(KeySourceTest, OnlyKnownSourcesAreTaken) {
    for (const char* spec :
         {"", "file:", "/etc/key", "passphrase:", "passphrase-fd:x", "passphrase-fd:", "env:PATH",
          "credential:", "credential:../x", "azure:", "vault:x"})
        EXPECT_EQ(code_of(make_key_source(spec, files)), Code::kInvalidArgument) << spec;
    EXPECT_EQ(code_of(source("env:FARSHORE_KEY_OF_THIS_TEST")->open("", {})), Code::kUnavailable);
}

// Broken if a reader took half a document, one with costs that no machine has, or an unknown kind.
TEST(KeyDocument, EveryCutAndEveryOddFieldIsRefused) {
    RealRandom random;
    const KeyFile key = make_key_file(random);
    auto document =
        seal_under_passphrase(key, secret("a passphrase of some length"), kCheap, kNow, random);
    ASSERT_TRUE(document);
    const Bytes whole = encode_key_document(*document);
    ASSERT_TRUE(decode_key_document(whole));
    for (size_t n = 0; n < whole.size(); ++n)
        ASSERT_FALSE(decode_key_document(ByteView(whole).first(n))) << n;
    for (size_t i = 0; i < whole.size(); i += 7) {
        Bytes flipped = whole;
        flipped[i] ^= 1;
        ASSERT_FALSE(decode_key_document(flipped)) << i;
    }
    const std::string text(*decode_document(whole, "x"));
    const auto with = [&](std::string_view from, std::string_view to) {
        std::string changed = text;
        const size_t at = changed.find(from);
        EXPECT_NE(at, std::string::npos) << from;
        changed.replace(at, from.size(), to);
        return code_of(decode_key_document(encode_document(changed)));
    };
    EXPECT_EQ(with("\"format\":1", "\"format\":2"), Code::kNewerVersion);
    EXPECT_EQ(with("argon2id", "argon3id"), Code::kNewerVersion);
    EXPECT_EQ(with("\"kind\":\"passphrase\"", "\"kind\":\"tpm\""), Code::kNewerVersion);
    EXPECT_EQ(with("\"memory_kib\":64", "\"memory_kib\":4000000000"), Code::kMalformed);
    EXPECT_EQ(with("\"passes\":1", "\"passes\":0"), Code::kMalformed);
    EXPECT_EQ(with("\"lanes\":1", "\"lanes\":-1"), Code::kMalformed);
}

// Broken if a document of one key could be renamed to be another's.
TEST(KeyDocument, ADocumentIsBoundToItsKey) {
    RealRandom random;
    auto one = seal_under_passphrase(make_key_file(random), secret("a passphrase of some length"),
                                     kCheap, kNow, random);
    ASSERT_TRUE(one);
    one->key_id = make_key_file(random).id;
    EXPECT_EQ(code_of(open_with_passphrase(*one, secret("a passphrase of some length"))),
              Code::kWrongKey);
}

// Broken if an escrow held any key in the clear.
TEST(Escrow, NothingOfTheKeysIsReadable) {
    RealRandom random;
    EscrowContent content;
    content.store_id = "0f1e";
    content.keys.push_back(make_key_file(random));
    content.items.push_back({ItemId{}, "we\"b", make_key(random)});
    auto sealed = seal_escrow(content, secret("a passphrase of some length"), kCheap, kNow, random);
    ASSERT_TRUE(sealed) << sealed.error().to_string();
    const std::string text(as_text(*sealed));
    EXPECT_EQ(text.find(to_hex(content.keys[0].key.reveal())), std::string::npos);
    EXPECT_EQ(text.find(to_hex(content.items[0].key.reveal())), std::string::npos);
    EXPECT_EQ(text.find("we"), std::string::npos);
    EXPECT_EQ(code_of(seal_escrow(content, secret("short"), kCheap, kNow, random)),
              Code::kInvalidArgument);
    EXPECT_EQ(code_of(seal_escrow_for(content, as_bytes("no key"), kNow, random)),
              Code::kMalformed);
}

// Broken if the derivation differed from everybody else's Argon2id: RFC 9106 has no vector without
// secret and associated data; this one is of the reference program (argon2 somesalt -id -t 2 -m 16
// -p 1 with "password").
TEST(Passphrase, IsArgon2idAsTheReferenceHasIt) {
    auto key = derive_key(secret("password"), as_bytes("somesalt"), {65536, 2, 1});
    ASSERT_TRUE(key);
    EXPECT_EQ(to_hex(key->reveal()),
              "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7");
}

}  // namespace
}  // namespace farshore
