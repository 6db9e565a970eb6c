// The spool after a power cut at any operation: every acknowledged record that is not stored, in
// order, and nothing that was not sent (docs/format/spool.md).
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <iostream>
#include <map>

#include "record/record.h"
#include "replicate/spool.h"
#include "sim/crash_images.h"
#include "sim/rng.h"
#include "sim/seeds.h"
#include "sim/world.h"

namespace farshore {
namespace {

constexpr uint64_t kFileBytes = 6000;
constexpr char kDirectory[] = "spool/item";
const ItemId kItem{};

// What the sender's log holds, by sequence: sent again it is the same.
using Log = std::map<uint64_t, Bytes>;

// An appliance that receives, acknowledges, and hears what is stored. Notes by the number of
// operations that had happened what the spool must still have.
class Appliance {
  public:
    Appliance(CrashFiles& files, const Log& log, uint64_t stored)
        : files_(files), log_(log), acknowledged_{{0, 0}}, stored_{{0, stored}} {}

    // As ItemIntake does: opens with repair, and what is in the spool counts as received, unless it
    // does not go on behind what is stored.
    std::string open() {
        spool_.reset();
        auto spool = Spool::open(files_, kDirectory, kItem, kFileBytes, true);
        if (!spool) return "does not open: " + spool.error().to_string();
        spool_ = std::move(*spool);
        uint64_t received = 0;
        bool hole = false, seen = false;
        for (const SpoolRange& range : spool_->recovered()) {
            received = range.last.v;
            if (range.last.v <= stored() || seen) continue;
            seen = true;
            hole = range.first.v > stored() + 1 && !range.begins_with_gap;
        }
        if (received < stored() || hole) {
            if (auto cleared = spool_->clear(); !cleared) return cleared.error().to_string();
            received = stored();
        }
        accepted_ = received;
        acknowledge();
        return {};
    }
    void append(uint64_t records, bool gap, size_t payload_bytes) {
        Bytes bytes;
        uint64_t last = accepted_;
        for (uint64_t i = 0; i < records; ++i) {
            auto next = log_.upper_bound(last);
            if (next == log_.end() || !follows(last, *next)) {
                const bool jump = gap && (next == log_.end() || next->first > last + 10);
                next = log_.insert(make(last, jump, payload_bytes)).first;
            }
            bytes.insert(bytes.end(), next->second.begin(), next->second.end());
            last = next->first;
        }
        SpoolRange range;
        if (spool_->append(bytes, range))
            accepted_ = last;
        else
            accepted_ = acknowledged_.back().value;  // the sender begins again there
    }
    void sync() {
        if (spool_->sync())
            acknowledge();
        else
            accepted_ = acknowledged_.back().value;
    }
    // The vault has up to `behind` records less than what was acknowledged.
    void store(uint64_t behind) {
        const uint64_t most = acknowledged_.back().value;
        if (most < stored() + behind) return;
        stored_.push_back({files_.operations(), most - behind});
        (void)spool_->trim({stored()});
    }
    // Another appliance went on meanwhile: what is here is all stored.
    void follow_vault() {
        stored_.push_back({files_.operations(), accepted_ + 20});
        if (spool_->clear()) {
            accepted_ = stored();
            acknowledge();
        } else {
            (void)open();
        }
    }

    std::string check(size_t operations, CrashFiles& image) const {
        auto spool = Spool::open(image, kDirectory, kItem, kFileBytes, true);
        if (!spool) return "does not open: " + spool.error().to_string();
        const uint64_t stored = before(stored_, operations);
        uint64_t first = 0, last = 0;
        for (const SpoolRange& range : (*spool)->recovered()) {
            auto bytes = (*spool)->read(range);
            if (!bytes) return "cannot be read: " + bytes.error().to_string();
            RecordCursor cursor(*bytes, true);
            for (size_t at = 0; !cursor.done(); at = bytes->size() - cursor.remaining()) {
                auto record = cursor.next();
                if (!record) return "holds half a record";
                const uint64_t sequence = record->header.sequence.v;
                const auto sent = log_.find(sequence);
                const size_t length = record->header.encoded_bytes();
                if (sent == log_.end() ||
                    !std::ranges::equal(sent->second, ByteView(*bytes).subspan(at, length)))
                    return fmt::format("record {} is not what was sent", sequence);
                // What is stored may come back, and with holes.
                if (last > stored && log_.upper_bound(last) != sent)
                    return fmt::format("record {} follows record {}", sequence, last);
                if (first == 0) first = sequence;
                last = sequence;
            }
        }
        const uint64_t acknowledged = most(acknowledged_, operations);
        if (acknowledged <= stored) return {};
        const auto due = log_.upper_bound(stored);
        if (last < acknowledged || first == 0 || (due != log_.end() && first > due->first))
            return fmt::format("holds {} to {}, {} was stored and {} acknowledged", first, last,
                               stored, acknowledged);
        return {};
    }
    // One that goes on after a cut.
    Appliance after(size_t operations, CrashFiles& image) const {
        return {image, log_, before(stored_, operations)};
    }

  private:
    struct Since {
        size_t operations;
        uint64_t value;
    };
    // The value when the cut's last operation had just happened; the largest one from then on,
    // until the next operation.
    static uint64_t before(const std::vector<Since>& history, size_t operations) {
        uint64_t value = history.front().value;
        for (const Since& since : history)
            if (since.operations < operations) value = since.value;
        return value;
    }
    static uint64_t most(const std::vector<Since>& history, size_t operations) {
        uint64_t value = before(history, operations);
        for (const Since& since : history)
            if (since.operations == operations) value = std::max(value, since.value);
        return value;
    }
    uint64_t stored() const { return stored_.back().value; }
    void acknowledge() { acknowledged_.push_back({files_.operations(), accepted_}); }
    static bool follows(uint64_t last, const Log::value_type& next) {
        auto header = decode_record_header(next.second);
        return next.first == last + 1 || header->kind == RecordKind::kGap;
    }
    static std::pair<uint64_t, Bytes> make(uint64_t last, bool gap, size_t payload_bytes) {
        RecordHeader header;
        header.kind = gap ? RecordKind::kGap : RecordKind::kWrite;
        header.sequence.v = last + (gap ? 10 : 1);
        header.time.us = static_cast<int64_t>(header.sequence.v);
        Bytes payload(gap ? 0 : payload_bytes, static_cast<uint8_t>(header.sequence.v));
        header.length_bytes = static_cast<uint32_t>(payload.size());
        Bytes out;
        append_record(out, header, payload);
        return {header.sequence.v, out};
    }

    CrashFiles& files_;
    Log log_;
    std::unique_ptr<Spool> spool_;
    std::vector<Since> acknowledged_, stored_;
    uint64_t accepted_ = 0;
};

std::string live(Appliance& appliance, uint64_t seed, size_t steps) {
    Rng draw(seed);
    for (size_t i = 0; i < steps; ++i) {
        const uint64_t what = draw.below(100);
        if (what < 45) {
            const uint64_t records = 1 + draw.below(3);
            const bool gap = draw.below(8) == 0;
            appliance.append(records, gap, 1 + draw.below(draw.coin() ? 2500 : 100));
        } else if (what < 70) {
            appliance.sync();
        } else if (what < 92) {
            appliance.store(draw.below(4));
        } else if (what < 96) {
            appliance.follow_vault();
        } else if (!appliance.open().empty()) {
            // An operation of it failed; it is tried again.
            if (auto broken = appliance.open(); !broken.empty()) return broken;
        }
    }
    return {};
}

struct Totals {
    std::atomic<uint64_t> cuts = 0, images = 0, second = 0;
    void add(const CrashReport& report) {
        cuts += report.cuts;
        images += report.images;
    }
};

CrashReport cut(const CrashFiles& files, const Appliance& appliance, size_t first, uint64_t seed,
                uint64_t again, Totals& totals) {
    uint64_t n = 0;
    CrashReport report = for_each_crash_image(
        files, {.first_operation = first, .all_subsets = 6, .seed = seed},
        [&](size_t operations, CrashFiles& image) -> std::string {
            if (again == 0 || ++n % again != 0) return appliance.check(operations, image);
            Appliance next = appliance.after(operations, image);
            if (auto broken = next.open(); !broken.empty()) return broken;
            if (auto broken = live(next, seed + n, 6); !broken.empty()) return "then " + broken;
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

CrashReport run(uint64_t seed, const Interference& interfere, Totals& totals) {
    CrashFiles files;
    files.interfere = interfere;
    Appliance appliance(files, {}, 0);
    std::string broken = appliance.open();
    if (broken.empty()) broken = live(appliance, seed, 40);
    if (!broken.empty()) return {.broken = {broken}};
    return cut(files, appliance, 0, seed, 97, totals);
}

// Broken: a power cut loses or changes what was acknowledged.
TEST(SpoolCrash, EveryImageHoldsWhatWasAcknowledgedAndIsNotStored) {
    Totals totals;
    const SeedReport report =
        run_seeds("spool-crash", {.count = fewer_when_sanitized(150)}, [&](uint64_t seed) {
            const CrashReport cuts = run(seed, {}, totals);
            return cuts.ok() ? "" : cuts.text();
        });
    EXPECT_TRUE(report.ok()) << report.text();
    std::cout << totals.images << " images of " << totals.cuts << " cuts, " << totals.second
              << " of second cuts\n";
}

// Broken: records that a process left unsynced when it was killed are acknowledged by the next one
// and not durable.
TEST(SpoolCrash, AKilledApplianceThenAPowerCut) {
    Totals totals;
    const auto killed_at = [&](size_t kill_at, uint64_t seed, bool& killed) -> std::string {
        CrashFiles files;
        Appliance appliance(files, {}, 0);
        if (auto broken = appliance.open(); !broken.empty()) return broken;
        files.interfere = [&](DiskOp, const std::string&) {
            if (files.operations() == kill_at) throw ProcessKilled{};
            return CrashFiles::Verdict::kHappens;
        };
        killed = false;
        try {
            (void)live(appliance, seed, 30);
        } catch (const ProcessKilled&) {
            killed = true;
        }
        files.interfere = nullptr;
        std::string broken = appliance.open();
        if (broken.empty()) broken = live(appliance, seed + 100, 4);
        if (!broken.empty()) return broken;
        const CrashReport cuts = cut(files, appliance, kill_at, seed, 0, totals);
        return cuts.ok() ? "" : fmt::format("killed at {}: {}", kill_at, cuts.text());
    };
    const SeedReport report =
        run_seeds("spool-kill", {.count = fewer_when_sanitized(8)}, [&](uint64_t seed) {
            std::string broken;
            bool killed = true;
            for (size_t kill_at = 5; killed && broken.empty(); ++kill_at)
                broken = killed_at(kill_at, seed, killed);
            return broken;
        });
    EXPECT_TRUE(report.ok()) << report.text();
    std::cout << totals.images << " images of " << totals.cuts << " cuts\n";
}

// Broken: what follows a failed operation is lost with it.
TEST(SpoolCrash, AFailedOperationThenAPowerCut) {
    Totals totals;
    const SeedReport report =
        run_seeds("spool-error", {.count = fewer_when_sanitized(150)}, [&](uint64_t seed) {
            uint64_t n = 0;
            const CrashReport cuts = run(
                seed,
                [&](DiskOp op, const std::string&) {
                    const bool counts =
                        op == DiskOp::kWrite || op == DiskOp::kSync || op == DiskOp::kTruncate;
                    return counts && ++n == 5 + seed % 30 ? CrashFiles::Verdict::kFails
                                                          : CrashFiles::Verdict::kHappens;
                },
                totals);
            return cuts.ok() ? "" : cuts.text();
        });
    EXPECT_TRUE(report.ok()) << report.text();
    std::cout << totals.images << " images of " << totals.cuts << " cuts\n";
}

// Broken: the test does not see what it is there for.
TEST(SpoolCrash, AMissingSyncIsFound) {
    const auto found = [](DiskOp missing, const std::string& path_end) {
        Totals totals;
        for (uint64_t seed = 1; seed <= 20; ++seed) {
            const CrashReport report = run(
                seed,
                [&](DiskOp op, const std::string& path) {
                    return op == missing && path.ends_with(path_end)
                               ? CrashFiles::Verdict::kLeftOut
                               : CrashFiles::Verdict::kHappens;
                },
                totals);
            if (!report.ok()) return report.broken.front();
        }
        return std::string();
    };
    EXPECT_NE(found(DiskOp::kSync, ".spool"), "");
    EXPECT_NE(found(DiskOp::kSync, ".new"), "");
    EXPECT_NE(found(DiskOp::kSyncDirectory, kDirectory), "");
}

}  // namespace
}  // namespace farshore
