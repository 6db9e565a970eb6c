// The contract on the Azure store with a fake service and with a real one: Azurite, which
// tests/services/azurite.py starts and names in the environment (ctest store_azurite).
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <random>
#include <sstream>

#include "os/real.h"
#include "store/azure_fake_test.h"
#include "store/azure_page_blob.h"
#include "store/azure_store.h"
#include "store/store_maker.h"

namespace farshore {
namespace {

std::string variable(const char* name) {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
}

bool have_service() { return !variable("FARSHORE_TEST_AZURE_ENDPOINT").empty(); }

class DeviceRandom final : public Random {
  public:
    void fill(MutableByteView out) override {
        for (uint8_t& b : out) b = static_cast<uint8_t>(device_());
    }

  private:
    std::random_device device_;
};

AzureAccess access_of_service(bool by_sas = false) {
    AzureAccess access;
    access.account = variable("FARSHORE_TEST_AZURE_ACCOUNT");
    access.container = variable("FARSHORE_TEST_AZURE_CONTAINER");
    access.endpoint = variable("FARSHORE_TEST_AZURE_ENDPOINT");
    if (by_sas)
        access.sas = Secret(as_bytes(variable("FARSHORE_TEST_AZURE_SAS")));
    else
        access.account_key = Secret(as_bytes(variable("FARSHORE_TEST_AZURE_KEY")));
    if (const std::string ca = variable("FARSHORE_TEST_AZURE_CA"); !ca.empty()) {
        std::ifstream file(ca);
        std::stringstream text;
        text << file.rdbuf();
        access.authority_pem = text.str();
    }
    return access;
}

struct AzureHolder final : StoreHolder {
    explicit AzureHolder(bool by_sas) {
        // Every test has a place of its own in the one container.
        auto made = AzureStore::make(
            {access_of_service(by_sas), fmt::format("t{:016x}/", random.next_u64())}, clock,
            random);
        FS_CHECK(made);
        azure = std::move(*made);
    }
    ObjectStore& store() override { return *azure; }
    RealClock clock;
    DeviceRandom random;
    std::unique_ptr<AzureStore> azure;
};

// In pages that are shorter than any of Azure's.
struct FakeHolder final : StoreHolder {
    FakeHolder() {
        fake.page = 3;
        azure = std::move(*AzureStore::make({fake.access(), ""}, clock, random));
    }
    ObjectStore& store() override { return *azure; }
    SetClock clock;
    CountedRandom random;
    FakeBlobs fake;
    std::unique_ptr<AzureStore> azure;
};

std::vector<StoreMaker> makers() {
    const StoreMaker fake{"pages_of_three", [] { return std::make_unique<FakeHolder>(); }};
    if (!have_service()) return {fake};
    return {fake,
            {"azurite_key", [] { return std::make_unique<AzureHolder>(false); }},
            {"azurite_sas", [] { return std::make_unique<AzureHolder>(true); }}};
}
const bool kAdded = add_remote_store_makers(makers());

class AzureAzurite : public testing::Test {
  protected:
    void SetUp() override {
        if (!have_service()) GTEST_SKIP() << "no Azurite in the environment";
    }
    AzurePageBlob::Options options() {
        return {{}, [](int64_t) { return true; }};
    }
    RealClock clock_;
    DeviceRandom random_;
};

// Broken if a disk that is written out could differ from the disk, or zeroes were stored and paid.
TEST_F(AzureAzurite, APageBlobHoldsWhatWasWritten) {
    const auto client = AzureClient::make(access_of_service(), clock_).value();
    const std::string name = fmt::format("disks/{:016x}.vhd", random_.next_u64());
    constexpr uint64_t kSize = 24u << 20;
    auto made = AzurePageBlob::create(*client, clock_, random_, name, kSize, options());
    ASSERT_TRUE(made) << made.error().to_string();
    AzurePageBlob& blob = **made;
    Bytes model(kSize), large(9u << 20);
    for (size_t i = 0; i < large.size(); ++i) large[i] = static_cast<uint8_t>(i * 7 + i / 512);
    std::fill(large.begin() + (1 << 20), large.begin() + (3 << 20), uint8_t{0});
    const auto note = [&](uint64_t at, ByteView data) {
        std::copy(data.begin(), data.end(), model.begin() + static_cast<ptrdiff_t>(at));
    };
    ASSERT_TRUE(blob.write_new(512, large));
    note(512, large);
    ASSERT_TRUE(blob.write(20u << 20, ByteView(large).first(5u << 20).last(2u << 20)));
    note(20u << 20, ByteView(large).first(5u << 20).last(2u << 20));
    ASSERT_TRUE(blob.clear(4u << 20, 1u << 20));
    note(4u << 20, Bytes(1u << 20));
    const auto all = blob.read(0, kSize);
    ASSERT_TRUE(all) << all.error().to_string();
    ASSERT_TRUE(*all == model);
    const auto part = blob.read(kSize - 512, 512);
    ASSERT_TRUE(part);
    EXPECT_TRUE(all_zero(*part));
    // The run of zeroes, as far as it covers whole pieces, was never sent.
    const auto ranges =
        client->call({.blob = name, .query = {{"comp", "pagelist"}}, .doing = "list pages"});
    ASSERT_TRUE(ranges) << ranges.error().to_string();
    EXPECT_NE(ranges->body.find("<PageRange>"), std::string::npos);
    const uint64_t stored_end = 512 + (1u << 20);  // in the piece in which the zeroes begin
    const uint64_t piece_end = (stored_end / 65536 + 1) * 65536;
    EXPECT_NE(ranges->body.find(fmt::format("<End>{}</End>", piece_end - 1)), std::string::npos)
        << ranges->body;

    const auto again = AzurePageBlob::open(*client, clock_, random_, name, options());
    ASSERT_TRUE(again);
    EXPECT_EQ((*again)->size_bytes(), kSize);
    EXPECT_EQ(
        AzurePageBlob::create(*client, clock_, random_, name, kSize, options()).error().code(),
        Code::kAlreadyExists);
    for (const auto& [at, length] : {std::pair<uint64_t, uint64_t>{0, 100},
                                     {100, 512},
                                     {kSize, 512},
                                     {kSize - 512, 1024},
                                     {UINT64_MAX - 511, 1024}})
        EXPECT_EQ(blob.write(at, Bytes(length)).error().code(), Code::kInvalidArgument);
    EXPECT_TRUE(blob.remove());
    EXPECT_TRUE(blob.remove());
    EXPECT_EQ(AzurePageBlob::open(*client, clock_, random_, name, options()).error().code(),
              Code::kNotFound);
}

// Broken if a block blob in the way were written into.
TEST_F(AzureAzurite, AnotherKindOfBlobIsNoDisk) {
    auto store = AzureStore::make({access_of_service(), ""}, clock_, random_).value();
    const std::string name = fmt::format("disks/{:016x}", random_.next_u64());
    ASSERT_TRUE(store->put(name, Bytes(512)));
    EXPECT_EQ(AzurePageBlob::open(store->client(), clock_, random_, name, options()).error().code(),
              Code::kWrongState);
    EXPECT_TRUE(store->remove(name));
}

// Broken if an emulator that takes a policy and does not keep it were taken for a lock.
TEST_F(AzureAzurite, ImmutabilityIsNotEnforcedHereAndThatIsSaid) {
    auto store = AzureStore::make({access_of_service(), "", 2}, clock_, random_).value();
    const auto tried = store->check_immutability();
    ASSERT_TRUE(tried) << tried.error().to_string();
    EXPECT_FALSE(tried->enforced);
    EXPECT_NE(tried->why_not, "");
    EXPECT_EQ(store->list("farshore-check/", "", 10)->size(), 0u);
}

}  // namespace
}  // namespace farshore
