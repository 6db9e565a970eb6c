#include "codec/compress.h"

#include <fmt/core.h>
#include <lz4.h>
#include <zstd.h>

#include <algorithm>
#include <array>

namespace farshore {
namespace {

constexpr int kZstdLevel = 1;
constexpr int kLz4Acceleration = 1, kLz4MostAcceleration = 8;
constexpr size_t kProbeBytes = 4096;
constexpr size_t kProbeWindows = 16;
constexpr size_t kProbeRepeatBytes = 64u << 10;
constexpr int kLz4ProbeAcceleration = 16;
constexpr size_t kKeptScratchBytes = 1u << 20;

struct ZstdContexts {
    ZSTD_CCtx* in = ZSTD_createCCtx();
    ZSTD_DCtx* out = ZSTD_createDCtx();
    ~ZstdContexts() {
        ZSTD_freeCCtx(in);
        ZSTD_freeDCtx(out);
    }
};

ZstdContexts& contexts() {
    thread_local ZstdContexts mine;
    return mine;
}

// At least `bytes` long. Kept a thread, so that its bytes are not cleared for every chunk.
Bytes& scratch_of(size_t bytes) {
    thread_local Bytes mine;
    if (mine.size() < bytes) mine.resize(bytes);
    return mine;
}

}  // namespace

bool looks_incompressible(ByteView plain) {
    if (plain.size() < kProbeBytes) return false;
    // Four histograms, so that equal bytes in a row do not wait for each other's count.
    std::array<std::array<uint32_t, 256>, 4> counts{};
    constexpr size_t kWindow = kProbeBytes / kProbeWindows;
    const size_t stride = (plain.size() - kWindow) / (kProbeWindows - 1);
    for (size_t w = 0; w < kProbeWindows; ++w) {
        const uint8_t* p = plain.data() + w * stride;
        for (size_t i = 0; i < kWindow; i += 4)
            for (size_t lane = 0; lane < 4; ++lane) ++counts[lane][p[i + lane]];
    }
    uint64_t squares = 0;
    for (size_t value = 0; value < 256; ++value) {
        const uint64_t n =
            counts[0][value] + counts[1][value] + counts[2][value] + counts[3][value];
        squares += n * n;
    }
    // Random bytes give n + n*n/256 = 69 632 with a deviation of about 360; base64 text gives
    // 266 000, English text over 1 000 000.
    constexpr uint64_t kRandom = kProbeBytes + kProbeBytes * kProbeBytes / 256;
    if (squares >= kRandom + kRandom / 16) return false;
    // Encrypted or compressed data, or the same of it over and over.
    Bytes& scratch = scratch_of(static_cast<size_t>(LZ4_COMPRESSBOUND(kProbeRepeatBytes)));
    const size_t looked = std::min(plain.size(), kProbeRepeatBytes);
    const int packed = LZ4_compress_fast(
        reinterpret_cast<const char*>(plain.data()), reinterpret_cast<char*>(scratch.data()),
        static_cast<int>(looked), static_cast<int>(scratch.size()), kLz4ProbeAcceleration);
    return packed <= 0 || static_cast<size_t>(packed) > looked - looked / 16;
}

Compression compress(Compression wanted, ByteView plain, Bytes& out, Haste haste) {
    Bytes& scratch = scratch_of(0);
    size_t packed = 0;
    switch (wanted) {
        case Compression::kZstd: {
            scratch_of(ZSTD_compressBound(plain.size()));
            packed = ZSTD_compressCCtx(contexts().in, scratch.data(), scratch.size(), plain.data(),
                                       plain.size(), kZstdLevel);
            if (ZSTD_isError(packed)) packed = 0;
            break;
        }
        case Compression::kLz4: {
            if (plain.size() > LZ4_MAX_INPUT_SIZE) break;
            scratch_of(static_cast<size_t>(LZ4_compressBound(static_cast<int>(plain.size()))));
            const int n = LZ4_compress_fast(
                reinterpret_cast<const char*>(plain.data()),
                reinterpret_cast<char*>(scratch.data()), static_cast<int>(plain.size()),
                static_cast<int>(std::min<size_t>(scratch.size(), LZ4_MAX_INPUT_SIZE)),
                haste == Haste::kMost ? kLz4MostAcceleration : kLz4Acceleration);
            packed = n > 0 ? static_cast<size_t>(n) : 0;
            break;
        }
        case Compression::kRaw:
            break;
    }
    if (packed == 0 || packed >= plain.size()) {
        out.clear();
        wanted = Compression::kRaw;
    } else {
        out.assign(scratch.begin(), scratch.begin() + static_cast<ptrdiff_t>(packed));
    }
    // One large index does not keep its memory for ever.
    if (scratch.size() > kKeptScratchBytes) Bytes().swap(scratch);
    return wanted;
}

Status decompress(Compression codec, ByteView packed, MutableByteView out) {
    const auto bad = [&](std::string_view name) {
        return fail(Code::kCorrupt, fmt::format("{} bytes of {} do not decompress to {} bytes",
                                                packed.size(), name, out.size()));
    };
    switch (codec) {
        case Compression::kRaw:
            if (packed.size() != out.size()) return bad("raw data");
            std::ranges::copy(packed, out.begin());
            return {};
        case Compression::kZstd: {
            const size_t n = ZSTD_decompressDCtx(contexts().out, out.data(), out.size(),
                                                 packed.data(), packed.size());
            if (ZSTD_isError(n) || n != out.size()) return bad("zstd");
            return {};
        }
        case Compression::kLz4: {
            if (packed.size() > kMaxPlainBytes || out.size() > kMaxPlainBytes) return bad("lz4");
            const int n = LZ4_decompress_safe(
                reinterpret_cast<const char*>(packed.data()), reinterpret_cast<char*>(out.data()),
                static_cast<int>(packed.size()), static_cast<int>(out.size()));
            if (n < 0 || static_cast<size_t>(n) != out.size()) return bad("lz4");
            return {};
        }
    }
    return fail(Code::kNewerVersion,
                fmt::format("data compressed with unknown codec {}", static_cast<int>(codec)),
                "a newer version wrote it; upgrade this side");
}

Result<Bytes> decompress(Compression codec, ByteView packed, size_t plain_bytes) {
    if (plain_bytes > kMaxPlainBytes)
        return fail(Code::kTooLarge, fmt::format("compressed data claims {} bytes, at most {} are "
                                                 "allowed",
                                                 plain_bytes, kMaxPlainBytes));
    Bytes out(plain_bytes);
    FS_TRY(decompress(codec, packed, MutableByteView(out)));
    return out;
}

}  // namespace farshore
