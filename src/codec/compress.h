// Compression of chunks and indexes: zstd level 1, lz4 blocks, or nothing.
//
// Any thread may call; contexts are kept one a thread, since making one costs more than compressing
// a chunk. No framing of our own: codec, compressed and plain length are kept by whoever stores the
// bytes (docs/format/segment.md §4).
#pragma once

#include "base/bytes.h"
#include "base/error.h"

namespace farshore {

// Values are on disk: never renumbered.
enum class Compression : uint8_t { kRaw = 0, kZstd = 1, kLz4 = 2 };

// The plain length that decompress() takes at most: nothing Farshore compresses is longer.
inline constexpr size_t kMaxPlainBytes = 64u << 20;

// Whether `plain` is not worth compressing: its bytes are spread as evenly as random ones are, and
// a hasty search finds no repetition. About 2 us, and 15 us more for 64 KiB that look random.
bool looks_incompressible(ByteView plain);

// How far the CPU is behind: what is worth more, bytes or time. On one core, rows of a table in
// chunks of 64 KiB: 3.0 ns a byte, 1.55 (a result 1.6 times as long) and 0.9 (1.7 times).
enum class Haste : uint8_t { kNone, kSome, kMost };  // zstd; lz4; lz4 that skips ahead

// Compresses into `out` (replaced; keeps its capacity). Returns the codec that was used: kRaw, with
// `out` left empty, when the result would not be shorter than `plain`. kRaw may be asked for.
// `haste` matters to lz4 alone.
Compression compress(Compression wanted, ByteView plain, Bytes& out, Haste haste = Haste::kSome);

// Decompresses to exactly out.size() bytes. kCorrupt when `packed` is not that; kNewerVersion when
// the codec is unknown. Never writes outside `out`.
Status decompress(Compression codec, ByteView packed, MutableByteView out);
// The same into a new buffer; kTooLarge past kMaxPlainBytes.
Result<Bytes> decompress(Compression codec, ByteView packed, size_t plain_bytes);

}  // namespace farshore
