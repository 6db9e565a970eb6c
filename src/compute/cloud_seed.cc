#include "compute/cloud_seed.h"

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "codec/hash.h"
#include "compute/child_files.h"
#include "compute/network_choice.h"
#include "os/process.h"
#include "os/real.h"

namespace farshore {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kMaker = "xorriso";
// On the root bus, beside what else is put there far up (qemu_arguments.cc).
constexpr const char* kSlot = "1c.0";

// JSON is YAML in which every text is quoted.
std::string yaml(const Json& json) {
    return json.dump(2, ' ', true, Json::error_handler_t::replace) + "\n";
}

Result<Json> card_json(const SeedCard& card) {
    FS_ASSIGN(const std::string mac, check_mac(card.mac));
    FS_TRY(check_guest_address(card.address));
    const bool ipv6 = card.address.address.find(':') != std::string::npos;
    // By its address, whatever the guest calls it; without set-name it keeps its name.
    Json json = {{"match", {{"macaddress", mac}}},
                 {"addresses", Json::array({card.address.address})}};
    // Not a route to "default": the renderers for anything but netplan refuse that word, and take
    // this one.
    if (!card.address.gateway.empty()) json[ipv6 ? "gateway6" : "gateway4"] = card.address.gateway;
    if (!card.address.name_servers.empty())
        json["nameservers"] = {{"addresses", card.address.name_servers}};
    return json;
}

constexpr const char* kNames[] = {"meta-data", "network-config", "user-data"};

Status remove_work(const std::string& work) {
    for (const char* name : kNames) FS_TRY(remove_if_there(work + "." + name));
    return remove_if_there(work + ".iso");
}

}  // namespace

Result<SeedFiles> seed_files(const std::vector<SeedCard>& cards) {
    if (cards.empty()) return fail(Code::kInvalidArgument, "no card is given an address");
    if (cards.size() > kMaxMachineNics)
        return fail(Code::kTooLarge, fmt::format("{} network cards", cards.size()));
    Json ethernets = Json::object();
    for (size_t i = 0; i < cards.size(); ++i) {
        FS_ASSIGN(ethernets[fmt::format("card{}", i)], card_json(cards[i]));
    }
    SeedFiles files;
    files.network_config = yaml({{"version", 2}, {"ethernets", std::move(ethernets)}});
    // Another network is another instance, else cloud-init does not apply it; the same one is the
    // same, else each start would be a first one.
    const std::string id =
        "farshore-" + to_hex(sha256(as_bytes(files.network_config))).substr(0, 32);
    files.meta_data = yaml({{"instance-id", id}});
    // A first start of an instance would make new host keys, users and more: of a machine that
    // lives already nothing but its network is another one.
    files.user_data = "#cloud-config\n" + yaml({{"cloud_init_modules", Json::array()},
                                                {"cloud_config_modules", Json::array()},
                                                {"cloud_final_modules", Json::array()}});
    return files;
}

Status check_seed_maker() {
    ProcessOptions process;
    process.arguments = {kMaker, "-version"};
    const auto there = run_command(std::move(process));
    if (there && there->exit.success()) return {};
    return fail(
        Code::kDependencyMissing,
        fmt::format("there is no {} here, which makes the disk that cloud-init reads", kMaker),
        "install it: apt-get install xorriso");
}

Status make_seed_image(const SeedFiles& seed, const std::string& path, const std::string& work) {
    const std::string* const texts[] = {&seed.meta_data, &seed.network_config, &seed.user_data};
    PosixFileSystem files;
    FS_TRY(remove_work(work));
    const std::string image = work + ".iso";
    const auto make = [&]() -> Status {
        ProcessOptions process;
        // Rock Ridge, which Linux reads, it writes always; Joliet is for Windows.
        process.arguments = {kMaker,   "-no_rc", "-outdev", "stdio:" + image,
                             "-volid", "CIDATA", "-joliet", "on"};
        for (size_t i = 0; i < std::size(kNames); ++i) {
            if (texts[i]->size() > kMaxSeedFileBytes)
                return fail(Code::kTooLarge,
                            fmt::format("{} bytes for cloud-init", texts[i]->size()));
            const std::string file = work + "." + kNames[i];
            FS_TRY(write_file_durably(files, file, as_bytes(*texts[i])));
            for (const std::string& word :
                 {std::string("-map"), file, "/" + std::string(kNames[i])})
                process.arguments.push_back(word);
        }
        auto ran = run_command(std::move(process));
        if (!ran) return fail(ran.error());
        if (!ran->exit.success())
            return fail(Code::kUnavailable,
                        fmt::format("{} made no image for cloud-init ({}): {}", kMaker,
                                    ran->exit.to_string(), plain_text(ran->error.substr(0, 500))));
        FS_ASSIGN(const Bytes bytes, read_whole_file(files, image, 16u << 20));
        return write_file_durably(files, path, bytes);
    };
    const Status made = make();
    FS_TRY(remove_work(work));
    return made;
}

Result<MachineDisk> seed_disk(const MachineDescription& machine) {
    MachineDisk disk;
    const auto has = [&](DiskIndex index) {
        return std::ranges::any_of(machine.disks,
                                   [&](const MachineDisk& one) { return one.index == index; });
    };
    while (disk.index < kMaxMachineDisks && has(disk.index)) ++disk.index;
    if (disk.index == kMaxMachineDisks)
        return fail(
            Code::kLimitReached,
            fmt::format("the machine has {} disks: cloud-init's is one too many", kMaxMachineDisks),
            "have its address given by agent or dhcp");
    disk.read_only = true;
    disk.serial = "farshore-seed";
    if (!machine.disks.empty()) {
        const MachineDisk& last = machine.disks.back();
        // Neither has a disk that is only read.
        if (last.bus != DiskBus::kIde && last.bus != DiskBus::kNvme) disk.bus = last.bus;
        if (disk.bus != DiskBus::kVirtioBlk) disk.pci_address = last.pci_address;
    }
    if (disk.bus == DiskBus::kVirtioBlk) {
        const auto takes = [](const auto& one) { return one.pci_address == kSlot; };
        if (std::ranges::none_of(machine.disks, takes) && std::ranges::none_of(machine.nics, takes))
            disk.pci_address = kSlot;
    }
    return disk;
}

}  // namespace farshore
