// The check of stores, on good ones and on ones that break one promise each.
#include "store/store_check.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "os/real.h"
#include "store/memory_store.h"
#include "store/store_identity.h"

namespace farshore {
namespace {

// Breaks one promise.
class Faulty final : public ObjectStore {
  public:
    enum class Promise {
        kNone,
        kOverwrites,
        kBothWin,
        kCutsObjects,
        kWrongRange,
        kUnsorted,
        kListsLate,
        kNoDelete,
        kNothing,
        kMissingIsEmpty
    };
    explicit Faulty(Promise broken) : broken_(broken) {}

    Status put(const std::string& name, ByteView data) override {
        if (broken_ == Promise::kNothing) return fail(Code::kForbidden, "no");
        if (broken_ == Promise::kOverwrites && inner_.head(name)) {
            inner_.replace(name, to_bytes(data));
            return {};
        }
        if (broken_ == Promise::kBothWin && name.find("race/") != std::string::npos) {
            if (inner_.head(name)) return {};
        }
        return inner_.put(name, data);
    }
    Result<Bytes> get(const std::string& name) override {
        auto got = inner_.get(name);
        if (!got && broken_ == Promise::kMissingIsEmpty) return Bytes();
        if (got && broken_ == Promise::kCutsObjects && got->size() > 1000) got->pop_back();
        return got;
    }
    Result<Bytes> get_range(const std::string& name, uint64_t from, uint64_t n) override {
        return inner_.get_range(name, broken_ == Promise::kWrongRange ? from / 2 : from, n);
    }
    Result<ObjectInfo> head(const std::string& name) override { return inner_.head(name); }
    Result<std::vector<ObjectInfo>> list(const std::string& prefix, const std::string& after,
                                         size_t limit) override {
        auto listed = inner_.list(prefix, after, limit);
        if (broken_ == Promise::kUnsorted) std::ranges::reverse(*listed);
        if (broken_ == Promise::kListsLate && !listed->empty()) listed->pop_back();
        return listed;
    }
    Status remove(const std::string& name) override {
        return broken_ == Promise::kNoDelete ? Status() : inner_.remove(name);
    }

  private:
    const Promise broken_;
    MemoryStore inner_;
};

StoreCheckReport check(ObjectStore& store) {
    RealClock clock;
    RealRandom random;
    StoreCheckOptions options;
    options.small_puts = 3;
    options.large_objects = 3;
    options.large_bytes = 100'000;
    return check_store(store, clock, random, options);
}

std::set<std::string> refused(const StoreCheckReport& report) {
    std::set<std::string> subjects;
    for (const StoreFinding& finding : report.findings)
        if (finding.result == StoreFinding::Result::kRefused) subjects.insert(finding.subject);
    return subjects;
}

// Broken if a good store were refused, or the check left anything behind.
TEST(StoreCheck, AGoodStoreIsFitAndIsLeftAsItWas) {
    MemoryStore store;
    ASSERT_TRUE(store.put("a", as_bytes("1")));
    const StoreCheckReport report = check(store);
    EXPECT_TRUE(report.fit());
    EXPECT_EQ(refused(report), std::set<std::string>());
    EXPECT_TRUE(report.put_p99_us && report.put_bytes_per_s);
    auto left = store.list("", "", 10);
    ASSERT_TRUE(left);
    ASSERT_EQ(left->size(), 1u);
}

// Broken if a store that loses or changes data passed for a good one.
TEST(StoreCheck, EachBrokenPromiseIsNamed) {
    using Promise = Faulty::Promise;
    for (const auto& [broken, subject] : std::vector<std::pair<Promise, std::string>>{
             {Promise::kNothing, "write"},
             {Promise::kCutsObjects, "read after write"},
             {Promise::kMissingIsEmpty, "read after write"},
             {Promise::kOverwrites, "write once"},
             {Promise::kBothWin, "two writers"},
             {Promise::kWrongRange, "ranges"},
             {Promise::kUnsorted, "listing"},
             {Promise::kListsLate, "listing"},
             {Promise::kNoDelete, "delete"}}) {
        Faulty store(broken);
        const StoreCheckReport report = check(store);
        EXPECT_FALSE(report.fit()) << subject;
        EXPECT_TRUE(refused(report).contains(subject)) << subject;
        if (broken != Promise::kOverwrites) {
            EXPECT_EQ(refused(report).size(), 1u) << subject;
        }
    }
}

}  // namespace
}  // namespace farshore
