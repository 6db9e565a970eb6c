// The directory store after a power cut at any operation: an object whose put returned is there and
// whole, one whose removal returned is gone, and nothing half is ever under an object's name.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <iostream>
#include <map>

#include "sim/crash_images.h"
#include "sim/seeds.h"
#include "sim/world.h"
#include "store/directory_store.h"
#include "store/store_identity.h"

namespace farshore {
namespace {

const std::vector<std::string> kNames = {"log/1", "log/2", "item/a/m", "item/b"};

class StillClock final : public Clock {
  public:
    TimePoint now() const override { return {1}; }
    int64_t steady_us() const override { return 1; }
};

// A process with a store. Notes, by the number of operations that had happened, what was begun and
// what had returned. An object has one content for ever, by its name.
class User {
  public:
    User(CrashFiles& files, uint64_t seed) : files_(files), random_(Rng(seed)) {}

    std::string open() {
        auto store = DirectoryStore::open(files_, random_, {"d/store", true});
        if (!store) return "does not open: " + store.error().to_string();
        store_ = std::move(*store);
        StillClock clock;
        auto identity = ensure_store_identity(*store_, clock, random_);
        if (!identity) return "has no identity: " + identity.error().to_string();
        if (store_id_.has_value() && *store_id_ != identity->id) return "has another identity";
        store_id_ = identity->id;
        identified_at_ = std::min(identified_at_, files_.operations());
        return {};
    }
    std::string put(const std::string& name) {
        note(name, State::kAny);
        const Status put = store_->put(name, content(name));
        if (!put && put.error().code() == Code::kIo) return {};
        if (!put && put.error().code() != Code::kAlreadyExists)
            return "cannot put: " + put.error().to_string();
        note(name, State::kThere);
        return {};
    }
    std::string remove(const std::string& name) {
        note(name, State::kAny);
        if (store_->remove(name)) note(name, State::kGone);
        return {};
    }

    // Leaves a store that knows what the image has.
    std::string check(size_t operations, CrashFiles& image) const {
        User after(image, 7);
        if (operations >= identified_at_) after.store_id_ = store_id_;
        return check_with(operations, after);
    }
    std::string check_with(size_t operations, User& after) const {
        if (auto broken = after.open(); !broken.empty()) return broken;
        auto listed = after.store_->list("", "", 100);
        if (!listed) return "cannot be listed";
        for (const ObjectInfo& info : *listed)
            if (info.name != kStoreObject && std::ranges::find(kNames, info.name) == kNames.end())
                return fmt::format("lists '{}'", info.name);
        for (const std::string& name : kNames) {
            const State state = at(name, operations);
            auto object = after.store_->get(name);
            if (!object && object.error().code() != Code::kNotFound)
                return fmt::format("'{}' cannot be read", name);
            if (object && *object != content(name))
                return fmt::format("'{}' is there in part, {} bytes", name, object->size());
            if (object && state == State::kGone) return fmt::format("'{}' came back", name);
            if (!object && state == State::kThere) return fmt::format("'{}' is lost", name);
            after.history_[name] = {{0, object ? State::kThere : State::kGone}};
        }
        return {};
    }
    std::optional<StoreId> identity_at(size_t operations) const {
        return operations >= identified_at_ ? store_id_ : std::nullopt;
    }
    void expect(std::optional<StoreId> id) { store_id_ = id; }

  private:
    enum class State : uint8_t { kGone, kAny, kThere };
    struct Since {
        size_t operations;
        State state;
    };
    static Bytes content(const std::string& name) {
        return Bytes(name == "item/b" ? 0 : 300 * name.size(), static_cast<uint8_t>(name.back()));
    }
    void note(const std::string& name, State state) {
        history_[name].push_back({files_.operations(), state});
    }
    // A cut may be at any moment between two operations; what was certain at one of them is.
    State at(const std::string& name, size_t operations) const {
        State state = State::kGone;
        const auto history = history_.find(name);
        if (history == history_.end()) return state;
        for (const Since& since : history->second)
            if (since.operations < operations ||
                (since.operations == operations && since.state != State::kAny))
                state = since.state;
        return state;
    }

    CrashFiles& files_;
    SimRandom random_;
    std::unique_ptr<DirectoryStore> store_;
    std::optional<StoreId> store_id_;
    size_t identified_at_ = SIZE_MAX;
    std::map<std::string, std::vector<Since>> history_;
};

std::string live(User& user, uint64_t seed, size_t steps) {
    Rng draw(seed);
    std::string broken;
    for (size_t i = 0; i < steps && broken.empty(); ++i) {
        const std::string& name = kNames[draw.below(kNames.size())];
        const uint64_t what = draw.below(10);
        broken = what < 6 ? user.put(name) : what < 9 ? user.remove(name) : user.open();
        // An operation of the opening failed: it is tried again.
        if (what == 9 && !broken.empty()) broken = user.open();
    }
    return broken;
}

struct Totals {
    std::atomic<uint64_t> cuts = 0, images = 0, second = 0;
};

std::string cut(const CrashFiles& files, const User& user, size_t first, uint64_t seed,
                uint64_t again, Totals& totals) {
    uint64_t n = 0;
    const CrashReport report = for_each_crash_image(
        files, {.first_operation = first, .seed = seed},
        [&](size_t operations, CrashFiles& image) -> std::string {
            if (again == 0 || ++n % again != 0) return user.check(operations, image);
            User next(image, seed + n);
            next.expect(user.identity_at(operations));
            std::string broken = user.check_with(operations, next);
            if (broken.empty()) broken = live(next, seed + n, 4);
            if (!broken.empty()) return broken;
            const CrashReport second = for_each_crash_image(
                image, {.all_subsets = 5, .samples = 4, .torn = 4, .seed = n},
                [&](size_t then, CrashFiles& left) { return next.check(then, left); });
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
    User user(files, seed);
    std::string broken = user.open();
    if (broken.empty()) broken = live(user, seed, 8);
    return broken.empty() ? cut(files, user, 0, seed, 53, totals) : broken;
}

void print(const Totals& totals) {
    std::cout << totals.images << " images of " << totals.cuts << " cuts, " << totals.second
              << " of second cuts\n";
}

// Broken: an object that was put is lost or half after a power cut, or a removed one comes back.
TEST(DirectoryStoreCrash, EveryImageHoldsWholeObjects) {
    Totals totals;
    const SeedReport report = run_seeds("store-crash", {.count = fewer_when_sanitized(60)},
                                        [&](uint64_t seed) { return run(seed, {}, totals); });
    EXPECT_TRUE(report.ok()) << report.text();
    print(totals);
}

// Broken: what a killed process left is taken for durable by the next one.
TEST(DirectoryStoreCrash, AKilledProcessThenAPowerCut) {
    Totals totals;
    const SeedReport report =
        run_seeds("store-kill", {.count = fewer_when_sanitized(8)}, [&](uint64_t seed) {
            std::string broken;
            bool killed = true;
            for (size_t kill_at = 4; killed && broken.empty(); ++kill_at) {
                CrashFiles files;
                // A directory that was made and whose maker died before it was durable is not made
                // durable by anybody else.
                FS_CHECK(files.make_directories("d/store"));
                files.interfere = [&](DiskOp, const std::string&) {
                    if (files.operations() == kill_at) throw ProcessKilled{};
                    return CrashFiles::Verdict::kHappens;
                };
                User user(files, seed);
                killed = false;
                try {
                    broken = user.open();
                    if (broken.empty()) broken = live(user, seed, 5);
                } catch (const ProcessKilled&) {
                    killed = true;
                }
                files.interfere = nullptr;
                if (broken.empty()) broken = user.open();
                if (broken.empty()) broken = live(user, seed + 100, 3);
                if (broken.empty()) broken = cut(files, user, kill_at, seed, 0, totals);
            }
            return broken;
        });
    EXPECT_TRUE(report.ok()) << report.text();
    print(totals);
}

// Broken: a put that failed leaves something under its name, or spoils the next one.
TEST(DirectoryStoreCrash, AFailedOperationThenAPowerCut) {
    Totals totals;
    const SeedReport report =
        run_seeds("store-error", {.count = fewer_when_sanitized(60)}, [&](uint64_t seed) {
            uint64_t n = 0;
            return run(
                seed,
                [&](DiskOp op, const std::string& path) {
                    // Opening is not what fails here.
                    return path.find(kStoreObject) == std::string::npos &&
                                   op != DiskOp::kMakeDirectories && ++n == 20 + seed
                               ? CrashFiles::Verdict::kFails
                               : CrashFiles::Verdict::kHappens;
                },
                totals);
        });
    EXPECT_TRUE(report.ok()) << report.text();
    print(totals);
}

// Broken: the test does not see what it is there for.
TEST(DirectoryStoreCrash, AMissingSyncIsFound) {
    for (const DiskOp missing : {DiskOp::kSync, DiskOp::kSyncDirectory}) {
        bool found = false;
        Totals totals;
        for (uint64_t seed = 1; seed <= 20 && !found; ++seed)
            found = !run(
                         seed,
                         [&](DiskOp op, const std::string&) {
                             return op == missing ? CrashFiles::Verdict::kLeftOut
                                                  : CrashFiles::Verdict::kHappens;
                         },
                         totals)
                         .empty();
        EXPECT_TRUE(found) << static_cast<int>(missing);
    }
}

}  // namespace
}  // namespace farshore
