#include "compute/local_machine.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "os/test_directory.h"

namespace farshore {
namespace {

namespace fs = std::filesystem;

// A machine's /sys, /proc and /dev in a directory, put together as a kernel does: real directories
// under /sys/devices, links everywhere else.
class LocalMachineTest : public testing::Test {
  protected:
    void write(const std::string& path, const std::string& text) {
        const fs::path full = directory_.path() + path;
        fs::create_directories(full.parent_path());
        std::ofstream(full, std::ios::binary) << text;
    }
    void link(const std::string& path, const std::string& to) {
        const fs::path from = directory_.path() + path;
        fs::create_directories(from.parent_path());
        fs::create_symlink(fs::relative(directory_.path() + to, fs::canonical(from.parent_path())),
                           from);
    }
    void driver(const std::string& device, const std::string& name) {
        write("/sys/devices/" + device + "/uevent", "SUBSYSTEM=x\nDRIVER=" + name + "\n");
    }
    // A disk at a path under /sys/devices; `parts` partitions.
    void block(const std::string& device, const std::string& number, int parts = 0) {
        const std::string at = "/sys/devices/" + device;
        const std::string name = device.substr(device.rfind('/') + 1);
        write(at + "/uevent", "DEVTYPE=disk\n");
        write(at + "/dev", number + "\n");
        write(at + "/size", "2048\n");
        write(at + "/ro", "0\n");
        write(at + "/queue/logical_block_size", "512\n");
        link("/sys/class/block/" + name, at);
        write("/dev/" + name, "");
        const size_t colon = number.find(':') + 1;
        for (int i = 1; i <= parts; ++i) {
            const std::string part = name + std::to_string(i);
            write(at + "/" + part + "/partition", std::to_string(i) + "\n");
            write(at + "/" + part + "/dev",
                  number.substr(0, colon) + std::to_string(std::stoi(number.substr(colon)) + i) +
                      "\n");
            link("/sys/class/block/" + part, at + "/" + part);
            write("/dev/" + part, "");
        }
        const size_t block_directory = device.find("/block/");
        if (block_directory != std::string::npos)
            link(at + "/device", "/sys/devices/" + device.substr(0, block_directory));
    }
    void nic(const std::string& name, const std::string& device, const std::string& mac,
             int number) {
        const std::string at = "/sys/devices/" + device + "/net/" + name;
        write(at + "/address", mac + "\n");
        write(at + "/type", "1\n");
        write(at + "/ifindex", std::to_string(number) + "\n");
        link(at + "/device", "/sys/devices/" + device);
        link("/sys/class/net/" + name, at);
    }
    // What a Debian 12 guest of QEMU 7.2 shows, one virtio disk with the root on it.
    void make_virtual_machine() {
        write("/sys/class/dmi/id/product_uuid", "6f1b6a6e-0000-4000-8000-000000000001\n");
        write("/sys/class/dmi/id/product_name", "Standard PC (Q35 + ICH9, 2009)\n");
        write("/sys/class/dmi/id/product_version", "pc-q35-7.2\n");
        write("/sys/devices/system/cpu/online", "0-3\n");
        for (int cpu = 0; cpu < 4; ++cpu) {
            const std::string topology =
                "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
            write(topology + "physical_package_id", "0\n");
            write(topology + "core_id", std::to_string(cpu / 2) + "\n");
        }
        write("/proc/meminfo", "MemTotal:        2014600 kB\nMemFree:  100 kB\n");
        write("/proc/sys/kernel/hostname", "harbour\n");
        driver("pci0000:00/0000:00:05.0", "virtio-pci");
        driver("pci0000:00/0000:00:05.0/virtio2", "virtio_blk");
        block("pci0000:00/0000:00:05.0/virtio2/block/vda", "254:0", 2);
        write("/sys/devices/pci0000:00/0000:00:05.0/virtio2/block/vda/serial", "root-1");
        driver("pci0000:00/0000:00:03.0", "virtio-pci");
        driver("pci0000:00/0000:00:03.0/virtio0", "virtio_net");
        nic("enp0s3", "pci0000:00/0000:00:03.0/virtio0", "52:54:00:12:34:56", 2);
        write("/sys/devices/virtual/net/lo/address", "00:00:00:00:00:00\n");
        link("/sys/class/net/lo", "/sys/devices/virtual/net/lo");
        write("/proc/self/mountinfo",
              "1 1 0:2 / / rw - rootfs none rw\n"
              "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
              "23 22 0:5 / /dev rw - devtmpfs udev rw\n");
    }
    Result<MachineDescription> describe(const std::vector<std::string>& paths) {
        LocalMachineOptions options;
        options.root = directory_.path();
        for (const std::string& path : paths) options.disks.push_back({path, 0});
        options.now = now_;
        return describe_local_machine(options);
    }

    TestDirectory directory_;
    std::optional<TimePoint> now_;
};

TEST_F(LocalMachineTest, VirtualMachineIsDescribedAsItsHypervisorWould) {
    make_virtual_machine();
    const auto machine = describe({"/dev/vda"});
    ASSERT_TRUE(machine) << machine.error().to_string();
    EXPECT_EQ(machine->name, "harbour");
    EXPECT_EQ(machine->uuid, "6f1b6a6e-0000-4000-8000-000000000001");
    EXPECT_EQ(machine->machine_type, "pc-q35-7.2");
    EXPECT_EQ(machine->firmware, Firmware::kBios);
    EXPECT_EQ(machine->cpus, 4u);
    EXPECT_EQ(machine->sockets, 1u);
    EXPECT_EQ(machine->cores, 2u);
    EXPECT_EQ(machine->threads, 2u);
    EXPECT_EQ(machine->memory_bytes, 2048ull << 20);
    EXPECT_EQ(machine->rtc_offset_s, 0);
    ASSERT_EQ(machine->nics.size(), 1u) << "lo is no card";
    EXPECT_EQ(machine->nics[0].model, "virtio-net-pci");
    EXPECT_EQ(machine->nics[0].mac, "52:54:00:12:34:56");
    EXPECT_EQ(machine->nics[0].pci_address, "03.0");
    ASSERT_EQ(machine->disks.size(), 1u);
    const MachineDisk& disk = machine->disks[0];
    EXPECT_EQ(disk.bus, DiskBus::kVirtioBlk);
    EXPECT_EQ(disk.path, "/dev/vda");
    EXPECT_EQ(disk.size_bytes, 1u << 20);
    EXPECT_EQ(disk.serial, "root-1");
    EXPECT_EQ(disk.pci_address, "05.0");
    EXPECT_EQ(disk.boot_index, 1u);
    EXPECT_EQ(disk.logical_block_bytes, 512u);
}

TEST_F(LocalMachineTest, DiskIsFoundThroughALinkAndNamedOnce) {
    make_virtual_machine();
    link("/dev/disk/by-id/virtio-root-1", "/dev/vda");
    const auto machine = describe({"/dev/disk/by-id/virtio-root-1"});
    ASSERT_TRUE(machine) << machine.error().to_string();
    EXPECT_EQ(machine->disks[0].serial, "root-1");
    EXPECT_EQ(machine->disks[0].boot_index, 1u);
    EXPECT_EQ(describe({"/dev/vda", "/dev/disk/by-id/virtio-root-1"}).error().code(),
              Code::kInvalidArgument);
}

TEST_F(LocalMachineTest, WhatIsNoWholeDiskIsRefusedInWords) {
    make_virtual_machine();
    EXPECT_EQ(describe({}).error().code(), Code::kInvalidArgument);
    EXPECT_EQ(describe({"/dev/vdb"}).error().code(), Code::kNotFound);
    EXPECT_EQ(describe({"/proc/meminfo"}).error().code(), Code::kNotFound);
    EXPECT_EQ(describe({"vda"}).error().code(), Code::kNotFound);
    const auto partition = describe({"/dev/vda1"});
    ASSERT_FALSE(partition);
    EXPECT_EQ(partition.error().code(), Code::kInvalidArgument);
    EXPECT_NE(partition.error().remedy().find("/dev/vda"), std::string::npos);
    EXPECT_EQ(describe(std::vector<std::string>(kMaxMachineDisks + 1, "/dev/vda")).error().code(),
              Code::kLimitReached);
}

// A system only finds its root behind a controller whose driver its initramfs has.
TEST_F(LocalMachineTest, EachDriverHasItsBus) {
    make_virtual_machine();
    struct Case {
        const char* driver;
        DiskBus bus;
        const char* address;
    };
    const Case cases[] = {{"vmw_pvscsi", DiskBus::kPvscsi, "10.0"},
                          {"megaraid_sas", DiskBus::kMegasas, "10.0"},
                          {"mptsas", DiskBus::kMptSas, "10.0"},
                          {"sym53c8xx", DiskBus::kScsi, "10.0"},
                          {"ahci", DiskBus::kIde, ""},
                          {"sata_nv", DiskBus::kIde, ""},
                          {"hpsa", DiskBus::kVirtioBlk, "10.0"}};
    const std::string controller = "pci0000:00/0000:00:10.0";
    block(controller + "/host2/target2:0:0/2:0:0:0/block/sda", "8:0");
    driver(controller + "/host2/target2:0:0/2:0:0:0", "sd");
    write("/sys/devices/" + controller + "/host2/target2:0:0/2:0:0:0/vpd_pg80",
          std::string("\0\x80\0\x08 SCSI-1 ", 12));
    for (const Case& one : cases) {
        driver(controller, one.driver);
        const auto machine = describe({"/dev/sda"});
        ASSERT_TRUE(machine) << machine.error().to_string();
        EXPECT_EQ(machine->disks[0].bus, one.bus) << one.driver;
        EXPECT_EQ(machine->disks[0].pci_address, one.address) << one.driver;
        EXPECT_EQ(machine->disks[0].serial, "SCSI-1");
        EXPECT_FALSE(machine->disks[0].boot_index) << "the root is on another disk";
    }
    driver(controller, "virtio-pci");
    driver(controller + "/virtio7", "virtio_scsi");
    block(controller + "/virtio7/host3/target3:0:0/3:0:0:0/block/sdb", "8:16");
    driver(controller + "/virtio7/host3/target3:0:0/3:0:0:0", "sd");
    driver("pci0000:00/0000:00:1c.0", "pcieport");
    driver("pci0000:00/0000:00:1c.0/0000:01:00.0", "nvme");
    block("pci0000:00/0000:00:1c.0/0000:01:00.0/nvme/nvme0/nvme0n1", "259:0", 0);
    write(
        "/sys/devices/pci0000:00/0000:00:1c.0/0000:01:00.0/nvme/nvme0/nvme0n1/queue/"
        "logical_block_size",
        "4096\n");
    write("/run/udev/data/b259:0", "S:disk/by-id/x\nE:ID_SERIAL_SHORT=N-1\n");
    const auto machine = describe({"/dev/sdb", "/dev/nvme0n1"});
    ASSERT_TRUE(machine) << machine.error().to_string();
    EXPECT_EQ(machine->disks[0].bus, DiskBus::kVirtioScsi);
    EXPECT_EQ(machine->disks[0].pci_address, "10.0") << "disks of a controller share its address";
    EXPECT_EQ(machine->disks[1].bus, DiskBus::kNvme);
    EXPECT_EQ(machine->disks[1].pci_address, "") << "behind a bridge";
    EXPECT_EQ(machine->disks[1].serial, "N-1");
    EXPECT_EQ(machine->disks[1].logical_block_bytes, 4096u);
}

TEST_F(LocalMachineTest, BootDiskIsFoundUnderVolumesAndMirrors) {
    make_virtual_machine();
    for (const char* letter : {"b", "c", "d"}) {
        const std::string device = std::string("pci0000:00/0000:00:06.") +
                                   std::to_string(letter[0] - 'b') + "/virtio9/block/vd" + letter;
        block(device, "254:" + std::to_string(16 * (letter[0] - 'a')), 1);
    }
    // The root: a volume on a mirror of two partitions. /boot: on a third disk; its name has a
    // blank in mountinfo's way of writing one, and a btrfs names its device only.
    block("virtual/block/md0", "9:0");
    block("virtual/block/dm-0", "253:0");
    link("/sys/devices/virtual/block/dm-0/slaves/md0", "/sys/devices/virtual/block/md0");
    for (const char* disk : {"vdc", "vdb"}) {
        const std::string part = std::string(disk) + "1";
        link("/sys/devices/virtual/block/md0/slaves/" + part, "/sys/class/block/" + part);
    }
    write("/proc/self/mountinfo",
          "22 1 253:0 / / rw - ext4 /dev/mapper/vg-root rw\n"
          "23 22 254:2 / /with\\040blank rw - ext4 /dev/vda2 rw\n"
          "24 22 0:40 /@boot /boot rw master:1 - btrfs /dev/vdd1 rw\n");
    auto machine = describe({"/dev/vda", "/dev/vdb", "/dev/vdc", "/dev/vdd"});
    ASSERT_TRUE(machine) << machine.error().to_string();
    EXPECT_FALSE(machine->disks[0].boot_index);
    EXPECT_EQ(machine->disks[1].boot_index, 2u);
    EXPECT_EQ(machine->disks[2].boot_index, 3u);
    EXPECT_EQ(machine->disks[3].boot_index, 1u);

    // UEFI reads its own partition first.
    fs::create_directories(directory_ / "sys/firmware/efi");
    write("/proc/self/mountinfo",
          "22 1 253:0 / / rw - ext4 /dev/mapper/vg-root rw\n"
          "23 22 254:1 / /boot/efi rw - vfat /dev/vda1 rw\n");
    machine = describe({"/dev/vdb", "/dev/vda"});
    ASSERT_TRUE(machine) << machine.error().to_string();
    EXPECT_EQ(machine->firmware, Firmware::kUefi);
    EXPECT_EQ(machine->disks[0].boot_index, 2u);
    EXPECT_EQ(machine->disks[1].boot_index, 1u);
}

TEST_F(LocalMachineTest, CardsKeepTheirOrderModelAndAddress) {
    make_virtual_machine();
    driver("pci0000:00/0000:00:1f.6", "e1000e");
    nic("eno1", "pci0000:00/0000:00:1f.6", "52:54:00:00:00:01", 10);
    driver("pci0000:00/0000:00:07.0", "vmxnet3");
    nic("eth10", "pci0000:00/0000:00:07.0", "52:54:00:00:00:02", 9);
    nic("eth2", "vmbus/1234", "52:54:00:00:00:03", 3);
    driver("vmbus/1234", "hv_netvsc");
    driver("pci0000:00/0000:00:08.0", "igb");
    nic("eth3", "pci0000:00/0000:00:08.0", "52:54:00:00:00:02", 12);
    write("/sys/class/net/eth3/bonding_slave/perm_hwaddr", "52:54:00:00:00:04\n");
    driver("pci0001:00/0001:00:02.0", "mlx5_core");
    nic("enP1s1", "pci0001:00/0001:00:02.0", "52:54:00:00:00:03", 13);
    const auto machine = describe({"/dev/vda"});
    ASSERT_TRUE(machine) << machine.error().to_string();
    ASSERT_EQ(machine->nics.size(), 5u) << "a card that is shown twice is one";
    EXPECT_EQ(machine->nics[1].mac, "52:54:00:00:00:03");
    EXPECT_EQ(machine->nics[1].model, "virtio-net-pci");
    EXPECT_EQ(machine->nics[2].model, "vmxnet3");
    EXPECT_EQ(machine->nics[2].pci_address, "07.0");
    EXPECT_EQ(machine->nics[3].model, "e1000e");
    EXPECT_EQ(machine->nics[3].pci_address, "") << "the chipset's own slot";
    EXPECT_EQ(machine->nics[4].mac, "52:54:00:00:00:04") << "a bond's members all show one";
}

TEST_F(LocalMachineTest, OtherBoardsAndSizes) {
    make_virtual_machine();
    write("/sys/class/dmi/id/product_version", "None\n");
    write("/sys/class/dmi/id/product_name", "VMware Virtual Platform\n");
    write("/sys/class/dmi/id/product_uuid", "not, a uuid\n");
    write("/sys/bus/pci/devices/0000:00:07.0/vendor", "0x8086\n");
    write("/sys/bus/pci/devices/0000:00:07.0/device", "0x7110\n");
    write("/proc/meminfo", "MemTotal:       65763328 kB\n");
    write("/sys/devices/system/cpu/online", "0-1,3\n");
    write("/sys/class/rtc/rtc0/since_epoch", "1700007205\n");
    now_ = TimePoint{1'700'000'000'000'000};
    auto machine = describe({"/dev/vda"});
    ASSERT_TRUE(machine) << machine.error().to_string();
    EXPECT_EQ(machine->machine_type, "pc");
    EXPECT_EQ(machine->uuid, "");
    EXPECT_EQ(machine->memory_bytes, 64ull << 30);
    EXPECT_EQ(machine->cpus, 3u);
    EXPECT_EQ(machine->cores, 0u) << "three CPUs are no even number of threads";
    EXPECT_EQ(machine->rtc_offset_s, 7200);

    // Exact where the kernel counts its memory in blocks.
    write("/sys/devices/system/memory/block_size_bytes", "8000000\n");
    write("/proc/meminfo", "MemTotal:         560000 kB\n");
    for (int i = 0; i < 5; ++i)
        write("/sys/devices/system/memory/memory" + std::to_string(i) + "/online", "1\n");
    machine = describe({"/dev/vda"});
    ASSERT_TRUE(machine);
    EXPECT_EQ(machine->memory_bytes, 5ull * (128 << 20));
}

TEST_F(LocalMachineTest, NothingButTheDiskIsNeeded) {
    block("platform/mmc/block/mmcblk0", "179:0", 1);
    const auto machine = describe({"/dev/mmcblk0"});
    ASSERT_TRUE(machine) << machine.error().to_string();
    EXPECT_EQ(machine->cpus, 2u);
    EXPECT_EQ(machine->memory_bytes, 2048ull << 20);
    EXPECT_EQ(machine->machine_type, "q35");
    EXPECT_TRUE(machine->nics.empty());
    EXPECT_EQ(machine->disks[0].bus, DiskBus::kVirtioBlk);
}

}  // namespace
}  // namespace farshore
