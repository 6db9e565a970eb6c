#include "store/directory_store.h"

#include <fmt/core.h>

#include <algorithm>

#include "store/object_name.h"
#include "store/store_identity.h"

namespace farshore {
namespace {

constexpr std::string_view kTemporary = "~tmp";
// How often a put starts again because another process cleaned up its temporary file.
constexpr int kPutAttempts = 4;

auto missing(const std::string& name) {
    return fail(Code::kNotFound, fmt::format("no object '{}'", name));
}

std::string parent_of(const std::string& name) {
    const size_t slash = name.rfind('/');
    return slash == std::string::npos ? std::string() : name.substr(0, slash);
}

}  // namespace

Result<std::unique_ptr<DirectoryStore>> DirectoryStore::open(FileSystem& files, Random& random,
                                                             const Options& options) {
    if (options.path.empty())
        return fail(Code::kInvalidArgument, "the store's directory has no name");
    auto entries = files.list(options.path);
    if (!entries && entries.error().code() == Code::kNotFound && options.create) {
        FS_TRY(files.make_directories(options.path));
        entries = files.list(options.path);
    }
    if (!entries) return fail(entries.error().with_context("store directory"));
    const bool known = std::ranges::find(*entries, kStoreObject) != entries->end();
    const bool foreign = std::ranges::any_of(*entries, [](const std::string& entry) {
        return entry != fmt::format("{}/", kTemporary) && entry != "lost+found/";
    });
    if (!known && foreign)
        return fail(Code::kForeignStore,
                    fmt::format("'{}' holds something, but not a Farshore store ('{}' is missing)",
                                options.path, kStoreObject),
                    "give an empty or a new directory, or the one that the store is in");
    if (!known && !options.create)
        return fail(Code::kForeignStore,
                    fmt::format("'{}' is empty, no Farshore store", options.path),
                    "mount the file system that the store is on, or name its directory");

    std::unique_ptr<DirectoryStore> store(
        new DirectoryStore(files, options.path, random.next_u64()));
    const std::string temporary = fmt::format("{}/{}", options.path, kTemporary);
    FS_TRY(files.make_directories(temporary));
    FS_ASSIGN(const auto leftovers, files.list(temporary));
    for (const std::string& name : leftovers) {
        const Status removed = files.remove(fmt::format("{}/{}", temporary, name));
        if (!removed && removed.error().code() != Code::kNotFound) return fail(removed.error());
    }
    // The store's identity may be there and not durable, when whoever wrote it was killed.
    FS_TRY(files.sync_directory(options.path));
    return store;
}

Status DirectoryStore::make_parents(const std::string& name) {
    // From the top down, so that a directory is known only when those above it are durable.
    for (size_t slash = name.find('/'); slash != std::string::npos;
         slash = name.find('/', slash + 1)) {
        const std::string directory = name.substr(0, slash);
        {
            const std::lock_guard lock(mutex_);
            if (durable_directories_.contains(directory)) continue;
        }
        Status made = files_.make_directories(fmt::format("{}/{}", root_, directory));
        if (!made) {
            if (made.error().code() == Code::kAlreadyExists)
                return fail(Code::kInvalidArgument,
                            fmt::format("'{}' would lie below the object '{}'", name, directory));
            return made;
        }
        // Also when it was there: whoever made it may not have come to sync it.
        const std::string parent = parent_of(directory);
        FS_TRY(files_.sync_directory(parent.empty() ? root_ : fmt::format("{}/{}", root_, parent)));
        const std::lock_guard lock(mutex_);
        durable_directories_.insert(directory);
    }
    return {};
}

Status DirectoryStore::put(const std::string& name, ByteView data) {
    FS_TRY(check_object_name(name));
    if (data.size() > kMaxObjectBytes)
        return fail(Code::kTooLarge, fmt::format("object '{}' of {} bytes, at most {} are allowed",
                                                 name, data.size(), kMaxObjectBytes));
    Status status;
    for (int attempt = 0; attempt < kPutAttempts; ++attempt) {
        status = put_once(name, data);
        if (status || status.error().code() != Code::kNotFound) return status;
        // The temporary file or a directory has gone: another process opened the store or removed
        // what was empty.
        const std::lock_guard lock(mutex_);
        durable_directories_.clear();
    }
    return fail(Code::kUnavailable,
                fmt::format("cannot put '{}': {}", name, status.error().what()));
}

Status DirectoryStore::put_once(const std::string& name, ByteView data) {
    const std::string path = fmt::format("{}/{}", root_, name);
    const std::string parent = parent_of(path);
    const auto taken = [&]() -> Status {
        // Whoever put it may have died before its entry was durable, and the caller may take
        // kAlreadyExists with equal content for success.
        FS_TRY(files_.sync_directory(parent));
        return fail(Code::kAlreadyExists, fmt::format("object '{}' exists", name));
    };
    FS_ASSIGN(const bool there, files_.exists(path));
    if (there) {
        if (auto file = files_.open(path, OpenMode::kRead);
            !file && file.error().code() != Code::kNotFound)
            return fail(Code::kInvalidArgument,
                        fmt::format("'{}' cannot be an object: objects lie below it", name));
        return taken();
    }
    const std::string temporary =
        fmt::format("{}/{}/{:016x}-{}", root_, kTemporary, instance_, next_temporary_.fetch_add(1));
    const auto write = [&]() -> Status {
        FS_ASSIGN(const auto file, files_.open_stream(temporary, OpenMode::kCreateNew));
        if (!data.empty()) FS_TRY(file->write_at(0, data));
        return file->sync();
    };
    Status status = write();
    // After that: in a place that is no store (any more: what was mounted is gone) nothing is made.
    if (status) status = make_parents(name);
    bool linked = false;
    if (status) {
        status = files_.link(temporary, path);
        linked = static_cast<bool>(status);
    }
    // Best effort: what stays is removed by the next open.
    (void)files_.remove(temporary);
    if (!status) {
        if (status.error().code() == Code::kAlreadyExists) return taken();
        return status;
    }
    FS_CHECK(linked);
    return files_.sync_directory(parent);
}

Result<std::unique_ptr<File>> DirectoryStore::open_object(const std::string& name) {
    FS_TRY(check_object_name(name));
    auto file = files_.open(fmt::format("{}/{}", root_, name), OpenMode::kRead);
    if (file) return file;
    const Code code = file.error().code();
    // A directory opened as a file is kInvalidArgument: no object has that name.
    if (code == Code::kNotFound || code == Code::kInvalidArgument) return missing(name);
    return fail(file.error().with_context("object store"));
}

Result<Bytes> DirectoryStore::get(const std::string& name) {
    FS_ASSIGN(const auto file, open_object(name));
    FS_ASSIGN(const uint64_t size, file->size());
    if (size > kMaxObjectBytes)
        return fail(Code::kTooLarge, fmt::format("object '{}' of {} bytes", name, size));
    Bytes out(size);
    FS_ASSIGN(const size_t n, file->read_at(0, out));
    out.resize(n);
    return out;
}

Result<Bytes> DirectoryStore::get_range(const std::string& name, uint64_t offset_bytes,
                                        uint64_t length_bytes) {
    FS_ASSIGN(const auto file, open_object(name));
    uint64_t wanted = std::min<uint64_t>(length_bytes, kMaxObjectBytes);
    // The buffer of a long read is no longer than what is there.
    if (wanted > 64u << 10) {
        FS_ASSIGN(const uint64_t size, file->size());
        wanted = std::min(wanted, size - std::min(size, offset_bytes));
    }
    Bytes out(wanted);
    FS_ASSIGN(const size_t n, file->read_at(offset_bytes, out));
    out.resize(n);
    return out;
}

Result<ObjectInfo> DirectoryStore::head(const std::string& name) {
    FS_ASSIGN(const auto file, open_object(name));
    FS_ASSIGN(const uint64_t size, file->size());
    return ObjectInfo{name, size};
}

struct DirectoryStore::Walk {
    const std::string& prefix;
    const std::string& after;
    size_t limit;
    std::vector<ObjectInfo> found;
};

// `directory` is relative to the root and ends in '/', or is empty. A listing is sorted with the
// '/' of its directories, so depth first is the byte order of the objects' names.
Status DirectoryStore::walk(const std::string& directory, Walk& walk_state) {
    auto entries = files_.list(fmt::format("{}/{}", root_, directory));
    if (!entries) {
        const Code code = entries.error().code();
        if (code == Code::kNotFound || code == Code::kInvalidArgument) return {};
        return fail(entries.error());
    }
    for (const std::string& entry : *entries) {
        if (walk_state.found.size() >= walk_state.limit) return {};
        const std::string name = directory + entry;
        if (entry.ends_with('/')) {
            if (!check_object_name(std::string_view(name).substr(0, name.size() - 1))) continue;
            if (!name.starts_with(walk_state.prefix) && !walk_state.prefix.starts_with(name))
                continue;
            if (name < walk_state.after && !walk_state.after.starts_with(name)) continue;
            FS_TRY(walk(name, walk_state));
        } else {
            if (name <= walk_state.after || !name.starts_with(walk_state.prefix)) continue;
            if (!check_object_name(name)) continue;
            auto info = head(name);
            if (info)
                walk_state.found.push_back(std::move(*info));
            else if (info.error().code() != Code::kNotFound)  // removed since the listing
                return fail(info.error());
        }
    }
    return {};
}

Result<std::vector<ObjectInfo>> DirectoryStore::list(const std::string& prefix,
                                                     const std::string& after, size_t limit) {
    Walk state{prefix, after, limit, {}};
    if (!is_object_name_prefix(prefix)) return state.found;
    // Start in the deepest directory that the prefix names whole. Its parts must be names, so that
    // "../" leads nowhere.
    const size_t slash = prefix.rfind('/');
    std::string directory;
    if (slash != std::string::npos) {
        if (!check_object_name(prefix.substr(0, slash))) return state.found;
        directory = prefix.substr(0, slash + 1);
    }
    FS_TRY(walk(directory, state));
    return std::move(state.found);
}

Status DirectoryStore::remove(const std::string& name) {
    const std::string path = fmt::format("{}/{}", root_, name);
    // Opened first: the file system's remove would take an empty directory as well.
    if (auto file = open_object(name); !file) {
        if (file.error().code() != Code::kNotFound) return fail(file.error());
        // Whoever removed it may have been killed before that was durable.
        if (auto synced = files_.sync_directory(parent_of(path));
            !synced && synced.error().code() == Code::kIo)
            return synced;
        return {};
    }
    Status removed = files_.remove(path);
    if (!removed && removed.error().code() != Code::kNotFound) return removed;
    return files_.sync_directory(parent_of(path));
}

Result<uint64_t> DirectoryStore::free_bytes() { return files_.free_bytes(root_); }

}  // namespace farshore
