#include "replica/log_lease.h"

#include <gtest/gtest.h>

#include <set>

#include "replica/registration.h"
#include "replica/replica_test_model.h"

namespace farshore {
namespace {

using namespace replica_test;

// Would break: names that are none are taken for marks, or say something else than what was
// written.
TEST(LogLease, NamesAreExact) {
    const LogLeaseMark mark{{0x0000000200000003}, {0x1f}, {0x0000000100000001}};
    const std::string name = log_lease_name(test_item(), mark);
    EXPECT_EQ(name, "items/" + test_item().to_string() +
                        "/lease/0000000200000003-000000000000001f-0000000100000001");
    EXPECT_EQ(parse_log_lease_name(test_item(), name), mark);
    EXPECT_FALSE(parse_log_lease_name(ItemId{}, name));
    for (const char* bad : {"", "0000000200000003-000000000000001f",
                            "0000000200000003-000000000000001f-000000010000000",
                            "0000000200000003-000000000000001F-0000000100000001",
                            "0000000200000003-000000000000001f-0000000100000001.",
                            "0000000200000003-0000000000000000-0000000000000000",
                            "0000000200000003-0000000000000002-0000000000000000",
                            "0000000200000003-0000000000000001-0000000000000001"})
        EXPECT_FALSE(parse_log_lease_name(test_item(), log_lease_prefix(test_item()) + bad)) << bad;
}

// Leases, registrations and puts ahead as they come, over vaults that are replaced and fenced ones
// that go on for a while: at every moment the store alone names the segments that were registered.
// Would break: the log that readers and rebuilds follow is not the one that was acknowledged.
TEST(LogLease, TheStoreAloneNamesWhatWasRegistered) {
    for (uint64_t seed = 1; seed <= 400; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        Rng rng(seed);
        struct Lease {
            uint64_t epoch, next, registered;
        };
        std::vector<Lease> leases;                       // the last one is the newest
        std::vector<std::pair<uint64_t, uint64_t>> log;  // number, epoch; by number
        std::set<std::pair<uint64_t, uint64_t>> landed;
        std::vector<std::pair<uint64_t, uint64_t>> under_way;
        std::vector<LogLeaseMark> marks;
        uint64_t vault = 1, counter = 0;
        for (int step = 0; step < 120; ++step) {
            const uint64_t what = rng.below(20);
            if (leases.empty() || what == 0) {
                leases.push_back({vault << 32 | ++counter, log.size() + 1, log.size()});
                marks.push_back({{leases.back().epoch},
                                 {log.size() + 1},
                                 {log.empty() ? 0 : log.back().second}});
            } else if (what == 1) {
                // A vault is replaced; the log is what the store says, and it says so there.
                const LogOwners owners(marks);
                std::vector<std::pair<uint64_t, uint64_t>> found;
                for (uint64_t n = 1;; ++n) {
                    uint64_t best = 0;
                    for (const auto& [number, epoch] : landed)
                        if (number == n && owners.may_own({number}, {epoch}))
                            best = std::max(best, epoch);
                    if (best == 0) break;
                    found.push_back({n, best});
                }
                ASSERT_GE(found.size(), log.size());
                ASSERT_TRUE(std::equal(log.begin(), log.end(), found.begin()));
                ASSERT_GE(found.size(), owners.registered().v);
                // A mark of the old one may still land behind that.
                if (rng.coin() && !log.empty())
                    marks.push_back(
                        {{vault << 32 | ++counter}, {log.size() + 1}, {log.back().second}});
                log = found;
                ++vault;
                counter = 0;
                if (!log.empty())
                    marks.push_back(
                        {{vault << 32 | ++counter}, {log.size() + 1}, {log.back().second}});
                leases.push_back({vault << 32 | ++counter, log.size() + 1, log.size()});
                marks.push_back({{leases.back().epoch},
                                 {log.size() + 1},
                                 {log.empty() ? 0 : log.back().second}});
            } else if (what < 10) {
                // Anybody puts, as far ahead as is allowed; it lands now, later or never.
                Lease& lease =
                    leases[leases.size() - 1 - rng.below(std::min<size_t>(leases.size(), 3))];
                if (lease.next > lease.registered + kMaxSegmentsAhead) continue;
                under_way.push_back({lease.next++, lease.epoch});
            } else if (what < 15 && !under_way.empty()) {
                const size_t which = rng.below(under_way.size());
                landed.insert(under_way[which]);
                under_way.erase(under_way.begin() + static_cast<ptrdiff_t>(which));
            } else {
                // Only the newest lease registers, in order.
                Lease& lease = leases.back();
                if (lease.registered != log.size() ||
                    !landed.contains({log.size() + 1, lease.epoch}))
                    continue;
                log.push_back({log.size() + 1, lease.epoch});
                ++lease.registered;
            }
            const LogOwners owners(marks);
            ASSERT_LE(owners.registered().v, log.size());
            for (const auto& [n, registered] : log) {
                uint64_t best = 0;
                for (auto at = landed.lower_bound({n, 0}); at != landed.end() && at->first == n;
                     ++at)
                    if (owners.may_own({n}, {at->second})) best = std::max(best, at->second);
                ASSERT_EQ(best, registered) << "number " << n << " at step " << step;
            }
            // What lies behind the end is within what an appliance runs ahead.
            if (!landed.empty()) ASSERT_LE(landed.rbegin()->first, log.size() + kMaxSegmentsAhead);
        }
    }
}

}  // namespace
}  // namespace farshore
