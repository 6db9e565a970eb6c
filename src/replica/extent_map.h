// Where the bytes of one shard (1 GiB of a disk) are: shard range -> (object, payload position), or
// nowhere, which reads as zeroes.
//
// Objects are small numbers that the map's owner gives meaning to. All positions are bytes. At most
// kMaxBytesPerExtent of memory an extent when filled at random (measured: replica_bench). One
// thread at a time may change it; any number may read one that nobody changes.
#pragma once

#include <absl/container/btree_map.h>

#include <cstdint>
#include <vector>

namespace farshore {

inline constexpr uint64_t kShardBytes = 1ull << 30;
inline constexpr size_t kMaxBytesPerExtent = 40;

struct Extent {
    uint32_t start = 0;  // within the shard
    uint32_t length = 0;
    uint32_t object = 0;
    uint32_t position = 0;  // in the object's payload
    friend bool operator==(const Extent&, const Extent&) = default;
    uint32_t end() const { return start + length; }  // at most kShardBytes
};
// Extent::object of a range that reads as zeroes, in what lookup() gives.
inline constexpr uint32_t kNoObject = UINT32_MAX;

class ExtentMap {
  public:
    // Replaces what is there. start + length <= kShardBytes, length > 0, object != kNoObject.
    void write(const Extent& extent);
    // The range reads as zeroes from here on.
    void erase(uint32_t start, uint32_t length);
    // Appends to `out` what [start, start + length) consists of: pieces in order without anything
    // between them, zeroes as pieces of kNoObject.
    void lookup(uint32_t start, uint32_t length, std::vector<Extent>& out) const;

    // Extents in order; those that follow each other on disk and in their object are one.
    template <typename Visit>
    void for_each(Visit visit) const {
        for (const auto& [start, to] : map_)
            visit(Extent{start, to.length, to.object, to.position});
    }
    // Adds an extent behind all others (decoders). False when it is not behind them.
    bool append(const Extent& extent);

    size_t size() const { return map_.size(); }
    bool empty() const { return map_.empty(); }

  private:
    struct Target {
        uint32_t length;
        uint32_t object;
        uint32_t position;
    };
    absl::btree_map<uint32_t, Target> map_;
};

}  // namespace farshore
