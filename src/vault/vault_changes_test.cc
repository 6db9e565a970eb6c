// What is said of disks that change unlike before.
#include "vault/test_site.h"

namespace farshore {
namespace {

constexpr int64_t kMinuteUs = 60'000'000, kHourUs = 60 * kMinuteUs;

// Broken if a break in what a disk writes is not told with the last point before it, or is told
// again and again.
TEST(Changes, EncryptionIsToldOnceWithThePointBefore) {
    Site site;
    site.clock.us = site.clock.us / kHourUs * kHourUs;
    ProtectedItem item(site);
    site.call("PATCH", "/v1/items/web", 200, {{"policy", {{"window_s", 86'400 * 7}}}});
    const auto write = [&](size_t bytes, bool dense) {
        Bytes records;
        for (size_t done = 0; done < bytes; done += 64 << 10) {
            std::string payload(64 << 10, 'x');
            if (dense)
                site.random.fill(
                    MutableByteView(reinterpret_cast<uint8_t*>(payload.data()), payload.size()));
            item.appliance.add(records, RecordKind::kWrite, payload);
        }
        ASSERT_TRUE(item.appliance.send(records));
    };
    const auto told = [&] {
        site.vault().tend();
        size_t count = 0;
        const Json all = site.call("GET", "/v1/events", 200);
        for (const Json& event : all["events"]) count += event["code"] == "change-unusual";
        return count;
    };
    for (int hour = 0; hour < 30; ++hour) {
        write(128 << 10, false);
        site.clock.us += kHourUs;
        EXPECT_EQ(told(), 0u);
    }
    write(128 << 10, false);
    const uint64_t before = item.appliance.next.v - 1;
    for (int minute = 0; minute < 5; ++minute) {
        site.clock.us += kMinuteUs + 1;
        for (int i = 0; i < 2; ++i) write(16 << 20, true);
    }
    site.clock.us += kMinuteUs + 1;
    EXPECT_EQ(told(), 1u);
    write(64 << 10, true);
    site.clock.us += 2 * kMinuteUs;
    EXPECT_EQ(told(), 1u);
    const Json points = site.call("GET", "/v1/items/web/points?suspicious=true", 200);
    ASSERT_FALSE(points["suspicious"].empty());
    for (const Json& one : points["suspicious"]) EXPECT_EQ(one["point_before"]["sequence"], before);
    EXPECT_EQ(points["suspicious"][0]["reason"], "incompressible");
    EXPECT_FALSE(site.call("GET", "/v1/items/web/points", 200).contains("suspicious"));
}

}  // namespace
}  // namespace farshore
