// Where the log, the manifests and the base objects of all items live: a flat space of named,
// write-once objects.
//
// Names are '/'-separated, [a-z0-9._-] in each part, at most 512 bytes. Any thread may call.
// Errors: kNotFound, kAlreadyExists, kNoSpace, kForbidden, kThrottled, kUnavailable, kIo;
// code_retry() says whether a retry can cure it. A put that failed may nevertheless have happened
// ("failure after success"): retry it and treat kAlreadyExists with equal content as success.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/types.h"

namespace farshore {

struct ObjectInfo {
    std::string name;
    uint64_t size_bytes = 0;
};

// What a store was found to be like (store_check.h).
struct StoreFinding {
    // Refused: unfit for use. Warning: it works, with the loss that is named.
    enum class Result : uint8_t { kOk, kNote, kWarning, kRefused };
    Result result = Result::kOk;
    std::string subject;  // "versioning"
    std::string what;
    std::string remedy;  // empty: none
};
std::string_view finding_result_name(StoreFinding::Result result);

// Objects larger than this are refused with kTooLarge.
inline constexpr size_t kMaxObjectBytes = 64u << 20;

class ObjectStore {
  public:
    virtual ~ObjectStore() = default;
    // Makes a new object; kAlreadyExists when the name is taken, whatever its content. When it
    // returns ok the object is durable and every later read and list sees all of it; a crash before
    // leaves all of it or nothing.
    virtual Status put(const std::string& name, ByteView data) = 0;
    virtual Result<Bytes> get(const std::string& name) = 0;
    // Exactly [offset, offset+length), cut at the object's end; kNotFound when there is no object.
    virtual Result<Bytes> get_range(const std::string& name, uint64_t offset_bytes,
                                    uint64_t length_bytes) = 0;
    virtual Result<ObjectInfo> head(const std::string& name) = 0;
    // Objects whose name starts with `prefix` and is greater than `after`, in byte order, at most
    // `limit`.
    virtual Result<std::vector<ObjectInfo>> list(const std::string& prefix,
                                                 const std::string& after, size_t limit) = 0;
    // Ok also when there is no such object. In a store with locks an object whose lock still runs
    // stays, and that is ok, too: whoever wants it gone asks again when it has run out.
    virtual Status remove(const std::string& name) = 0;

    // For how long nobody, whatever keys he has, can delete or change an object that is put now; 0:
    // the store has no locks.
    virtual int64_t lock_us() const { return 0; }
    // Sees to it that the lock of an object lasts until `until` at least: costs nothing when it is
    // known to, else it is made as long as that of a new object. kUnsupported without locks,
    // kNotFound.
    virtual Status extend_lock(const std::string& name, TimePoint until);
    // What the service is set to, and what it does by itself: clock, versions, rules that delete,
    // locks. Asks the service; nothing is put. What can't be found out is a finding, too.
    virtual std::vector<StoreFinding> inspect() { return {}; }
    // For the end of a program, from any thread: calls under way and later ones of a remote store
    // end with kCancelled within a second.
    virtual void cancel() {}
};

// put() that is safe to repeat: retries what Retry::kSoon names are left to a wrapper; here an
// existing object of equal bytes counts as success, of other bytes as kAlreadyExists.
Status put_idempotent(ObjectStore& store, const std::string& name, ByteView data);

}  // namespace farshore
