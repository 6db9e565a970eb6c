// Manifests and object names from outside.
#include "replica/log_lease.h"
#include "replica/manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    const ByteView in(data, size);
    (void)decode_manifest_body(in);
    (void)decode_manifest(ItemId{}, "items/x", in, Secret(Bytes(32, 1)));
    const std::string_view name = as_text(in);
    (void)parse_object_name(ItemId{}, name);
    (void)parse_log_lease_name(ItemId{}, name);
    (void)parse_manifest_name(ItemId{}, name);
    (void)parse_shard_name(ItemId{}, name);
    return 0;
}
