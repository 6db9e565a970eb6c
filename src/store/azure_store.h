// Objects as block blobs in a container of Azure Blob storage, or of what speaks its protocol.
//
// An object is one Put Blob with `If-None-Match: *`, so the service itself makes it write-once, and
// with its MD5, so the service refuses what was damaged on the way. One attempt a call: a
// RetryingStore stands outside. Any thread may call, several at a time.
//
// Listing: the service cannot begin behind a name, so list() begins at the page that holds it, as
// far as an earlier call has come by there, and otherwise at the prefix: one request for each 5000
// names that stand before (docs/operations/cost.md). Accounts with a hierarchical namespace list in
// another order than the contract's and are refused (kUnsupported).
//
// Beside the errors of ObjectStore those of AzureClient (azure_client.h). kForeignStore: there is
// no such container.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "base/seams.h"
#include "store/azure_client.h"
#include "store/object_store.h"

namespace farshore {

struct AzureStoreOptions {
    AzureAccess access;
    std::string prefix;  // "" or "some/where/": stands before every object's name
    // Every object is put with a locked immutability policy of so many days; 0: without one. The
    // container must have version-level immutability support.
    int immutable_days = 0;
};

class AzureStore final : public ObjectStore {
  public:
    // Asks nothing yet. kInvalidArgument (azure_client.h). `clock` and `random` outlive the store.
    static Result<std::unique_ptr<AzureStore>> make(AzureStoreOptions options, Clock& clock,
                                                    Random& random);

    Status put(const std::string& name, ByteView data) override;
    // Checked against the MD5 that the service keeps: kCorrupt.
    Result<Bytes> get(const std::string& name) override;
    Result<Bytes> get_range(const std::string& name, uint64_t offset_bytes,
                            uint64_t length_bytes) override;
    Result<ObjectInfo> head(const std::string& name) override;
    Result<std::vector<ObjectInfo>> list(const std::string& prefix, const std::string& after,
                                         size_t limit) override;
    Status remove(const std::string& name) override;
    int64_t lock_us() const override { return immutable_days_ * 86'400'000'000; }
    Status extend_lock(const std::string& name, TimePoint until) override;
    void cancel() override { client_->cancel(); }

    struct Immutability {
        bool enforced = false;
        std::string why_not;  // for a person
    };
    // Tries it with a small blob of its own, under an unlocked policy of a few minutes, which it
    // then takes off again with the blob. An error only when the service cannot be asked.
    Result<Immutability> check_immutability();

    AzureClient& client() { return *client_; }

  private:
    AzureStore(std::string prefix, int immutable_days, std::unique_ptr<AzureClient> client,
               Clock& clock, Random& random);
    TimePoint service_now() const;
    // The version that it is, where the account keeps versions.
    Result<std::string> put_blob(const std::string& blob, ByteView data, NameValues headers);
    std::string page_start(const std::string& prefix, const std::string& after);
    void remember_page(const std::string& prefix, const std::string& first,
                       const std::string& marker);
    void forget_pages(const std::string& prefix);

    const std::string prefix_;
    const int immutable_days_;
    const std::unique_ptr<AzureClient> client_;
    Clock& clock_;
    Random& random_;

    // Where pages of listings began: prefix -> first name of a page -> the marker that gives it.
    // What is greater than such a name is never before its page. Bounded.
    std::mutex mutex_;
    std::map<std::string, std::map<std::string, std::string>> pages_;
    size_t page_count_ = 0;
};

}  // namespace farshore
