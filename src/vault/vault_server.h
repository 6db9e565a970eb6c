// A vault with its API on HTTPS and recovery beside it: what `farshore vault serve` runs, and `up`
// together with an appliance and an agent.
//
// start() returns when it serves; the destructor ends requests, background work and exports.
// Machines of failovers go on.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "vault/vault.h"

namespace farshore {

struct VaultServerOptions {
    VaultOptions vault;
    std::string listen = "127.0.0.1:8443";
    std::vector<std::string> names;  // further DNS names and addresses for the certificate
    bool recovery = true;
    std::string oidc_settings_file;  // vault/id_token.h; empty: nobody logs in by a provider
    std::string run_directory;       // for sockets of failovers; empty: DATA/vault/run
};

class VaultServer {
  public:
    static Result<std::unique_ptr<VaultServer>> start(const VaultServerOptions& options,
                                                      FileSystem& files, Clock& clock,
                                                      Random& random);
    ~VaultServer();

    Vault& vault();
    // host:port with the real port.
    const std::string& address() const;

  private:
    struct Impl;
    explicit VaultServer(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace farshore
