// A party that runs in the vault's own process: its TLS, with a certificate that is kept good.
#pragma once

#include <memory>
#include <string>

#include "os/certificate_keeper.h"
#include "os/tls_connection.h"
#include "vault/vault.h"

namespace farshore {

struct LocalParty {
    std::shared_ptr<TlsContext> tls;
    std::unique_ptr<CertificateKeeper> keeper;
};

// Enrols it when it is not. `vault` outlives it.
Result<LocalParty> local_party(Vault& vault, PartyKind kind, const std::string& name);

}  // namespace farshore
