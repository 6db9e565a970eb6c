// The simulated object store: one for a world, seen by each process through its own client.
// Stricter and nastier than any real one, and it survives every crash.
//
// Names are checked, write-once is enforced, no put is ever visible in part. Fault sites, active
// when allow_errors(true): store.unavailable, store.throttled, store.timeout (nothing happened),
// store.lost_answer (it happened, the caller gets kTimeout or kUnavailable), store.late_effect (it
// happens after the caller got kTimeout). When allow_damaged_reads(true): store.truncated_body,
// store.corrupt_body, both reported as success: readers must check what they read.
// Removes are logged, so that a test can hold them against what is still needed. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "sim/world.h"
#include "store/object_store.h"

namespace farshore {

enum class StoreOp : uint8_t { kPut, kGet, kGetRange, kHead, kList, kRemove };
inline constexpr size_t kStoreOps = 6;

struct StoreLatency {
    int64_t base_us = 4'000;             // each call, drawn between half and twice of it
    uint64_t bytes_per_s = 200'000'000;  // and its body
};

struct StoreCounters {
    uint64_t calls[kStoreOps] = {};
    uint64_t failed = 0;
    uint64_t put_bytes = 0, read_bytes = 0;
    uint64_t of(StoreOp op) const { return calls[static_cast<size_t>(op)]; }
};

struct StoreRemoval {
    int64_t at_us;
    uint32_t process;  // id
    std::string name;
};

class SimObjectStore {
  public:
    explicit SimObjectStore(SimWorld& world);
    ~SimObjectStore();
    SimObjectStore(const SimObjectStore&) = delete;
    SimObjectStore& operator=(const SimObjectStore&) = delete;

    // For this life of the process. May outlive the SimObjectStore object, not the world.
    std::unique_ptr<ObjectStore> client(SimProcess& process);

    // --- what a test sets
    void allow_errors(bool allow);
    void allow_damaged_reads(bool allow);
    void set_latency(const StoreLatency& latency);
    void set_capacity_bytes(uint64_t bytes);
    // Every call fails with kUnavailable.
    void set_outage(bool outage);
    // A new object shows in list() only after up to this long. Off (0): list after put is exact, as
    // the contract says.
    void set_list_lag_us(int64_t max_us);
    // The next `count` calls on names that contain `name_part`, after `skip` more, fail with
    // `code`; `happens`: they take effect nevertheless.
    void fail_next(StoreOp op, std::string name_part, Code code, bool happens = false,
                   uint64_t count = 1, uint64_t skip = 0);
    // Before the effect; a test may keep its own books or check invariants here.
    void on_put(std::function<void(SimProcess*, const std::string& name, ByteView data)> hook);
    void on_remove(std::function<void(SimProcess*, const std::string& name)> hook);

    // --- what a test looks at, or breaks
    Result<Bytes> peek(const std::string& name) const;
    // The same without a copy; good until something is put or removed.
    Result<ByteView> peek_view(const std::string& name) const;
    std::vector<std::string> names(const std::string& prefix = {}) const;
    uint64_t stored_bytes() const;
    const StoreCounters& counters() const;
    const std::vector<StoreRemoval>& removals() const;
    Status flip_bit(const std::string& name, uint64_t bit);
    Status cut(const std::string& name, uint64_t size_bytes);
    Status replace(const std::string& name, Bytes data);
    Status erase(const std::string& name);

  private:
    friend class SimStoreClient;
    struct Core;
    std::shared_ptr<Core> core_;
};

}  // namespace farshore
