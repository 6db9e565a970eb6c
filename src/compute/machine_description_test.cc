#include "compute/machine_description.h"

#include <gtest/gtest.h>

#include "compute/qmp_client.h"
#include "compute/test_support.h"
#include "os/real.h"

namespace farshore {
namespace {

MachineDescription example() {
    MachineDescription machine =
        describe_plain_machine("db, \"main\"", {{"/a", 1 << 20}, {"/b", 3 << 20}});
    machine.uuid = "6f1b6a6e-0000-4000-8000-000000000001";
    machine.firmware = Firmware::kUefi;
    machine.rtc_offset_s = -3600;
    machine.disks[1].bus = DiskBus::kNvme;
    machine.disks[1].serial = "S-1";
    machine.disks[1].boot_index = 3;
    machine.disks[1].pci_address = "1f.7";
    machine.disks[1].logical_block_bytes = 4096;
    machine.nics[0].mac = "52:54:00:AB:cd:ef";
    return machine;
}

TEST(MachineDescription, ComesBackFromJson) {
    const std::string json = encode_machine(example());
    const auto decoded = decode_machine(json);
    ASSERT_TRUE(decoded) << decoded.error().to_string();
    EXPECT_EQ(encode_machine(*decoded), json);
    EXPECT_EQ(decoded->disks[1].boot_index, 3u);
    EXPECT_EQ(decoded->firmware, Firmware::kUefi);
}

TEST(MachineDescription, EmptyObjectIsTheDefaultMachine) {
    const auto machine = decode_machine("{\"of the future\": 1}");
    ASSERT_TRUE(machine);
    EXPECT_EQ(machine->cpus, 2u);
    EXPECT_EQ(machine->memory_bytes, 2048ull << 20);
    EXPECT_EQ(machine->firmware, Firmware::kBios);
}

TEST(MachineDescription, WhatCouldReachQemusCommandLineIsRefused) {
    for (const char* bad : {"",
                            "[]",
                            "{",
                            "{\"cpus\": 0}",
                            "{\"cpus\": 1e99}",
                            "{\"cpus\": -1}",
                            "{\"cpus\": \"2\"}",
                            "{\"memory_bytes\": 5}",
                            "{\"machine_type\": \"q35,accel=x\"}",
                            "{\"uuid\": \"a b\"}",
                            "{\"firmware\": \"coreboot\"}",
                            "{\"rtc_offset_s\": 99999999}",
                            "{\"disks\": {\"a\": 1}}",
                            "{\"disks\": [1]}",
                            "{\"disks\": [{\"index\": 1}, {\"index\": 1}]}",
                            "{\"disks\": [{\"index\": 64}]}",
                            "{\"disks\": [{\"bus\": \"floppy\"}]}",
                            "{\"disks\": [{\"pci_address\": \"5,x\"}]}",
                            "{\"disks\": [{\"logical_block_bytes\": 1000}]}",
                            "{\"nics\": [{\"model\": \"e1000,netdev=x\"}]}",
                            "{\"nics\": [{\"model\": \"\"}]}",
                            "{\"nics\": [{\"mac\": \"52:54:00:12:34:5g\"}]}",
                            "{\"nics\": [{\"mac\": \"x\"}]}"}) {
        const auto machine = decode_machine(bad);
        ASSERT_FALSE(machine) << bad;
        EXPECT_EQ(machine.error().code(), Code::kMalformed) << bad;
    }
    EXPECT_EQ(decode_machine(std::string(kMaxMachineJsonBytes + 1, ' ')).error().code(),
              Code::kTooLarge);
}

TEST(MachineDescription, OverridesReplaceAddressesOfDevicesThatChange) {
    MachineDescription machine = example();
    apply_overrides(machine, {.cpus = 8, .disk_bus = DiskBus::kIde});
    EXPECT_EQ(machine.cpus, 8u);
    EXPECT_EQ(machine.disks[1].bus, DiskBus::kIde);
    EXPECT_EQ(machine.disks[1].pci_address, "") << "an IDE disk at a PCI address does not start";
}

// One disk of each bus, the firmware's flash, a CD-ROM and two NICs.
TEST(CaptureMachine, ReadsARunningQemu) {
    const TestDirectory directory;
    for (const char* name : {"vda", "sda", "hda", "nvme", "cd"})
        run_tool({"truncate", "-s", "4M", directory / name});
    const auto node = [&](const std::string& name, const std::string& more = "") {
        return "{\"driver\":\"raw\",\"node-name\":\"" + name + "\"" + more +
               ",\"file\":{\"driver\":\"file\",\"filename\":\"" + (directory / name) + "\"}}";
    };
    TestProcess qemu({"qemu-system-x86_64",
                      "-machine",
                      "q35",
                      "-accel",
                      "tcg",
                      "-S",
                      "-nodefaults",
                      "-display",
                      "none",
                      "-m",
                      "64",
                      "-smp",
                      "4,sockets=1,cores=2,threads=2",
                      "-uuid",
                      "6f1b6a6e-0000-4000-8000-000000000001",
                      "-rtc",
                      "base=localtime",
                      "-blockdev",
                      node("vda", ",\"read-only\":true"),
                      "-blockdev",
                      node("sda"),
                      "-blockdev",
                      node("hda"),
                      "-blockdev",
                      node("nvme"),
                      "-blockdev",
                      node("cd"),
                      "-device",
                      "virtio-blk-pci,drive=vda,serial=V1,addr=5,bootindex=2",
                      "-device",
                      "virtio-scsi-pci,id=vs0,addr=6",
                      "-device",
                      "scsi-hd,bus=vs0.0,drive=sda,serial=S1,bootindex=1",
                      "-device",
                      "ide-hd,bus=ide.2,drive=hda,serial=H1",
                      "-device",
                      "nvme,drive=nvme,serial=N1,id=nv0",
                      "-device",
                      "ide-cd,bus=ide.1,drive=cd",
                      "-netdev",
                      "user,id=n0",
                      "-device",
                      "e1000e,netdev=n0,mac=52:54:00:11:22:33,addr=7",
                      "-device",
                      "virtio-net-pci,id=net1,mac=52:54:00:11:22:44",
                      "-qmp",
                      "unix:" + (directory / "q") + ",server=on,wait=off"},
                     directory / "log");
    ASSERT_TRUE(wait_for_socket(directory / "q")) << tail_of_file(directory / "log");
    auto qmp = QmpClient::connect(directory / "q");
    ASSERT_TRUE(qmp) << qmp.error().to_string();
    const auto machine = capture_machine(**qmp, "m", RealClock().now());
    ASSERT_TRUE(machine) << machine.error().to_string();
    EXPECT_EQ(machine->cpus, 4u);
    EXPECT_EQ(machine->cores, 2u);
    EXPECT_EQ(machine->threads, 2u);
    EXPECT_EQ(machine->memory_bytes, 64u << 20);
    EXPECT_TRUE(machine->machine_type.starts_with("pc-q35-")) << machine->machine_type;
    EXPECT_EQ(machine->uuid, "6f1b6a6e-0000-4000-8000-000000000001");
    EXPECT_EQ(machine->firmware, Firmware::kBios);
    EXPECT_EQ(machine->rtc_offset_s % 900, 0);
    ASSERT_EQ(machine->disks.size(), 4u) << encode_machine(*machine);
    const auto bus_of = [&](const std::string& serial) -> const MachineDisk* {
        for (const MachineDisk& disk : machine->disks)
            if (disk.serial == serial) return &disk;
        ADD_FAILURE() << "no disk " << serial << " in " << encode_machine(*machine);
        return &machine->disks[0];
    };
    EXPECT_EQ(bus_of("V1")->bus, DiskBus::kVirtioBlk);
    EXPECT_TRUE(bus_of("V1")->read_only);
    EXPECT_EQ(bus_of("V1")->pci_address, "05.0");
    EXPECT_EQ(bus_of("V1")->boot_index, 2u);
    EXPECT_EQ(bus_of("V1")->size_bytes, 4u << 20);
    EXPECT_EQ(bus_of("S1")->bus, DiskBus::kVirtioScsi);
    EXPECT_EQ(bus_of("S1")->pci_address, "06.0");
    EXPECT_EQ(bus_of("S1")->boot_index, 1u);
    EXPECT_EQ(bus_of("H1")->bus, DiskBus::kIde);
    EXPECT_EQ(bus_of("N1")->bus, DiskBus::kNvme);
    EXPECT_EQ(bus_of("N1")->node_name, "nvme");
    ASSERT_EQ(machine->nics.size(), 2u);
    for (const MachineNic& nic : machine->nics) {
        if (nic.model == "e1000e") {
            EXPECT_EQ(nic.mac, "52:54:00:11:22:33");
            EXPECT_EQ(nic.pci_address, "07.0");
        } else {
            EXPECT_EQ(nic.model, "virtio-net-pci");
            EXPECT_EQ(nic.mac, "52:54:00:11:22:44");
        }
    }
    EXPECT_TRUE(decode_machine(encode_machine(*machine)));
}

}  // namespace
}  // namespace farshore
