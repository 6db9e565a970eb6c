// An independent reader of Farshore's stores: one disk of an item at a point, out of a store
// (a directory, S3, Azure Blob) and its key, into a sparse raw file. No vault, no database.
//
// It is written from docs/format/ and shares nothing with the writer but src/base and src/codec:
// what the two agree on is what the documents say. It takes the plainest way everywhere: the whole
// log is looked through, and every write of the disk is replayed in order.
//
// Blocks; any thread may call. It only reads the store; a vault that runs meanwhile may remove
// objects under it, which is kNotFound, never wrong data.
#pragma once

#include <functional>
#include <string>

#include "base/error.h"
#include "base/secret.h"
#include "base/types.h"

namespace farshore {

struct ExtractOptions {
    std::string store;           // a directory, s3://… or azure://… (extract/store_reader.h)
    std::string store_settings;  // file with endpoint and keys, for the last two
    // A key file, or an escrow that one of the two below it opens. Empty: what the store keeps of
    // its keys is opened with the passphrase, or by `unwrap_remote`.
    std::string key_file;
    Secret key_text;  // the text of a key file; counts instead
    std::string passphrase_file, private_key_file;
    Secret passphrase;  // when there is no file of it
    // Asks the key service that has sealed a key: `remote_key` is its name for its own.
    std::function<Result<Secret>(const std::string& remote_key, ByteView sealed)> unwrap_remote;
    std::string item;  // id or, when only one item has it, name
    std::string point =
        "latest";  // or latest-processed, a sequence, an RFC 3339 time, [label:]LABEL
    DiskIndex disk = 0;
    std::string out_path;           // written beside it first, renamed at the end
    bool replace_existing = false;  // otherwise kAlreadyExists
    // Work done and to do, in log and base objects; from the calling thread.
    std::function<void(uint64_t done, uint64_t total)> progress;
};

struct ExtractReport {
    Sequence sequence;
    TimePoint time;
    uint64_t disk_bytes = 0;
    uint64_t written_bytes = 0;  // payload that went to the file
    uint64_t objects_read = 0;
    // Not empty: objects lie behind where the log ends, and this is why they are not part of it.
    // After the loss of a site those may be uploads that were never acknowledged; otherwise an
    // object is lost.
    std::string warning;
};

// Those of the place (extract/store_reader.h), kForeignStore (not a store, or moved objects),
// kNewerVersion, kWrongKey, kItemNotFound, kInvalidArgument (no such disk; says which there are),
// kPointNotFound, kPointOutsideWindow (names the window), kPointInGap (names the good neighbours),
// kCorrupt, kTruncated, kMalformed, kNotFound (an object is missing), kAlreadyExists, kNoSpace,
// kIo. After an error there is no output file.
Status extract(const ExtractOptions& options, ExtractReport* report = nullptr);

}  // namespace farshore
