#include "replica/replica_return.h"

#include <absl/container/btree_map.h>
#include <fmt/core.h>

#include <algorithm>

#include "replica/log_lease.h"

namespace farshore {
namespace {

// From where to where; neighbours are one.
using Pieces = absl::btree_map<uint64_t, uint64_t>;

void add_piece(Pieces& pieces, uint64_t from, uint64_t to) {
    auto next = pieces.upper_bound(from);
    if (next != pieces.begin()) {
        const auto before = std::prev(next);
        if (before->second >= from) {
            from = before->first;
            to = std::max(to, before->second);
            next = pieces.erase(before);
        }
    }
    while (next != pieces.end() && next->first <= to) {
        to = std::max(to, next->second);
        next = pieces.erase(next);
    }
    pieces.emplace(from, to);
}

}  // namespace

struct ReplicaReturn::Impl {
    ObjectStore& store;
    const ItemId item;
    const Secret key;
    const SegmentNumber end;
    std::shared_ptr<ReplicaReader> reader;

    // What differs between `from` and the reader's state; none: that is not known any more.
    std::optional<Sequence> from;
    std::optional<std::map<DiskIndex, Pieces>> changed;

    Status find_changed(Sequence since);
    Result<std::shared_ptr<SegmentReader>> open_segment(SegmentNumber number,
                                                        const LogOwners& owners,
                                                        const Digest* header);
};

ReplicaReturn::ReplicaReturn(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ReplicaReturn::~ReplicaReturn() = default;
Sequence ReplicaReturn::to() const { return impl_->reader->sequence(); }

Result<std::unique_ptr<ReplicaReturn>> ReplicaReturn::open(ObjectStore& store, const ItemId& item,
                                                           const Secret& item_key, Sequence to,
                                                           SegmentNumber end) {
    FS_ASSIGN(auto reader, ReplicaReader::open(store, item, item_key, to));
    return std::unique_ptr<ReplicaReturn>(new ReplicaReturn(
        std::unique_ptr<Impl>(new Impl{store, item, item_key, end, std::move(reader), {}, {}})));
}

// The log's segment of that number; null: it is not there any more. `header`: what the one behind
// it says of it.
Result<std::shared_ptr<SegmentReader>> ReplicaReturn::Impl::open_segment(SegmentNumber number,
                                                                         const LogOwners& owners,
                                                                         const Digest* header) {
    std::optional<ObjectRef> found;
    FS_ASSIGN(const auto there,
              store.list(log_prefix(item), after_segment(item, {number.v - 1}), 16));
    for (const ObjectInfo& info : there) {
        const auto ref = parse_object_name(item, info.name);
        if (ref && ref->number == number && owners.may_own(ref->number, ref->epoch)) found = *ref;
    }
    if (!found) return std::shared_ptr<SegmentReader>();
    FS_ASSIGN(auto segment, SegmentReader::open(store, object_name(item, *found), item, key));
    if (header != nullptr && segment->header().header_hash != *header)
        return fail(Code::kCorrupt,
                    fmt::format("segment {} is not the one that its successor names",
                                object_name(item, *found)));
    return segment;
}

Status ReplicaReturn::Impl::find_changed(Sequence since) {
    from = since;
    changed.reset();
    std::map<DiskIndex, Pieces> found;
    FS_ASSIGN(const LogOwners owners, LogOwners::list(store, item));
    std::map<DiskIndex, uint64_t> sizes;
    for (const DiskSize& disk : reader->disks()) sizes[disk.disk] = disk.size_bytes;
    const Sequence to = reader->sequence();
    Digest header{};
    bool behind = false;
    for (uint64_t number = end.v, walked = 0;; --number, ++walked) {
        if (number == 0 || walked == kMaxReturnSegments) return {};
        FS_ASSIGN(const auto segment, open_segment({number}, owners, behind ? &header : nullptr));
        if (!segment) return {};  // folded into a base since
        behind = true;
        header = segment->header().previous_header;
        for (const IndexEntry& entry : segment->index()) {
            if (entry.sequence <= since || entry.sequence > to) continue;
            // Disks that came, went or grew: only the whole tells.
            if (entry.kind == RecordKind::kGeometry) {
                const auto size = sizes.find(entry.disk);
                if (size == sizes.end() || size->second != entry.offset_bytes) return {};
                continue;
            }
            if (entry.kind != RecordKind::kWrite && entry.kind != RecordKind::kZero &&
                entry.kind != RecordKind::kDiscard)
                continue;
            const auto size = sizes.find(entry.disk);
            if (size == sizes.end()) continue;
            const uint64_t first = entry.offset_bytes / kReturnBlockBytes * kReturnBlockBytes;
            const uint64_t last = std::min(
                size->second, (entry.offset_bytes + entry.length_bytes + kReturnBlockBytes - 1) /
                                  kReturnBlockBytes * kReturnBlockBytes);
            Pieces& pieces = found[entry.disk];
            if (first < last) add_piece(pieces, first, last);
            if (pieces.size() > kMaxChangedPieces) return {};
        }
        if (segment->header().first <= since.next()) break;
    }
    changed = std::move(found);
    return {};
}

Result<ReturnAnswer> ReplicaReturn::answer(const ReturnQuestion& question) {
    FS_TRY(check_question(question));
    if (question.to != to())
        return fail(Code::kInvalidArgument,
                    fmt::format("state {} was asked for, {} is open", question.to.v, to().v));
    ReturnAnswer answer;
    if (question.kind == ReturnKind::kChanged) {
        if (impl_->from != question.from) FS_TRY(impl_->find_changed(question.from));
        if (!impl_->changed) {
            answer.verdict = ReturnVerdict::kUnknown;
            return answer;
        }
        const auto disk = impl_->changed->find(question.disk);
        if (disk == impl_->changed->end()) return answer;
        auto piece = disk->second.upper_bound(question.offset_bytes);
        if (piece != disk->second.begin() && std::prev(piece)->second > question.offset_bytes)
            --piece;
        for (; piece != disk->second.end(); ++piece) {
            const uint64_t begin = std::max(piece->first, question.offset_bytes);
            if (answer.ranges.size() == kMaxReturnRanges) {
                answer.next_offset_bytes = begin;
                break;
            }
            answer.ranges.push_back({begin, piece->second - begin});
        }
        return answer;
    }
    FS_ASSIGN(const auto disk, impl_->reader->disk(question.disk));
    uint64_t total = 0;
    for (const ReturnRange& range : question.ranges) total += range.length_bytes;
    answer.data.resize(total);
    uint64_t at = 0;
    for (const ReturnRange& range : question.ranges) {
        const uint64_t size = disk->size_bytes();
        const uint64_t there = range.offset_bytes >= size
                                   ? 0
                                   : std::min(range.length_bytes, size - range.offset_bytes);
        if (there != 0)
            FS_TRY(disk->read(range.offset_bytes, MutableByteView(answer.data).subspan(at, there)));
        at += range.length_bytes;
    }
    return answer;
}

}  // namespace farshore
