#include "compute/cloud_seed.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "compute/test_support.h"
#include "os/real.h"

namespace farshore {
namespace {

using Json = nlohmann::json;

const SeedCard kFirst{"52:54:00:AA:00:01",
                      {"10.1.2.3/24", "10.1.2.1", {"10.1.2.1", "9.9.9.9"}, AddressBy::kCloudInit}};
const SeedCard kSecond{"52:54:00:aa:00:02",
                       {"2001:db8::3/64", "fe80::1", {}, AddressBy::kCloudInit}};

// Broken if cloud-init were told other addresses, for another card, or anything that makes a
// machine that lives already a new one.
TEST(CloudSeed, SaysAddressesByCardAndNothingElse) {
    const auto files = seed_files({kFirst, kSecond});
    ASSERT_TRUE(files) << files.error().to_string();
    EXPECT_EQ(Json::parse(files->network_config), Json::parse(R"({
        "version": 2,
        "ethernets": {
            "card0": {"match": {"macaddress": "52:54:00:aa:00:01"}, "addresses": ["10.1.2.3/24"],
                      "gateway4": "10.1.2.1", "nameservers": {"addresses": ["10.1.2.1", "9.9.9.9"]}},
            "card1": {"match": {"macaddress": "52:54:00:aa:00:02"}, "addresses": ["2001:db8::3/64"],
                      "gateway6": "fe80::1"}}})"));
    ASSERT_TRUE(files->user_data.starts_with("#cloud-config\n"));
    EXPECT_EQ(Json::parse(files->user_data.substr(files->user_data.find('\n'))), Json::parse(R"({
        "cloud_init_modules": [], "cloud_config_modules": [], "cloud_final_modules": []})"));
    EXPECT_EQ(Json::parse(files->meta_data).size(), 1u) << files->meta_data;
}

// Broken if the same network were a new instance at each start, or another one were not applied.
TEST(CloudSeed, AnotherNetworkIsAnotherInstance) {
    const auto id = [](const std::vector<SeedCard>& cards) {
        const auto files = seed_files(cards);
        EXPECT_TRUE(files);
        return files ? Json::parse(files->meta_data)["instance-id"].get<std::string>() : "";
    };
    EXPECT_EQ(id({kFirst}), id({kFirst}));
    EXPECT_TRUE(id({kFirst}).starts_with("farshore-")) << id({kFirst});
    SeedCard other = kFirst;
    other.address.address = "10.1.2.4/24";
    EXPECT_NE(id({kFirst}), id({other}));
    EXPECT_NE(id({kFirst}), id({kFirst, kSecond}));
}

// Broken if text of somebody's could become a key of cloud-init's.
TEST(CloudSeed, RefusesWhatIsNoAddress) {
    SeedCard bad = kFirst;
    bad.mac = "52:54:00:aa:00:01\"}, x: {\"";
    EXPECT_EQ(seed_files({bad}).error().code(), Code::kInvalidArgument);
    bad = kFirst;
    bad.mac.clear();
    EXPECT_EQ(seed_files({bad}).error().code(), Code::kInvalidArgument);
    bad = kFirst;
    bad.address.name_servers = {"9.9.9.9\nruncmd: [reboot]"};
    EXPECT_EQ(seed_files({bad}).error().code(), Code::kInvalidArgument);
    EXPECT_FALSE(seed_files({}));
    EXPECT_FALSE(seed_files(std::vector<SeedCard>(kMaxMachineNics + 1, kFirst)));
    const auto most = seed_files(std::vector<SeedCard>(kMaxMachineNics, kFirst));
    ASSERT_TRUE(most);
    EXPECT_LT(most->network_config.size(), kMaxSeedFileBytes);
}

// Broken if cloud-init did not find the disk by its label, or its files by their names.
TEST(CloudSeed, TheImageIsWhatCloudInitLooksFor) {
    ASSERT_TRUE(check_seed_maker()) << check_seed_maker().error().to_string();
    TestDirectory directory;
    const auto files = seed_files({kFirst});
    ASSERT_TRUE(files);
    const std::string image = directory / "seed.iso";
    for (int twice = 0; twice < 2; ++twice) {
        const Status made = make_seed_image(*files, image, directory / "work");
        ASSERT_TRUE(made) << made.error().to_string();
    }
    PosixFileSystem system;
    const auto left = system.list(directory.path());
    ASSERT_TRUE(left);
    EXPECT_EQ(*left, std::vector<std::string>{"seed.iso"}) << "nothing else is left";
    EXPECT_LT(file_size_or_zero(image), 1u << 20);
    const std::string probed = run_tool({"blkid", "-p", "-o", "export", image});
    EXPECT_NE(probed.find("LABEL=CIDATA"), std::string::npos) << probed;
    EXPECT_NE(probed.find("TYPE=iso9660"), std::string::npos) << probed;
    const auto inside = [&](const std::string& name) {
        run_tool({"xorriso", "-osirrox", "on", "-indev", image, "-extract", "/" + name,
                  directory / name});
        return to_text(
            read_whole_file(system, directory / name, kMaxSeedFileBytes).value_or(Bytes{}));
    };
    EXPECT_EQ(inside("network-config"), files->network_config);
    EXPECT_EQ(inside("meta-data"), files->meta_data);
    EXPECT_EQ(inside("user-data"), files->user_data);

    SeedFiles large = *files;
    large.user_data.resize(kMaxSeedFileBytes + 1);
    EXPECT_EQ(make_seed_image(large, image, directory / "work").error().code(), Code::kTooLarge);
    EXPECT_FALSE(make_seed_image(*files, directory / "nowhere/seed.iso", directory / "work"));
}

// Broken if the guest could not read the disk, or another disk of it got another name.
TEST(CloudSeed, ItsDiskIsTheLastOneOnTheBusOfTheOthers) {
    MachineDescription machine =
        describe_plain_machine("m", {{"/a", 1 << 20, DiskIndex{0}}, {"/b", 1 << 20, DiskIndex{2}}});
    auto disk = seed_disk(machine);
    ASSERT_TRUE(disk);
    EXPECT_EQ(disk->index, 1) << "one that is free";
    EXPECT_EQ(disk->bus, DiskBus::kVirtioBlk);
    EXPECT_EQ(disk->pci_address, "1c.0");
    EXPECT_TRUE(disk->read_only);
    EXPECT_FALSE(disk->boot_index);
    machine.nics[0].pci_address = "1c.0";
    EXPECT_EQ(seed_disk(machine)->pci_address, "");
    for (MachineDisk& one : machine.disks) {
        one.bus = DiskBus::kVirtioScsi;
        one.pci_address = "05.0";
    }
    EXPECT_EQ(seed_disk(machine)->bus, DiskBus::kVirtioScsi);
    EXPECT_EQ(seed_disk(machine)->pci_address, "05.0") << "of the same controller";
    for (MachineDisk& one : machine.disks) one.bus = DiskBus::kIde;
    EXPECT_EQ(seed_disk(machine)->bus, DiskBus::kVirtioBlk) << "IDE's disks are always written";
    machine.disks.clear();
    for (DiskIndex i = 0; i < kMaxMachineDisks; ++i) machine.disks.push_back({.index = i});
    EXPECT_EQ(seed_disk(machine).error().code(), Code::kLimitReached);
}

}  // namespace
}  // namespace farshore
