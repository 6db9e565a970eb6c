// Requests of the public API with any method, path, query and body, by the administrator: each gets
// an answer, none of them an internal error. The vault is one for the whole run, in a directory
// below /tmp that goes with it.
#include <stdlib.h>

#include <filesystem>

#include "os/http.h"
#include "os/real.h"
#include "vault/api.h"

using namespace farshore;

namespace {

struct Served {
    Served() {
        char pattern[] = "/tmp/farshore-fuzz-XXXXXX";
        directory = ::mkdtemp(pattern);
        VaultOptions options;
        options.data_directory = directory;
        options.tend_interval_us = 0;
        options.kdf = {.memory_kib = 64, .passes = 1, .lanes = 1};
        auto opened = Vault::open(options, files, clock, random);
        FS_CHECK(opened.has_value());
        vault = std::move(*opened);
        // Whoever waits is answered at once.
        vault->stop_waiting();
        api = std::make_unique<Api>(*vault, nullptr);
    }
    ~Served() {
        api.reset();
        vault->end_jobs();
        vault.reset();
        std::filesystem::remove_all(directory);
    }
    std::string directory;
    PosixFileSystem files;
    RealClock clock;
    RealRandom random;
    std::unique_ptr<Vault> vault;
    std::unique_ptr<Api> api;
};

}  // namespace

// Input: "METHOD TARGET", a line's end, the body.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static Served served;
    if (size > 16'384) return 0;
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const std::string_view line = text.substr(0, text.find('\n'));
    HttpRequest request;
    request.method = line.substr(0, line.find(' '));
    request.target = line.size() > request.method.size() ? line.substr(request.method.size() + 1)
                                                         : std::string_view("/");
    if (!split_target(request)) return 0;
    if (line.size() < text.size()) request.body = text.substr(line.size() + 1);
    request.headers["authorization"] =
        "Bearer " + std::string(as_text(served.vault->admin_token().reveal()));
    const HttpResponse response = served.api->handle(request);
    FS_CHECK(response.status >= 200 && response.status < 600);
    FS_CHECK(response.status != 500);
    return 0;
}
