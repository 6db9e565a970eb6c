// One page blob: what Azure makes a managed disk from. Made new, filled in any order, read back.
//
// Offsets and lengths are bytes, multiples of 512. A new page blob reads as zeroes, and only pages
// that were put are stored (and paid). Any thread may call, several at a time.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/seams.h"
#include "store/azure_client.h"
#include "store/retrying_store.h"

namespace farshore {

inline constexpr uint64_t kAzurePageBytes = 512;
// Azure's limits of one put, and of a page blob.
inline constexpr size_t kAzureMaxPutPagesBytes = 4u << 20;
inline constexpr uint64_t kAzureMaxPageBlobBytes = 8ull << 40;

// Where a blob is, from its URL: https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB[?SAS], or
// https://HOST[:PORT]/ACCOUNT/CONTAINER/BLOB[?SAS] where the host is an address or localhost (an
// emulator).
struct AzureBlobUrl {
    std::string account;
    std::string endpoint;
    std::string container;
    std::string blob;
    Secret sas;
};
// kInvalidArgument, without showing a signature.
Result<AzureBlobUrl> parse_azure_blob_url(std::string_view url);

class AzurePageBlob {
  public:
    struct Options {
        RetryPolicy retry;
        RetryingStore::Sleep sleep;  // between attempts; required
    };
    // `client` (whose container it is in), `clock` and `random` outlive the blob.
    //
    // Makes a new one; kAlreadyExists when there is a blob of this name that an earlier attempt of
    // this call did not make. kInvalidArgument: a size that is no multiple of 512 or too large.
    static Result<std::unique_ptr<AzurePageBlob>> create(AzureClient& client, Clock& clock,
                                                         Random& random, std::string name,
                                                         uint64_t size_bytes, Options options);
    // One that is there. kNotFound; kWrongState when it is a blob of another kind.
    static Result<std::unique_ptr<AzurePageBlob>> open(AzureClient& client, Clock& clock,
                                                       Random& random, std::string name,
                                                       Options options);

    // Any length within the blob; split into puts of at most 4 MiB, each checked by the service
    // against its MD5. After an error any part may have been put; putting it again is safe.
    Status write(uint64_t offset_bytes, ByteView data);
    // The same into a place that was never written: runs of zeroes are left out.
    Status write_new(uint64_t offset_bytes, ByteView data);
    // Zeroes, which are not stored afterwards.
    Status clear(uint64_t offset_bytes, uint64_t length_bytes);
    Result<Bytes> read(uint64_t offset_bytes, uint64_t length_bytes);
    // Ok also when it is gone.
    Status remove();

    uint64_t size_bytes() const { return size_bytes_; }
    const std::string& name() const { return name_; }

  private:
    AzurePageBlob(AzureClient& client, Clock& clock, Random& random, std::string name,
                  uint64_t size_bytes, Options options);
    Status check_range(uint64_t offset_bytes, uint64_t length_bytes) const;
    Status put_pages(uint64_t offset_bytes, ByteView data);
    template <typename Call>
    auto repeat(Call call) -> decltype(call());

    AzureClient& client_;
    Clock& clock_;
    Random& random_;
    const std::string name_;
    uint64_t size_bytes_;
    const Options options_;
};

}  // namespace farshore
