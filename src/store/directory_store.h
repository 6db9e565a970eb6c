// Objects as files below one directory of a file system: the default store.
//
// An object `a/b/c` is the file a/b/c. put() writes a file below `~tmp` (no object's name can have
// a
// '~'), syncs it, links it to its final name - which fails when the name is taken: the file system
// is what makes objects write-once - and syncs the directory. So a crash leaves a whole object or
// nothing but a file in ~tmp, which the next open removes.
//
// Several processes may use one directory. Any thread may call. Beside the errors of ObjectStore:
// kInvalidArgument for a name that is an object's directory or has an object as its directory,
// which a file system cannot hold.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_set>

#include "base/seams.h"
#include "store/object_store.h"

namespace farshore {

class DirectoryStore final : public ObjectStore {
  public:
    struct Options {
        std::string path;
        // Makes the directory when it is missing, takes an empty one; otherwise these are kNotFound
        // and kForeignStore.
        bool create = false;
    };
    // `files` and `random` outlive the store. kForeignStore when the directory holds something but
    // no store object (store_identity.h): it is then left as it is.
    static Result<std::unique_ptr<DirectoryStore>> open(FileSystem& files, Random& random,
                                                        const Options& options);

    Status put(const std::string& name, ByteView data) override;
    Result<Bytes> get(const std::string& name) override;
    Result<Bytes> get_range(const std::string& name, uint64_t offset_bytes,
                            uint64_t length_bytes) override;
    Result<ObjectInfo> head(const std::string& name) override;
    Result<std::vector<ObjectInfo>> list(const std::string& prefix, const std::string& after,
                                         size_t limit) override;
    // Durable when it returns.
    Status remove(const std::string& name) override;

    const std::string& path() const { return root_; }
    // Bytes that are free in the file system.
    Result<uint64_t> free_bytes();

  private:
    DirectoryStore(FileSystem& files, std::string root, uint64_t instance)
        : files_(files), root_(std::move(root)), instance_(instance) {}
    struct Walk;
    Status put_once(const std::string& name, ByteView data);
    // Makes the directories above an object and sees to it that they are durable.
    Status make_parents(const std::string& name);
    Result<std::unique_ptr<File>> open_object(const std::string& name);
    Status walk(const std::string& directory, Walk& walk);

    FileSystem& files_;
    const std::string root_;
    const uint64_t instance_;  // tells the temporary files of processes apart
    std::atomic<uint64_t> next_temporary_{0};
    std::mutex mutex_;
    std::unordered_set<std::string> durable_directories_;  // relative to root_
};

}  // namespace farshore
