// What S3 answers, out of its XML. Pure; any thread may call. Every function takes any bytes:
// kMalformed when they are not that answer.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/types.h"

namespace farshore {

struct S3Error {
    std::string code;     // "NoSuchKey"
    std::string message;  // the server's words, one line, at most 300 bytes
    std::string region;   // where the bucket is, when the answer says so
};
// `body` is an Error document, with whatever status it came.
Result<S3Error> parse_s3_error(std::string_view body);

struct S3Entry {
    std::string key;
    uint64_t size_bytes = 0;
    TimePoint modified;
    std::string version_id;  // of a listing of versions
    bool delete_marker = false;
};
struct S3Listing {
    std::vector<S3Entry> entries;        // as they came
    bool truncated = false;              // there is more, behind:
    std::string next_token;              // of a listing of objects
    std::string next_key, next_version;  // of a listing of versions
};
// Of ListObjectsV2 and of ListObjectVersions; both asked with encoding-type=url.
Result<S3Listing> parse_s3_listing(std::string_view body);

// "Enabled", "Suspended" or "" (never was on).
Result<std::string> parse_s3_versioning(std::string_view body);
// The enabled rules that remove objects, in words; parts of uploads do not count.
Result<std::vector<std::string>> parse_s3_expiry(std::string_view body);
// Whether the bucket has object lock, and its default rule in words ("" when there is none).
struct S3LockConfiguration {
    bool enabled = false;
    std::string default_rule;
};
Result<S3LockConfiguration> parse_s3_lock_configuration(std::string_view body);

}  // namespace farshore
