#include "codec/document.h"

#include <fmt/core.h>

#include "codec/hash.h"

namespace farshore {
namespace {
constexpr size_t kDigestDigits = 64;
}

Bytes encode_document(std::string_view json) {
    FS_CHECK(json.find('\n') == std::string_view::npos);
    Bytes out;
    ByteWriter writer(out);
    writer.bytes(as_bytes(json));
    writer.u8('\n');
    writer.bytes(as_bytes(to_hex(sha256(as_bytes(json)))));
    writer.u8('\n');
    return out;
}

Result<std::string> decode_document(ByteView document, std::string_view what) {
    if (document.size() > kMaxDocumentBytes)
        return fail(Code::kTooLarge, fmt::format("{} has {} bytes", what, document.size()));
    const std::string_view text = as_text(document);
    if (text.empty()) return fail(Code::kTruncated, fmt::format("{} is empty", what));
    if (text.front() != '{')
        return fail(Code::kMalformed, fmt::format("{} does not start as a JSON object", what));
    const size_t end = text.find('\n');
    if (end == std::string_view::npos || text.size() < end + kDigestDigits + 2)
        return fail(Code::kTruncated, fmt::format("{} ends after {} bytes", what, text.size()));
    const std::string_view json = text.substr(0, end);
    const std::string_view digest = text.substr(end + 1);
    if (digest.size() != kDigestDigits + 1 || digest.back() != '\n' ||
        digest.substr(0, kDigestDigits) != to_hex(sha256(as_bytes(json))))
        return fail(Code::kCorrupt, fmt::format("{} does not match its SHA-256", what),
                    "the object was damaged or edited; restore it from a copy");
    return std::string(json);
}

}  // namespace farshore
