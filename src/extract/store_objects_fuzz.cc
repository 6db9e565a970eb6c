// Arbitrary bytes as every kind of object and body that the independent reader takes in.
#include "extract/store_objects.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    using namespace farshore::extraction;
    const ByteView in(data, size);
    static const Secret key(Bytes(32));
    (void)decode_item(in, ItemId{});
    (void)segment_front_bytes(in);
    (void)decode_segment(in, "items/0/log/x", ItemId{}, key);
    (void)decode_manifest_content(in);
    (void)decode_shard_content(in, 0, 0);
    Segment segment;
    segment.first = 1;
    segment.last = 1000;
    segment.payload_bytes = 65536;
    (void)decode_index(in, 1000, 1, segment);
    Lease lease;
    if (parse_lease_name(as_text(in), lease)) {
        std::vector<Ref> refs{{1, lease.start, lease.epoch}, {1, lease.start, lease.before}};
        keep_owned(leases_that_count({lease, lease}), lease.start, refs);
    }
    return 0;
}
