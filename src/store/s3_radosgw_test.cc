// S3Store against a real S3 server: Ceph's radosgw, which tests/services/radosgw.py starts and
// names in the environment (ctest: store_radosgw). Without it these tests are skipped.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <thread>

#include "os/real.h"
#include "store/open_store.h"
#include "store/s3_store.h"
#include "store/store_identity.h"
#include "store/store_maker.h"

namespace farshore {
namespace {

std::string given(const char* name) { return real_environment(name); }
bool there() { return !given("FARSHORE_TEST_S3_ENDPOINT").empty(); }

constexpr const char* kBucket = "contract";
constexpr const char* kLockedBucket = "contract-locked";
constexpr const char* kVersionedBucket = "contract-versioned";

StoreSettings settings_of(const std::string& location, const char* endpoint = "") {
    StoreSettings settings;
    settings.location = location;
    settings.endpoint = given(*endpoint != '\0' ? endpoint : "FARSHORE_TEST_S3_ENDPOINT");
    settings.ca_file = given("FARSHORE_TEST_S3_CA");
    settings.access_key_id = given("FARSHORE_TEST_S3_KEY");
    settings.secret_access_key = Secret(as_bytes(given("FARSHORE_TEST_S3_SECRET")));
    return settings;
}

// A place of its own in a bucket.
std::string new_place(const char* bucket) {
    return fmt::format("s3://{}/t{:016x}", bucket, RealRandom().next_u64());
}

struct S3Holder final : StoreHolder {
    explicit S3Holder(StoreSettings with) : settings(std::move(with)) {
        auto made =
            S3Store::make(files, clock, settings, parse_store_location(settings.location).value());
        FS_CHECK(made);
        s3 = std::move(*made);
    }
    ObjectStore& store() override { return *s3; }
    Result<HttpResponse> send(const S3Call& call) { return s3->wire().send_ok(call); }
    PosixFileSystem files;
    RealClock clock;
    StoreSettings settings;
    std::unique_ptr<S3Store> s3;
};

void make_buckets() {
    static std::once_flag once;
    std::call_once(once, [] {
        for (const char* bucket : {kBucket, kLockedBucket, kVersionedBucket}) {
            S3Holder holder(settings_of(fmt::format("s3://{}", bucket)));
            S3Call call;
            call.method = "PUT";
            if (bucket == kLockedBucket)
                call.headers = {{"x-amz-bucket-object-lock-enabled", "true"}};
            const auto made = holder.send(call);
            ASSERT_TRUE(made) << made.error().to_string();
        }
        S3Holder holder(settings_of(fmt::format("s3://{}", kVersionedBucket)));
        S3Call call;
        call.method = "PUT";
        call.query = {{"versioning", ""}};
        call.body = as_bytes(
            "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
            "<Status>Enabled</Status></VersioningConfiguration>");
        const auto done = holder.send(call);
        ASSERT_TRUE(done) << done.error().to_string();
    });
}

StoreMaker s3_maker(const char* name, const char* bucket, const char* endpoint,
                    const char* addressing = "") {
    return {name, [=]() -> std::unique_ptr<StoreHolder> {
                make_buckets();
                StoreSettings settings = settings_of(new_place(bucket), endpoint);
                settings.addressing = addressing;
                return std::make_unique<S3Holder>(std::move(settings));
            }};
}

std::vector<StoreMaker> makers() {
    if (!there()) return {};
    return {s3_maker("s3_tls", kBucket, "FARSHORE_TEST_S3_ENDPOINT"),
            s3_maker("s3_plain_http", kBucket, "FARSHORE_TEST_S3_PLAIN_ENDPOINT"),
            s3_maker("s3_virtual_host", kBucket, "FARSHORE_TEST_S3_NAMED_ENDPOINT", "virtual-host"),
            s3_maker("s3_versioned", kVersionedBucket, "FARSHORE_TEST_S3_ENDPOINT")};
}

[[maybe_unused]] const bool kAdded = add_remote_store_makers(makers());

class S3Radosgw : public testing::Test {
  protected:
    void SetUp() override {
        if (!there()) GTEST_SKIP() << "tests/services/radosgw.py run -- store_test";
        make_buckets();
    }
    Result<std::unique_ptr<ObjectStore>> open(const StoreSettings& settings, bool create) {
        return open_store(files_, clock_, random_, settings, create);
    }
    PosixFileSystem files_;
    RealClock clock_;
    RealRandom random_;
};

// Broken if a place were taken for a store that is none, or a store made over something else.
TEST_F(S3Radosgw, OpensAStoreAndNothingElse) {
    const StoreSettings settings = settings_of(new_place(kBucket));
    EXPECT_EQ(open(settings, false).error().code(), Code::kForeignStore);
    auto made = open(settings, true);
    ASSERT_TRUE(made) << made.error().to_string();
    ASSERT_TRUE(ensure_store_identity(**made, clock_, random_));
    ASSERT_TRUE((*made)->put("a", as_bytes("1")));
    auto* s3 = dynamic_cast<S3Store*>(made->get());
    ASSERT_NE(s3, nullptr);
    EXPECT_EQ(s3->conditional(), S3Store::Conditional::kObeyed);
    EXPECT_TRUE(open(settings, false));
    const StoreSettings foreign = settings_of(new_place(kBucket));
    ASSERT_TRUE(S3Holder(foreign).store().put("photos/1", as_bytes("x")));
    EXPECT_EQ(open(foreign, true).error().code(), Code::kForeignStore);
}

// Broken if somebody had to guess what is wrong with settings, or if a missing bucket looked like a
// store without objects.
TEST_F(S3Radosgw, SaysWhatIsWrongWithTheSettings) {
    StoreSettings settings = settings_of("s3://no-such-bucket");
    auto opened = open(settings, true);
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code(), Code::kForeignStore) << opened.error().to_string();
    EXPECT_NE(opened.error().what().find("no bucket"), std::string::npos);
    S3Holder lost(settings);
    for (const Code code :
         {lost.store().get("a").error().code(), lost.store().head("a").error().code(),
          lost.store().get_range("a", 0, 1).error().code(),
          lost.store().list("", "", 1).error().code(), lost.store().remove("a").error().code(),
          lost.store().put("a", as_bytes("1")).error().code()})
        EXPECT_EQ(code, Code::kForeignStore);

    settings = settings_of(new_place(kBucket));
    settings.secret_access_key = Secret(as_bytes("wrong-secret"));
    opened = open(settings, true);
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code(), Code::kForbidden);
    EXPECT_NE(opened.error().to_string().find("SignatureDoesNotMatch"), std::string::npos)
        << opened.error().to_string();
    EXPECT_EQ(opened.error().to_string().find("wrong-secret"), std::string::npos);

    settings = settings_of(new_place(kBucket));
    settings.access_key_id = "nobody";
    EXPECT_EQ(open(settings, true).error().code(), Code::kForbidden);

    settings = settings_of(new_place(kBucket));
    settings.ca_file.clear();
    EXPECT_EQ(open(settings, true).error().code(), Code::kUnauthenticated)
        << "an authority that is not known";

    settings = settings_of(new_place(kBucket));
    settings.endpoint = "https://127.0.0.1:1";
    EXPECT_EQ(open(settings, true).error().code(), Code::kUnavailable);
}

// Broken if a clock that runs wrong stopped replication: S3 refuses what is 15 minutes off.
TEST_F(S3Radosgw, AClockThatIsHoursOffIsMadeUpFor) {
    class WrongClock final : public Clock {
      public:
        TimePoint now() const override { return {real_.now().us + offset_us}; }
        int64_t steady_us() const override { return real_.steady_us(); }
        int64_t offset_us = 0;

      private:
        RealClock real_;
    } clock;
    for (const int64_t hours : {-5, 7}) {
        clock.offset_us = hours * 3600 * 1'000'000;
        const StoreSettings settings = settings_of(new_place(kBucket));
        auto store =
            S3Store::make(files_, clock, settings, parse_store_location(settings.location).value());
        ASSERT_TRUE(store);
        const Status put = (*store)->put("a", as_bytes("1"));
        ASSERT_TRUE(put) << put.error().to_string();
        EXPECT_TRUE((*store)->head("a"));
        EXPECT_LT(std::abs((*store)->wire().clock_offset_us() + clock.offset_us), 60'000'000);
    }
}

// Broken if a listing that does not fit one answer lost its end.
TEST_F(S3Radosgw, ListsMoreThanOneAnswerHolds) {
    S3Holder holder(settings_of(new_place(kBucket)));
    constexpr int kObjects = 1010;
    std::atomic<int> next{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
        threads.emplace_back([&] {
            for (int i = next++; i < kObjects; i = next++)
                EXPECT_TRUE(holder.store().put(fmt::format("log/{:06}", i), as_bytes("x")));
        });
    for (std::thread& thread : threads) thread.join();
    auto listed = holder.store().list("log/", "", 5000);
    ASSERT_TRUE(listed) << listed.error().to_string();
    ASSERT_EQ(listed->size(), static_cast<size_t>(kObjects));
    for (int i = 0; i < kObjects; ++i) ASSERT_EQ((*listed)[i].name, fmt::format("log/{:06}", i));
    listed = holder.store().list("log/", "log/000002", 1005);
    ASSERT_TRUE(listed);
    ASSERT_EQ(listed->size(), 1005u);
    EXPECT_EQ(listed->front().name, "log/000003");
}

// ---- object lock --------------------------------------------------------------------------------

class S3Locked : public S3Radosgw {
  protected:
    S3Holder holder(const std::string& place, int days = 1) {
        StoreSettings settings = settings_of(place);
        settings.object_lock_days = days;
        return S3Holder(std::move(settings));
    }
    // What an attacker with our keys, or another tool, does.
    static Result<HttpResponse> raw(S3Holder& holder, const char* method, const std::string& name,
                                    S3Pairs query = {}, std::string_view body = {}) {
        S3Call call;
        call.method = method;
        call.key = holder.s3->prefix() + name;
        call.query = std::move(query);
        call.body = as_bytes(body);
        return holder.send(call);
    }
};

// Broken if locks that were asked for are missing and nobody says so.
TEST_F(S3Locked, LocksAreTriedWhenAStoreIsSetUp) {
    StoreSettings settings = settings_of(new_place(kBucket));
    settings.object_lock_days = 1;
    auto opened = open(settings, true);
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code(), Code::kUnsupported) << opened.error().to_string();
    EXPECT_NE(opened.error().what().find("no object lock"), std::string::npos);
    settings.location = new_place(kLockedBucket);
    opened = open(settings, true);
    ASSERT_TRUE(opened) << opened.error().to_string();
    auto left = (*opened)->list("", "", 10);
    ASSERT_TRUE(left);
    EXPECT_TRUE(left->empty()) << "the trial must be cleaned up: " << left->front().name;
}

// Broken if whoever gets hold of the vault's keys could change or hide what is stored.
TEST_F(S3Locked, WhatIsPutOverOrMarkedAsDeletedIsNotSeen) {
    const std::string place = new_place(kLockedBucket);
    S3Holder writer = holder(place);
    for (const char* name : {"a/1", "a/2", "a/3", "a/30"})
        ASSERT_TRUE(writer.store().put(name, as_bytes(std::string("true ") + name)));
    // On every name something else; versions over versions.
    for (int round = 0; round < 3; ++round) {
        for (const char* name : {"a/1", "a/3"})
            ASSERT_TRUE(raw(writer, "PUT", name, {}, "a lie of another length"));
        for (const char* name : {"a/1", "a/2"}) ASSERT_TRUE(raw(writer, "DELETE", name));
    }
    ASSERT_TRUE(raw(writer, "DELETE", "a/30"));
    ASSERT_TRUE(raw(writer, "DELETE", "a/31")) << "a mark over nothing";
    for (const bool knows : {true, false}) {
        S3Holder fresh = holder(place);
        ObjectStore& store = knows ? writer.store() : fresh.store();
        for (const char* name : {"a/1", "a/2", "a/3", "a/30"}) {
            auto got = store.get(name);
            ASSERT_TRUE(got) << name << " " << got.error().to_string();
            EXPECT_EQ(to_text(*got), std::string("true ") + name);
            EXPECT_EQ(to_text(*store.get_range(name, 0, 4)), "true");
            EXPECT_EQ(store.head(name)->size_bytes, got->size());
            EXPECT_EQ(store.put(name, as_bytes("x")).error().code(), Code::kAlreadyExists) << name;
        }
        for (const size_t limit : {1u, 2u, 3u, 100u}) {
            std::vector<std::string> names;
            for (std::string after;;) {
                auto listed = store.list("a/", after, limit);
                ASSERT_TRUE(listed) << listed.error().to_string();
                for (const ObjectInfo& info : *listed) {
                    names.push_back(info.name);
                    EXPECT_EQ(info.size_bytes, 5 + info.name.size());
                }
                if (listed->size() < limit) break;
                after = listed->back().name;
            }
            EXPECT_EQ(names, (std::vector<std::string>{"a/1", "a/2", "a/3", "a/30"})) << limit;
        }
        EXPECT_EQ(store.get("a/31").error().code(), Code::kNotFound);
    }
}

// Broken if a name that somebody took before us, and hid, were taken for ours.
TEST_F(S3Locked, ANameThatWasTakenAndHiddenIsTaken) {
    S3Holder writer = holder(new_place(kLockedBucket));
    ASSERT_TRUE(raw(writer, "PUT", "log/2", {}, "a lie"));
    ASSERT_TRUE(raw(writer, "DELETE", "log/2"));
    EXPECT_EQ(writer.store().put("log/2", as_bytes("truth")).error().code(), Code::kAlreadyExists);
    EXPECT_EQ(put_idempotent(writer.store(), "log/2", as_bytes("truth")).error().code(),
              Code::kAlreadyExists);
}

// Broken if a lock could be got around by any of the ways that S3 has to delete.
TEST_F(S3Locked, NoWayOfDeletingHelps) {
    S3Holder writer = holder(new_place(kLockedBucket));
    ASSERT_TRUE(writer.store().put("x", as_bytes("kept")));
    auto got = raw(writer, "GET", "x");
    ASSERT_TRUE(got);
    const std::string version = got->header("x-amz-version-id");
    ASSERT_FALSE(version.empty());
    EXPECT_FALSE(raw(writer, "DELETE", "x", {{"versionId", version}}));
    const std::string shorter =
        "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>COMPLIANCE</Mode>"
        "<RetainUntilDate>" +
        to_rfc3339({RealClock().now().us + 10'000'000}) + "</RetainUntilDate></Retention>";
    EXPECT_FALSE(raw(writer, "PUT", "x", {{"retention", ""}, {"versionId", version}}, shorter));
    EXPECT_TRUE(writer.store().remove("x")) << "not yet, and that is no failure";
    EXPECT_EQ(to_text(*holder(writer.settings.location).store().get("x")), "kept");
}

// Broken if what a kept point needs could lose its lock by age.
TEST_F(S3Locked, LocksAreMadeLonger) {
    const std::string place = new_place(kLockedBucket);
    S3Holder writer = holder(place);
    ASSERT_TRUE(writer.store().put("x", as_bytes("kept")));
    const int64_t now_us = RealClock().now().us;
    const auto until = [&] {
        auto got = raw(writer, "HEAD", "x");
        EXPECT_TRUE(got);
        return from_rfc3339(got->header("x-amz-object-lock-retain-until-date")).value().us;
    };
    const int64_t before_us = until();
    EXPECT_TRUE(writer.store().extend_lock("x", {now_us + 3'600'000'000})) << "it lasts longer";
    EXPECT_EQ(until(), before_us);
    const Status extended = writer.store().extend_lock("x", {now_us + 48ll * 3'600'000'000});
    ASSERT_TRUE(extended) << extended.error().to_string();
    EXPECT_GT(until(), before_us + 23ll * 3'600'000'000);
    EXPECT_EQ(writer.store().extend_lock("y", {now_us}).error().code(), Code::kNotFound);
}

}  // namespace
}  // namespace farshore
