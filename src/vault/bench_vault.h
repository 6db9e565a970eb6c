// What the benches of a vault share: one behind HTTPS in a directory of its own, without background
// rounds, and a client that asks it. What fails ends the program. Included by benches only.
#pragma once

#include <fmt/core.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "os/http.h"
#include "os/real.h"
#include "os/test_directory.h"
#include "vault/vault_server.h"

namespace farshore {

inline void must(const Status& status) {
    if (status) return;
    fmt::print(stderr, "{}\n", status.error().to_string());
    std::abort();
}
template <typename T>
T must(Result<T> result) {
    if (!result) must(Status(fail(result.error())));
    return std::move(*result);
}

struct BenchVault {
    explicit BenchVault(const std::string& database = {}) {
        VaultServerOptions options;
        options.vault.data_directory = directory.path();
        options.vault.database = database;
        options.vault.tend_interval_us = 0;
        options.listen = "127.0.0.1:0";
        options.recovery = false;
        server = must(VaultServer::start(options, files, clock, random));
        http = client();
    }
    // With connections of its own.
    std::unique_ptr<HttpClient> client() {
        HttpClientOptions of;
        of.authority_pem = vault().authority_pem();
        of.bearer_token = vault().admin_token();
        return std::make_unique<HttpClient>(of);
    }
    Vault& vault() { return server->vault(); }
    // The body that the server answers to GET, over HTTPS.
    std::string get(const std::string& target) { return get(*http, target); }
    std::string get(HttpClient& by, const std::string& target) {
        HttpClientRequest request;
        request.method = "GET";
        request.url = "https://" + server->address() + target;
        HttpResponse response = must(by.request(request));
        if (response.status != 200) {
            fmt::print(stderr, "{}: {} {}\n", target, response.status, response.body);
            std::abort();
        }
        return std::move(response.body);
    }

    TestDirectory directory;
    PosixFileSystem files;
    RealClock clock;
    RealRandom random;
    std::unique_ptr<VaultServer> server;
    std::unique_ptr<HttpClient> http;
};

}  // namespace farshore
