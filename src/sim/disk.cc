#include "sim/disk.h"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <map>
#include <utility>

#include "sim/file_data.h"
#include "sim/world.h"

namespace farshore {
namespace {

// More entry changes than this and the journal commits the older half, as a real one does in time.
constexpr size_t kMaxPendingEntries = 8192;

using Fate = PowerLossPolicy::Fate;
using sim::FileData;
using sim::kPageBytes;

struct Inode;
using InodeRef = std::shared_ptr<Inode>;
using Entries = std::map<std::string, InodeRef, std::less<>>;

struct Inode {
    bool directory = false;
    FileData data;
    Entries cached, durable;
    uint32_t links = 0;    // cached entries that name it
    uint32_t handles = 0;  // open files
    uint64_t visited = 0;
};

// A change of directory entries that is not durable yet. kAdd and kRemove: name in dir; kRename:
// name in dir becomes to_name in to_dir, as one.
struct EntryChange {
    enum class Kind : uint8_t { kAdd, kRemove, kRename } kind;
    InodeRef inode;
    InodeRef dir;
    std::string name;
    InodeRef to_dir;
    std::string to_name;

    // The directory whose sync makes it durable, and the name that it decides there.
    const InodeRef& target() const { return kind == Kind::kRename ? to_dir : dir; }
    const std::string& target_name() const { return kind == Kind::kRename ? to_name : name; }
};

void apply_durable(const EntryChange& change) {
    Entries& entries = change.dir->durable;
    const auto at = entries.find(change.name);
    const bool ours = at != entries.end() && at->second == change.inode;
    switch (change.kind) {
        case EntryChange::Kind::kAdd:
            entries[change.name] = change.inode;
            break;
        case EntryChange::Kind::kRemove:
            if (ours) entries.erase(at);
            break;
        case EntryChange::Kind::kRename:
            if (ours) entries.erase(at);
            change.to_dir->durable[change.to_name] = change.inode;
            break;
    }
}

struct ScriptedFailure {
    DiskOp op;
    std::string path_part;
    int error_number;
    uint64_t skip, count;
};

constexpr std::string_view kOpNames[kDiskOps] = {
    "file.open", "file.read",   "file.write", "file.sync", "file.truncate",
    "file.size", "file.punch",  "fs.remove",  "fs.rename", "fs.link",
    "fs.mkdir",  "fs.sync_dir", "fs.list",    "fs.exists", "fs.free"};

}  // namespace

struct SimDisk::State {
    State(SimHost& on, Rng stream) : host(on), rng(stream) {
        root->directory = true;
        root->links = 1;
    }

    SimHost& host;
    Rng rng;
    uint64_t capacity_bytes = std::numeric_limits<uint64_t>::max();
    uint64_t used_pages = 0;
    DiskLatency latency;
    PowerLossPolicy policy;
    bool errors_allowed = false;
    std::vector<ScriptedFailure> scripted;
    std::vector<std::function<void(SimProcess&, DiskOp, const std::string&)>> hooks;
    DiskCounters counters;
    uint64_t visit = 0;
    InodeRef root = std::make_shared<Inode>();
    std::vector<EntryChange> pending;

    // Counts an operation, lets time pass, and says which error it is to fail with (0: none).
    int begin(SimProcess& process, DiskOp op, const std::string& path);
    void take_time(DiskOp op);
    bool site(std::string_view name) { return errors_allowed && host.world().buggify(name); }

    struct Place {
        InodeRef dir;
        std::string name;
    };
    static std::vector<std::string_view> split(std::string_view path);
    Result<InodeRef> find(const std::string& path, bool durable = false) const;
    Result<Place> find_place(const std::string& path) const;

    void change(EntryChange change);
    void link(const Place& place, const InodeRef& inode);
    void unlink(const InodeRef& inode);
    void release_if_unused(const InodeRef& inode);
    // Whether all of these pages can be had; takes none.
    bool fits(uint64_t pages) const { return (used_pages + pages) * kPageBytes <= capacity_bytes; }
    void sync_entries(const InodeRef& dir);
    void lose_power(const InodeRef& inode);
    void list_files(const Inode& dir, const std::string& path, std::vector<std::string>& out) const;
};

int SimDisk::State::begin(SimProcess& process, DiskOp op, const std::string& path) {
    ++counters.operations[static_cast<size_t>(op)];
    take_time(op);
    for (const auto& hook : hooks) hook(process, op, path);
    for (ScriptedFailure& failure : scripted) {
        if (failure.op != op || failure.count == 0 ||
            path.find(failure.path_part) == std::string::npos)
            continue;
        if (failure.skip > 0) {
            --failure.skip;
            continue;
        }
        --failure.count;
        return failure.error_number;
    }
    switch (op) {
        case DiskOp::kRead:
            return site("disk.read_error") ? EIO : 0;
        case DiskOp::kWrite:
            return site("disk.write_error") ? EIO : site("disk.no_space") ? ENOSPC : 0;
        case DiskOp::kSync:
            return site("disk.sync_error") ? EIO : 0;
        case DiskOp::kRename:
        case DiskOp::kLink:
        case DiskOp::kMakeDirectories:
        case DiskOp::kSyncDirectory:
            return site("disk.entry_error") ? EIO : 0;
        default:
            return 0;
    }
}

void SimDisk::State::take_time(DiskOp op) {
    int64_t us = latency.other_us;
    if (op == DiskOp::kRead) us = latency.read_us;
    if (op == DiskOp::kWrite) us = latency.write_us;
    if (op == DiskOp::kSync || op == DiskOp::kSyncDirectory) us = latency.sync_us;
    if (us > 0) host.world().consume_us(rng.between(us / 2, us * 2));
}

std::vector<std::string_view> SimDisk::State::split(std::string_view path) {
    std::vector<std::string_view> parts;
    while (!path.empty()) {
        const size_t slash = path.find('/');
        const std::string_view part = path.substr(0, slash);
        if (!part.empty() && part != ".") parts.push_back(part);
        path = slash == std::string_view::npos ? std::string_view() : path.substr(slash + 1);
    }
    return parts;
}

Result<InodeRef> SimDisk::State::find(const std::string& path, bool durable) const {
    InodeRef at = root;
    for (const std::string_view part : split(path)) {
        if (part == "..") return fail(Code::kInvalidArgument, path + ": '..' is not simulated");
        if (!at->directory) return fail_errno(ENOTDIR, path);
        const Entries& entries = durable ? at->durable : at->cached;
        const auto entry = entries.find(part);
        if (entry == entries.end()) return fail_errno(ENOENT, path);
        at = entry->second;
    }
    return at;
}

Result<SimDisk::State::Place> SimDisk::State::find_place(const std::string& path) const {
    const auto parts = split(path);
    if (parts.empty()) return fail_errno(EISDIR, path);
    Place place{root, std::string(parts.back())};
    for (size_t i = 0; i < parts.size(); ++i) {
        if (parts[i] == "..") return fail(Code::kInvalidArgument, path + ": '..' is not simulated");
        if (parts[i].size() > 255) return fail_errno(ENAMETOOLONG, path);
        if (i + 1 == parts.size()) break;
        const auto entry = place.dir->cached.find(parts[i]);
        if (entry == place.dir->cached.end()) return fail_errno(ENOENT, path);
        place.dir = entry->second;
        if (!place.dir->directory) return fail_errno(ENOTDIR, path);
    }
    return place;
}

void SimDisk::State::change(EntryChange made) {
    pending.push_back(std::move(made));
    const bool full = pending.size() > kMaxPendingEntries;
    if (full || host.world().buggify("disk.early_entries")) {
        // The journal commits: in order, all of it or what is old.
        const size_t count = full ? pending.size() / 2 : pending.size();
        for (size_t i = 0; i < count; ++i) apply_durable(pending[i]);
        pending.erase(pending.begin(), pending.begin() + static_cast<std::ptrdiff_t>(count));
    }
}

void SimDisk::State::link(const Place& place, const InodeRef& inode) {
    place.dir->cached[place.name] = inode;
    ++inode->links;
}

void SimDisk::State::unlink(const InodeRef& inode) {
    --inode->links;
    release_if_unused(inode);
}

void SimDisk::State::release_if_unused(const InodeRef& inode) {
    // The inode may come back at power loss; its space counts as free until then.
    if (inode->links == 0 && inode->handles == 0)
        used_pages -= std::min(used_pages, inode->data.pages());
}

void SimDisk::State::sync_entries(const InodeRef& dir) {
    std::vector<bool> wanted(pending.size());
    // Names in other directories that a rename out of them settles: what happened to them before
    // goes along, or an old entry could come back beside the new one.
    std::vector<std::pair<const Inode*, const std::string*>> needed;
    for (size_t i = pending.size(); i-- > 0;) {
        const EntryChange& at = pending[i];
        const bool take =
            at.target() == dir || std::ranges::any_of(needed, [&](const auto& need) {
                return need.first == at.target().get() && *need.second == at.target_name();
            });
        wanted[i] = take;
        if (take && at.kind == EntryChange::Kind::kRename && at.dir != dir)
            needed.emplace_back(at.dir.get(), &at.name);
    }
    size_t kept = 0;
    for (size_t i = 0; i < pending.size(); ++i) {
        if (wanted[i]) {
            apply_durable(pending[i]);
        } else {
            if (kept != i) pending[kept] = std::move(pending[i]);
            ++kept;
        }
    }
    pending.resize(kept, EntryChange{});
}

void SimDisk::State::lose_power(const InodeRef& inode) {
    if (inode->visited == visit) {
        ++inode->links;
        return;
    }
    inode->visited = visit;
    inode->links = 1;
    inode->handles = 0;
    if (!inode->directory) {
        inode->data.lose_power(policy, rng);
        used_pages += inode->data.pages();
        return;
    }
    inode->cached = inode->durable;
    for (const auto& [name, child] : inode->cached) lose_power(child);
}

void SimDisk::State::list_files(const Inode& dir, const std::string& path,
                                std::vector<std::string>& out) const {
    for (const auto& [name, child] : dir.cached) {
        const std::string below = path.empty() ? name : path + "/" + name;
        if (child->directory) {
            list_files(*child, below, out);
        } else {
            out.push_back(below);
        }
    }
}

// --- files

class SimFile final : public File {
  public:
    SimFile(SimDisk::State& disk, SimProcess& process, InodeRef inode, std::string path,
            bool writable)
        : disk_(disk),
          process_(process),
          life_(process.life()),
          boot_(process.host().boot_number()),
          inode_(std::move(inode)),
          path_(std::move(path)),
          writable_(writable) {
        ++inode_->handles;
    }
    ~SimFile() override {
        if (process_.host().boot_number() != boot_ || inode_->handles == 0)
            return;  // power was lost
        --inode_->handles;
        disk_.release_if_unused(inode_);
    }

    Result<size_t> read_at(uint64_t offset_bytes, MutableByteView out) override {
        SimOperation op(process_, life_, "file.read", offset_bytes, out.size(), path_);
        if (op.dead()) return op.error();
        if (const int error = disk_.begin(process_, DiskOp::kRead, path_))
            return fail_errno(error, path_);
        const size_t n = inode_->data.read(offset_bytes, out, false);
        disk_.counters.read_bytes += n;
        op.finish();
        if (op.dead()) return op.error();
        return n;
    }

    Status write_at(uint64_t offset_bytes, ByteView data) override {
        SimOperation op(process_, life_, "file.write", offset_bytes, data.size(), path_);
        if (op.dead()) return op.error();
        int error = disk_.begin(process_, DiskOp::kWrite, path_);
        if (!writable_) return fail_errno(EBADF, path_);
        ByteView part = data;
        if (op.torn()) part = some_pages(offset_bytes, data, op.draw(data.size() / kPageBytes + 2));
        if (error == 0 && !disk_.fits(inode_->data.new_pages(offset_bytes, data.size())))
            error = ENOSPC;
        if (error != 0) {
            part = some_pages(offset_bytes, data, disk_.rng.below(data.size() / kPageBytes + 1));
            while (!part.empty() && !disk_.fits(inode_->data.new_pages(offset_bytes, part.size())))
                part = some_pages(offset_bytes, part, part.size() / kPageBytes / 2);
        }
        change_pages([&] { inode_->data.write(offset_bytes, part); });
        disk_.counters.written_bytes += part.size();
        if (disk_.host.world().buggify("disk.write_back")) inode_->data.write_back_some(disk_.rng);
        op.finish();
        if (op.dead()) return op.error();
        if (error != 0) return fail_errno(error, path_);
        return {};
    }

    Status sync() override {
        SimOperation op(process_, life_, "file.sync", 0, inode_->data.dirty_bytes(), path_);
        if (op.dead()) return op.error();
        const int error = disk_.begin(process_, DiskOp::kSync, path_);
        if (error != 0) {
            change_pages([&] { inode_->data.sync_failed(disk_.rng); });
            return fail_errno(error, path_);
        }
        if (op.torn()) {
            for (uint64_t n = op.draw(8); n > 0; --n) inode_->data.write_back_some(disk_.rng);
        } else {
            disk_.counters.synced_bytes += inode_->data.dirty_bytes();
            inode_->data.sync();
        }
        op.finish();
        if (op.dead()) return op.error();
        return {};
    }

    Status truncate(uint64_t size_bytes) override {
        SimOperation op(process_, life_, "file.truncate", size_bytes, inode_->data.size(), path_);
        if (op.dead()) return op.error();
        if (const int error = disk_.begin(process_, DiskOp::kTruncate, path_))
            return fail_errno(error, path_);
        if (!writable_) return fail_errno(EBADF, path_);
        if (!op.torn() || op.draw(2) == 0) change_pages([&] { inode_->data.truncate(size_bytes); });
        op.finish();
        if (op.dead()) return op.error();
        return {};
    }

    Result<uint64_t> size() override {
        SimOperation op(process_, life_, "file.size", 0, 0, path_);
        if (op.dead()) return op.error();
        if (const int error = disk_.begin(process_, DiskOp::kSize, path_))
            return fail_errno(error, path_);
        const uint64_t n = inode_->data.size();
        op.finish();
        if (op.dead()) return op.error();
        return n;
    }

    Status punch_hole(uint64_t offset_bytes, uint64_t length_bytes) override {
        SimOperation op(process_, life_, "file.punch", offset_bytes, length_bytes, path_);
        if (op.dead()) return op.error();
        if (const int error = disk_.begin(process_, DiskOp::kPunch, path_))
            return fail_errno(error, path_);
        if (!writable_) return fail_errno(EBADF, path_);
        if (op.torn()) length_bytes = op.draw(length_bytes / kPageBytes + 1) * kPageBytes;
        change_pages([&] { inode_->data.punch(offset_bytes, length_bytes); });
        op.finish();
        if (op.dead()) return op.error();
        return {};
    }

  private:
    // The part of `data` in its first `pages` pages: a kill ends a write between pages.
    static ByteView some_pages(uint64_t offset, ByteView data, uint64_t pages) {
        if (pages == 0) return {};
        return data.first(
            std::min<uint64_t>(data.size(), pages * kPageBytes - offset % kPageBytes));
    }
    template <typename Body>
    void change_pages(Body body) {
        const uint64_t before = inode_->data.pages();
        body();
        disk_.used_pages = disk_.used_pages + inode_->data.pages() - before;
    }

    SimDisk::State& disk_;
    SimProcess& process_;
    uint64_t life_;
    uint64_t boot_;
    InodeRef inode_;
    std::string path_;
    bool writable_;
};

class SimFileSystem final : public FileSystem {
  public:
    SimFileSystem(SimDisk::State& disk, SimProcess& process) : disk_(disk), process_(process) {}

    Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override {
        return run<std::unique_ptr<File>>(DiskOp::kOpen, path,
                                          [&](bool skip) { return open_now(path, mode, skip); });
    }
    Status remove(const std::string& path) override {
        return run<void>(DiskOp::kRemove, path, [&](bool skip) { return remove_now(path, skip); });
    }
    Status rename(const std::string& from, const std::string& to) override {
        return run<void>(DiskOp::kRename, to,
                         [&](bool skip) { return rename_now(from, to, skip); });
    }
    Status link(const std::string& from, const std::string& to) override {
        return run<void>(DiskOp::kLink, to, [&](bool skip) -> Status {
            FS_ASSIGN(const InodeRef inode, disk_.find(from));
            if (inode->directory) return fail_errno(EPERM, from);
            FS_ASSIGN(const SimDisk::State::Place place, disk_.find_place(to));
            if (place.dir->cached.contains(place.name)) return fail_errno(EEXIST, to);
            if (skip) return {};
            disk_.link(place, inode);
            disk_.change({EntryChange::Kind::kAdd, inode, place.dir, place.name, nullptr, {}});
            return {};
        });
    }
    Status make_directories(const std::string& path) override {
        return run<void>(DiskOp::kMakeDirectories, path, [&](bool skip) -> Status {
            const bool skip_sync = skip && disk_.rng.coin();
            skip = skip && !skip_sync;
            InodeRef at = disk_.root;
            for (const std::string_view part : SimDisk::State::split(path)) {
                if (part == "..")
                    return fail(Code::kInvalidArgument, path + ": '..' is not simulated");
                const auto entry = at->cached.find(part);
                if (entry != at->cached.end()) {
                    at = entry->second;
                    if (!at->directory) return fail_errno(ENOTDIR, path);
                    continue;
                }
                if (skip) return {};
                auto made = std::make_shared<Inode>();
                made->directory = true;
                disk_.link({at, std::string(part)}, made);
                disk_.change({EntryChange::Kind::kAdd, made, at, std::string(part), nullptr, {}});
                // As src/os does: what it makes is durable when it returns, unless killed in
                // between.
                if (!skip_sync) disk_.sync_entries(at);
                at = std::move(made);
            }
            return {};
        });
    }
    Status sync_directory(const std::string& path) override {
        return run<void>(DiskOp::kSyncDirectory, path, [&](bool skip) -> Status {
            FS_ASSIGN(const InodeRef dir, disk_.find(path));
            if (!dir->directory) return fail_errno(ENOTDIR, path);
            if (!skip) disk_.sync_entries(dir);
            return {};
        });
    }
    Result<std::vector<std::string>> list(const std::string& path) override {
        return run<std::vector<std::string>>(
            DiskOp::kList, path, [&](bool) -> Result<std::vector<std::string>> {
                FS_ASSIGN(const InodeRef dir, disk_.find(path));
                if (!dir->directory) return fail_errno(ENOTDIR, path);
                std::vector<std::string> names;
                names.reserve(dir->cached.size());
                for (const auto& [name, inode] : dir->cached)
                    names.push_back(inode->directory ? name + "/" : name);
                std::ranges::sort(names);
                return names;
            });
    }
    Result<bool> exists(const std::string& path) override {
        return run<bool>(DiskOp::kExists, path, [&](bool) -> Result<bool> {
            const auto found = disk_.find(path);
            if (found) return true;
            if (found.error().error_number() == ENOENT || found.error().error_number() == ENOTDIR)
                return false;
            return tl::unexpected(found.error());
        });
    }
    Result<uint64_t> free_bytes(const std::string& path) override {
        return run<uint64_t>(DiskOp::kFree, path, [&](bool) -> Result<uint64_t> {
            const uint64_t used = disk_.used_pages * kPageBytes;
            return disk_.capacity_bytes - std::min(disk_.capacity_bytes, used);
        });
    }

  private:
    // One operation that is atomic: killed in the middle, it happened or not. `body` gets whether
    // its effect is to be left out.
    template <typename T, typename Body>
    Result<T> run(DiskOp kind, const std::string& path, Body body) {
        SimOperation op(process_, process_.life(), kOpNames[static_cast<size_t>(kind)], 0, 0, path);
        if (op.dead()) return op.error();
        if (const int error = disk_.begin(process_, kind, path)) return fail_errno(error, path);
        Result<T> result = body(op.torn() && op.draw(2) == 0);
        op.finish();
        if (op.dead()) return op.error();
        return result;
    }

    Result<std::unique_ptr<File>> open_now(const std::string& path, OpenMode mode, bool skip) {
        const auto found = disk_.find(path);
        const bool writable = mode != OpenMode::kRead;
        if (found) {
            if ((*found)->directory) return fail_errno(EISDIR, path);
            if (mode == OpenMode::kCreateNew) return fail_errno(EEXIST, path);
            return std::make_unique<SimFile>(disk_, process_, *found, path, writable);
        }
        if (found.error().error_number() != ENOENT || mode == OpenMode::kRead ||
            mode == OpenMode::kReadWrite)
            return tl::unexpected(found.error());
        FS_ASSIGN(const SimDisk::State::Place place, disk_.find_place(path));
        if (!disk_.fits(1)) return fail_errno(ENOSPC, path);
        if (skip) return nullptr;
        auto inode = std::make_shared<Inode>();
        disk_.link(place, inode);
        disk_.change({EntryChange::Kind::kAdd, inode, place.dir, place.name, nullptr, {}});
        return std::make_unique<SimFile>(disk_, process_, std::move(inode), path, true);
    }

    Status remove_now(const std::string& path, bool skip) {
        FS_ASSIGN(const SimDisk::State::Place place, disk_.find_place(path));
        const auto entry = place.dir->cached.find(place.name);
        if (entry == place.dir->cached.end()) return fail_errno(ENOENT, path);
        const InodeRef inode = entry->second;
        if (inode->directory && !inode->cached.empty()) return fail_errno(ENOTEMPTY, path);
        if (skip) return {};
        place.dir->cached.erase(entry);
        disk_.unlink(inode);
        disk_.change({EntryChange::Kind::kRemove, inode, place.dir, place.name, nullptr, {}});
        return {};
    }

    Status rename_now(const std::string& from, const std::string& to, bool skip) {
        FS_ASSIGN(const SimDisk::State::Place source, disk_.find_place(from));
        FS_ASSIGN(const SimDisk::State::Place target, disk_.find_place(to));
        const auto entry = source.dir->cached.find(source.name);
        if (entry == source.dir->cached.end()) return fail_errno(ENOENT, from);
        const InodeRef inode = entry->second;
        const auto old = target.dir->cached.find(target.name);
        InodeRef replaced;
        if (old != target.dir->cached.end()) {
            replaced = old->second;
            if (replaced == inode) return {};  // POSIX: two names of one file, nothing happens
            if (replaced->directory && !inode->directory) return fail_errno(EISDIR, to);
            if (!replaced->directory && inode->directory) return fail_errno(ENOTDIR, to);
            if (replaced->directory && !replaced->cached.empty()) return fail_errno(ENOTEMPTY, to);
        }
        if (skip) return {};
        source.dir->cached.erase(entry);
        target.dir->cached[target.name] = inode;
        if (replaced != nullptr) disk_.unlink(replaced);
        disk_.change(
            {EntryChange::Kind::kRename, inode, source.dir, source.name, target.dir, target.name});
        return {};
    }

    SimDisk::State& disk_;
    SimProcess& process_;
};

// --- the disk

SimDisk::SimDisk(SimHost& host, Rng rng) : state_(std::make_unique<State>(host, rng)) {}
SimDisk::~SimDisk() = default;

std::unique_ptr<FileSystem> SimDisk::view(SimProcess& process) {
    return std::make_unique<SimFileSystem>(*state_, process);
}

void SimDisk::set_capacity_bytes(uint64_t bytes) { state_->capacity_bytes = bytes; }
void SimDisk::set_latency(const DiskLatency& latency) { state_->latency = latency; }
void SimDisk::set_power_loss_policy(const PowerLossPolicy& policy) { state_->policy = policy; }
void SimDisk::allow_errors(bool allow) { state_->errors_allowed = allow; }

void SimDisk::fail_next(DiskOp op, std::string path_part, int error_number, uint64_t count,
                        uint64_t skip) {
    std::erase_if(state_->scripted, [](const ScriptedFailure& f) { return f.count == 0; });
    state_->scripted.push_back({op, std::move(path_part), error_number, skip, count});
}

void SimDisk::on_operation(std::function<void(SimProcess&, DiskOp, const std::string&)> hook) {
    state_->hooks.push_back(std::move(hook));
}

const DiskCounters& SimDisk::counters() const { return state_->counters; }
uint64_t SimDisk::used_bytes() const { return state_->used_pages * kPageBytes; }

Result<Bytes> SimDisk::peek(const std::string& path) const {
    FS_ASSIGN(const InodeRef inode, state_->find(path));
    Bytes out(inode->data.size());
    inode->data.read(0, out, false);
    return out;
}

Result<Bytes> SimDisk::peek_durable(const std::string& path) const {
    FS_ASSIGN(const InodeRef inode, state_->find(path, true));
    Bytes out(inode->data.durable_size());
    inode->data.read(0, out, true);
    return out;
}

Status SimDisk::flip_bit(const std::string& path, uint64_t bit) {
    FS_ASSIGN(const InodeRef inode, state_->find(path));
    if (bit / 8 >= inode->data.size())
        return fail(Code::kInvalidArgument, "bit beyond the file's end");
    const uint64_t before = inode->data.pages();
    inode->data.flip_bit(bit);
    state_->used_pages += inode->data.pages() - before;
    return {};
}

std::vector<std::string> SimDisk::files_below(const std::string& path) const {
    std::vector<std::string> out;
    const auto dir = state_->find(path);
    if (dir && (*dir)->directory) state_->list_files(**dir, path, out);
    return out;
}

void SimDisk::lose_power() {
    State& s = *state_;
    const Fate fate = draw_fate(s.policy.entries, s.rng);
    size_t keep_first = 0;
    bool each = false;
    if (fate == Fate::kKept) keep_first = s.pending.size();
    if (fate == Fate::kMixed) {
        // A journal keeps a prefix; POSIX allows any combination.
        each = s.rng.coin();
        if (!each) keep_first = s.rng.below(s.pending.size() + 1);
    }
    for (size_t i = 0; i < s.pending.size(); ++i)
        if (each ? s.rng.coin() : i < keep_first) apply_durable(s.pending[i]);
    s.pending.clear();
    s.used_pages = 0;
    ++s.visit;
    s.lose_power(s.root);
}

}  // namespace farshore
