// What a request to Azure Blob storage is signed with: SharedKey, HMAC-SHA256 over the request's
// canonical form. Pure: the time stands in the request's own x-ms-date header.
//
// Source: "Authorize with Shared Key" of the Azure Storage REST reference, for service versions
// from 2015-02-21 on (a body of no bytes is signed as an empty Content-Length). Any thread may
// call.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/secret.h"
#include "base/types.h"

namespace farshore {

using NameValues = std::vector<std::pair<std::string, std::string>>;

struct AzureSigned {
    std::string method;    // upper case
    std::string url_path;  // as it goes out: percent-encoded, beginning with '/'
    NameValues query;      // not encoded
    NameValues headers;    // all that go out but Host, Content-Length and Authorization
    uint64_t body_bytes = 0;
};

// What is signed, for tests and for comparing with what a service says it expected.
std::string azure_string_to_sign(const std::string& account, const AzureSigned& request);
// The value of the Authorization header. `key` is the decoded account key.
std::string azure_authorization(const std::string& account, const Secret& key,
                                const AzureSigned& request);

// The account key as the portal shows it, decoded. kInvalidArgument, without showing it.
Result<Secret> decode_account_key(const Secret& base64);

// Base64 of the MD5 sum: what a Content-MD5 header holds. The service checks a put against it.
std::string content_md5(ByteView bytes);

}  // namespace farshore
