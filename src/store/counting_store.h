// Counts what a store is asked for and what goes there and back: what a provider charges by
// (docs/operations/cost.md). A decorator, below the one that retries: every attempt counts.
//
// Calls are counted, not what a store makes of them: a listing on Azure may take several requests,
// one for each 5000 names. Any thread may call.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string_view>

#include "store/object_store.h"

namespace farshore {

enum class StoreRequest : uint8_t { kPut, kGet, kGetRange, kHead, kList, kRemove };
inline constexpr std::array<std::string_view, 6> kStoreRequestNames = {"put",  "get",  "get_range",
                                                                       "head", "list", "remove"};

struct StoreCounts {
    std::array<uint64_t, kStoreRequestNames.size()> requests{};  // by StoreRequest
    uint64_t failed = 0;     // of these, whatever the reason; "not found" and "exists" are answers
    uint64_t bytes_put = 0;  // payload of puts, whether they succeeded or not
    uint64_t bytes_got = 0;  // payload that came back
};

class CountingStore final : public ObjectStore {
  public:
    explicit CountingStore(std::unique_ptr<ObjectStore> inner) : inner_(std::move(inner)) {}

    Status put(const std::string& name, ByteView data) override;
    Result<Bytes> get(const std::string& name) override;
    Result<Bytes> get_range(const std::string& name, uint64_t offset_bytes,
                            uint64_t length_bytes) override;
    Result<ObjectInfo> head(const std::string& name) override;
    Result<std::vector<ObjectInfo>> list(const std::string& prefix, const std::string& after,
                                         size_t limit) override;
    Status remove(const std::string& name) override;
    int64_t lock_us() const override { return inner_->lock_us(); }
    Status extend_lock(const std::string& name, TimePoint until) override;
    void cancel() override { inner_->cancel(); }

    // Since it was made; the numbers are each right, but not of one instant.
    StoreCounts counts() const;

  private:
    template <typename T>
    T counted(StoreRequest kind, T result);

    const std::unique_ptr<ObjectStore> inner_;
    std::array<std::atomic<uint64_t>, kStoreRequestNames.size()> requests_{};
    std::atomic<uint64_t> failed_{0}, bytes_put_{0}, bytes_got_{0};
};

}  // namespace farshore
