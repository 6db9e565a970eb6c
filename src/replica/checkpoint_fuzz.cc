// Shard objects and their bodies from outside: never a crash, never an extent outside of the shard.
#include "replica/checkpoint.h"
#include "replica/sealed_object.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    const ByteView in(data, size);
    const ShardRef shard{1, 2, {{3}, 4}, 0};
    (void)decode_shard(ItemId{}, shard, in, Secret(Bytes(32, 1)));
    if (const auto content = decode_shard_body(in, 1, 2)) {
        uint64_t at = 0;
        content->map.for_each([&](const Extent& e) {
            if (e.start < at || e.length == 0 || e.object >= content->objects.size())
                __builtin_trap();
            at = e.end();
        });
        if (at > kShardBytes) __builtin_trap();
    }
    return 0;
}
