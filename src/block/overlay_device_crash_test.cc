// The overlay after its process was killed at any operation, and after a crash of the host at any:
// docs/format/overlay.md.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <iostream>

#include "block/overlay_device.h"
#include "sim/crash_images.h"
#include "sim/seeds.h"
#include "sim/world.h"

namespace farshore {
namespace {

constexpr uint64_t kDiskBytes = 4 * kOverlayBlockBytes + 1000;
constexpr char kData[] = "d/disk.overlay";
constexpr char kMap[] = "d/disk.overlay.map";
using Boot = decltype(OverlayParts::boot);

// A disk that is a file, or bytes that are never written.
class PlainDevice final : public BlockDevice {
  public:
    explicit PlainDevice(std::unique_ptr<File> file) : file_(std::move(file)) {}
    uint64_t size_bytes() const override { return kDiskBytes; }
    bool read_only() const override { return file_ == nullptr; }
    Status read(uint64_t offset, MutableByteView out) override {
        std::fill(out.begin(), out.end(), file_ ? 0 : 'b');
        if (file_) FS_TRY(file_->read_at(offset, out));
        return {};
    }
    Status write(uint64_t offset, ByteView data) override { return file_->write_at(offset, data); }
    Status zero(uint64_t offset, uint64_t length, bool) override {
        return file_->write_at(offset, Bytes(length));
    }
    Status discard(uint64_t offset, uint64_t length) override { return zero(offset, length, true); }
    Status flush() override { return file_->sync(); }
    Result<std::vector<BlockExtent>> extents(uint64_t offset, uint64_t length) override {
        return std::vector<BlockExtent>{{offset, length, false, false}};
    }

  private:
    std::unique_ptr<File> file_;
};

// Somebody who writes and flushes. Notes by the number of operations what the disk was after every
// write, and which of these states were flushed.
class Guest {
  public:
    explicit Guest(CrashFiles& files) : files_(files) {
        states_.push_back({0, Bytes(kDiskBytes, 'b')});
        flushed_.push_back({0, 0});
    }
    std::string open(uint8_t boot) {
        overlay_.reset();
        FS_CHECK(files_.make_directories("d"));
        OverlayParts parts;
        parts.boot.raw[0] = boot;
        parts.base = std::make_unique<PlainDevice>(nullptr);
        auto data = files_.open(kData, OpenMode::kCreate);
        if (*(*data)->size() == 0) FS_CHECK((*data)->truncate(kDiskBytes));
        parts.data = std::make_unique<PlainDevice>(std::move(*data));
        parts.map = std::move(*files_.open(kMap, OpenMode::kCreate));
        if (auto synced = files_.sync_directory("d"); !synced) return "cannot be synced";
        auto overlay = open_overlay(std::move(parts));
        if (!overlay) return "does not open: " + overlay.error().to_string();
        overlay_ = std::move(*overlay);
        return {};
    }
    void write(uint64_t offset, uint64_t length, uint8_t with) {
        Bytes next = states_.back().bytes;
        std::fill_n(next.begin() + static_cast<ptrdiff_t>(offset), length, with);
        // From here on it may be there in part.
        states_.push_back({files_.operations(), next});
        FS_CHECK(with == 0 ? overlay_->zero(offset, length, true)
                           : overlay_->write(offset, Bytes(length, with)));
        whole_ = states_.size() - 1;
    }
    void flush() {
        const size_t state = whole_;
        if (overlay_->flush()) flushed_.push_back({files_.operations(), state});
    }
    Bytes content() {
        Bytes bytes(kDiskBytes);
        FS_CHECK(overlay_->read(0, bytes));
        return bytes;
    }
    // Whether each byte is as some state from the last flush before the cut on had it.
    std::string wrong_after_cut(size_t operations, const Bytes& bytes) const {
        size_t first = 0;
        for (const Flushed& flush : flushed_)
            if (flush.operations <= operations) first = flush.state;
        return wrong(first, operations, bytes);
    }
    // The same after a kill: nothing that was acknowledged may be missing.
    std::string wrong_after_kill(const Bytes& bytes) const {
        return wrong(whole_, files_.operations(), bytes);
    }
    // What is there counts as written and flushed from here on.
    void begin_with(const Bytes& bytes) {
        states_ = {{0, bytes}};
        flushed_ = {{0, 0}};
        whole_ = 0;
    }
    void found(const Bytes& bytes) {
        states_.push_back({files_.operations(), bytes});
        whole_ = states_.size() - 1;
    }

  private:
    struct State {
        size_t operations;
        Bytes bytes;
    };
    struct Flushed {
        size_t operations;
        size_t state;
    };
    std::string wrong(size_t first, size_t operations, const Bytes& bytes) const {
        for (size_t i = 0; i < bytes.size(); ++i) {
            bool right = false;
            for (size_t s = first; s < states_.size() && !right; ++s)
                right = states_[s].operations <= operations && states_[s].bytes[i] == bytes[i];
            if (!right) return fmt::format("byte {} is {}", i, bytes[i]);
        }
        return {};
    }

    CrashFiles& files_;
    std::unique_ptr<OverlayDevice> overlay_;
    std::vector<State> states_;
    std::vector<Flushed> flushed_;
    size_t whole_ = 0;
};

void live(Guest& guest, uint64_t seed, size_t steps) {
    Rng draw(seed);
    for (size_t i = 0; i < steps; ++i) {
        if (draw.below(3) == 0) {
            guest.flush();
            continue;
        }
        const uint64_t offset =
            draw.coin() ? draw.below(4) * kOverlayBlockBytes : draw.below(kDiskBytes - 1);
        const uint64_t most = std::min<uint64_t>(kDiskBytes - offset, 6000);
        const uint64_t length =
            draw.coin() ? std::min<uint64_t>(most, kOverlayBlockBytes) : 1 + draw.below(most);
        guest.write(offset, length, static_cast<uint8_t>(draw.below(6) == 0 ? 0 : 100 + i));
    }
}

struct Totals {
    std::atomic<uint64_t> cuts = 0, images = 0, second = 0;
};

// The header is one sector, which disks write whole or not at all.
std::string cut(const CrashFiles& files, const Guest& guest, size_t first, uint64_t seed,
                uint64_t again, Totals& totals) {
    uint64_t n = 0;
    const CrashReport report = for_each_crash_image(
        files, {.first_operation = first, .all_subsets = 6, .seed = seed, .whole_sectors = true},
        [&](size_t operations, CrashFiles& image) -> std::string {
            Guest next(image);
            if (auto broken = next.open(2); !broken.empty()) return broken;
            const Bytes bytes = next.content();
            if (auto broken = guest.wrong_after_cut(operations, bytes); !broken.empty())
                return broken;
            if (again == 0 || ++n % again != 0) return {};
            next.begin_with(bytes);
            live(next, seed + n, 4);
            const CrashReport second = for_each_crash_image(
                image,
                {.all_subsets = 4, .samples = 4, .torn = 4, .seed = n, .whole_sectors = true},
                [&](size_t then, CrashFiles& left) -> std::string {
                    Guest last(left);
                    if (auto broken = last.open(3); !broken.empty()) return broken;
                    return next.wrong_after_cut(then, last.content());
                });
            totals.second += second.images;
            return second.ok() ? "" : "then " + second.broken.front();
        });
    totals.cuts += report.cuts;
    totals.images += report.images;
    return report.ok() ? "" : report.text();
}

using Interference = std::function<CrashFiles::Verdict(DiskOp, const std::string&)>;

std::string run(uint64_t seed, const Interference& interfere, Totals& totals) {
    CrashFiles files;
    files.interfere = interfere;
    Guest guest(files);
    if (auto broken = guest.open(1); !broken.empty()) return broken;
    live(guest, seed, 12);
    return cut(files, guest, 0, seed, 41, totals);
}

// Broken: what was flushed is gone after a crash of the host, or a block is taken from the overlay
// whose data never got there, or the overlay does not open.
TEST(OverlayCrash, EveryImageHasWhatWasFlushed) {
    Totals totals;
    const SeedReport report = run_seeds("overlay-crash", {.count = fewer_when_sanitized(40)},
                                        [&](uint64_t seed) { return run(seed, {}, totals); });
    EXPECT_TRUE(report.ok()) << report.text();
    std::cout << totals.images << " images of " << totals.cuts << " cuts, " << totals.second
              << " of second cuts\n";
}

// Broken: what was acknowledged is gone when the process is killed, or never flushed afterwards.
TEST(OverlayCrash, AKillThenACrashOfTheHost) {
    Totals totals;
    const SeedReport report =
        run_seeds("overlay-kill", {.count = fewer_when_sanitized(8)}, [&](uint64_t seed) {
            std::string broken;
            bool killed = true;
            for (size_t kill_at = 2; killed && broken.empty(); ++kill_at) {
                CrashFiles files;
                FS_CHECK(files.make_directories("d"));
                Guest guest(files);
                killed = false;
                files.interfere = [&](DiskOp, const std::string&) {
                    if (files.operations() == kill_at) throw ProcessKilled{};
                    return CrashFiles::Verdict::kHappens;
                };
                try {
                    broken = guest.open(1);
                    if (broken.empty()) live(guest, seed, 12);
                } catch (const ProcessKilled&) {
                    killed = true;
                }
                files.interfere = nullptr;
                if (broken.empty()) broken = guest.open(1);
                if (!broken.empty()) break;
                const Bytes bytes = guest.content();
                broken = guest.wrong_after_kill(bytes);
                guest.found(bytes);
                live(guest, seed + 100, 4);
                if (broken.empty()) broken = cut(files, guest, kill_at, seed, 0, totals);
            }
            return broken;
        });
    EXPECT_TRUE(report.ok()) << report.text();
    std::cout << totals.images << " images of " << totals.cuts << " cuts\n";
}

// Broken: the test does not see what it is there for.
TEST(OverlayCrash, AMissingSyncIsFound) {
    for (const std::string& path : {std::string(kData), std::string(kMap), std::string("d")}) {
        bool found = false;
        Totals totals;
        for (uint64_t seed = 1; seed <= 20 && !found; ++seed)
            found = !run(
                         seed,
                         [&](DiskOp op, const std::string& at) {
                             const bool sync = op == DiskOp::kSync || op == DiskOp::kSyncDirectory;
                             return sync && at == path ? CrashFiles::Verdict::kLeftOut
                                                       : CrashFiles::Verdict::kHappens;
                         },
                         totals)
                         .empty();
        EXPECT_TRUE(found) << path;
    }
}

}  // namespace
}  // namespace farshore
