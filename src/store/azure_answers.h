// What Azure Blob storage and the token service for managed identities answer, parsed. Pure; every
// input is from outside. Any thread may call.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/secret.h"
#include "base/types.h"

namespace farshore {

// Longer listings are refused: 5000 names of 1 KiB with their properties are less.
inline constexpr size_t kMaxAzureAnswerBytes = 32u << 20;

struct AzureBlobItem {
    std::string name;
    uint64_t size_bytes = 0;
};

struct AzureBlobPage {
    std::vector<AzureBlobItem> blobs;  // as listed
    std::string next_marker;           // empty: this was the last page
};

// The answer of List Blobs. kMalformed when it is not whole, or a blob has no name or size.
Result<AzureBlobPage> parse_azure_blob_page(std::string_view xml);

struct AzureErrorText {
    std::string code;     // "AuthenticationFailed"; empty: not an error of the service
    std::string message;  // one line, cut
    std::string detail;   // AuthenticationErrorDetail; one line, cut, without signatures
};
// Of the body of an answer that failed; empty fields when it is something else.
AzureErrorText parse_azure_error(std::string_view xml);

struct AzureToken {
    Secret access_token;
    TimePoint expires;
};
// The token service's answer. `now` for answers that say only how long a token lasts. kMalformed.
Result<AzureToken> parse_azure_token(std::string_view json, TimePoint now);

}  // namespace farshore
