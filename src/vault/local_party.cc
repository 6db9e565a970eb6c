#include "vault/local_party.h"

namespace farshore {

Result<LocalParty> local_party(Vault& vault, PartyKind kind, const std::string& name) {
    FS_ASSIGN(Credentials credentials, vault.local_party(kind, name));
    LocalParty party;
    FS_ASSIGN(party.tls, TlsContext::make(vault.authority_pem(), credentials));
    party.keeper = std::make_unique<CertificateKeeper>(
        name, vault.clock(), credentials.certificate_pem,
        [&vault, kind, name] { return vault.local_party(kind, name); },
        [&vault, tls = party.tls](const Credentials& renewed) {
            return tls->reload(vault.authority_pem(), renewed);
        });
    party.keeper->start();
    return party;
}

}  // namespace farshore
