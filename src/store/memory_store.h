// An ObjectStore in memory: for tests and benchmarks that are about something else, and the
// shortest thing that passes the store contract. Any thread may call.
#pragma once

#include <map>
#include <mutex>

#include "store/object_store.h"

namespace farshore {

class MemoryStore final : public ObjectStore {
  public:
    Status put(const std::string& name, ByteView data) override;
    Result<Bytes> get(const std::string& name) override;
    Result<Bytes> get_range(const std::string& name, uint64_t offset_bytes,
                            uint64_t length_bytes) override;
    Result<ObjectInfo> head(const std::string& name) override;
    Result<std::vector<ObjectInfo>> list(const std::string& prefix, const std::string& after,
                                         size_t limit) override;
    Status remove(const std::string& name) override;

    // For tests that damage what is stored.
    void replace(const std::string& name, Bytes data);

  private:
    std::mutex mutex_;
    std::map<std::string, SharedBytes> objects_;
};

}  // namespace farshore
