#include "keys/azure_key_vault.h"

#include <gtest/gtest.h>

#include "codec/envelope.h"
#include "keys/key_document.h"
#include "keys/key_source.h"
#include "keys/test_key_vault.h"

namespace farshore {
namespace {

using nlohmann::json;

Code code_of(const auto& result) {
    EXPECT_FALSE(result);
    return result ? Code::kInternal : result.error().code();
}

struct AzureKeyVaultTest : ::testing::Test, FakeKeyVault {
    Result<std::unique_ptr<KeySource>> source() { return make_key_source(spec(), files); }
    RealRandom random;
};

// Broken if the service were asked for anything but what it documents, or the key came back
// changed.
TEST_F(AzureKeyVaultTest, WrapsAndUnwrapsWithBothKindsOfIdentity) {
    for (const char* identity : {"client", "managed"}) {
        settings["identity"] = identity;
        settings["identity_endpoint"] = url();
        auto from = source();
        ASSERT_TRUE(from) << from.error().to_string();
        auto made = (*from)->make(random, {1});
        ASSERT_TRUE(made) << made.error().to_string();
        EXPECT_TRUE((*from)->is_remote());
        auto opened = (*from)->open(made->key.id, made->document);
        ASSERT_TRUE(opened) << opened.error().to_string();
        EXPECT_TRUE(std::ranges::equal(opened->key.reveal(), made->key.key.reveal()));
        // What the store keeps says nothing of the key.
        EXPECT_EQ(std::string(as_text(made->document)).find(to_hex(made->key.key.reveal())),
                  std::string::npos);
    }
}

// Broken if a service that is away, or does not let us in, were taken for a wrong key, or if the
// words did not say what to do.
TEST_F(AzureKeyVaultTest, EveryFailureOfEveryCallHasItsName) {
    auto from = source();
    ASSERT_TRUE(from);
    auto made = (*from)->make(random, {1});
    ASSERT_TRUE(made) << made.error().to_string();
    const std::pair<int, Code> statuses[] = {
        {400, Code::kCorrupt},    {401, Code::kUnauthenticated}, {403, Code::kForbidden},
        {404, Code::kNotFound},   {429, Code::kThrottled},       {500, Code::kUnavailable},
        {503, Code::kUnavailable}};
    for (const char* call : {"token", "wrapkey", "unwrapkey"}) {
        for (auto [status, code] : statuses) {
            if (std::string_view(call) == "token" && status == 400) code = Code::kUnauthenticated;
            {
                const std::lock_guard hold(mutex);
                fails = {{call, status}};
            }
            const Result<KeyFile> opened =
                std::string_view(call) == "wrapkey" ? [&]() -> Result<KeyFile> {
                auto again = (*from)->make(random, {1});
                if (!again) return tl::unexpected(again.error());
                return again->key;
            }()
                : (*from)->open(made->key.id, made->document);
            EXPECT_EQ(code_of(opened), code) << call << " " << status;
            if (opened) continue;
            EXPECT_FALSE(opened.error().remedy().empty()) << call << " " << status;
            EXPECT_NE(opened.error().what().find("in its own words"), std::string::npos);
            EXPECT_EQ(opened.error().to_string().find("s3cret"), std::string::npos);
        }
        {
            const std::lock_guard hold(mutex);
            fails.clear();
            odd_answer = call;
        }
        if (std::string_view(call) != "wrapkey")
            EXPECT_EQ(code_of((*from)->open(made->key.id, made->document)), Code::kMalformed);
        const std::lock_guard hold(mutex);
        odd_answer.clear();
    }
    EXPECT_TRUE((*from)->open(made->key.id, made->document));
    server->stop();
    auto away = (*from)->open(made->key.id, made->document);
    EXPECT_EQ(code_of(away), Code::kUnavailable);
    EXPECT_NE(away.error().retry(), Retry::kNever);
}

// Broken if a service that takes a request and never answers held its caller, or were anything but
// away.
TEST_F(AzureKeyVaultTest, ACallThatIsNeverAnsweredIsGivenUp) {
    auto quick = source();
    ASSERT_TRUE(quick);
    auto made = (*quick)->make(random, {1});
    ASSERT_TRUE(made);
    settings["timeout_s"] = 1;
    auto from = source();
    ASSERT_TRUE(from);
    for (const char* call : {"token", "wrapkey", "unwrapkey"}) {
        {
            const std::lock_guard hold(mutex);
            stalled = call;
        }
        const Code code = std::string_view(call) == "wrapkey"
                              ? code_of((*from)->make(random, {1}))
                              : code_of((*from)->open(made->key.id, made->document));
        EXPECT_EQ(code, Code::kUnavailable) << call;
        {
            const std::lock_guard hold(mutex);
            stalled.clear();
        }
        wake.notify_all();
    }
    EXPECT_TRUE((*from)->open(made->key.id, made->document));
}

// Broken if a document that somebody put into the store could send our token elsewhere.
TEST_F(AzureKeyVaultTest, TheTokenGoesToTheVaultOfTheSettingsOnly) {
    auto from = source();
    ASSERT_TRUE(from);
    auto made = (*from)->make(random, {1});
    ASSERT_TRUE(made);
    KeyDocument document = *decode_key_document(made->document);
    document.remote_key = "https://evil.example/keys/kek/0123abc";
    EXPECT_EQ(code_of((*from)->open(made->key.id, encode_key_document(document))),
              Code::kForeignStore);
    document.remote_key = url() + ".evil.example/keys/kek/0123abc";
    EXPECT_EQ(code_of((*from)->open(made->key.id, encode_key_document(document))),
              Code::kForeignStore);
    // A version that is gone.
    document.remote_key = url() + "/keys/kek/0123abd";
    EXPECT_EQ(code_of((*from)->open(made->key.id, encode_key_document(document))), Code::kNotFound);
}

// Broken if a certificate of somebody else were trusted.
TEST_F(AzureKeyVaultTest, AServerThatIsNotTrustedIsAway) {
    settings.erase("ca_file");
    auto from = source();
    ASSERT_TRUE(from);
    EXPECT_EQ(code_of((*from)->make(random, {1})), Code::kUnavailable);
}

// Broken if settings with a hole in them were found out at the first rotation only.
TEST_F(AzureKeyVaultTest, SettingsAreCheckedAtOnce) {
    const json good = settings;
    const auto refused = [&](const char* field, const json& value) {
        settings = good;
        if (value.is_null())
            settings.erase(field);
        else
            settings[field] = value;
        return code_of(source());
    };
    for (const json& key :
         {json("http://a/keys/k/v"), json("https://a/keys/k"), json("https://a/keys/k/"),
          json("https://a/secrets/k/v"), json("https://a/keys/k/v?x"), json(7), json()})
        EXPECT_EQ(refused("key", key), Code::kInvalidArgument) << key;
    for (const char* field : {"tenant", "client_id", "client_secret_file"})
        EXPECT_EQ(refused(field, json()), Code::kInvalidArgument) << field;
    EXPECT_EQ(refused("identity", "none"), Code::kInvalidArgument);
    EXPECT_EQ(refused("authority", "http://a"), Code::kInvalidArgument);
    EXPECT_EQ(refused("timeout_s", 0), Code::kInvalidArgument);
}

// RFC 4648 §10, in the alphabet of §5.
TEST(Base64Url, IsTheOneOfTheStandard) {
    const std::pair<const char*, const char*> vectors[] = {
        {"", ""}, {"f", "Zg"}, {"fo", "Zm8"}, {"foo", "Zm9v"}, {"foob", "Zm9vYg"}};
    for (const auto& [plain, coded] : vectors) {
        EXPECT_EQ(to_base64url(as_bytes(plain)), coded);
        EXPECT_EQ(as_text(*from_base64url(coded)), plain);
    }
    EXPECT_EQ(to_base64url(Bytes{0xfb, 0xff}), "-_8");
    for (const char* wrong : {"Z", "Zh", "Zg==", "Zm9v+", "Zm9 "})
        EXPECT_FALSE(from_base64url(wrong)) << wrong;
}

}  // namespace
}  // namespace farshore
