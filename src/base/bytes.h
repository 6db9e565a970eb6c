// Bytes: views, buffers, and the only way that numbers become bytes and back.
//
// ByteWriter and ByteReader are little-endian and unaligned-safe; a reader checks every length and
// fails with kTruncated instead of reading past its view. Neither owns what it views.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace farshore {

using Bytes = std::vector<uint8_t>;
using ByteView = std::span<const uint8_t>;
using MutableByteView = std::span<uint8_t>;
// Payload that crosses threads.
using SharedBytes = std::shared_ptr<const Bytes>;

static_assert(std::endian::native == std::endian::little, "the codecs copy little-endian words");

inline ByteView as_bytes(std::string_view text) {
    return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}
inline std::string_view as_text(ByteView bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline std::string to_text(ByteView bytes) { return std::string(as_text(bytes)); }
inline Bytes to_bytes(ByteView view) { return Bytes(view.begin(), view.end()); }

std::string to_hex(ByteView bytes);
Result<Bytes> from_hex(std::string_view text);

// Whether every byte is zero. An empty view is all zero.
bool all_zero(ByteView bytes);

inline void store_u16(uint8_t* to, uint16_t v) { std::memcpy(to, &v, sizeof v); }
inline void store_u32(uint8_t* to, uint32_t v) { std::memcpy(to, &v, sizeof v); }
inline void store_u64(uint8_t* to, uint64_t v) { std::memcpy(to, &v, sizeof v); }
inline uint16_t load_u16(const uint8_t* from) {
    uint16_t v;
    std::memcpy(&v, from, sizeof v);
    return v;
}
inline uint32_t load_u32(const uint8_t* from) {
    uint32_t v;
    std::memcpy(&v, from, sizeof v);
    return v;
}
inline uint64_t load_u64(const uint8_t* from) {
    uint64_t v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

// Appends to a buffer that it borrows.
class ByteWriter {
  public:
    explicit ByteWriter(Bytes& out) : out_(out) {}

    void u8(uint8_t v) { out_.push_back(v); }
    void u16(uint16_t v) { raw(&v, sizeof v); }
    void u32(uint32_t v) { raw(&v, sizeof v); }
    void u64(uint64_t v) { raw(&v, sizeof v); }
    void bytes(ByteView v) { out_.insert(out_.end(), v.begin(), v.end()); }
    // u32 length, then the bytes.
    void sized(ByteView v) {
        u32(static_cast<uint32_t>(v.size()));
        bytes(v);
    }
    void text(std::string_view v) { sized(as_bytes(v)); }
    size_t size() const { return out_.size(); }

  private:
    void raw(const void* p, size_t n) {
        const auto* b = static_cast<const uint8_t*>(p);
        out_.insert(out_.end(), b, b + n);
    }
    Bytes& out_;
};

// Reads from a view that it borrows. `what` names the thing in errors.
class ByteReader {
  public:
    explicit ByteReader(ByteView in, std::string_view what = "data") : in_(in), what_(what) {}

    Result<uint8_t> u8();
    Result<uint16_t> u16();
    Result<uint32_t> u32();
    Result<uint64_t> u64();
    Result<ByteView> bytes(size_t n);
    // u32 length (at most `limit`, else kTooLarge), then the bytes.
    Result<ByteView> sized(size_t limit);
    Result<std::string> text(size_t limit);

    size_t position() const { return at_; }
    size_t remaining() const { return in_.size() - at_; }
    // kMalformed when bytes are left over.
    Status finish() const;

  private:
    ByteView in_;
    size_t at_ = 0;
    std::string_view what_;
};

}  // namespace farshore
