// `farshore store check`: whether a store keeps the promises of ObjectStore, found out by trying,
// and what it is set to behind our back. docs/operations/store.md.
//
// Everything that it puts lies below kStoreCheckPrefix and is removed again. Safe beside a vault
// that uses the store. One thread; it uses some of its own. Blocks for some seconds.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/seams.h"
#include "store/object_store.h"

namespace farshore {

struct StoreCheckOptions {
    int small_puts = 40;  // of which the latency is taken
    size_t large_objects = 12;
    size_t large_bytes = 8u << 20;
    size_t parallel = 4;
    // Of the store whose location this is; for words only.
    std::string location;
};

struct StoreCheckReport {
    std::vector<StoreFinding> findings;
    // Microseconds and bytes a second; none: not come so far.
    std::optional<int64_t> put_p50_us, put_p99_us, get_p50_us, get_p99_us;
    std::optional<uint64_t> put_bytes_per_s, get_bytes_per_s;

    // Whether nothing is refused.
    bool fit() const;
};

StoreCheckReport check_store(ObjectStore& store, Clock& clock, Random& random,
                             const StoreCheckOptions& options);

}  // namespace farshore
