#include "sim/crash_images.h"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <utility>

#include "codec/crc32c.h"
#include "sim/rng.h"

namespace farshore {
namespace {

constexpr uint64_t kSector = 512;
constexpr uint32_t kTornInsidePpm = 100'000;

constexpr std::string_view kNames[kDiskOps] = {
    "create", "read", "write", "sync",         "truncate", "size",   "punch", "remove",
    "rename", "link", "mkdir", "sync of dir.", "list",     "exists", "free"};

std::vector<std::string_view> parts_of(std::string_view path) {
    std::vector<std::string_view> parts;
    while (!path.empty()) {
        const size_t slash = std::min(path.find('/'), path.size());
        if (slash > 0 && path.substr(0, slash) != ".") parts.push_back(path.substr(0, slash));
        path.remove_prefix(std::min(slash + 1, path.size()));
    }
    return parts;
}

void put(Bytes& bytes, uint64_t offset, ByteView data) {
    if (bytes.size() < offset + data.size()) bytes.resize(offset + data.size());
    std::copy(data.begin(), data.end(), bytes.begin() + static_cast<ptrdiff_t>(offset));
}

void zero(Bytes& bytes, uint64_t offset, uint64_t length) {
    const uint64_t end = std::min<uint64_t>(bytes.size(), offset + length);
    for (uint64_t i = offset; i < end; ++i) bytes[i] = 0;
}

}  // namespace

// ---- the files ----------------------------------------------------------------------------------

class CrashFiles::Handle final : public File {
  public:
    Handle(CrashFiles& files, size_t node, std::string path, bool writable)
        : files_(files), node_(node), path_(std::move(path)), writable_(writable) {}

    Result<size_t> read_at(uint64_t offset_bytes, MutableByteView out) override {
        const Bytes& from = files_.nodes_[node_].bytes;
        if (offset_bytes >= from.size()) return size_t{0};
        const size_t n = std::min<size_t>(out.size(), from.size() - offset_bytes);
        std::copy_n(from.begin() + static_cast<ptrdiff_t>(offset_bytes), n, out.begin());
        return n;
    }
    Status write_at(uint64_t offset_bytes, ByteView data) override {
        FS_ASSIGN(
            const bool happens,
            begin({.op = DiskOp::kWrite, .offset_bytes = offset_bytes, .data = to_bytes(data)}));
        if (happens) put(files_.nodes_[node_].bytes, offset_bytes, data);
        return {};
    }
    Status sync() override {
        FS_TRY(begin({.op = DiskOp::kSync}));
        return {};
    }
    Status truncate(uint64_t size_bytes) override {
        FS_ASSIGN(const bool happens, begin({.op = DiskOp::kTruncate, .length_bytes = size_bytes}));
        if (happens) files_.nodes_[node_].bytes.resize(size_bytes);
        return {};
    }
    Result<uint64_t> size() override { return files_.nodes_[node_].bytes.size(); }
    Status punch_hole(uint64_t offset_bytes, uint64_t length_bytes) override {
        FS_ASSIGN(const bool happens, begin({.op = DiskOp::kPunch,
                                             .offset_bytes = offset_bytes,
                                             .length_bytes = length_bytes}));
        if (happens) zero(files_.nodes_[node_].bytes, offset_bytes, length_bytes);
        return {};
    }

  private:
    Result<bool> begin(Operation operation) {
        if (!writable_) return fail_errno(EBADF, path_);
        operation.file = node_;
        operation.path = path_;
        return files_.begin(std::move(operation));
    }
    CrashFiles& files_;
    const size_t node_;
    const std::string path_;
    const bool writable_;
};

CrashFiles::CrashFiles() : nodes_(1) {
    nodes_[kRoot].directory = true;
    initial_ = nodes_;
}
CrashFiles::~CrashFiles() = default;

Result<bool> CrashFiles::begin(Operation operation) {
    switch (interfere ? interfere(operation.op, operation.path) : Verdict::kHappens) {
        case Verdict::kLeftOut:
            return false;
        case Verdict::kFails:
            return fail_errno(EIO, operation.path);
        case Verdict::kHappens:
            break;
    }
    log_.push_back(std::move(operation));
    return true;
}

std::string CrashFiles::describe(size_t operation) const {
    const Operation& o = log_[operation];
    std::string text = fmt::format("{} {}", kNames[static_cast<size_t>(o.op)], o.path);
    if (o.op == DiskOp::kWrite)
        text += fmt::format(" [{}, {})", o.offset_bytes, o.offset_bytes + o.data.size());
    if (o.op == DiskOp::kTruncate) text += fmt::format(" to {}", o.length_bytes);
    return text;
}

Result<size_t> CrashFiles::find(std::string_view path) const {
    size_t at = kRoot;
    for (const std::string_view part : parts_of(path)) {
        if (!nodes_[at].directory) return fail_errno(ENOTDIR, std::string(path));
        const auto entry = nodes_[at].entries.find(part);
        if (entry == nodes_[at].entries.end()) return fail_errno(ENOENT, std::string(path));
        at = entry->second;
    }
    return at;
}

Result<CrashFiles::Place> CrashFiles::place(std::string_view path) const {
    const auto parts = parts_of(path);
    if (parts.empty()) return fail_errno(EINVAL, std::string(path));
    const auto name = std::string(parts.back());
    FS_ASSIGN(const size_t directory,
              find(path.substr(0, static_cast<size_t>(parts.back().data() - path.data()))));
    if (!nodes_[directory].directory) return fail_errno(ENOTDIR, std::string(path));
    return Place{directory, name};
}

Result<std::unique_ptr<File>> CrashFiles::open(const std::string& path, OpenMode mode) {
    auto found = find(path);
    if (found) {
        if (nodes_[*found].directory) return fail_errno(EISDIR, path);
        if (mode == OpenMode::kCreateNew) return fail_errno(EEXIST, path);
    } else {
        if (found.error().error_number() != ENOENT || mode == OpenMode::kRead ||
            mode == OpenMode::kReadWrite)
            return fail(found.error());
        FS_ASSIGN(const Place at, place(path));
        FS_ASSIGN(const bool happens, begin({.op = DiskOp::kOpen,
                                             .path = path,
                                             .file = nodes_.size(),
                                             .directory = at.directory,
                                             .name = at.name}));
        FS_CHECK(happens);
        nodes_[at.directory].entries[at.name] = nodes_.size();
        found = nodes_.size();
        nodes_.emplace_back();
    }
    return std::make_unique<Handle>(*this, *found, path, mode != OpenMode::kRead);
}

Status CrashFiles::remove(const std::string& path) {
    FS_ASSIGN(const Place at, place(path));
    FS_ASSIGN(const size_t node, find(path));
    if (nodes_[node].directory && !nodes_[node].entries.empty()) return fail_errno(ENOTEMPTY, path);
    FS_ASSIGN(const bool happens, begin({.op = DiskOp::kRemove,
                                         .path = path,
                                         .file = node,
                                         .directory = at.directory,
                                         .name = at.name}));
    if (happens) nodes_[at.directory].entries.erase(at.name);
    return {};
}

Status CrashFiles::rename(const std::string& from, const std::string& to) {
    FS_ASSIGN(const Place source, place(from));
    FS_ASSIGN(const Place target, place(to));
    FS_ASSIGN(const size_t node, find(from));
    if (auto old = find(to)) {
        if (*old == node) return {};
        if (nodes_[*old].directory != nodes_[node].directory)
            return fail_errno(nodes_[node].directory ? ENOTDIR : EISDIR, to);
        if (!nodes_[*old].entries.empty()) return fail_errno(ENOTEMPTY, to);
    }
    FS_ASSIGN(const bool happens, begin({.op = DiskOp::kRename,
                                         .path = to,
                                         .file = node,
                                         .directory = source.directory,
                                         .to_directory = target.directory,
                                         .name = source.name,
                                         .to_name = target.name}));
    if (!happens) return {};
    nodes_[source.directory].entries.erase(source.name);
    nodes_[target.directory].entries[target.name] = node;
    return {};
}

Status CrashFiles::link(const std::string& from, const std::string& to) {
    FS_ASSIGN(const size_t node, find(from));
    FS_ASSIGN(const Place at, place(to));
    if (nodes_[node].directory) return fail_errno(EPERM, from);
    if (nodes_[at.directory].entries.contains(at.name)) return fail_errno(EEXIST, to);
    FS_ASSIGN(const bool happens, begin({.op = DiskOp::kLink,
                                         .path = to,
                                         .file = node,
                                         .directory = at.directory,
                                         .name = at.name}));
    if (happens) nodes_[at.directory].entries[at.name] = node;
    return {};
}

Status CrashFiles::make_directories(const std::string& path) {
    size_t at = kRoot;
    for (const std::string_view part : parts_of(path)) {
        const auto entry = nodes_[at].entries.find(part);
        if (entry != nodes_[at].entries.end()) {
            at = entry->second;
            if (!nodes_[at].directory) return fail_errno(ENOTDIR, std::string(path));
            continue;
        }
        const size_t made = nodes_.size();
        FS_ASSIGN(const bool happens, begin({.op = DiskOp::kMakeDirectories,
                                             .path = path,
                                             .file = made,
                                             .directory = at,
                                             .name = std::string(part)}));
        FS_CHECK(happens);
        nodes_.emplace_back().directory = true;
        nodes_[at].entries[std::string(part)] = made;
        // As src/os does it.
        FS_TRY(begin({.op = DiskOp::kSyncDirectory, .path = path, .directory = at}));
        at = made;
    }
    return {};
}

Status CrashFiles::sync_directory(const std::string& path) {
    FS_ASSIGN(const size_t node, find(path));
    if (!nodes_[node].directory) return fail_errno(ENOTDIR, std::string(path));
    FS_TRY(begin({.op = DiskOp::kSyncDirectory, .path = path, .directory = node}));
    return {};
}

Result<std::vector<std::string>> CrashFiles::list(const std::string& path) {
    FS_ASSIGN(const size_t node, find(path));
    if (!nodes_[node].directory) return fail_errno(ENOTDIR, std::string(path));
    std::vector<std::string> names;
    for (const auto& [name, entry] : nodes_[node].entries)
        names.push_back(nodes_[entry].directory ? name + "/" : name);
    std::ranges::sort(names);
    return names;
}

Result<bool> CrashFiles::exists(const std::string& path) {
    const auto found = find(path);
    if (found) return true;
    if (found.error().error_number() == ENOENT || found.error().error_number() == ENOTDIR)
        return false;
    return fail(found.error());
}

Result<uint64_t> CrashFiles::free_bytes(const std::string&) { return 1ull << 40; }

// ---- the images ---------------------------------------------------------------------------------

// The durable state after so many operations and what is not durable beside it; makes images of
// both. A "thing" is what reaches the disk or does not: a write, hole or truncation of a file, the
// size of a file ahead of its data, a change of an entry.
class CrashEnumeration {
  public:
    using Node = CrashFiles::Node;
    using Operation = CrashFiles::Operation;

    CrashEnumeration(const CrashFiles& recorded, const CrashBounds& bounds)
        : recorded_(recorded), bounds_(bounds), rng_(bounds.seed), durable_(recorded.initial_) {
        durable_.resize(recorded.nodes_.size());
        for (size_t i = recorded.initial_.size(); i < durable_.size(); ++i)
            durable_[i].directory = recorded.nodes_[i].directory;
        changes_.resize(durable_.size());
    }

    CrashReport run(const std::function<std::string(size_t, CrashFiles&)>& check) {
        CrashReport report;
        for (size_t operations = 0; operations <= recorded_.log_.size(); ++operations) {
            if (operations > 0) happen(operations - 1);
            if (operations < bounds_.first_operation) continue;
            ++report.cuts;
            seen_.clear();
            for_each_choice([&](const Choice& choice) {
                auto nodes = image(choice);
                if (!seen_.insert(digest(nodes)).second) return true;
                ++report.images;
                CrashFiles files(std::move(nodes));
                const std::string broken = check(operations, files);
                if (broken.empty()) return true;
                report.broken.push_back(describe(operations, choice) + ": " + broken);
                return report.broken.size() < bounds_.stop_after;
            });
            if (report.broken.size() >= bounds_.stop_after) break;
        }
        return report;
    }

  private:
    struct Thing {
        enum class Kind : uint8_t { kData, kSize, kEntry } kind;
        size_t operation = 0;
        size_t file = 0;
    };
    struct Choice {
        std::vector<bool> there;  // by thing; without meaning for data when `torn`
        bool torn = false;
    };

    // Operation `index` has happened.
    void happen(size_t index) {
        const Operation& o = recorded_.log_[index];
        switch (o.op) {
            case DiskOp::kWrite:
            case DiskOp::kTruncate:
            case DiskOp::kPunch:
                changes_[o.file].push_back(index);
                break;
            case DiskOp::kSync:
                for (const size_t change : std::exchange(changes_[o.file], {}))
                    apply(recorded_.log_[change], durable_[o.file].bytes);
                break;
            case DiskOp::kSyncDirectory:
                sync_entries(o.directory);
                break;
            default:
                entries_.push_back(index);
        }
    }

    static void apply(const Operation& o, Bytes& bytes) {
        if (o.op == DiskOp::kWrite) put(bytes, o.offset_bytes, o.data);
        if (o.op == DiskOp::kTruncate) bytes.resize(o.length_bytes);
        if (o.op == DiskOp::kPunch) zero(bytes, o.offset_bytes, o.length_bytes);
    }

    static void apply_entry(const Operation& o, std::vector<Node>& nodes) {
        auto& entries = nodes[o.directory].entries;
        const auto at = entries.find(o.name);
        const bool ours = at != entries.end() && at->second == o.file;
        if (o.op == DiskOp::kRemove) {
            if (ours) entries.erase(at);
        } else if (o.op == DiskOp::kRename) {
            if (ours) entries.erase(at);
            nodes[o.to_directory].entries[o.to_name] = o.file;
        } else {
            entries[o.name] = o.file;
        }
    }

    // As SimDisk does it: a rename belongs to where it goes, and takes with it what happened to its
    // name where it came from.
    void sync_entries(size_t directory) {
        std::vector<size_t> taken, left;
        std::vector<std::pair<size_t, std::string>> needed;
        for (size_t i = entries_.size(); i-- > 0;) {
            const Operation& o = recorded_.log_[entries_[i]];
            const bool rename = o.op == DiskOp::kRename;
            const size_t target = rename ? o.to_directory : o.directory;
            const std::string& name = rename ? o.to_name : o.name;
            if (target == directory ||
                std::ranges::find(needed, std::pair(target, name)) != needed.end()) {
                taken.push_back(entries_[i]);
                if (rename && o.directory != directory) needed.emplace_back(o.directory, o.name);
            } else {
                left.push_back(entries_[i]);
            }
        }
        for (size_t i = taken.size(); i-- > 0;) apply_entry(recorded_.log_[taken[i]], durable_);
        entries_.assign(left.rbegin(), left.rend());
    }

    void for_each_choice(const std::function<bool(const Choice&)>& visit) {
        things_.clear();
        for (size_t file = 0; file < changes_.size(); ++file) {
            for (const size_t change : changes_[file])
                things_.push_back({Thing::Kind::kData, change, file});
            if (!changes_[file].empty()) things_.push_back({Thing::Kind::kSize, 0, file});
        }
        for (const size_t entry : entries_) things_.push_back({Thing::Kind::kEntry, entry, 0});
        const size_t n = things_.size();
        Choice choice{std::vector<bool>(n), false};
        if (n <= bounds_.all_subsets) {
            for (uint64_t mask = 0; mask < 1ull << n; ++mask) {
                for (size_t i = 0; i < n; ++i) choice.there[i] = (mask >> i & 1) != 0;
                if (!visit(choice)) return;
            }
        } else if (!visit_some(choice, visit)) {
            return;
        }
        if (n == entries_.size()) return;  // no data that could be torn
        choice.torn = true;
        for (size_t sample = 0; sample < bounds_.torn; ++sample) {
            draw(choice);
            if (!visit(choice)) return;
        }
    }

    bool visit_some(Choice& choice, const std::function<bool(const Choice&)>& visit) {
        const size_t n = choice.there.size();
        for (const bool most : {false, true})
            // With i == n none, or all.
            for (size_t i = n <= bounds_.all_single ? 0 : n; i <= n; ++i) {
                choice.there.assign(n, most);
                if (i < n) choice.there[i] = !most;
                if (!visit(choice)) return false;
            }
        for (size_t i = 0; i < n && n <= bounds_.all_single; ++i) {
            choice.there.assign(n, false);
            std::fill_n(choice.there.begin(), i, true);
            if (!visit(choice)) return false;
        }
        for (size_t sample = 0; sample < bounds_.samples; ++sample) {
            draw(choice);
            if (!visit(choice)) return false;
        }
        return true;
    }

    void draw(Choice& choice) {
        const auto ppm = static_cast<uint32_t>(rng_.between(100'000, 900'000));
        for (size_t i = 0; i < choice.there.size(); ++i) choice.there[i] = rng_.chance_ppm(ppm);
    }

    std::vector<Node> image(const Choice& choice) {
        std::vector<Node> nodes = durable_;
        for (size_t i = 0; i < things_.size();) {
            if (things_[i].kind == Thing::Kind::kEntry) {
                if (choice.there[i]) apply_entry(recorded_.log_[things_[i].operation], nodes);
                ++i;
                continue;
            }
            const size_t file = things_[i].file;
            size_t end = i;
            while (things_[end].kind != Thing::Kind::kSize) ++end;
            content(choice, i, end, nodes[file].bytes);
            i = end + 1;
        }
        return nodes;
    }

    // Things [first, size) change one file, `out` is what is durable of it; thing `size` says
    // whether its size is ahead of its data. Each sector is as it was after some of the changes.
    void content(const Choice& choice, size_t first, size_t size, Bytes& out) {
        Bytes cached = out;
        uint64_t ahead = out.size();
        uint64_t lost_from = UINT64_MAX;  // a truncation did not happen: nothing behind it did
        const auto ppm = static_cast<uint32_t>(rng_.between(100'000, 900'000));
        for (size_t i = first; i < size; ++i) {
            const Operation& o = recorded_.log_[things_[i].operation];
            const uint64_t size_before = cached.size();
            apply(o, cached);
            if (o.op == DiskOp::kTruncate) {
                if (lost_from == UINT64_MAX && choice.there[i]) {
                    out.resize(std::min<uint64_t>(out.size(), o.length_bytes));
                    ahead = o.length_bytes;
                } else if (o.length_bytes < size_before) {
                    lost_from = std::min(lost_from, o.length_bytes);
                }
                continue;
            }
            const uint64_t length = o.op == DiskOp::kWrite ? o.data.size() : o.length_bytes;
            const uint64_t to = std::min<uint64_t>(o.offset_bytes + length, cached.size());
            if (to <= lost_from) ahead = std::max(ahead, to);
            for (uint64_t at = o.offset_bytes / kSector * kSector; at < to; at += kSector) {
                if (choice.torn ? !rng_.chance_ppm(ppm) : !choice.there[i]) continue;
                uint64_t n = std::min(kSector, cached.size() - at);
                if (at + n > lost_from) continue;
                if (choice.torn && !bounds_.whole_sectors && rng_.chance_ppm(kTornInsidePpm))
                    n = rng_.below(n + 1);
                put(out, at, ByteView(cached).subspan(at, n));
            }
        }
        if (choice.there[size] && out.size() < ahead)
            out.resize(choice.torn ? out.size() + rng_.below(ahead - out.size() + 1) : ahead);
    }

    // Of what can be reached: the rest is not in the image.
    static uint64_t digest(const std::vector<Node>& nodes) {
        uint64_t sum = 0;
        const std::function<void(size_t, uint64_t)> add = [&](size_t node, uint64_t name) {
            const Node& n = nodes[node];
            sum += mix(name ^ mix(n.bytes.size() << 32 | crc32c(n.bytes)));
            for (const auto& [part, entry] : n.entries) add(entry, mix(name + hash_name(part)));
        };
        add(CrashFiles::kRoot, 1);
        return sum;
    }
    static uint64_t mix(uint64_t x) {
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
        x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
        return x ^ (x >> 31);
    }

    std::string describe(size_t operations, const Choice& choice) const {
        std::string text = fmt::format("cut after {} operations", operations);
        if (operations > 0)
            text += fmt::format(", the last one {}", recorded_.describe(operations - 1));
        text += choice.torn ? "; parts of what is unsynced, and of the rest" : "; on the disk are";
        size_t there = 0;
        for (size_t i = 0; i < things_.size(); ++i) {
            const Thing& thing = things_[i];
            if (!choice.there[i] || (choice.torn && thing.kind == Thing::Kind::kData)) continue;
            text += there++ == 0 ? " " : ", ";
            if (thing.kind == Thing::Kind::kSize)
                text += fmt::format("size of inode {}", thing.file);
            else
                text += fmt::format("{}: {}", thing.operation, recorded_.describe(thing.operation));
        }
        return text + fmt::format(" ({} of {})", there, things_.size());
    }

    const CrashFiles& recorded_;
    const CrashBounds& bounds_;
    Rng rng_;
    std::vector<Node> durable_;
    std::vector<std::vector<size_t>> changes_;  // by inode, operations since its last sync
    std::vector<size_t> entries_;               // operations that changed entries
    std::vector<Thing> things_;
    std::set<uint64_t> seen_;
};

std::string CrashReport::text() const {
    std::string out = fmt::format("{} images of {} cuts", images, cuts);
    for (const std::string& one : broken) out += "\n  " + one;
    return out;
}

CrashReport for_each_crash_image(
    const CrashFiles& recorded, const CrashBounds& bounds,
    const std::function<std::string(size_t operations, CrashFiles& image)>& check) {
    return CrashEnumeration(recorded, bounds).run(check);
}

}  // namespace farshore
