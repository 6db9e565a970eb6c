// Where the object store is and how to reach it: `--store LOCATION` and `--store-settings FILE`.
//
// A location is one of
//     /srv/store                             a directory
//     s3://BUCKET[/PREFIX]                   S3 (AWS, Ceph, MinIO, ...)
//     azure://ACCOUNT/CONTAINER[/PREFIX]     Azure Blob
// Everything else - endpoint, keys, proxy, times - is in a JSON file that only its owner (and
// group) may read, so that no secret is ever an argument. docs/operations/store.md has its fields.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/seams.h"
#include "base/secret.h"

namespace farshore {

enum class StoreKind : uint8_t { kDirectory, kS3, kAzure };

struct StoreLocation {
    StoreKind kind = StoreKind::kDirectory;
    std::string directory;  // of a directory store
    std::string account;    // Azure
    std::string container;  // the bucket of S3, the container of Azure
    std::string prefix;     // "" or "some/where/": stands before every object's name

    bool remote() const { return kind != StoreKind::kDirectory; }
};

// kInvalidArgument, saying what is wrong with it.
Result<StoreLocation> parse_store_location(std::string_view text);

inline constexpr size_t kMaxStoreSettingsBytes = 64u << 10;
// Locks of objects may be no longer than this.
inline constexpr int kMaxObjectLockDays = 36'500;

struct StoreSettings {
    std::string location;

    std::string endpoint;  // "https://host[:port]"; empty: the provider's own
    std::string ca_file;   // trusted authorities, PEM; empty: those of the system
    std::string proxy;     // "http://host:port"; empty: none
    std::string proxy_user;
    Secret proxy_password;
    int64_t connect_timeout_us = 10'000'000;
    int64_t timeout_us = 60'000'000;  // of one request, its body included
    // Every object is written under a lock of so many days (S3: COMPLIANCE, Azure: a locked
    // immutability policy); 0: none.
    int object_lock_days = 0;

    // S3
    std::string region;      // empty: us-east-1
    std::string addressing;  // "path" or "virtual-host"; empty: what the endpoint suggests
    std::string access_key_id;
    Secret secret_access_key;
    Secret session_token;  // of temporary keys

    // Azure: exactly one of the three.
    Secret account_key;  // base64, as the portal shows it
    Secret sas;          // "sv=...&sig=..."
    bool managed_identity = false;
    std::string identity_endpoint;   // URL of the token service; empty: the virtual machine's
    std::string identity_client_id;  // of a user-assigned identity; empty: the system's
};

// The file's fields over an empty StoreSettings. kMalformed (no JSON, an unknown field, a value
// of another type or out of range), naming the field.
Result<StoreSettings> parse_store_settings(std::string_view json);

// Of the process; "" when there is none.
using EnvironmentLookup = std::function<std::string(const char* name)>;
std::string real_environment(const char* name);

// Location and file together, and for S3 the keys of the environment (AWS_ACCESS_KEY_ID,
// AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION) where the file has none. `file` may be
// empty. A relative ca_file is relative to the file. kInvalidArgument: the location, or settings
// that do not fit it; kForbidden: a file that everybody may read; kMalformed; those of the file
// system.
Result<StoreSettings> load_store_settings(FileSystem& files, const std::string& location,
                                          const std::string& file,
                                          const EnvironmentLookup& environment = real_environment);

// What load_store_settings checks last: that nothing is missing and nothing is of another kind of
// store.
Status check_store_settings(const StoreSettings& settings);

}  // namespace farshore
