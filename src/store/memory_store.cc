#include "store/memory_store.h"

#include <fmt/core.h>

#include "store/object_name.h"

namespace farshore {
namespace {
auto missing(const std::string& name) {
    return fail(Code::kNotFound, fmt::format("no object '{}'", name));
}
}  // namespace

Status MemoryStore::put(const std::string& name, ByteView data) {
    FS_TRY(check_object_name(name));
    if (data.size() > kMaxObjectBytes)
        return fail(Code::kTooLarge, fmt::format("object '{}' of {} bytes", name, data.size()));
    auto copy = std::make_shared<const Bytes>(data.begin(), data.end());
    const std::lock_guard lock(mutex_);
    if (!objects_.emplace(name, std::move(copy)).second)
        return fail(Code::kAlreadyExists, fmt::format("object '{}' exists", name));
    return {};
}

Result<Bytes> MemoryStore::get(const std::string& name) {
    return get_range(name, 0, kMaxObjectBytes);
}

Result<Bytes> MemoryStore::get_range(const std::string& name, uint64_t offset_bytes,
                                     uint64_t length_bytes) {
    FS_TRY(check_object_name(name));
    SharedBytes data;
    {
        const std::lock_guard lock(mutex_);
        const auto found = objects_.find(name);
        if (found == objects_.end()) return missing(name);
        data = found->second;
    }
    const uint64_t from = std::min<uint64_t>(offset_bytes, data->size());
    const uint64_t n = std::min<uint64_t>(length_bytes, data->size() - from);
    return to_bytes(ByteView(*data).subspan(from, n));
}

Result<ObjectInfo> MemoryStore::head(const std::string& name) {
    FS_TRY(check_object_name(name));
    const std::lock_guard lock(mutex_);
    const auto found = objects_.find(name);
    if (found == objects_.end()) return missing(name);
    return ObjectInfo{name, found->second->size()};
}

Result<std::vector<ObjectInfo>> MemoryStore::list(const std::string& prefix,
                                                  const std::string& after, size_t limit) {
    std::vector<ObjectInfo> out;
    const std::lock_guard lock(mutex_);
    auto at = after < prefix ? objects_.lower_bound(prefix) : objects_.upper_bound(after);
    for (; at != objects_.end() && at->first.starts_with(prefix) && out.size() < limit; ++at)
        out.push_back({at->first, at->second->size()});
    return out;
}

Status MemoryStore::remove(const std::string& name) {
    FS_TRY(check_object_name(name));
    const std::lock_guard lock(mutex_);
    objects_.erase(name);
    return {};
}

void MemoryStore::replace(const std::string& name, Bytes data) {
    const std::lock_guard lock(mutex_);
    objects_[name] = std::make_shared<const Bytes>(std::move(data));
}

}  // namespace farshore
