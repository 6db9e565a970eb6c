// Where a vault's key-encryption key (KEK) comes from:
//
//     file:PATH              a key file (codec/key_file.h), made when missing
//     passphrase:FILE        a passphrase in a file; the KEK is in the store, sealed under it
//     passphrase-fd:N        the same, read once from a descriptor
//     passphrase-prompt      the same, asked for at the terminal
//     env:NAME               the text of a key file in a variable (FARSHORE_KEY, FARSHORE_KEY_...)
//     credential:NAME        the same in systemd's $CREDENTIALS_DIRECTORY
//     azure:SETTINGS         Azure Key Vault (azure_key_vault.h); the KEK is in the store, sealed
//                            by it, and never on a disk of ours in the clear
//
// One for each KEK, owned by who made it; any thread may call. open() asks afresh each time, so it
// also tells whether the source still has the key. Errors: kWrongKey names the key that is wanted;
// a source that is away is kUnavailable (or kThrottled), never kWrongKey; those of files and of the
// service.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/seams.h"
#include "codec/key_file.h"
#include "codec/passphrase.h"

namespace farshore {

class KeySource {
  public:
    virtual ~KeySource() = default;
    // As above. Holds no secret.
    virtual const std::string& spec() const = 0;
    // Whether the store keeps a document for its keys (keys/key_document.h).
    virtual bool keeps_document() const { return false; }
    // Whether the KEK is never to leave its keeper.
    virtual bool is_remote() const { return false; }
    // The KEK called `wanted_id` (empty: whichever it has). `document`: what the store keeps of it;
    // empty: nothing.
    virtual Result<KeyFile> open(const std::string& wanted_id, ByteView document) = 0;
    struct Made {
        KeyFile key;
        Bytes document;  // for the store, before anything is sealed under the key; empty: none
    };
    // A new KEK; a source that only hands over gives what it has. kUnsupported: it has none.
    virtual Result<Made> make(Random& random, TimePoint now) = 0;
};

// Borrows `files`. kInvalidArgument: no such kind of source, and which there are. Reads the
// passphrase of -fd and -prompt, and the settings of azure:, at once.
Result<std::unique_ptr<KeySource>> make_key_source(const std::string& spec, FileSystem& files,
                                                   const KdfCost& cost = {});

// The kind of a spec: what stands before the colon.
std::string_view key_source_kind(std::string_view spec);
// PATH of file:PATH, else empty.
std::string key_source_path(const std::string& spec);

}  // namespace farshore
