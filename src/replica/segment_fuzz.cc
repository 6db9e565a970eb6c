// Arbitrary bytes as a segment; as one whose header's checksum is right; and as an index that came
// out of its seal.
#include <algorithm>

#include "codec/crc32c.h"
#include "replica/segment_format.h"
#include "store/memory_store.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    namespace sf = segment_format;
    const ByteView in(data, size);
    static const Secret key(Bytes(32));

    (void)sf::decode_header(in);
    Bytes header(in.begin(), in.end());
    header.resize(std::max(header.size(), sf::kHeaderBytes));
    std::copy_n(sf::kMagic, 8, header.begin());
    store_u16(&header[sf::kVersionAt], sf::kVersion);
    store_u16(&header[sf::kHeaderBytesAt], sf::kHeaderBytes);
    store_u32(&header[sf::kCrcAt],
              crc32c(ByteView(header).subspan(sf::kVersionAt, sf::kHeaderBytes - sf::kVersionAt)));
    if (const auto decoded = sf::decode_header(header)) {
        // What decodes must encode to itself, or writer and reader disagree.
        const Bytes again = sf::encode_header(*decoded);
        FS_CHECK(std::equal(again.begin(), again.end(), header.begin()));
        MemoryStore store;
        const std::string name = segment_object_name(decoded->pub);
        store.replace(name, header);
        (void)SegmentReader::open(store, name, decoded->pub.item, key);
    }

    if (size < 8) return 0;
    SegmentHeader pub;
    pub.kind = (data[0] & 1) != 0 ? SegmentKind::kLog : SegmentKind::kBase;
    pub.first = {1 + (data[1] & 15u)};
    pub.last = {pub.first.v + data[2]};
    pub.record_count = 1 + load_u16(data + 3) % 512;
    pub.payload_bytes = load_u16(data + 5) * 64u;
    pub.chunk_count = static_cast<uint32_t>((pub.payload_bytes + kChunkBytes - 1) / kChunkBytes);
    pub.object_bytes = 1u << 30;
    (void)sf::decode_index(in.subspan(7), pub);
    return 0;
}
