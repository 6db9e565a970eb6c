// A small JSON document that is kept as an object: one line of JSON, then the SHA-256 of that line
// in hexadecimal on a line of its own. A person reads it with `head -1 | jq`; damage is noticed.
// docs/format/README.md §5. Any thread may call.
#pragma once

#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"

namespace farshore {

inline constexpr size_t kMaxDocumentBytes = 16u << 20;

// `json` has no line break in it.
Bytes encode_document(std::string_view json);
// The JSON. kTruncated, kCorrupt (digest), kTooLarge, kMalformed (not such a document). `what`
// names it in errors.
Result<std::string> decode_document(ByteView document, std::string_view what);

}  // namespace farshore
