#include "base/bytes.h"

#include <fmt/core.h>

namespace farshore {

std::string to_hex(ByteView bytes) {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string out;
    out.reserve(bytes.size() * 2);
    for (uint8_t b : bytes) {
        out.push_back(kDigits[b >> 4]);
        out.push_back(kDigits[b & 15]);
    }
    return out;
}

Result<Bytes> from_hex(std::string_view text) {
    auto digit = [](char c) -> int {
        if (c >= '0' && c <= '9') return c - '0';
        if (c >= 'a' && c <= 'f') return c - 'a' + 10;
        if (c >= 'A' && c <= 'F') return c - 'A' + 10;
        return -1;
    };
    if (text.size() % 2 != 0) return fail(Code::kMalformed, "hexadecimal text of odd length");
    Bytes out;
    out.reserve(text.size() / 2);
    for (size_t i = 0; i < text.size(); i += 2) {
        const int high = digit(text[i]);
        const int low = digit(text[i + 1]);
        if (high < 0 || low < 0)
            return fail(Code::kMalformed, fmt::format("not a hexadecimal digit at {}", i));
        out.push_back(static_cast<uint8_t>(high << 4 | low));
    }
    return out;
}

bool all_zero(ByteView bytes) {
    const uint8_t* p = bytes.data();
    size_t n = bytes.size();
    if (n == 0) return true;
    if (p[0] != 0) return false;
    // Comparing the view with itself shifted by one byte uses the widest compare of the C library.
    return std::memcmp(p, p + 1, n - 1) == 0;
}

Result<ByteView> ByteReader::bytes(size_t n) {
    if (n > remaining())
        return fail(Code::kTruncated, fmt::format("{} ends at byte {}, {} more bytes expected",
                                                  what_, in_.size(), n - remaining()));
    ByteView view = in_.subspan(at_, n);
    at_ += n;
    return view;
}

Result<uint8_t> ByteReader::u8() {
    FS_ASSIGN(ByteView v, bytes(1));
    return v[0];
}
Result<uint16_t> ByteReader::u16() {
    FS_ASSIGN(ByteView v, bytes(2));
    return load_u16(v.data());
}
Result<uint32_t> ByteReader::u32() {
    FS_ASSIGN(ByteView v, bytes(4));
    return load_u32(v.data());
}
Result<uint64_t> ByteReader::u64() {
    FS_ASSIGN(ByteView v, bytes(8));
    return load_u64(v.data());
}

Result<ByteView> ByteReader::sized(size_t limit) {
    FS_ASSIGN(uint32_t n, u32());
    if (n > limit)
        return fail(
            Code::kTooLarge,
            fmt::format("{} has a field of {} bytes, at most {} are allowed", what_, n, limit));
    return bytes(n);
}

Result<std::string> ByteReader::text(size_t limit) {
    FS_ASSIGN(ByteView v, sized(limit));
    return to_text(v);
}

Status ByteReader::finish() const {
    if (remaining() != 0)
        return fail(Code::kMalformed, fmt::format("{} has {} bytes too many", what_, remaining()));
    return {};
}

}  // namespace farshore
