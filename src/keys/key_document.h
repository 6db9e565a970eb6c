// What a store keeps of a key-encryption key (KEK) that is not a file of its own: `keys/<id>`, the
// KEK sealed under a passphrase or by a key service. With the store and the passphrase (or the
// service) everything can be read; the store alone opens nothing. And the escrow: keys sealed for a
// day on which there is no vault. Bytes: docs/format/keys.md. Values; any thread may call.
#pragma once

#include <string>
#include <vector>

#include "base/seams.h"
#include "base/secret.h"
#include "base/types.h"
#include "codec/key_file.h"
#include "codec/passphrase.h"

namespace farshore {

inline constexpr std::string_view kKeyDocumentPrefix = "keys/";
std::string key_document_name(const std::string& key_id);

enum class KeySealing : uint8_t { kPassphrase, kAzureKeyVault };
std::string_view key_sealing_name(KeySealing sealing);  // "passphrase", "azure-key-vault"

struct KeyDocument {
    KeySealing sealing = KeySealing::kPassphrase;
    std::string key_id;
    TimePoint created;
    // Of a passphrase.
    KdfCost cost;
    Bytes salt;
    // Of a key service: the URL of its key, with version.
    std::string remote_key;
    // Passphrase: the wrapped KEK (kWrappedKeyBytes). Service: what it gave, at most 1 KiB.
    Bytes sealed;
};

Bytes encode_key_document(const KeyDocument& document);
// kTruncated, kCorrupt, kMalformed, kNewerVersion.
Result<KeyDocument> decode_key_document(ByteView bytes);

// kInvalidArgument: the passphrase is too short.
Result<KeyDocument> seal_under_passphrase(const KeyFile& key, const Secret& passphrase,
                                          const KdfCost& cost, TimePoint now, Random& random);
// kWrongKey: another passphrase.
Result<KeyFile> open_with_passphrase(const KeyDocument& document, const Secret& passphrase);

struct EscrowContent {
    std::string store_id;
    std::vector<KeyFile> keys;  // KEKs
    struct Item {
        ItemId item;
        std::string name;
        Secret key;
    };
    std::vector<Item> items;  // when the KEK is not to leave its service
};
// Documents (docs/format/README.md §5). Errors of sealing.
Result<Bytes> seal_escrow(const EscrowContent& content, const Secret& passphrase,
                          const KdfCost& cost, TimePoint now, Random& random);
Result<Bytes> seal_escrow_for(const EscrowContent& content, ByteView public_key_pem, TimePoint now,
                              Random& random);

}  // namespace farshore
