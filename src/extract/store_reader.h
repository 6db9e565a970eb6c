// Where an extraction reads a store from: a directory, S3 or Azure Blob. Only what reading needs,
// and nothing of the writer's: src/store may be wrong in a way that this is not.
//
// One thread at a time. Errors beside each call's own: kForbidden, kUnauthenticated (the service
// does not let us), kUnavailable, kTimeout, kConnectionLost (after some tries), kMalformed (who
// answers is no such service).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/seams.h"
#include "base/secret.h"

namespace farshore::extraction {

inline constexpr uint64_t kMaxObject = 64ull << 20;

class StoreReader {
  public:
    virtual ~StoreReader() = default;
    // kNotFound; kTooLarge for what is larger than any object.
    virtual Result<Bytes> read(const std::string& name) const = 0;
    // Exactly these bytes; kTruncated when the object ends before.
    virtual Result<Bytes> read_range(const std::string& name, uint64_t from,
                                     uint64_t length) const = 0;
    // What is below "items/…": names of objects, or of parts of names with '/'. None when it is
    // missing.
    virtual Result<std::vector<std::string>> list(const std::string& directory) const = 0;
};

// The objects of a store that is a directory.
class StoreDirectory final : public StoreReader {
  public:
    StoreDirectory(FileSystem& files, std::string root) : files_(files), root_(std::move(root)) {}
    Result<Bytes> read(const std::string& name) const override;
    Result<Bytes> read_range(const std::string& name, uint64_t from,
                             uint64_t length) const override;
    Result<std::vector<std::string>> list(const std::string& directory) const override;

  private:
    FileSystem& files_;
    const std::string root_;
};

// `location` is a directory, "s3://BUCKET[/PREFIX]" or "azure://ACCOUNT/CONTAINER[/PREFIX]";
// `settings_file` the JSON of docs/operations/store.md (needed for the two), private to its owner;
// `variable` the environment, for S3's keys. `files` is borrowed. kInvalidArgument, kForbidden (a
// file that everybody may read), kUnsupported (another way to sign in), kMalformed.
Result<std::unique_ptr<StoreReader>> open_store_reader(
    FileSystem& files, const std::string& location, const std::string& settings_file,
    const std::function<std::string(const char*)>& variable);

}  // namespace farshore::extraction
