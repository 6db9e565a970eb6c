#include "recovery/hydration.h"

#include <fmt/core.h>

#include <algorithm>

#include "block/nbd_filler.h"
#include "block/overlay_device.h"
#include "os/waiting.h"

namespace farshore {
namespace {

constexpr uint32_t kPieceBytes = 1u << 20;
constexpr uint64_t kZeroPieceBytes = 64u << 20;
constexpr size_t kUnderWay = 8;
// Of the disk, for one look at what is zero.
constexpr uint64_t kWindowBytes = 1ull << 30;
// The page cache is not filled with more: the guest's own flushes would wait for it.
constexpr uint64_t kFlushBytes = 128u << 20;
constexpr int kWaitMs = 100;
constexpr int64_t kLookUs = 1'000'000;

class Hydration {
  public:
    Hydration(Recoveries& recoveries, const std::string& id, const HydrationOptions& options)
        : recoveries_(recoveries), id_(id), options_(options) {}

    Result<HydrationReport> run() {
        begun_us_ = options_.clock->steady_us();
        FS_ASSIGN(const auto disks, recoveries_.disks_to_fill(id_));
        if (disks.empty()) return result_;
        for (const auto& disk : disks) result_.disk_bytes += disk.size_bytes;
        for (const auto& disk : disks) {
            FS_TRY(patiently(disk));
            before_ += disk.size_bytes;
        }
        FS_TRY(recoveries_.note_hydrated(id_));
        return result_;
    }

  private:
    // Until it is done: servers are started again, taps take their places.
    Status patiently(const Recoveries::FillableDisk& disk) {
        int64_t alive_us = options_.clock->steady_us();
        uint64_t seen = 0;
        while (true) {
            const Status done = fill(disk);
            if (done ||
                (done.error().code() != Code::kConnectionLost && done.error().code() != Code::kIo))
                return done;
            const int64_t now_us = options_.clock->steady_us();
            if (first_absent_ > seen) {
                seen = first_absent_;
                alive_us = now_us;
            }
            if (now_us - alive_us > options_.patience_us)
                return fail(
                    Code::kUnavailable,
                    fmt::format("the machine's disks cannot be filled: {}", done.error().what()),
                    "see that the machine runs, and that its store can be reached; then try it "
                    "again");
            // It may be gone, or given up.
            FS_TRY(recoveries_.disks_to_fill(id_));
            FS_TRY(options_.report(before_, result_.disk_bytes));
            pause_ms(kWaitMs);
        }
    }

    Status fill(const Recoveries::FillableDisk& disk) {
        FS_ASSIGN(const auto filler, NbdFiller::connect(disk.uri));
        if (filler->size_bytes() != disk.size_bytes)
            return fail(Code::kDiskChanged,
                        fmt::format("disk {} has {} bytes, {} were expected", disk.index,
                                    filler->size_bytes(), disk.size_bytes));
        FS_ASSIGN(const OverlayMap map,
                  OverlayMap::read(*options_.files, disk.overlay_path, disk.size_bytes));
        first_absent_ = map.next_absent(0);
        unflushed_ = 0;
        for (uint64_t at = 0; at < disk.size_bytes;) {
            const uint64_t end = std::min(disk.size_bytes, at + kWindowBytes);
            FS_TRY(fill_window(*filler, map, at, end));
            at = end;
        }
        FS_TRY(settle(*filler, disk.size_bytes, 0));
        FS_TRY(filler->ask_flush());
        FS_TRY(settle(*filler, disk.size_bytes, 0));
        // Not on its word alone: this is what the machine's disk will be.
        FS_ASSIGN(const OverlayMap after,
                  OverlayMap::read(*options_.files, disk.overlay_path, disk.size_bytes));
        if (!after.whole_and_durable())
            return fail(Code::kInternal,
                        fmt::format("disk {} was filled, and its map does not say so", disk.index));
        return {};
    }

    Status fill_window(NbdFiller& filler, const OverlayMap& map, uint64_t from, uint64_t end) {
        if (map.next_absent(from) >= end) return {};
        FS_TRY(settle(filler, from, 0));
        FS_TRY(filler.ask_zero_ranges(from, end - from));
        FS_TRY(settle(filler, from, 0));
        const auto zero = filler.zero_ranges();
        size_t next_zero = 0;
        for (uint64_t at = map.next_absent(from); at < end; at = map.next_absent(at)) {
            uint64_t stop = std::min(end, map.next_present(at));
            while (next_zero < zero.size() &&
                   zero[next_zero].offset_bytes + zero[next_zero].length_bytes <= at)
                ++next_zero;
            const bool is_zero = next_zero < zero.size() && zero[next_zero].offset_bytes <= at;
            if (is_zero)
                stop = std::min({stop, at + kZeroPieceBytes,
                                 zero[next_zero].offset_bytes + zero[next_zero].length_bytes});
            else
                stop = std::min({stop, at + kPieceBytes,
                                 next_zero < zero.size() ? zero[next_zero].offset_bytes : end});
            FS_TRY(settle(filler, at, kUnderWay - 1));
            if (!is_zero) FS_TRY(make_room(filler, at, stop - at));
            FS_TRY(filler.ask(at, static_cast<uint32_t>(stop - at)));
            at = stop;
            if (unflushed_ >= kFlushBytes) {
                unflushed_ = 0;
                FS_TRY(filler.ask_flush());
            }
        }
        return {};
    }

    // Data: in time, and with room.
    Status make_room(NbdFiller& filler, uint64_t at, uint64_t length) {
        result_.copied_bytes += length;
        unflushed_ += length;
        while (options_.bytes_per_s != 0) {
            const auto due_us =
                begun_us_ + static_cast<int64_t>(static_cast<double>(result_.copied_bytes) * 1e6 /
                                                 static_cast<double>(options_.bytes_per_s));
            const int64_t early_us = due_us - options_.clock->steady_us();
            if (early_us <= 0) break;
            FS_TRY(look(at));
            if (filler.under_way() > 0)
                FS_TRY(
                    filler.wait(static_cast<int>(std::min<int64_t>(early_us / 1000 + 1, kWaitMs))));
            else
                pause_ms(static_cast<int>(std::min<int64_t>(early_us / 1000 + 1, kWaitMs)));
        }
        return look(at);
    }

    // Waits until no more than `most` requests are under way.
    Status settle(NbdFiller& filler, uint64_t at, size_t most) {
        while (filler.under_way() > most) {
            FS_TRY(filler.wait(kWaitMs));
            FS_TRY(look(at));
        }
        return {};
    }

    // Each second: whether it is wanted still, and there is room.
    Status look(uint64_t at) {
        const int64_t now_us = options_.clock->steady_us();
        if (now_us - looked_us_ < kLookUs && looked_us_ != 0) return {};
        looked_us_ = now_us;
        FS_ASSIGN(const auto disks, recoveries_.disks_to_fill(id_));
        if (!disks.empty()) {
            const std::string& path = disks.front().overlay_path;
            FS_ASSIGN(const uint64_t free,
                      options_.files->free_bytes(path.substr(0, path.rfind('/'))));
            if (free < options_.reserve_bytes)
                return fail(Code::kNoSpace,
                            fmt::format("{} MiB are free where the machine's disks are; {} are "
                                        "left for what it writes itself",
                                        free >> 20, options_.reserve_bytes >> 20),
                            "make room and try it again: it goes on where it was");
        }
        return options_.report(before_ + at, result_.disk_bytes);
    }

    Recoveries& recoveries_;
    const std::string& id_;
    const HydrationOptions& options_;
    HydrationReport result_;
    int64_t begun_us_ = 0, looked_us_ = 0;
    uint64_t before_ = 0;     // of disks that are done
    uint64_t unflushed_ = 0;  // data that was asked for since the last flush
    uint64_t first_absent_ = 0;
};

}  // namespace

Result<HydrationReport> hydrate(Recoveries& recoveries, const std::string& id,
                                const HydrationOptions& options) {
    return Hydration(recoveries, id, options).run();
}

}  // namespace farshore
