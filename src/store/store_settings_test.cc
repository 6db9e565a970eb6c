// Locations and settings of stores, and what open_store makes of them.
#include "store/store_settings.h"

#include <gtest/gtest.h>

#include <map>

#include "os/real.h"
#include "os/test_directory.h"
#include "store/open_store.h"
#include "store/store_identity.h"

namespace farshore {
namespace {

std::string no_environment(const char*) { return {}; }

struct SettingsFile {
    TestDirectory directory;
    PosixFileSystem files;
    std::string path = directory / "store.json";

    explicit SettingsFile(const std::string& json) {
        EXPECT_TRUE(write_file_durably(files, path, as_bytes(json)));
    }
    Result<StoreSettings> load(const std::string& location,
                               const EnvironmentLookup& environment = no_environment) {
        return load_store_settings(files, location, path, environment);
    }
};

// Broken if a location were taken for another kind or another place.
TEST(StoreLocation, IsADirectoryABucketOrAContainer) {
    auto directory = parse_store_location("some/dir");
    ASSERT_TRUE(directory);
    EXPECT_EQ(directory->directory, "some/dir");
    EXPECT_FALSE(directory->remote());
    auto s3 = parse_store_location("s3://my-bucket.x/site/a/");
    ASSERT_TRUE(s3) << s3.error().to_string();
    EXPECT_EQ(s3->kind, StoreKind::kS3);
    EXPECT_EQ(s3->container, "my-bucket.x");
    EXPECT_EQ(s3->prefix, "site/a/");
    for (const char* bare : {"s3://bucket", "s3://bucket/"})
        EXPECT_EQ(parse_store_location(bare)->prefix, "");
    auto azure = parse_store_location("azure://account1/container-1/p");
    ASSERT_TRUE(azure) << azure.error().to_string();
    EXPECT_EQ(azure->account, "account1");
    EXPECT_EQ(azure->container, "container-1");
    EXPECT_EQ(azure->prefix, "p/");
    for (const char* wrong :
         {"", "s3://", "s3://ab", "s3://UPPER", "s3://a_b_c", "s3://-abc", "s3://abc/../x",
          "s3://abc//x", "s3://abc/X", "azure://account", "azure://acc-ount/container",
          "azure://account/c", "https://host/x", "gs://bucket", "file:///x", "s3://abc?x=1"}) {
        auto parsed = parse_store_location(wrong);
        ASSERT_FALSE(parsed) << wrong;
        EXPECT_EQ(parsed.error().code(), Code::kInvalidArgument) << wrong;
        EXPECT_FALSE(parsed.error().remedy().empty());
    }
}

// Broken if a slip in the file were passed over: a store without the lock, or by another way, than
// was asked for.
TEST(StoreSettings, RefusesWhatItDoesNotKnow) {
    auto all = parse_store_settings(R"({"endpoint": "https://h:1", "ca_file": "ca.pem",
        "proxy": "http://p:3128", "proxy_user": "u", "proxy_password": "pp",
        "connect_timeout_s": 3, "timeout_s": 40, "region": "eu", "addressing": "path",
        "access_key_id": "AK", "secret_access_key": "SK", "session_token": "ST",
        "object_lock_days": 30})");
    ASSERT_TRUE(all) << all.error().to_string();
    EXPECT_EQ(all->timeout_us, 40'000'000);
    EXPECT_EQ(all->connect_timeout_us, 3'000'000);
    EXPECT_EQ(all->object_lock_days, 30);
    EXPECT_EQ(as_text(all->secret_access_key.reveal()), "SK");
    for (const auto& [json, named] : std::map<std::string, std::string>{
             {"", "JSON"},
             {"[]", "JSON"},
             {R"({"object_lock_day": 3})", "object_lock_day"},
             {R"({"object_lock_days": "3"})", "object_lock_days"},
             {R"({"object_lock_days": -1})", "object_lock_days"},
             {R"({"object_lock_days": 99999999999999999999})", "object_lock_days"},
             {R"({"object_lock_days": 1.5})", "object_lock_days"},
             {R"({"timeout_s": 0})", "timeout_s"},
             {R"({"region": 5})", "region"},
             {R"({"region": "a\nb"})", "region"},
             {R"({"managed_identity": "yes"})", "managed_identity"}}) {
        auto parsed = parse_store_settings(json);
        ASSERT_FALSE(parsed) << json;
        EXPECT_EQ(parsed.error().code(), Code::kMalformed) << json;
        EXPECT_NE(parsed.error().what().find(named), std::string::npos)
            << parsed.error().to_string();
    }
}

// Broken if secrets lay open to every user of the machine and nobody said so.
TEST(StoreSettings, AFileThatEverybodyMayReadIsRefused) {
    SettingsFile file(R"({"access_key_id": "AK", "secret_access_key": "SK", "ca_file": "ca.pem"})");
    auto loaded = file.load("s3://bucket");
    ASSERT_TRUE(loaded) << loaded.error().to_string();
    EXPECT_EQ(loaded->ca_file, file.directory / "ca.pem") << "relative to the settings' file";
    ASSERT_TRUE(file.files.set_mode(file.path, 0644));
    loaded = file.load("s3://bucket");
    ASSERT_FALSE(loaded);
    EXPECT_EQ(loaded.error().code(), Code::kForbidden);
    EXPECT_NE(loaded.error().remedy().find("chmod 600"), std::string::npos);
    ASSERT_TRUE(file.files.set_mode(file.path, 0640));
    EXPECT_TRUE(file.load("s3://bucket"));
    EXPECT_EQ(
        load_store_settings(file.files, "s3://bucket", file.directory / "none", no_environment)
            .error()
            .code(),
        Code::kNotFound);
}

// Broken if a start went on with settings that mean something else than their author thinks.
TEST(StoreSettings, MustFitTheStore) {
    const auto refused = [](const std::string& location, const std::string& json) {
        SettingsFile file(json);
        auto loaded = file.load(location);
        if (loaded) return std::string("taken");
        EXPECT_EQ(loaded.error().code(), Code::kInvalidArgument) << loaded.error().to_string();
        EXPECT_EQ(loaded.error().to_string().find("SEKRET"), std::string::npos);
        return loaded.error().what();
    };
    const auto has = [](const std::string& text, const char* part) {
        return text.find(part) != std::string::npos;
    };
    EXPECT_TRUE(has(refused("s3://bucket", "{}"), "no keys"));
    EXPECT_TRUE(has(refused("s3://bucket", R"({"access_key_id": "A"})"), "no keys"));
    EXPECT_TRUE(has(refused("s3://bucket", R"({"access_key_id": "A", "secret_access_key": "SEKRET",
        "account_key": "SEKRET"})"),
                    "account_key"));
    EXPECT_TRUE(has(refused("s3://bucket", R"({"access_key_id": "A", "secret_access_key": "SEKRET",
        "addressing": "dns"})"),
                    "addressing"));
    for (const char* url : {"h:1", "ftp://h", "https://u:SEKRET@h", "https://", "https://h?x"})
        EXPECT_TRUE(has(refused("s3://bucket", R"({"access_key_id": "A",
            "secret_access_key": "SEKRET", "endpoint": ")" +
                                                   std::string(url) + "\"}"),
                        "endpoint"))
            << url;
    EXPECT_TRUE(has(refused("azure://acc/con", "{}"), "no way"));
    EXPECT_TRUE(has(refused("azure://acc/con", R"({"sas": "SEKRET", "managed_identity": true})"),
                    "several ways"));
    EXPECT_TRUE(has(refused("/dir", R"({"object_lock_days": 3})"), "object_lock_days"));
    EXPECT_EQ(refused("azure://acc/con", R"({"sas": "SEKRET", "object_lock_days": 3})"), "taken");
    EXPECT_TRUE(has(refused("/dir", R"({"endpoint": "https://h"})"), "endpoint"));
    EXPECT_EQ(refused("azure://acc/con", R"({"account_key": "SEKRET"})"), "taken");
    EXPECT_EQ(refused("/dir", "{}"), "taken");
}

// Broken if keys of two places were mixed, or the environment beat the file.
TEST(StoreSettings, TakesKeysOfTheEnvironmentWhenTheFileHasNone) {
    const auto environment = [](const char* name) { return std::string("env-") + name; };
    PosixFileSystem files;
    auto bare = load_store_settings(files, "s3://bucket", "", environment);
    ASSERT_TRUE(bare) << bare.error().to_string();
    EXPECT_EQ(bare->access_key_id, "env-AWS_ACCESS_KEY_ID");
    EXPECT_EQ(as_text(bare->secret_access_key.reveal()), "env-AWS_SECRET_ACCESS_KEY");
    EXPECT_EQ(as_text(bare->session_token.reveal()), "env-AWS_SESSION_TOKEN");
    EXPECT_EQ(bare->region, "env-AWS_REGION");
    SettingsFile file(R"({"access_key_id": "AK", "secret_access_key": "SK", "region": "r"})");
    auto own = file.load("s3://bucket", environment);
    ASSERT_TRUE(own);
    EXPECT_EQ(own->access_key_id, "AK");
    EXPECT_TRUE(own->session_token.empty());
    EXPECT_EQ(own->region, "r");
    SettingsFile half(R"({"access_key_id": "AK"})");
    EXPECT_FALSE(half.load("s3://bucket", environment));
    auto directory = load_store_settings(files, "/dir", "", environment);
    ASSERT_TRUE(directory) << "the environment is nothing to a directory";
    EXPECT_TRUE(directory->access_key_id.empty());
}

TEST(OpenStore, OpensADirectory) {
    TestDirectory directory;
    PosixFileSystem files;
    RealClock clock;
    RealRandom random;
    StoreSettings settings;
    settings.location = directory / "store";
    EXPECT_EQ(open_store(files, clock, random, settings, false).error().code(), Code::kNotFound);
    auto made = open_store(files, clock, random, settings, true);
    ASSERT_TRUE(made) << made.error().to_string();
    ASSERT_TRUE(ensure_store_identity(**made, clock, random));
    ASSERT_TRUE((*made)->put("a", as_bytes("1")));
    auto again = open_retrying_store(files, clock, random, settings, false, sleep_for_retry);
    ASSERT_TRUE(again) << again.error().to_string();
    EXPECT_TRUE((*again)->get("a"));
}

}  // namespace
}  // namespace farshore
