#include "extract/extract.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <optional>

#include "extract/item_keys.h"
#include "extract/store_objects.h"
#include "os/real.h"

namespace farshore {

using namespace extraction;

namespace {

constexpr uint64_t kZeroPiece = 1u << 20;

std::string when(int64_t time_us) { return to_rfc3339({time_us}); }

// A segment of the log whose place in the chain is proved.
struct Link {
    Ref ref;
    uint64_t first = 0, last = 0;
    Digest digest{};
};

// Where a replay can start: a manifest, or nothing at all before segment 1.
struct Start {
    std::optional<ManifestContent> manifest;
    uint64_t sequence() const { return manifest ? manifest->sequence : 0; }
    uint64_t segment() const { return manifest ? manifest->segment : 0; }
    Digest digest() const { return manifest ? manifest->segment_digest : Digest{}; }
    uint64_t epoch() const { return manifest ? manifest->segment_epoch : 0; }
};

class Extraction {
  public:
    Extraction(const ExtractOptions& options, FileSystem& files, const StoreReader& store)
        : options_(options), files_(files), store_(store) {}

    Status run(ExtractReport& report) {
        FS_TRY(check_store(store_));
        FS_TRY(open_item());
        FS_TRY(list_objects());
        FS_TRY(choose_window());
        FS_TRY(parse_point());
        FS_TRY(scan_log());
        FS_TRY(resolve_point());
        FS_TRY(write_output());
        report_.sequence = {target_};
        report_.warning = end_of_log_;
        report = report_;
        return {};
    }

  private:
    Status open_item();
    Status check_disk() const;
    Status list_objects();
    Status choose_window();
    Status parse_point();
    Status scan_log();
    Status scan_until(uint64_t limit);
    Status visit(const Segment& segment);
    Status resolve_point();
    // Whether a point below the window is meant, which stands alone in kept/.
    Result<bool> resolve_kept();
    Status check_target(uint64_t sequence);
    bool in_gap(uint64_t sequence) const {
        return std::ranges::any_of(log_.gaps, [&](const Gap& gap) { return gap.covers(sequence); });
    }
    Status write_output();
    Status write_from(const Start& start, File& out);
    Status write_base(const Start& start, File& out);
    Status replay(const Segment& segment, File& out);
    Status write_payload(PayloadReader& payload, uint64_t position, uint64_t length,
                         uint64_t offset, File& out);
    Status write_zeroes(File& out, uint64_t offset, uint64_t length);
    std::string window_words() const;
    void step() {
        ++report_.objects_read;
        ++steps_done_;
        if (options_.progress) options_.progress(steps_done_, std::max(steps_, steps_done_));
    }

    const ExtractOptions& options_;
    FileSystem& files_;
    const StoreReader& store_;
    ExtractReport report_;
    uint64_t steps_ = 0, steps_done_ = 0;

    ItemId item_;
    ItemDescription description_;
    Secret item_key_;
    std::vector<ManifestName> manifest_names_;
    std::vector<ManifestName> kept_names_;           // the newest first
    std::optional<ManifestContent> kept_;            // the point that is meant
    std::map<uint64_t, std::vector<Ref>> segments_;  // by number, newest epoch first; the log's
    uint64_t highest_ = 0;                           // number of any segment
    uint64_t registered_ = 0;                        // the log reached up to here at least

    Start oldest_;               // the window begins at its sequence
    uint64_t first_point_ = 0;   // oldest sequence that may be asked for
    std::vector<Link> chain_;    // the log behind oldest_
    std::string end_of_log_;     // why the chain ends where it does, when objects follow
    std::optional<Error> lost_;  // why the window begins later than it should
    uint64_t doubtful_ = 0;      // number of a segment that turned out not to be the log's
    // What was seen of the log so far.
    struct LogState {
        uint64_t last_sequence = 0;
        int64_t first_time_us = INT64_MIN, last_time_us = INT64_MIN;
        std::vector<Gap> gaps;
        std::vector<Point> points;
        uint64_t at_wanted_time = 0;
    } log_;

    std::optional<int64_t> wanted_time_us_;
    uint64_t target_ = 0;
    // The disk at the record where we are.
    struct DiskNow {
        uint64_t bytes = 0;  // 0: the machine does not have it
        bool joining = false;
    } disk_;
};

Status Extraction::open_item() {
    FS_ASSIGN(const Keys keys, open_keys(options_, files_, store_));
    if (auto id = ItemId::parse(options_.item)) {
        item_ = *id;
    } else {
        // By name: every item of the store is looked at.
        std::vector<ItemId> found;
        FS_ASSIGN(const auto items, store_.list("items"));
        for (const std::string& entry : items) {
            auto other = ItemId::parse(std::string_view(entry).substr(0, entry.size() - 1));
            if (!other) continue;
            auto described = find_item_description(store_, *other);
            if (described && described->name == options_.item) found.push_back(*other);
        }
        if (found.size() > 1)
            return fail(Code::kInvalidArgument,
                        fmt::format("{} items are called '{}'", found.size(), options_.item),
                        "give the item's id");
        if (found.empty())
            return fail(Code::kItemNotFound,
                        fmt::format("the store has no item '{}'", options_.item),
                        "give one of the directory names below items/, or a name");
        item_ = found.front();
    }
    FS_ASSIGN(description_, find_item_description(store_, item_));
    FS_ASSIGN(item_key_, find_item_key(store_, description_, keys));

    // One that was added later is told of by the log.
    for (const auto& [disk, size] : description_.disks)
        if (disk == options_.disk) disk_.bytes = size;
    return {};
}

Status Extraction::check_disk() const {
    if (disk_.bytes == 0) {
        std::string first;
        for (const auto& [disk, size] : description_.disks)
            first += fmt::format("{}{}", first.empty() ? "" : ", ", disk);
        return fail(Code::kInvalidArgument,
                    fmt::format("'{}' has no disk {} at sequence {}", description_.name,
                                options_.disk, target_),
                    fmt::format("it was protected with {}; disks may have been added and removed "
                                "since: another disk, or another point",
                                first.empty() ? "none" : first));
    }
    if (disk_.joining)
        return fail(Code::kPointNotFound,
                    fmt::format("at sequence {} disk {} was not copied yet: it had been added to "
                                "the machine before",
                                target_, options_.disk),
                    "choose a newer point, one of those that have the disk");
    return {};
}

Status Extraction::list_objects() {
    const std::string root = fmt::format("items/{}", item_.to_string());
    FS_ASSIGN(const auto manifests, store_.list(root + "/manifest"));
    for (const std::string& file : manifests) {
        ManifestName name;
        if (parse_manifest_name(file, name)) manifest_names_.push_back(std::move(name));
    }
    FS_ASSIGN(const auto kept, store_.list(root + "/kept"));
    for (const std::string& file : kept) {
        ManifestName name;
        if (parse_manifest_name(file, name)) kept_names_.push_back(std::move(name));
    }
    std::ranges::sort(kept_names_, [](const ManifestName& a, const ManifestName& b) {
        return std::tuple(a.sequence, a.vault, a.number) >
               std::tuple(b.sequence, b.vault, b.number);
    });
    FS_ASSIGN(const auto log, store_.list(root + "/log"));
    for (const std::string& file : log) {
        Ref ref;
        if (parse_segment_name(file, 1, ref)) segments_[ref.number].push_back(ref);
    }
    std::vector<Lease> leases;
    FS_ASSIGN(const auto marks, store_.list(root + "/lease"));
    for (const std::string& file : marks) {
        Lease lease;
        if (parse_lease_name(file, lease)) leases.push_back(lease);
    }
    leases = leases_that_count(std::move(leases));
    if (!leases.empty()) registered_ = leases.front().start - 1;
    if (!segments_.empty()) highest_ = segments_.rbegin()->first;
    for (auto& [number, refs] : segments_) {
        keep_owned(leases, number, refs);
        std::ranges::sort(refs, [](const Ref& a, const Ref& b) { return a.epoch > b.epoch; });
    }
    std::erase_if(segments_, [](const auto& entry) { return entry.second.empty(); });
    if (manifest_names_.empty() && segments_.empty())
        return fail(Code::kPointNotFound,
                    fmt::format("nothing of '{}' is stored yet", description_.name));
    return {};
}

// The newest manifest that can be read says where the window begins.
Status Extraction::choose_window() {
    auto names = manifest_names_;
    std::ranges::sort(names, [](const ManifestName& a, const ManifestName& b) {
        return std::pair(a.vault, a.number) > std::pair(b.vault, b.number);
    });
    std::optional<Error> trouble;
    uint64_t floor = 0;
    for (const ManifestName& name : names) {
        auto newest = open_manifest(store_, item_, name, item_key_);
        if (newest) {
            floor = newest->floor;
            break;
        }
        if (!trouble) trouble = newest.error();
    }
    if (floor == 0 && segments_.contains(1)) return {};
    // Of two manifests of one sequence the one of the newer generation counts.
    std::ranges::stable_sort(names, [](const ManifestName& a, const ManifestName& b) {
        return a.sequence < b.sequence;
    });
    for (const ManifestName& name : names) {
        if (name.sequence < floor) continue;
        auto opened = open_manifest(store_, item_, name, item_key_);
        if (!opened) {
            if (!trouble) trouble = opened.error();
            continue;
        }
        oldest_.manifest = std::move(*opened);
        first_point_ = oldest_.sequence();
        // What is older, to the window's beginning, is lost with the manifest that did not open.
        if (first_point_ > floor)
            lost_ = trouble ? *trouble
                            : Error(Code::kCorrupt, "the manifest at the window's floor is missing",
                                    "restore it from a copy of the store");
        log_.first_time_us = log_.last_time_us = oldest_.manifest->time_us;
        log_.last_sequence = first_point_;
        log_.gaps = oldest_.manifest->gaps;
        for (const Point& point : oldest_.manifest->points)
            if (point.sequence >= first_point_) log_.points.push_back(point);
        return {};
    }
    if (trouble) return fail(*trouble);
    return fail(Code::kNotFound, "the beginning of the log is missing, and no manifest replaces it",
                "restore the missing objects from a copy of the store");
}

// As the vault takes it: what has more digits than any sequence is a label.
bool is_sequence(std::string_view point) {
    return !point.empty() && point.size() <= 19 &&
           point.find_first_not_of("0123456789") == std::string_view::npos;
}

Status Extraction::parse_point() {
    const std::string& point = options_.point;
    if (is_sequence(point) || point == "latest" || point == "latest-processed") return {};
    if (auto time = from_rfc3339(point)) {
        wanted_time_us_ = time->us;
        if (oldest_.manifest && oldest_.manifest->time_us <= *wanted_time_us_)
            log_.at_wanted_time = first_point_;
    }
    return {};
}

Status Extraction::visit(const Segment& segment) {
    for (const Entry& entry : segment.entries) {
        const uint64_t before = log_.last_sequence;
        if (entry.sequence != before + 1 && !(entry.kind == kGapRecord && entry.sequence > before))
            return fail(Code::kSequenceHole, fmt::format("{}: record {} does not follow record {}",
                                                         segment.name, entry.sequence, before));
        if (log_.first_time_us == INT64_MIN) log_.first_time_us = entry.time_us;
        const bool open = !log_.gaps.empty() && log_.gaps.back().resynced == 0;
        if (entry.kind == kGapRecord && !open) log_.gaps.push_back({before, entry.sequence, 0});
        if (entry.kind == kResyncedRecord && open) log_.gaps.back().resynced = entry.sequence;
        if (entry.kind == kPointRecord)
            log_.points.push_back({entry.sequence, entry.time_us, entry.label});
        if (wanted_time_us_ && entry.time_us <= *wanted_time_us_)
            log_.at_wanted_time = entry.sequence;
        log_.last_sequence = entry.sequence;
        log_.last_time_us = entry.time_us;
    }
    return {};
}

Status Extraction::scan_log() {
    if (first_point_ == 0) first_point_ = 1;
    steps_ = 2 * static_cast<uint64_t>(
                     std::distance(segments_.lower_bound(oldest_.segment() + 1), segments_.end()));
    const LogState before = log_;
    FS_TRY(scan_until(UINT64_MAX));
    if (doubtful_ == 0) return {};
    // The segment that follows was written behind another one of that number, which is lost.
    log_ = before;
    return scan_until(doubtful_ - 1);
}

Status Extraction::scan_until(uint64_t limit) {
    Digest previous = oldest_.digest();
    uint64_t epoch = oldest_.epoch();
    chain_.clear();
    for (uint64_t number = oldest_.segment() + 1; number <= limit; ++number) {
        const auto found = segments_.lower_bound(number);
        // Of several segments of one number that of the largest epoch is the log's; one whose epoch
        // is older than its predecessor's was left by a writer that was fenced.
        // What lies behind a hole was never of the log, unless there is more of it than a writer is
        // ever ahead.
        const bool there = found != segments_.end() && found->first == number;
        const bool lost = number <= registered_ || highest_ > number - 1 + kSegmentsAhead;
        if (!there && lost)
            end_of_log_ = fmt::format("segment {} is missing from the store", number);
        if (!there || found->second.front().epoch < epoch) return {};
        FS_ASSIGN(const Segment segment,
                  open_segment(store_, item_, found->second.front(), item_key_));
        if (segment.previous != previous) {
            end_of_log_ = fmt::format("{} does not follow the segment before it", segment.name);
            if (segment.ref.epoch > epoch && !chain_.empty()) doubtful_ = number - 1;
            return {};
        }
        FS_TRY(visit(segment));
        chain_.push_back({segment.ref, segment.first, segment.last, segment.digest});
        previous = segment.digest;
        epoch = segment.ref.epoch;
        step();
    }
    return {};
}

std::string Extraction::window_words() const {
    return fmt::format("{} ({}) to {} ({})", first_point_, when(log_.first_time_us),
                       log_.last_sequence, when(log_.last_time_us));
}

Status Extraction::check_target(uint64_t sequence) {
    if (sequence < first_point_ && lost_) return fail(*lost_);
    if (sequence < first_point_)
        return fail(
            Code::kPointOutsideWindow,
            fmt::format("sequence {} is older than the window {}", sequence, window_words()));
    if (sequence > log_.last_sequence) {
        if (!end_of_log_.empty())
            return fail(Code::kCorrupt, fmt::format("sequence {}: {}", sequence, end_of_log_),
                        "restore the object from a copy of the store, or take a point up to " +
                            std::to_string(log_.last_sequence));
        return fail(
            Code::kPointNotFound,
            fmt::format("sequence {} is newer than what is stored: {}", sequence, window_words()));
    }
    for (const Gap& gap : log_.gaps) {
        if (!gap.covers(sequence)) continue;
        std::string good;
        if (gap.last_good >= first_point_ && gap.last_good > 0)
            good = fmt::format("{}", gap.last_good);
        if (gap.resynced != 0)
            good += fmt::format("{}{}", good.empty() ? "" : " before and ", gap.resynced) +
                    (good.empty() ? "" : " after it");
        return fail(Code::kPointInGap,
                    fmt::format("sequence {} lies in a gap: what the disks held between {} and {} "
                                "never was on the source",
                                sequence, gap.last_good,
                                gap.resynced != 0 ? std::to_string(gap.resynced) : "now"),
                    good.empty() ? "no good point is near; wait until the copy is complete"
                                 : "good points are " + good);
    }
    target_ = sequence;
    return {};
}

Result<bool> Extraction::resolve_kept() {
    const std::string& point = options_.point;
    if (point == "latest" || point == "latest-processed") return false;
    constexpr std::string_view kPrefix = "label:";
    const bool by_sequence = is_sequence(point);
    const std::string label = point.starts_with(kPrefix) ? point.substr(kPrefix.size()) : point;
    // A label of the window comes before an older one of the same name.
    if (!by_sequence && !wanted_time_us_ && std::ranges::any_of(log_.points, [&](const Point& p) {
            return p.label == label && !in_gap(p.sequence);
        }))
        return false;
    if (wanted_time_us_ && log_.at_wanted_time >= first_point_ && log_.at_wanted_time != 0)
        return false;
    std::optional<Error> trouble;
    for (const ManifestName& name : kept_names_) {
        if (name.sequence >= first_point_) continue;
        if (by_sequence && name.sequence != std::stoull(point)) continue;
        auto manifest = open_manifest(store_, item_, name, item_key_, "kept");
        if (!manifest) {
            if (!trouble) trouble = manifest.error();
            continue;
        }
        const bool meant = by_sequence ? true
                           : wanted_time_us_
                               ? manifest->time_us <= *wanted_time_us_
                               : std::ranges::any_of(manifest->points, [&](const Point& p) {
                                     return p.label == label;
                                 });
        if (!meant) continue;
        target_ = manifest->sequence;
        report_.time = {manifest->time_us};
        kept_ = std::move(*manifest);
        return true;
    }
    if (by_sequence && trouble) return fail(*trouble);
    return false;
}

Status Extraction::resolve_point() {
    FS_ASSIGN(const bool kept, resolve_kept());
    if (kept) return {};
    const std::string& point = options_.point;
    if (point == "latest-processed") {
        uint64_t newest = 0;
        for (const ManifestName& name : manifest_names_)
            if (!in_gap(name.sequence) && name.sequence >= first_point_ &&
                name.sequence <= log_.last_sequence)
                newest = std::max(newest, name.sequence);
        if (newest != 0) return check_target(newest);
        // Nothing is processed yet: the newest point is as good.
    }
    if (point == "latest" || point == "latest-processed") {
        const bool open = !log_.gaps.empty() && log_.gaps.back().resynced == 0;
        const uint64_t newest = open ? log_.gaps.back().last_good : log_.last_sequence;
        if (newest < first_point_)
            return fail(Code::kPointNotFound,
                        fmt::format("'{}' has no point yet: its first copy is not complete",
                                    description_.name));
        return check_target(newest);
    }
    if (wanted_time_us_) {
        if (log_.at_wanted_time < first_point_ && lost_) return fail(*lost_);
        if (log_.at_wanted_time < first_point_)
            return fail(Code::kPointOutsideWindow,
                        fmt::format("{} is older than the window {}", when(*wanted_time_us_),
                                    window_words()));
        if (*wanted_time_us_ > log_.last_time_us && !end_of_log_.empty())
            return fail(Code::kCorrupt, fmt::format("{}: {}", when(*wanted_time_us_), end_of_log_));
        return check_target(log_.at_wanted_time);
    }
    if (is_sequence(point)) return check_target(std::stoull(point));
    // The newest point of that label that can be had.
    constexpr std::string_view kPrefix = "label:";
    const std::string label = point.starts_with(kPrefix) ? point.substr(kPrefix.size()) : point;
    std::optional<uint64_t> newest;
    for (auto at = log_.points.rbegin(); at != log_.points.rend(); ++at) {
        if (at->label != label) continue;
        if (!newest) newest = at->sequence;
        if (!in_gap(at->sequence)) return check_target(at->sequence);
    }
    if (newest) return check_target(*newest);
    if (lost_) return fail(*lost_);
    return fail(Code::kPointNotFound, fmt::format("no point is called '{}'", label.substr(0, 80)),
                fmt::format("the window is {}; a sequence, a time or 'latest' is taken too",
                            window_words()));
}

Status Extraction::write_output() {
    // Starts from the newest to the oldest; the last may be the beginning of everything.
    auto names = manifest_names_;
    std::ranges::sort(names, [](const ManifestName& a, const ManifestName& b) {
        return std::tuple(a.sequence, a.vault, a.number) >
               std::tuple(b.sequence, b.vault, b.number);
    });
    FS_ASSIGN(const bool exists, files_.exists(options_.out_path));
    if (exists && !options_.replace_existing)
        return fail(Code::kAlreadyExists, fmt::format("'{}' is there", options_.out_path),
                    "remove it or name another file");
    const std::string partial = options_.out_path + ".partial";
    if (Status gone = files_.remove(partial); !gone && gone.error().code() != Code::kNotFound)
        return gone;
    const auto write = [&]() -> Status {
        FS_ASSIGN(const auto out, files_.open(partial, OpenMode::kCreateNew));
        const DiskNow described = disk_;
        std::optional<Error> trouble;
        const auto attempt = [&](Result<Start> start) -> Result<bool> {
            if (start) {
                FS_TRY(out->truncate(0));
                report_.written_bytes = 0;
                disk_ = described;
                const Status written = write_from(*start, *out);
                if (written) {
                    FS_TRY(check_disk());
                    FS_TRY(out->truncate(disk_.bytes));
                    FS_TRY(out->sync());
                    report_.disk_bytes = disk_.bytes;
                    return true;
                }
                const Code code = written.error().code();
                if (code == Code::kNoSpace || code == Code::kIo) return fail(written.error());
                start = fail(written.error());
            }
            if (!trouble) trouble = start.error();
            return false;
        };
        if (kept_) {
            FS_ASSIGN(const bool done, attempt(Start{*kept_}));
            if (done) return {};
            return fail(*trouble);
        }
        for (const ManifestName& name : names) {
            if (name.sequence > target_ || name.sequence < oldest_.sequence()) continue;
            auto manifest = open_manifest(store_, item_, name, item_key_);
            FS_ASSIGN(const bool done, attempt(manifest ? Result<Start>(Start{std::move(*manifest)})
                                                        : Result<Start>(fail(manifest.error()))));
            if (done) return {};
        }
        if (!oldest_.manifest) {
            FS_ASSIGN(const bool done, attempt(Start{}));
            if (done) return {};
        }
        return fail(trouble ? *trouble : Error(Code::kNotFound, "no manifest to start from"));
    };
    Status status = write();
    if (status) status = files_.rename(partial, options_.out_path);
    if (status) status = files_.sync_directory(parent_directory(options_.out_path));
    if (!status) (void)files_.remove(partial);
    return status;
}

Status Extraction::write_from(const Start& start, File& out) {
    // The manifest must be of the log that the chain proves.
    if (start.segment() > oldest_.segment()) {
        const uint64_t place = start.segment() - oldest_.segment() - 1;
        if (place >= chain_.size() || chain_[place].digest != start.digest())
            return fail(Code::kCorrupt,
                        fmt::format("manifest {} is not of this log", start.manifest->name.file));
    }
    report_.time = {start.manifest ? start.manifest->time_us : 0};
    FS_TRY(write_base(start, out));
    for (const Link& link : chain_) {
        if (link.ref.number <= start.segment()) continue;
        if (link.first > target_) break;
        FS_ASSIGN(const Segment segment, open_segment(store_, item_, link.ref, item_key_));
        if (segment.digest != link.digest)
            return fail(Code::kCorrupt, fmt::format("{} changed under us", segment.name));
        FS_TRY(replay(segment, out));
        step();
    }
    return {};
}

Status Extraction::write_base(const Start& start, File& out) {
    if (!start.manifest) return {};
    disk_ = {};
    for (const auto& known : start.manifest->disks)
        if (known.disk == options_.disk) disk_ = {known.size_bytes, known.joining};
    // By object and position, so that every chunk is decoded once.
    std::map<Ref, std::vector<MapEntry>> by_object;
    for (const auto& shard : start.manifest->shards) {
        if (shard.disk != options_.disk) continue;
        FS_ASSIGN(const auto entries, open_shard(store_, item_, shard, item_key_));
        for (const MapEntry& entry : entries) by_object[entry.object].push_back(entry);
    }
    steps_ += by_object.size();
    for (auto& [ref, entries] : by_object) {
        std::ranges::sort(
            entries, [](const MapEntry& a, const MapEntry& b) { return a.position < b.position; });
        FS_ASSIGN(const Segment segment, open_segment(store_, item_, ref, item_key_));
        PayloadReader payload(store_, segment);
        for (const MapEntry& entry : entries)
            FS_TRY(write_payload(payload, entry.position, entry.length, entry.offset, out));
        step();
    }
    return {};
}

Status Extraction::replay(const Segment& segment, File& out) {
    PayloadReader payload(store_, segment);
    for (const Entry& entry : segment.entries) {
        if (entry.sequence > target_) break;
        report_.time = {entry.time_us};
        if (entry.disk != options_.disk) continue;
        switch (entry.kind) {
            case kWriteRecord:
                FS_TRY(write_payload(payload, entry.position, entry.length, entry.offset, out));
                disk_.bytes = std::max(disk_.bytes, entry.offset + entry.length);
                break;
            case kZeroRecord:
            case kDiscardRecord:
                FS_TRY(write_zeroes(out, entry.offset, entry.length));
                disk_.bytes = std::max(disk_.bytes, entry.offset + entry.length);
                break;
            case kGeometryRecord: {
                // What a shrinking disk loses stays lost when it grows again.
                FS_ASSIGN(const uint64_t there, out.size());
                if (entry.offset < there) FS_TRY(out.truncate(entry.offset));
                disk_ = {entry.offset, (entry.flags & kJoiningFlag) != 0};
                break;
            }
            default:
                break;
        }
    }
    return {};
}

Status Extraction::write_payload(PayloadReader& payload, uint64_t position, uint64_t length,
                                 uint64_t offset, File& out) {
    return payload.read(position, length, [&](ByteView piece) -> Status {
        FS_TRY(out.write_at(offset, piece));
        offset += piece.size();
        report_.written_bytes += piece.size();
        return {};
    });
}

Status Extraction::write_zeroes(File& out, uint64_t offset, uint64_t length) {
    FS_ASSIGN(const uint64_t there, out.size());
    if (offset >= there) return {};  // beyond the file's end it is zero anyway
    length = std::min(length, there - offset);
    Status punched = out.punch_hole(offset, length);
    if (punched || punched.error().code() != Code::kUnsupported) return punched;
    const Bytes zeroes(std::min(length, kZeroPiece));
    while (length > 0) {
        const uint64_t n = std::min<uint64_t>(length, zeroes.size());
        FS_TRY(out.write_at(offset, ByteView(zeroes).first(n)));
        offset += n;
        length -= n;
    }
    return {};
}

}  // namespace

Status extract(const ExtractOptions& options, ExtractReport* report) {
    PosixFileSystem files;
    ExtractReport ignored;
    FS_ASSIGN(const auto store,
              open_store_reader(files, options.store, options.store_settings, [](const char* name) {
                  const char* value = std::getenv(name);
                  return std::string(value == nullptr ? "" : value);
              }));
    return Extraction(options, files, *store).run(report != nullptr ? *report : ignored);
}

}  // namespace farshore
