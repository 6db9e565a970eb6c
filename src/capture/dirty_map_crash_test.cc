// The dirty map after a power cut at any operation: what may differ is known, and no number is
// handed out twice (docs/format/dirty-map.md).
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <iostream>
#include <limits>

#include "capture/dirty_map.h"
#include "capture/tap.h"
#include "sim/crash_images.h"
#include "sim/rng.h"
#include "sim/seeds.h"
#include "sim/world.h"

namespace farshore {
namespace {

constexpr uint64_t kNever = std::numeric_limits<uint64_t>::max();
constexpr TimePoint kNow{1'700'000'000'000'000};
// One page of regions each, or three for the last one, of which some regions are looked at.
const std::vector<uint64_t> kSmall = {(6u << 20) + 777, 3u << 20};
const std::vector<uint64_t> kLarge = {(2u << 20) + 777, 70ull << 30};
constexpr char kPath[] = "d/item.dirty";
const ItemId kItem{};

// A host with a map: a guest that writes, a copier, an agent that hears what is stored. Notes, by
// the number of operations that had happened, what the map must still say. A cut after so many
// operations may be at any moment between two of them, so all of these moments count.
class Host {
  public:
    Host(CrashFiles& files, const std::vector<uint64_t>& disks, bool late_copy = false)
        : files_(files), disks_(disks), late_copy_(late_copy) {
        for (size_t disk = 0; disk < disks.size(); ++disk) {
            const uint64_t step = disks[disk] > 1ull << 30 ? 8'000ull << 20 : kMinRegionBytes;
            for (uint64_t at = 0; at < disks[disk]; at += step)
                regions_.push_back({static_cast<DiskIndex>(disk), at, {{0, kNever}}});
        }
    }

    // The first log of this start of the host. `used`: the highest number of the starts before it.
    std::string start(uint64_t used) {
        used_ = {{0, used}};
        FS_CHECK(files_.exists("d"));
        auto map = DirtyMap::open_or_create(files_, kPath, kItem, disks_);
        if (!map) return "does not open: " + map.error().to_string();
        take(std::move(*map));
        auto first = first_of_new_log(*map_, {1}, kNow);
        if (!first) return "gives no numbers: " + first.error().to_string();
        if (first->v <= used)
            return fmt::format("{} is handed out again, {} was used", first->v, used);
        next_ = first->v;
        stored_ = {{0, next_ - 1}};
        const std::vector<bool> dirty = dirty_of(*map_);
        for (size_t i = 0; i < regions_.size(); ++i)
            regions_[i].needed = {{0, dirty[i] ? kNever : 0}};
        return {};
    }
    // Another tap on the same log.
    void restart_tap() {
        map_.reset();
        auto map = DirtyMap::open_or_create(files_, kPath, kItem, disks_);
        FS_CHECK(map);
        take(std::move(*map));
        if (map_->reserved_until() <= 1) FS_CHECK(map_->reserve(next_ + kSequenceBlock));
    }

    void write(size_t index, bool mark_too_late = false) {
        Region& region = regions_[index % regions_.size()];
        if (mark_too_late) need(region, kNever);
        DirtyMap::Mark mark = map_->mark(region.disk, region.offset + 5, 1000);
        // From here on the backing disk may have it; its record comes later.
        need(region, kNever);
        need(region, number());
    }
    void copy(size_t index) {
        Region& region = regions_[index % regions_.size()];
        if (needed(region) == kNever) need(region, number());
    }
    void copy_all() {
        for (size_t i = 0; i < regions_.size(); ++i) copy(i);
    }
    void store() { stored_.push_back({files_.operations(), next_ - 1}); }
    void step(bool begin) {
        const Sequence last{next_ - 1}, stored{stored_.back().value};
        const auto to_copy = [&](const Region& region) { return needed(region) == kNever; };
        if (std::ranges::none_of(regions_, to_copy)) {
            map_->rotate(begin, true, last, stored);
            return;
        }
        map_->rotate(false, false, last, stored);
        map_->settle_copies(
            begin,
            [&](DiskIndex disk, ByteRange range) {
                return std::ranges::none_of(regions_, [&](const Region& region) {
                    return region.disk == disk && region.offset >= range.offset_bytes &&
                           region.offset < range.end() && to_copy(region);
                });
            },
            [&] { return last; }, stored);
    }
    // The log is lost: what is not stored is copied again.
    void gap() {
        for (Region& region : regions_)
            if (needed(region) > stored_.back().value) need(region, kNever);
        map_->log_was_dropped();
    }
    void everything() {
        if (!map_->set_all_dirty()) return;
        for (Region& region : regions_) need(region, kNever);
    }
    // Uses all of a block but a few, as a log of a long life does.
    void reserve() {
        const uint64_t until = next_ + kSequenceBlock;
        if (!map_->reserve(until)) return;
        next_ = until - 100;
        number();
    }

    // What is broken in an image of a cut after so many operations: as it is, and with damage that
    // `draw` draws.
    std::string check(size_t operations, CrashFiles& image, Rng& draw) const {
        const Bytes raw = content(image);
        if (raw.size() >= 1024) {
            auto damaged =
                check_damaged(operations, raw, *image.exists(std::string(kPath) + ".broken"), draw);
            if (!damaged.empty()) return damaged;
        }
        return check(operations, image);
    }
    std::string check(size_t operations, CrashFiles& image) const {
        auto map = DirtyMap::open_or_create(image, kPath, kItem, disks_);
        if (!map) return "does not open: " + map.error().to_string();
        auto first = first_of_new_log(**map, {1}, kNow);
        if (!first) return "gives no numbers: " + first.error().to_string();
        if (first->v <= used(operations))
            return fmt::format("{} is handed out again, {} was used", first->v, used(operations));
        const uint64_t stored = before(stored_, operations);
        const std::vector<bool> dirty = dirty_of(**map);
        for (size_t i = 0; i < regions_.size(); ++i)
            if (most(regions_[i].needed, operations) > stored && !dirty[i])
                return fmt::format("disk {} at {} MiB may differ and is forgotten",
                                   regions_[i].disk, regions_[i].offset >> 20);
        return {};
    }
    const std::vector<uint64_t>& disks() const { return disks_; }
    uint64_t used(size_t operations) const { return most(used_, operations); }

  private:
    void take(std::unique_ptr<DirtyMap> map) {
        map_ = std::move(map);
        if (late_copy_) map_->plant_late_copy();
    }
    static Bytes content(CrashFiles& image) {
        auto file = image.open(kPath, OpenMode::kRead);
        if (!file) return {};
        Bytes raw((*file)->size().value());
        FS_CHECK((*file)->read_at(0, raw));
        return raw;
    }
    // One copy is damaged, a sector of it or all. That must never hide anything; and where the cut
    // left both copies alike it must cost nothing at all.
    std::string check_damaged(size_t operations, const Bytes& raw, bool was_broken,
                              Rng& draw) const {
        const size_t half = raw.size() / 2;
        const size_t base = draw.coin() ? half : 0;
        size_t from = draw.below(half / 512) * 512, to = from + 512;
        if (draw.below(3) == 0) from = 0, to = half;
        Bytes bad = raw;
        draw.fill(MutableByteView(bad).subspan(base + from, to - from));
        const std::string what =
            fmt::format("bytes {} to {} of copy {} damaged: ", from, to, base == 0 ? 1 : 2);
        const bool alike = std::equal(raw.begin(), raw.begin() + static_cast<ptrdiff_t>(half),
                                      raw.begin() + static_cast<ptrdiff_t>(half));
        CrashFiles before, after;
        FS_CHECK(put(before, raw));
        FS_CHECK(put(after, bad));
        if (auto map = DirtyMap::open(before, kPath, kItem, disks_); map && alike) {
            auto again = DirtyMap::open(after, kPath, kItem, disks_);
            if (!again) return what + again.error().to_string();
            if (dirty_of(**again) != dirty_of(**map) ||
                (*again)->all_dirty() != (*map)->all_dirty() ||
                (*again)->reserved_until() != (*map)->reserved_until())
                return what + "it says something else";
            if (to - from == half && (*again)->damage().mended == 0) return what + "nobody noticed";
        }
        FS_CHECK(put(after, bad));
        if (was_broken) FS_CHECK(after.open(std::string(kPath) + ".broken", OpenMode::kCreate));
        const std::string broken = check(operations, after);
        return broken.empty() ? broken : what + broken;
    }
    static Status put(CrashFiles& files, const Bytes& content) {
        FS_TRY(files.make_directories("d"));
        FS_ASSIGN(const auto file, files.open(kPath, OpenMode::kCreate));
        return file->write_at(0, content);
    }
    struct Since {
        size_t operations;
        uint64_t value;
    };
    struct Region {
        DiskIndex disk;
        uint64_t offset;
        std::vector<Since> needed;  // what must be stored before it may be forgotten
    };
    // The value when the cut's last operation had just happened.
    static uint64_t before(const std::vector<Since>& history, size_t operations) {
        uint64_t value = history.front().value;
        for (const Since& since : history)
            if (since.operations < operations) value = since.value;
        return value;
    }
    // The largest one from then on, until the next operation.
    static uint64_t most(const std::vector<Since>& history, size_t operations) {
        uint64_t value = before(history, operations);
        for (const Since& since : history)
            if (since.operations == operations) value = std::max(value, since.value);
        return value;
    }
    std::vector<bool> dirty_of(const DirtyMap& map) const {
        std::vector<bool> dirty(regions_.size());
        size_t i = 0;
        map.for_each_dirty([&](DiskIndex disk, ByteRange range) {
            const auto behind = [&](const Region& region) {
                return std::pair(region.disk, region.offset) >= std::pair(disk, range.end());
            };
            for (; i < regions_.size() && !behind(regions_[i]); ++i)
                dirty[i] = regions_[i].disk == disk && regions_[i].offset >= range.offset_bytes;
        });
        return dirty;
    }
    static uint64_t needed(const Region& region) { return region.needed.back().value; }
    void need(Region& region, uint64_t sequence) {
        region.needed.push_back({files_.operations(), sequence});
    }
    uint64_t number() {
        used_.push_back({files_.operations(), next_});
        return next_++;
    }

    CrashFiles& files_;
    const std::vector<uint64_t>& disks_;
    const bool late_copy_;
    std::unique_ptr<DirtyMap> map_;
    std::vector<Region> regions_;
    std::vector<Since> used_, stored_;
    uint64_t next_ = 0;
};

// A life of the map, drawn from the seed.
void live(Host& host, uint64_t seed, size_t steps, bool mark_too_late = false) {
    Rng draw(seed);
    for (size_t i = 0; i < steps; ++i) {
        const uint64_t what = draw.below(100);
        const size_t index = draw.below(16);
        if (what < 35)
            host.write(index, mark_too_late);
        else if (what < 50)
            host.store();
        else if (what < 75)
            host.step(true);
        else if (what < 82)
            host.copy_all();
        else if (what < 88)
            host.copy(index);
        else if (what < 92)
            host.restart_tap();
        else if (what < 95)
            host.gap();
        else if (what < 97)
            host.everything();
        else
            host.reserve();
    }
}

struct Totals {
    std::atomic<uint64_t> cuts = 0, images = 0, second = 0;
    void add(const CrashReport& report) {
        cuts += report.cuts;
        images += report.images;
    }
};

// Everything that is broken after cuts of one life; and of one image in `again`, after cuts of the
// life that begins with it.
CrashReport cut(const CrashFiles& files, const Host& host, size_t first, uint64_t seed,
                uint64_t again, Totals& totals) {
    uint64_t n = 0;
    CrashReport report = for_each_crash_image(
        files, {.first_operation = first, .seed = seed},
        [&](size_t operations, CrashFiles& image) -> std::string {
            ++n;
            if (n % 3 == 0) {
                Rng draw(seed * 1'000'003 + n);
                return host.check(operations, image, draw);
            }
            if (again == 0 || n % again != 0) return host.check(operations, image);
            Host next(image, host.disks());
            if (auto broken = next.start(host.used(operations)); !broken.empty()) return broken;
            live(next, seed + n, 6);
            const CrashReport second = for_each_crash_image(
                image, {.all_subsets = 4, .samples = 4, .torn = 4, .seed = n},
                [&](size_t then, CrashFiles& left) { return next.check(then, left); });
            totals.second += second.images;
            return second.ok() ? "" : "then " + second.broken.front();
        });
    totals.add(report);
    return report;
}

using Interference = std::function<CrashFiles::Verdict(DiskOp, const std::string&)>;

struct Planted {
    bool mark_too_late = false;
    bool late_copy = false;
};

CrashReport run(uint64_t seed, const Interference& interfere, Totals& totals, Planted planted = {},
                const std::vector<uint64_t>& disks = kSmall) {
    CrashFiles files;
    FS_CHECK(files.make_directories("d"));
    files.interfere = interfere;
    Host host(files, disks, planted.late_copy);
    const size_t first = files.operations();
    const std::string broken = host.start(0);
    FS_CHECK(broken.empty());
    live(host, seed, 40, planted.mark_too_late);
    return cut(files, host, first, seed, 61, totals);
}

// Broken: after a power cut a region that may differ is not copied again, or a number comes twice.
TEST(DirtyMapCrash, EveryImageKnowsWhatMayDifferAndWhichNumbersAreUsed) {
    Totals totals;
    const SeedReport report =
        run_seeds("dirty-map-crash", {.count = fewer_when_sanitized(800)}, [&](uint64_t seed) {
            const CrashReport cuts = run(seed, {}, totals, {}, seed % 100 == 0 ? kLarge : kSmall);
            return cuts.ok() ? "" : cuts.text();
        });
    EXPECT_TRUE(report.ok()) << report.text();
    std::cout << totals.images << " images of " << totals.cuts << " cuts, " << totals.second
              << " of second cuts\n";
}

// Broken: marks that a tap left unsynced when it was killed are trusted by the next one.
TEST(DirtyMapCrash, AKilledTapThenAPowerCut) {
    Totals totals;
    const auto killed_after = [&](size_t operations, uint64_t seed, bool& killed) -> std::string {
        CrashFiles files;
        FS_CHECK(files.make_directories("d"));
        Host host(files, kSmall);
        if (auto broken = host.start(0); !broken.empty()) return broken;
        const size_t kill_at = files.operations() + operations;
        files.interfere = [&](DiskOp, const std::string&) {
            if (files.operations() == kill_at) throw ProcessKilled{};
            return CrashFiles::Verdict::kHappens;
        };
        killed = false;
        try {
            live(host, seed, 60);
        } catch (const ProcessKilled&) {
            killed = true;
        }
        files.interfere = nullptr;
        host.restart_tap();
        live(host, seed + 100, 5);
        const CrashReport cuts = cut(files, host, kill_at, seed, 0, totals);
        return cuts.ok() ? "" : fmt::format("killed at {}: {}", kill_at, cuts.text());
    };
    const SeedReport report =
        run_seeds("dirty-map-kill", {.count = fewer_when_sanitized(100)}, [&](uint64_t seed) {
            std::string broken;
            bool killed = true;
            for (size_t after = 0; killed && broken.empty(); ++after)
                broken = killed_after(after, seed, killed);
            return broken;
        });
    EXPECT_TRUE(report.ok()) << report.text();
    std::cout << totals.images << " images of " << totals.cuts << " cuts\n";
}

// Broken: a map that could not be written is left behind, or its numbers are forgotten with it.
TEST(DirtyMapCrash, AFailedOperationThenAPowerCut) {
    Totals totals;
    const SeedReport report =
        run_seeds("dirty-map-error", {.count = fewer_when_sanitized(400)}, [&](uint64_t seed) {
            uint64_t n = 0;
            const CrashReport cuts = run(
                seed,
                [&](DiskOp op, const std::string&) {
                    const bool counts = op == DiskOp::kWrite || op == DiskOp::kSync;
                    return counts && ++n == 14 + seed % 53 ? CrashFiles::Verdict::kFails
                                                           : CrashFiles::Verdict::kHappens;
                },
                totals);
            return cuts.ok() ? "" : cuts.text();
        });
    EXPECT_TRUE(report.ok()) << report.text();
    std::cout << totals.images << " images of " << totals.cuts << " cuts\n";
}

// Broken: the test does not see what it is there for.
TEST(DirtyMapCrash, AMissingSyncIsFound) {
    const auto found = [](const Interference& interfere, Planted planted) {
        Totals totals;
        for (uint64_t seed = 1; seed <= 10; ++seed)
            if (!run(seed, interfere, totals, planted).ok()) return true;
        return false;
    };
    for (const DiskOp missing : {DiskOp::kSync, DiskOp::kSyncDirectory})
        EXPECT_TRUE(found(
            [&](DiskOp op, const std::string&) {
                return op == missing ? CrashFiles::Verdict::kLeftOut
                                     : CrashFiles::Verdict::kHappens;
            },
            {}))
            << static_cast<int>(missing);
    EXPECT_TRUE(found({}, {.mark_too_late = true})) << "mark too late";
    EXPECT_TRUE(found({}, {.late_copy = true})) << "the second copy after the sync";
}

}  // namespace
}  // namespace farshore
