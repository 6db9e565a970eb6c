#include "store/counting_store.h"

namespace farshore {

template <typename T>
T CountingStore::counted(StoreRequest kind, T result) {
    ++requests_[static_cast<size_t>(kind)];
    if (!result && result.error().code() != Code::kNotFound &&
        result.error().code() != Code::kAlreadyExists)
        ++failed_;
    return result;
}

Status CountingStore::put(const std::string& name, ByteView data) {
    bytes_put_ += data.size();
    return counted(StoreRequest::kPut, inner_->put(name, data));
}

Result<Bytes> CountingStore::get(const std::string& name) {
    auto got = counted(StoreRequest::kGet, inner_->get(name));
    if (got) bytes_got_ += got->size();
    return got;
}

Result<Bytes> CountingStore::get_range(const std::string& name, uint64_t offset_bytes,
                                       uint64_t length_bytes) {
    auto got =
        counted(StoreRequest::kGetRange, inner_->get_range(name, offset_bytes, length_bytes));
    if (got) bytes_got_ += got->size();
    return got;
}

Result<ObjectInfo> CountingStore::head(const std::string& name) {
    return counted(StoreRequest::kHead, inner_->head(name));
}

Result<std::vector<ObjectInfo>> CountingStore::list(const std::string& prefix,
                                                    const std::string& after, size_t limit) {
    return counted(StoreRequest::kList, inner_->list(prefix, after, limit));
}

Status CountingStore::remove(const std::string& name) {
    return counted(StoreRequest::kRemove, inner_->remove(name));
}

Status CountingStore::extend_lock(const std::string& name, TimePoint until) {
    return inner_->extend_lock(name, until);
}

StoreCounts CountingStore::counts() const {
    StoreCounts out;
    for (size_t i = 0; i < requests_.size(); ++i) out.requests[i] = requests_[i];
    out.failed = failed_;
    out.bytes_put = bytes_put_;
    out.bytes_got = bytes_got_;
    return out;
}

}  // namespace farshore
