// Compact coding of checkpoints and manifests: unsigned LEB128 numbers, zigzag for signed ones.
// Source: docs/format/manifest.md §2. The reader checks every length (kTruncated) and every number
// (kMalformed past 64 bits or past the limit that the caller gives).
#pragma once

#include "base/bytes.h"
#include "base/error.h"

namespace farshore {

class CompactWriter {
  public:
    explicit CompactWriter(Bytes& out) : out_(out) {}
    void number(uint64_t v) {
        while (v >= 0x80) {
            out_.push_back(static_cast<uint8_t>(v) | 0x80);
            v >>= 7;
        }
        out_.push_back(static_cast<uint8_t>(v));
    }
    void signed_number(int64_t v) {
        number((static_cast<uint64_t>(v) << 1) ^ static_cast<uint64_t>(v >> 63));
    }
    void bytes(ByteView v) { out_.insert(out_.end(), v.begin(), v.end()); }
    void text(std::string_view v) {
        number(v.size());
        bytes(as_bytes(v));
    }

  private:
    Bytes& out_;
};

class CompactReader {
  public:
    CompactReader(ByteView in, std::string_view what) : in_(in), what_(what) {}
    Result<uint64_t> number(uint64_t limit = UINT64_MAX) {
        uint64_t v = 0;
        for (unsigned shift = 0; shift < 64; shift += 7) {
            if (at_ == in_.size()) return truncated();
            const uint8_t byte = in_[at_++];
            if (shift == 63 && byte > 1) break;
            if (shift > 0 && byte == 0) break;  // longer than needed
            v |= uint64_t{byte & 0x7fu} << shift;
            if (byte & 0x80) continue;
            if (v > limit) break;
            return v;
        }
        return fail(Code::kMalformed, std::string(what_) + ": a number is out of range");
    }
    Result<int64_t> signed_number() {
        FS_ASSIGN(const uint64_t v, number());
        return static_cast<int64_t>(v >> 1) ^ -static_cast<int64_t>(v & 1);
    }
    Result<ByteView> bytes(size_t n) {
        if (in_.size() - at_ < n) return truncated();
        const ByteView out = in_.subspan(at_, n);
        at_ += n;
        return out;
    }
    Result<std::string> text(size_t limit) {
        FS_ASSIGN(const uint64_t n, number(limit));
        FS_ASSIGN(const ByteView out, bytes(n));
        return to_text(out);
    }
    // How many things of at least `each` bytes follow: more than fit is kMalformed, so that a bad
    // count never makes a large allocation.
    Result<size_t> count(size_t each) { return number((in_.size() - at_) / each); }
    Status finish() const {
        if (at_ == in_.size()) return {};
        return fail(Code::kMalformed, std::string(what_) + ": bytes are left over");
    }

  private:
    tl::unexpected<Error> truncated() const {
        return fail(Code::kTruncated, std::string(what_) + " ends too early");
    }
    ByteView in_;
    size_t at_ = 0;
    std::string_view what_;
};

}  // namespace farshore
