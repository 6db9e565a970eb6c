// The key-encryption key, in a text file that a person can print and lock away:
//
//     # comment lines and empty lines are skipped
//     farshore-key 1
//     id 8c1f0a2b3c4d5e6f
//     key <64 hexadecimal digits>
//
// The id is derived from the key (docs/format/README.md §4), so a mistyped key is noticed and a
// store can say which key it wants. Without the key no replica can be read; with it every one can.
// Any thread may call.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "base/seams.h"
#include "base/secret.h"

namespace farshore {

struct KeyFile {
    std::string id;  // 16 hexadecimal digits
    Secret key;      // 32 bytes
};

// The id of a key: the first 8 bytes of SHA-256("farshore-key-id" | key), in hexadecimal.
std::string key_id(const Secret& key);

KeyFile make_key_file(Random& random);
// The text, kept as a secret.
Secret format_key_file(const KeyFile& key);
// kMalformed (also when id and key do not belong together), kNewerVersion.
Result<KeyFile> parse_key_file(std::string_view text);

// As parse; kNotFound, kForbidden, kIo from the file system, with what to do about it.
Result<KeyFile> load_key_file(FileSystem& files, const std::string& path);
// Writes a new file durably; kAlreadyExists when there is one. The caller sees to its permissions.
Status save_key_file(FileSystem& files, const std::string& path, const KeyFile& key);

// kWrongKey, naming both, when `key` is not the one called `wanted_id`.
Status check_key(const KeyFile& key, std::string_view wanted_id);

}  // namespace farshore
