// The Azure store on a real service: Azurite, which tests/services/azurite.py starts around this
// program (ctest service_azurite); and on a fake one. Without Azurite's variables the fake alone.
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
#include "store/store_contract.h"

namespace farshore {
namespace {

std::string variable(const char* name) {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
}

bool have_service() { return !variable("FARSHORE_AZURITE_ENDPOINT").empty(); }

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
    access.account = variable("FARSHORE_AZURITE_ACCOUNT");
    access.container = variable("FARSHORE_AZURITE_CONTAINER");
    access.endpoint = variable("FARSHORE_AZURITE_ENDPOINT");
    if (by_sas)
        access.sas = Secret(as_bytes(variable("FARSHORE_AZURITE_SAS")));
    else
        access.account_key = Secret(as_bytes(variable("FARSHORE_AZURITE_KEY")));
    if (const std::string ca = variable("FARSHORE_AZURITE_CA"); !ca.empty()) {
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
INSTANTIATE_TEST_SUITE_P(Service, StoreContract, testing::ValuesIn(makers()),
                         [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace farshore
