// A key service for tests: an HTTPS server on this machine that is stricter than Azure Key Vault.
// It takes nothing but what is documented, and does the RSA itself. Included by tests only.
#pragma once

#include <gtest/gtest.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>

#include "codec/rsa.h"
#include "keys/azure_key_vault.h"
#include "os/http.h"
#include "os/real.h"
#include "os/test_directory.h"

namespace farshore {

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

struct FakeKeyVault {
    FakeKeyVault() : authority(CertificateAuthority::create("ca", RealClock().now()).value()) {
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
            nlohmann::json{{"error", {{"code", code}, {"message", "in its own words"}}}}.dump(),
            status);
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
        const nlohmann::json body = nlohmann::json::parse(request.body, nullptr, false);
        if (!body.is_object() || body.value("alg", "") != "RSA-OAEP-256" || body.size() != 2)
            return problem(400, "BadParameter");
        const auto value = from_base64url(body.value("value", "!"));
        if (!value) return problem(400, "BadParameter");
        const std::string key = request.path.substr(0, request.path.rfind('/'));
        if (key != "/keys/kek/0123abc") return problem(404, "KeyNotFound");
        if (call == "wrapkey")
            return HttpResponse::json(nlohmann::json{
                {"kid", url() + key},
                {"value", to_base64url(*rsa_seal(as_bytes(rsa.public_pem), Secret(*value)))}}
                                          .dump());
        if (call != "unwrapkey") return problem(404, "NotFound");
        auto plain = rsa_open(rsa.private_pem, *value);
        if (!plain) return problem(400, "BadParameter");
        return HttpResponse::json(
            nlohmann::json{{"kid", url() + key}, {"value", to_base64url(plain->reveal())}}.dump());
    }
    // The settings as they are now, in a file: its source.
    std::string spec() {
        EXPECT_TRUE(write_file_durably(files, path("settings"), as_bytes(settings.dump())));
        return "azure:" + path("settings");
    }

    TestDirectory directory;
    PosixFileSystem files;
    CertificateAuthority authority;
    RsaKey rsa;
    std::unique_ptr<HttpServer> server;
    nlohmann::json settings;
    std::mutex mutex;  // calls, fails, odd_answer, stalled
    std::map<std::string, int> calls;
    std::map<std::string, int> fails;  // status by call
    std::string odd_answer, stalled;
    std::condition_variable wake;
};

}  // namespace farshore
