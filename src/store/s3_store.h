// Objects in a bucket of S3: AWS, Ceph, MinIO and their like. docs/design/object-stores.md.
//
// The object `a/b` is the key PREFIX/a/b, made by one PUT under `If-None-Match: *`. A server that
// does not know that condition is found out at the first put of a process (the store's identity is
// put again with the bytes that it has); from then on every put looks first, and afterwards which
// version is the oldest, or without versions whether it reads what it wrote; and a warning says
// what is not enforced.
//
// With object locks (settings: object_lock_days) every object is put under a lock in mode
// COMPLIANCE, and an object is its *oldest* version: what somebody with our keys puts over it or
// marks as deleted is not seen. See s3_versions.cc.
//
// One attempt a call (RetryingStore repeats). Any thread may call, several at a time. Errors: those
// of ObjectStore and of S3Wire.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "store/object_store.h"
#include "store/s3_wire.h"
#include "store/s3_xml.h"

namespace farshore {

class S3Store final : public ObjectStore {
  public:
    // Asks the server nothing. `clock` outlives it.
    static Result<std::unique_ptr<S3Store>> make(FileSystem& files, Clock& clock,
                                                 const StoreSettings& settings,
                                                 const StoreLocation& location);

    Status put(const std::string& name, ByteView data) override;
    Result<Bytes> get(const std::string& name) override;
    Result<Bytes> get_range(const std::string& name, uint64_t offset_bytes,
                            uint64_t length_bytes) override;
    Result<ObjectInfo> head(const std::string& name) override;
    Result<std::vector<ObjectInfo>> list(const std::string& prefix, const std::string& after,
                                         size_t limit) override;
    Status remove(const std::string& name) override;
    int64_t lock_us() const override { return lock_us_; }
    Status extend_lock(const std::string& name, TimePoint until) override;
    std::vector<StoreFinding> inspect() override;  // s3_inspect.cc
    void cancel() override { wire_->cancel(); }

    // kUnsupported, saying what is missing, when locks are wanted and the bucket has none.
    Status check_lock_configuration();
    // By trying: an object of its own (below kStoreCheckPrefix) under a lock of a few seconds,
    // which is then removed again. kUnsupported when the server deletes it all the same.
    Status try_lock();

    S3Wire& wire() { return *wire_; }
    const std::string& prefix() const { return prefix_; }
    // Whether `If-None-Match: *` is obeyed: none before it was found out.
    enum class Conditional : uint8_t { kUnknown, kObeyed, kIgnored };
    Conditional conditional() const { return conditional_; }

  private:
    // The oldest version of a name.
    struct Version {
        std::string id;
        uint64_t size_bytes = 0;
        TimePoint locked_until;  // at least
    };

    S3Store(std::unique_ptr<S3Wire> wire, Clock& clock, std::string prefix, int lock_days);
    std::string key_of(const std::string& name) const { return prefix_ + name; }
    TimePoint server_now() const { return {clock_.now().us + wire_->clock_offset_us()}; }
    // The object's name, or "" when the key is none.
    std::string name_of(const std::string& key) const;
    TimePoint locked_until() const {
        return lock_us_ == 0 ? TimePoint{} : TimePoint{server_now().us + lock_us_};
    }
    Status put_first(const std::string& name, ByteView data);
    Status put_again(const std::string& name, ByteView data);
    // The version that was made, "" without versions.
    Result<std::string> put_once(const std::string& name, ByteView data, bool conditional,
                                 TimePoint locked_until);
    Status put_looking_first(const std::string& name, ByteView data);
    Result<HttpResponse> fetch(const std::string& name, const std::string& range);
    Result<ObjectInfo> plain_head(const std::string& name);
    Result<std::vector<ObjectInfo>> list_objects(const std::string& prefix,
                                                 const std::string& after, size_t limit);

    // s3_versions.cc
    Result<std::vector<ObjectInfo>> list_oldest(const std::string& prefix, const std::string& after,
                                                size_t limit);
    Result<Version> oldest(const std::string& name);
    Status check_is_oldest(const std::string& name, const std::string& version_id,
                           TimePoint locked_until);
    Result<std::vector<S3Entry>> versions_of(const std::string& name);
    Status remove_versions(const std::string& name);
    Status remove_version(const std::string& name, const std::string& version_id);
    void remember(const std::string& name, Version version);
    void forget(const std::string& name);

    const std::unique_ptr<S3Wire> wire_;
    Clock& clock_;
    const std::string prefix_;
    const int64_t lock_us_;
    std::atomic<Conditional> conditional_{Conditional::kUnknown};
    std::mutex conditional_mutex_;  // one at a time finds it out
    std::mutex versions_mutex_;     // versions_
    std::map<std::string, Version> versions_;
};

}  // namespace farshore
