// Against an HTTPS server that is stricter than the service: it takes nothing but what is
// documented, and does the RSA itself.
#include "keys/azure_key_vault.h"

#include <gtest/gtest.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>

#include "codec/envelope.h"
#include "codec/rsa.h"
#include "keys/key_document.h"
#include "keys/key_source.h"
#include "os/http.h"
#include "os/real.h"
#include "os/test_directory.h"

namespace farshore {
namespace {

using nlohmann::json;

Code code_of(const auto& result) {
    EXPECT_FALSE(result);
    return result ? Code::kInternal : result.error().code();
}

// An RSA key as the service holds it.
struct RsaKey {
    RsaKey() {
        EVP_PKEY* key = EVP_RSA_gen(2048);
        const auto text = [&](auto write) {
            BIO* bio = BIO_new(BIO_s_mem());
            write(bio);
            char* data = nullptr;
            const long bytes = BIO_get_mem_data(bio, &data);
            std::string out(data, static_cast<size_t>(bytes));
            BIO_free(bio);
            return out;
        };
        public_pem = text([&](BIO* bio) { PEM_write_bio_PUBKEY(bio, key); });
        private_pem = Secret(as_bytes(text([&](BIO* bio) {
            PEM_write_bio_PrivateKey(bio, key, nullptr, nullptr, 0, nullptr, nullptr);
        })));
        EVP_PKEY_free(key);
    }
    std::string public_pem;
    Secret private_pem;
};

struct AzureKeyVaultTest : ::testing::Test {
    AzureKeyVaultTest() : authority(CertificateAuthority::create("ca", RealClock().now()).value()) {
        IssueOptions issue;
        issue.common_name = "vault";
        issue.alternative_names = {"127.0.0.1"};
        issue.now = RealClock().now();
        HttpServerOptions options;
        options.credentials = authority.issue_with_key(issue).value();
        server = HttpServer::start(options, [this](const HttpRequest& request) {
                     return serve(request);
                 }).value();
        EXPECT_TRUE(write_file_durably(files, path("ca"), as_bytes(authority.certificate_pem())));
        EXPECT_TRUE(write_file_durably(files, path("secret"), as_bytes("s3cret/&=?\n")));
        settings = {{"key", url() + "/keys/kek/0123abc"},
                    {"identity", "client"},
                    {"tenant", "my-tenant"},
                    {"client_id", "my-client"},
                    {"client_secret_file", path("secret")},
                    {"authority", url()},
                    {"ca_file", path("ca")}};
    }
    std::string path(const std::string& name) const { return directory.path() + "/" + name; }
    std::string url() const { return "https://" + server->address(); }

    static HttpResponse problem(int status, const char* code) {
        return HttpResponse::json(
            json{{"error", {{"code", code}, {"message", "in its own words"}}}}.dump(), status);
    }
    HttpResponse serve(const HttpRequest& request) {
        const bool token_call = request.path == "/my-tenant/oauth2/v2.0/token" ||
                                request.path == "/metadata/identity/oauth2/token";
        const std::string call =
            token_call ? "token" : request.path.substr(request.path.rfind('/') + 1);
        {
            std::unique_lock hold(mutex);
            ++calls[call];
            if (const auto at = fails.find(call); at != fails.end())
                return problem(at->second, "Told");
            if (stalled == call) {
                // Until the client has given up and the test goes on.
                wake.wait(hold, [&] { return stalled.empty(); });
                return problem(500, "Late");
            }
            if (odd_answer == call) return HttpResponse::json("{\"value\":17}");
        }
        if (request.path == "/metadata/identity/oauth2/token") {
            if (request.method != "GET" || request.header("metadata") != "true" ||
                request.query.at("resource") != "https://vault.azure.net" ||
                request.query.at("api-version") != "2018-02-01")
                return problem(400, "invalid_request");
            return HttpResponse::json(R"({"access_token":"managed-token","expires_in":"86399"})");
        }
        if (token_call) {
            // As Entra ID reads it: a form, every part decoded.
            HttpRequest form;
            form.target = "/?" + request.body;
            if (request.method != "POST" || !split_target(form) ||
                request.header("content-type") != "application/x-www-form-urlencoded" ||
                form.query["grant_type"] != "client_credentials" ||
                form.query["client_id"] != "my-client" ||
                form.query["client_secret"] != "s3cret/&=?" ||
                form.query["scope"] != "https://vault.azure.net/.default")
                return problem(400, "invalid_client");
            return HttpResponse::json(R"({"access_token":"client-token","expires_in":3599})");
        }
        if (request.bearer_token() != "client-token" && request.bearer_token() != "managed-token")
            return problem(401, "Unauthorized");
        if (request.query.size() != 1 || request.query.at("api-version") != "7.4")
            return problem(400, "BadParameter");
        if (request.method != "POST" || request.header("content-type") != "application/json")
            return problem(415, "Unsupported");
        const json body = json::parse(request.body, nullptr, false);
        if (!body.is_object() || body.value("alg", "") != "RSA-OAEP-256" || body.size() != 2)
            return problem(400, "BadParameter");
        const auto value = from_base64url(body.value("value", "!"));
        if (!value) return problem(400, "BadParameter");
        const std::string key = request.path.substr(0, request.path.rfind('/'));
        if (key != "/keys/kek/0123abc") return problem(404, "KeyNotFound");
        if (call == "wrapkey")
            return HttpResponse::json(
                json{{"kid", url() + key},
                     {"value", to_base64url(*rsa_seal(as_bytes(rsa.public_pem), Secret(*value)))}}
                    .dump());
        if (call != "unwrapkey") return problem(404, "NotFound");
        auto plain = rsa_open(rsa.private_pem, *value);
        if (!plain) return problem(400, "BadParameter");
        return HttpResponse::json(
            json{{"kid", url() + key}, {"value", to_base64url(plain->reveal())}}.dump());
    }
    Result<std::unique_ptr<KeySource>> source() {
        EXPECT_TRUE(write_file_durably(files, path("settings"), as_bytes(settings.dump())));
        return make_key_source("azure:" + path("settings"), files);
    }

    TestDirectory directory;
    PosixFileSystem files;
    RealRandom random;
    CertificateAuthority authority;
    RsaKey rsa;
    std::unique_ptr<HttpServer> server;
    json settings;
    std::mutex mutex;  // calls, fails, odd_answer, stalled
    std::map<std::string, int> calls;
    std::map<std::string, int> fails;  // status by call
    std::string odd_answer, stalled;
    std::condition_variable wake;
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
