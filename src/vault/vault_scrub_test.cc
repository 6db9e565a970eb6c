// Scrubs as the vault drives them: when, where they go on, what is said of damage, how it ends.
#include "meta/items.h"
#include "meta/jobs.h"
#include "vault/test_site.h"

namespace farshore {
namespace {

constexpr int64_t kDayUs = 86'400'000'000;

class ScrubTest : public testing::Test {
  protected:
    ScrubTest() { item = std::make_unique<ProtectedItem>(site); }

    Json scrub_now() {
        const Json job = site.call("POST", "/v1/items/web/scrub", 202);
        return wait(job["id"].get<uint64_t>());
    }
    Json wait(uint64_t id) {
        const auto job = site.vault().job(id, 3'600'000'000);
        EXPECT_TRUE(job && job->over());
        return site.call("GET", "/v1/jobs/" + std::to_string(id), 200);
    }
    Json scrub() { return site.call("GET", "/v1/items/web/scrub", 200); }
    std::vector<Json> events(const std::string& code) {
        std::vector<Json> out;
        const Json all = site.call("GET", "/v1/events", 200);
        for (const Json& event : all["events"])
            if (event["code"] == code) out.push_back(event);
        return out;
    }
    bool troubled() {
        const Json shown = site.call("GET", "/v1/items/web", 200);
        for (const Json& trouble : shown["troubles"])
            if (trouble["code"] == "replica-damaged") return true;
        return false;
    }
    uint64_t open_scrubs() {
        uint64_t count = 0;
        const auto jobs = *open_jobs(site.vault().database());
        for (const JobRecord& job : jobs) count += job.kind == "scrub";
        return count;
    }
    // Of the log's newest segment.
    std::filesystem::path segment() {
        std::vector<std::filesystem::path> found;
        for (const auto& entry :
             std::filesystem::recursive_directory_iterator(site.directory + "/store"))
            if (entry.path().extension() == ".seg") found.push_back(entry.path());
        std::ranges::sort(found);
        return found.back();
    }
    Bytes damage(const std::filesystem::path& path) {
        const Bytes whole = *read_whole_file(site.files, path, 1 << 20);
        Bytes bad = whole;
        bad[bad.size() - 5] ^= 1;
        write(path, bad);
        return whole;
    }
    void write(const std::filesystem::path& path, const Bytes& bytes) {
        std::filesystem::permissions(path, std::filesystem::perms::owner_all);
        std::filesystem::remove(path);
        ASSERT_TRUE(write_file_durably(site.files, path, bytes));
    }

    Site site;
    std::unique_ptr<ProtectedItem> item;
};

// Broken if damage is not named with its points, the source is not asked for what the newest point
// needs, or the item does not get well when it has sent that.
TEST_F(ScrubTest, DamageIsNamedSentAgainAndForgotten) {
    EXPECT_EQ(scrub()["state"], "never");
    EXPECT_EQ(scrub_now()["state"], "succeeded");
    EXPECT_EQ(scrub()["state"], "done");
    EXPECT_EQ(scrub()["objects"], 3) << "the description, a log lease and a segment";
    EXPECT_FALSE(troubled());
    const auto path = segment();
    const Bytes whole = damage(path);
    EXPECT_EQ(scrub_now()["result"]["damaged"], 1);
    Json found = scrub()["damaged"];
    ASSERT_EQ(found.size(), 1u);
    EXPECT_EQ(found[0]["object"].get<std::string>().substr(39), "log/" + path.filename().string());
    EXPECT_EQ(found[0]["newest_point"], true);
    EXPECT_TRUE(found[0].contains("asked_source"));
    ASSERT_EQ(found[0]["points"]["ranges"].size(), 1u);
    EXPECT_EQ(found[0]["points"]["ranges"][0]["oldest"]["sequence"], 4);
    EXPECT_EQ(found[0]["points"]["ranges"][0]["newest"]["sequence"], 5);
    EXPECT_TRUE(troubled());
    ASSERT_EQ(events("replica-damaged").size(), 1u);
    const std::string cause = events("replica-damaged")[0]["cause"];
    EXPECT_NE(cause.find("the points 4 to 5"), std::string::npos) << cause;
    EXPECT_FALSE(
        site.call("GET", "/v1/items/web", 200)["resync_requested"].get<std::string>().empty());
    // Found again it is no news.
    EXPECT_EQ(scrub_now()["result"]["damaged"], 1);
    EXPECT_EQ(events("replica-damaged").size(), 1u);

    // The source sends it again.
    Bytes records;
    item->appliance.add(records, RecordKind::kWrite, std::string(4096, 'x'));
    item->appliance.add(records, RecordKind::kPoint, "", static_cast<uint8_t>(PointKind::kCrash));
    ASSERT_TRUE(item->appliance.send(records));
    site.clock.us += 11'000'000;
    site.vault().tend();
    const auto report =
        site.vault().wait_for_item(item->item, 3'600'000'000, [&](const ItemReport& now) {
            return std::ranges::none_of(now.troubles, [](const Trouble& trouble) {
                return trouble.code == "replica-damaged";
            });
        });
    ASSERT_TRUE(report);
    EXPECT_FALSE(troubled());
    EXPECT_EQ(events("replica-repaired").size(), 1u);
    found = scrub()["damaged"];
    ASSERT_EQ(found.size(), 1u) << "older points need it still";
    EXPECT_EQ(found[0]["points"]["ranges"][0]["newest"]["sequence"], 5);

    // Restored from a copy.
    write(path, whole);
    EXPECT_EQ(scrub_now()["state"], "succeeded");
    EXPECT_TRUE(scrub()["damaged"].empty());
    EXPECT_EQ(events("object-restored").size(), 1u);
}

// Broken if a missing object is not missed, or what is known of damage is lost with the vault.
TEST_F(ScrubTest, AMissingSegmentIsNamedAndRemembered) {
    std::filesystem::remove(segment());
    EXPECT_EQ(scrub_now()["state"], "succeeded");
    ASSERT_EQ(scrub()["damaged"].size(), 1u);
    EXPECT_EQ(scrub()["damaged"][0]["code"], "not-found");
    EXPECT_TRUE(troubled());
    site.start();
    EXPECT_TRUE(troubled());
    EXPECT_EQ(scrub()["damaged"].size(), 1u);
}

// Broken if scrubs are not made as the policy says, run more than one at a time, or come at once
// for an item that is new.
TEST_F(ScrubTest, ComesByItsPolicy) {
    ProtectedItem other(site, "db", "/disks/b");
    EXPECT_EQ(site.refused("PATCH", "/v1/items/web", {{"policy", {{"scrub_interval_s", 60}}}}),
              "invalid-argument");
    site.call("PATCH", "/v1/items/db", 200, {{"policy", {{"scrub_interval_s", 0}}}});
    const auto run = [&](int64_t us) {
        site.clock.us += us;
        site.vault().tend();
        const auto jobs = *open_jobs(site.vault().database());
        for (const JobRecord& job : jobs)
            if (job.kind == "scrub") wait(job.id);
        return scrub().value("finished", std::string());
    };
    EXPECT_EQ(run(29 * kDayUs), "");
    const std::string first = run(kDayUs + 61'000'000);
    EXPECT_NE(first, "");
    EXPECT_EQ(run(29 * kDayUs), first);
    EXPECT_NE(run(kDayUs + 61'000'000), first);
    EXPECT_EQ(site.call("GET", "/v1/items/db/scrub", 200)["state"], "never");
}

// Broken if a scrub that the vault's end interrupted begins anew, or is forgotten.
TEST_F(ScrubTest, GoesOnAfterARestart) {
    scrub_now();
    ScrubRecord half = *get_scrub(site.vault().database(), item->item);
    half.started.us = half.finished.us + 1;
    half.ended = {};
    half.objects = 1;
    half.after = "items/" + item->item.to_string() + "/item";
    ASSERT_TRUE(put_scrub(site.vault().database(), item->item, half));
    JobRecord job;
    job.kind = "scrub";
    job.item = item->item;
    job.cancellable = true;
    const uint64_t id = add_job(site.vault().database(), job)->id;
    EXPECT_EQ(scrub()["state"], "queued");
    site.start();
    EXPECT_EQ(wait(id)["state"], "succeeded");
    EXPECT_EQ(scrub()["objects"], 3) << "one before, two after";
    EXPECT_EQ(scrub()["started"], to_rfc3339(half.started));
    EXPECT_EQ(open_scrubs(), 0u);
}

// Broken if what failed could not be done again, or twice at once, or what went well was.
TEST_F(ScrubTest, AFailedJobIsTriedAgain) {
    JobRecord job;
    job.kind = "scrub";
    job.item = item->item;
    job.item_name = "db";
    job.cancellable = true;
    const uint64_t id = add_job(site.vault().database(), job)->id;
    const std::string retry = fmt::format("/v1/jobs/{}/retry", id);
    EXPECT_EQ(site.refused("POST", retry), "wrong-state") << "it is under way";
    ASSERT_TRUE(end_job(site.vault().database(), id, JobState::kFailed, "",
                        ItemError{Code::kIo, "the store was away", ""}));
    const uint64_t other = add_job(site.vault().database(), job)->id;
    EXPECT_EQ(site.refused("POST", retry), "wrong-state") << "another does the same";
    ASSERT_TRUE(end_job(site.vault().database(), other, JobState::kCancelled, "", {}));
    const Json again = site.call("POST", retry, 202);
    EXPECT_EQ(wait(again["id"])["state"], "succeeded");
    EXPECT_EQ(site.refused("POST", fmt::format("/v1/jobs/{}/retry", again["id"].get<int>())),
              "wrong-state");
    EXPECT_EQ(site.call("GET", fmt::format("/v1/jobs/{}", id), 200)["state"], "failed");
    job.kind = "failover";
    const uint64_t machine = add_job(site.vault().database(), job)->id;
    ASSERT_TRUE(end_job(site.vault().database(), machine, JobState::kFailed, "", {}));
    EXPECT_EQ(site.refused("POST", fmt::format("/v1/jobs/{}/retry", machine)), "unsupported");
    EXPECT_EQ(site.refused("POST", "/v1/jobs/4711/retry"), "not-found");
}

}  // namespace
}  // namespace farshore
