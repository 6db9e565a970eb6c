#include "compute/libvirt_compute.h"

#include <fmt/core.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "compute/nbd_front.h"
#include "compute/nbd_server.h"
#include "compute/test_libvirtd.h"
#include "compute/test_support.h"
#include "compute/test_writing_guest.h"
#include "e2e/bootsector/boot_sector.h"
#include "os/pki.h"
#include "os/real.h"

namespace farshore {
namespace {

constexpr const char* kGroup = "libvirt-qemu";  // of Debian's QEMU under libvirt

// A machine that boots the 512-byte guest of tests/e2e/bootsector, from nbdkit, on a real libvirtd
// whose QEMU is not us.
class LibvirtTest : public testing::Test {
  protected:
    void SetUp() override {
        PosixFileSystem files;
        ASSERT_TRUE(files.make_directories(run()));
        ASSERT_TRUE(files.make_directories(directory_ / "state"));
        ASSERT_TRUE(files.make_directories(directory_ / "disks"));
        start_libvirtd();
        ASSERT_TRUE(libvirtd_);
        reach("host");
    }
    void TearDown() override {
        if (compute_) {
            EXPECT_TRUE(compute_->clean_up(place()));
        }
        compute_.reset();
        libvirtd_.reset();
        EXPECT_TRUE(NbdServer::clean_up(run()));
    }
    virtual void start_libvirtd() { libvirtd_ = std::make_unique<TestLibvirtd>(directory_.path()); }
    virtual void reach(const std::string& scope) {
        compute_ = std::make_unique<LibvirtCompute>(LibvirtOptions{.name = "host",
                                                                   .uri = libvirtd_->uri(),
                                                                   .scope = scope,
                                                                   .accelerator = Accelerator::kTcg,
                                                                   .disks_group = kGroup});
    }
    std::string run() const { return directory_ / "run/t1"; }
    MachinePlace place() const { return {"t1", run(), directory_ / "state"}; }
    void make_disk(const std::string& name, const Bytes& boot) {
        PosixFileSystem files;
        auto file = files.open(directory_ / ("disks/" + name), OpenMode::kCreate);
        ASSERT_TRUE(file);
        ASSERT_TRUE((*file)->truncate(2 << 20));
        ASSERT_TRUE((*file)->write_at(0, boot));
        ASSERT_TRUE((*file)->write_at(512, as_bytes("sixteen bytes it")));
    }
    void serve() {
        auto server = NbdServer::start({.run_directory = run(),
                                        .plugin = "file",
                                        .parameters = {{"dir", directory_ / "disks"}}});
        ASSERT_TRUE(server) << server.error().to_string();
        server_ = std::make_unique<NbdServer>(std::move(*server));
    }
    MachineOrder order_for(const std::vector<std::string>& disks) {
        MachineOrder order;
        order.place = place();
        order.title = "shop & <co>";
        std::vector<PlainDisk> plain;
        for (const std::string& disk : disks) {
            plain.push_back({"/source/" + disk, 2 << 20});
            order.disks.push_back({run() + "/nbd.sock", disk});
        }
        order.machine = describe_plain_machine("shop", plain);
        order.machine.memory_bytes = 64 << 20;
        order.networks = {{NetworkKind::kNone}};
        return order;
    }
    std::string wait_serial(const std::string& wanted) {
        std::string text;
        wait_until(60'000, 10, [&] {
            text = tail_of_file(run() + "/serial.log", 65536);
            return text.find(wanted) != std::string::npos;
        });
        return text;
    }
    bool wait_state(RecoveryMachine& machine, MachineState wanted) {
        return wait_until(60'000, 20, [&] {
            const auto now = machine.state();
            return now && *now == wanted;
        });
    }

    TestDirectory directory_;
    std::unique_ptr<TestLibvirtd> libvirtd_;
    std::unique_ptr<LibvirtCompute> compute_;
    std::unique_ptr<NbdServer> server_;
};

// Broken if a write that the guest makes before, in or after the moment of the switch were not in
// the file, its disk were still the vault's, or its definition said so.
TEST_F(LibvirtTest, DisksBecomeFilesBehindTheGuest) {
    PosixFileSystem files;
    {
        auto file = files.open(directory_ / "disks/a", OpenMode::kCreate);
        ASSERT_TRUE(file);
        ASSERT_TRUE((*file)->truncate(kWritingGuestDiskBytes));
        ASSERT_TRUE((*file)->write_at(0, writing_guest()));
    }
    serve();
    MachineOrder order = order_for({"a"});
    order.machine.disks[0].size_bytes = kWritingGuestDiskBytes;
    auto machine = compute_->start(order);
    ASSERT_TRUE(machine) << machine.error().to_string();
    const auto wait_for_writes = [&](uint64_t count) {
        uint64_t first = UINT64_MAX;
        EXPECT_TRUE(wait_until(60'000, 20, [&] {
            const auto now = (*machine)->activity();
            if (!now) return false;
            first = std::min(first, now->write_operations);
            return now->write_operations >= first + count;
        })) << "the guest does not write";
    };
    wait_for_writes(100);
    std::filesystem::create_directory(directory_ / "own");
    std::filesystem::permissions(directory_ / "own", std::filesystem::perms(0711));
    const DiskCopyOrder copy{.export_name = "a",
                             .size_bytes = kWritingGuestDiskBytes,
                             .file = {directory_ / "own/a&b.qcow2", DiskFormat::kQcow2}};
    EXPECT_EQ((*machine)->copy_state(copy)->stage, CopyStage::kNone);
    const auto switch_over = [&](const Status& noted) {
        return (*machine)->switch_over(
            copy, [&]() -> Status { return noted; }, 30'000);
    };
    EXPECT_EQ(switch_over({}).error().code(), Code::kWrongState);
    EXPECT_EQ(*(*machine)->state(), MachineState::kRunning);
    for (const bool given_up : {true, false}) {
        const Status begun = (*machine)->begin_copy(copy);
        ASSERT_TRUE(begun) << begun.error().to_string();
        ASSERT_TRUE((*machine)->begin_copy(copy)) << "it is under way";
        ASSERT_TRUE(wait_until(60'000, 20, [&] {
            const auto now = (*machine)->copy_state(copy);
            return now && now->stage == CopyStage::kReady;
        }));
        if (!given_up) break;
        // Not one into another file.
        DiskCopyOrder another = copy;
        another.file.path = directory_ / "own/another";
        EXPECT_EQ((*machine)->copy_state(another)->stage, CopyStage::kNone);
        ASSERT_TRUE((*machine)->end_copy(copy));
        EXPECT_EQ((*machine)->copy_state(copy)->stage, CopyStage::kNone);
        // It is the host's.
        ASSERT_TRUE(files.remove(copy.file.path));
    }
    // A vault that cannot note it holds the machine, and goes on.
    const auto refused = switch_over(fail(Code::kNoSpace, "the vault's disk is full"));
    EXPECT_EQ(refused.error().code(), Code::kNoSpace);
    EXPECT_EQ(*(*machine)->state(), MachineState::kPaused);
    const auto held_us = switch_over({});
    ASSERT_TRUE(held_us) << held_us.error().to_string();
    EXPECT_EQ((*machine)->copy_state(copy)->stage, CopyStage::kSwitched);
    ASSERT_TRUE(NbdServer::clean_up(run()));
    wait_for_writes(100);
    const std::string defined =
        libvirtd_->virsh({"dumpxml", "--inactive", (*compute_).doors(place()).domain});
    EXPECT_EQ(defined.find("nbd"), std::string::npos) << defined;
    EXPECT_NE(defined.find("a&amp;b.qcow2"), std::string::npos) << defined;
    order.disks[0].file = copy.file;
    ASSERT_TRUE(compute_->let_go(order, {}));
    ASSERT_TRUE((*machine)->kill());
    const uint32_t there = last_write_on(directory_ / "disks/a", "raw");
    EXPECT_GE(last_write_on(copy.file.path, "qcow2"), there + 100);
    // As it is defined, it starts.
    libvirtd_->virsh({"start", (*compute_).doors(place()).domain});
    wait_for_writes(10);
    // One that was off had no definition.
    ASSERT_TRUE(compute_->clean_up(place()));
    ASSERT_TRUE(compute_->let_go(order, {}));
    libvirtd_->virsh({"start", (*compute_).doors(place()).domain});
    wait_for_writes(10);
}

// Broken if the first words of a machine were lost, its disks not opened by a QEMU that is somebody
// else, its writes not where they belong, or a vault that is started again did not find it.
TEST_F(LibvirtTest, BootsReadsWritesAndIsAdopted) {
    make_disk("a", boot_sector({.disks = 1, .sectors = {1}, .write_sector = 9}));
    serve();
    EXPECT_EQ(compute_->adopt(place()).error().code(), Code::kNotFound);
    auto machine = compute_->start(order_for({"a"}));
    ASSERT_TRUE(machine) << machine.error().to_string();
    const std::string said = wait_serial("DONE");
    EXPECT_NE(said.find("FARSHORE-BOOT"), std::string::npos) << said;
    EXPECT_NE(said.find("WROTE"), std::string::npos) << said;
    EXPECT_EQ((*machine)->state().value_or(MachineState::kFailed), MachineState::kRunning);
    const auto activity = (*machine)->activity();
    ASSERT_TRUE(activity) << activity.error().to_string();
    EXPECT_GT(activity->read_operations, 0u);
    EXPECT_GT(activity->write_bytes, 0u);
    struct stat socket {};
    ASSERT_EQ(::stat((run() + "/nbd.sock").c_str(), &socket), 0);
    EXPECT_EQ(socket.st_mode & 0777, 0660u) << "others can open the machine's disks";
    EXPECT_EQ(compute_->start(order_for({"a"})).error().code(), Code::kAlreadyExists);
    EXPECT_NE(libvirtd_->virsh({"list", "--title"}).find("shop & <co>"), std::string::npos);

    machine->reset();
    reach("host");  // as after our restart
    machine = compute_->adopt(place());
    ASSERT_TRUE(machine) << machine.error().to_string();
    EXPECT_TRUE((*machine)->alive());
    ASSERT_TRUE((*machine)->screenshot(directory_ / "screen.png"));
    PosixFileSystem files;
    EXPECT_TRUE(as_text(*read_whole_file(files, directory_ / "screen.png", 16u << 20))
                    .starts_with("\x89PNG"));
    EXPECT_EQ((*machine)->forward_port(22).error().code(), Code::kUnsupported);
    EXPECT_TRUE((*machine)->press_power_button());
    EXPECT_EQ(compute_->guest_agent(place(), 1000).error().code(), Code::kTimeout);
    ASSERT_TRUE((*machine)->kill());
    EXPECT_EQ((*machine)->state().value_or(MachineState::kFailed), MachineState::kStopped);
    ASSERT_TRUE((*machine)->kill()) << "twice";
    ASSERT_TRUE(compute_->clean_up(place()));
    EXPECT_EQ(libvirtd_->virsh({"list", "--all", "--name"}), "");
    ASSERT_TRUE(compute_->clean_up(place())) << "twice";
    const auto disk = read_whole_file(files, directory_ / "disks/a");
    ASSERT_TRUE(disk);
    EXPECT_EQ((*disk)[9 * 512], 'W');
}

// Broken if a guest were answered with an error while its disk server is started anew, or never
// went on; or if a machine that somebody else had paused were let go on.
TEST_F(LibvirtTest, AGuestWaitsForADiskServerThatIsStartedAnew) {
    // It reads again and again what it has not in memory: each sector once, after the server died.
    make_disk("a", boot_sector({.disks = 1, .sectors = {1}, .write_sector = 9}));
    serve();
    MachineOrder order = order_for({"a"});
    auto machine = compute_->start(order);
    ASSERT_TRUE(machine) << machine.error().to_string();
    wait_serial("DONE");
    ASSERT_TRUE(server_->kill());
    // A reset makes the guest read its disk, which is not there.
    libvirtd_->virsh({"reset", compute_->doors(place()).domain});
    ASSERT_TRUE(wait_state(**machine, MachineState::kPaused));
    // Not yet: it is stopped again by the same request, and the guest hears nothing of it.
    (void)(*machine)->tend(true);
    ASSERT_TRUE(wait_state(**machine, MachineState::kPaused));
    serve();
    const auto count = [&] {
        const std::string text = tail_of_file(run() + "/serial.log", 65536);
        size_t n = 0;
        for (size_t at = 0; (at = text.find("DONE", at)) != text.npos; ++at) ++n;
        return n;
    };
    EXPECT_TRUE(wait_until(60'000, 50, [&] {
        (void)(*machine)->tend(true);
        return count() == 2;
    })) << tail_of_file(run() + "/serial.log", 65536);
    EXPECT_EQ(tail_of_file(run() + "/serial.log", 65536).find("ERROR"), std::string::npos);
    libvirtd_->virsh({"suspend", compute_->doors(place()).domain});
    ASSERT_TRUE(wait_state(**machine, MachineState::kPaused));
    ASSERT_TRUE((*machine)->tend(true));
    EXPECT_EQ((*machine)->state().value_or(MachineState::kFailed), MachineState::kPaused);
}

// Broken if a daemon that is started anew passed for a machine that ended, if a host that cannot be
// reached did, or if a power cut of the host passed for a guest that shut itself down.
TEST_F(LibvirtTest, ADaemonAHostAndAGuestThatGoAreToldApart) {
    make_disk("a", boot_sector());
    serve();
    auto machine = compute_->start(order_for({"a"}));
    ASSERT_TRUE(machine) << machine.error().to_string();
    wait_serial("DONE");
    libvirtd_->kill_daemon();
    EXPECT_TRUE(wait_state(**machine, MachineState::kRunning)) << "the machine runs on";
    libvirtd_->stop();  // with all that it runs
    EXPECT_EQ((*machine)->state().error().code(), Code::kUnavailable);
    EXPECT_TRUE((*machine)->alive()) << "nobody knows";
    EXPECT_EQ(compute_->clean_up(place()).error().code(), Code::kUnavailable);
    auto adopted = compute_->adopt(place());
    EXPECT_TRUE(adopted) << "nobody knows";
    libvirtd_->start();
    EXPECT_TRUE(wait_state(**machine, MachineState::kLost));
    machine = compute_->start(order_for({"a"}));
    ASSERT_TRUE(machine) << machine.error().to_string();
    EXPECT_TRUE(wait_state(**machine, MachineState::kRunning));
    // Ended by somebody at the host: not lost.
    libvirtd_->virsh({"destroy", compute_->doors(place()).domain});
    EXPECT_TRUE(wait_state(**machine, MachineState::kStopped));
}

// Broken if an isolated machine met another, if a segment went while somebody is on it or stayed
// when nobody is, or if a vault took another's networks away.
TEST_F(LibvirtTest, NetworksAreMadeAndGoWithTheirMachines) {
    make_disk("a", boot_sector());
    serve();
    const auto networks = [&] { return libvirtd_->virsh({"net-list", "--all", "--name"}); };
    const std::string none = networks();
    MachineOrder order = order_for({"a"});
    order.machine.nics.resize(2);
    order.networks = {{NetworkKind::kIsolated}, {NetworkKind::kSegment, "lab"}};
    ASSERT_TRUE(compute_->check(order.machine, order.networks));
    auto machine = compute_->start(order);
    ASSERT_TRUE(machine) << machine.error().to_string();
    EXPECT_NE(networks().find(".t1.0"), std::string::npos) << networks();
    EXPECT_NE(networks().find("-segment.lab"), std::string::npos) << networks();
    LibvirtCompute other({.name = "host", .uri = libvirtd_->uri(), .scope = "another"});
    ASSERT_TRUE(other.clean_up({"t1", run() + "/none"}));
    // A second machine on the segment, by a read-only look at what the first one reads.
    MachineOrder second = order;
    second.place.id = "t2";
    second.networks = {{NetworkKind::kNone}, {NetworkKind::kSegment, "lab"}};
    auto two = compute_->start(second);
    ASSERT_TRUE(two) << two.error().to_string();
    ASSERT_TRUE(compute_->clean_up(place()));
    EXPECT_EQ(networks().find(".t1.0"), std::string::npos) << networks();
    EXPECT_NE(networks().find("-segment.lab"), std::string::npos) << "t2 is on it";
    ASSERT_TRUE(compute_->clean_up(second.place));
    EXPECT_EQ(networks(), none);

    order.networks = {{NetworkKind::kLibvirt, "nowhere"}, {NetworkKind::kNone}};
    EXPECT_EQ(compute_->check(order.machine, order.networks).error().code(),
              Code::kDependencyMissing);
    EXPECT_FALSE(compute_->start(order)) << "there is no such network";
    EXPECT_EQ(libvirtd_->virsh({"list", "--all", "--name"}), "") << "nothing half-done is left";
}

// Broken if the DHCP server of the host's network did not know the machine's address before it
// starts, kept it after the machine, or lost one of somebody else's.
TEST_F(LibvirtTest, AnAddressIsReservedWhileTheMachineIsThere) {
    make_disk("a", boot_sector());
    serve();
    const auto define = [&] {
        PosixFileSystem files;
        ASSERT_TRUE(write_file_durably(files, directory_ / "lan.xml", as_bytes(R"(<network>
            <name>lan</name><forward mode='open'/><bridge name='fslan0' stp='off'/>
            <ip address='10.77.0.1' netmask='255.255.255.0'><dhcp>
              <range start='10.77.0.100' end='10.77.0.110'/>
              <host mac='52:54:00:77:00:01' name='printer' ip='10.77.0.9'/>
            </dhcp></ip></network>)")));
        libvirtd_->virsh({"net-define", directory_ / "lan.xml"});
        libvirtd_->virsh({"net-start", "lan"});
    };
    define();
    // How often both descriptions of the network say something.
    const auto says = [&](const std::string& words) {
        int n = 0;
        for (const std::string& xml : {libvirtd_->virsh({"net-dumpxml", "lan"}),
                                       libvirtd_->virsh({"net-dumpxml", "lan", "--inactive"})})
            n += xml.find(words) != xml.npos ? 1 : 0;
        return n;
    };
    MachineOrder order = order_for({"a"});
    order.machine.nics[0].mac = "52:54:00:77:00:02";
    order.networks = {{NetworkKind::kLibvirt, "lan"}};
    order.addresses = {{0, {"10.77.0.3/24", "10.77.0.1", {}, AddressBy::kDhcp}}};
    const auto check = [&] {
        return compute_->check_addresses(order.machine, order.networks, order.addresses);
    };
    ASSERT_TRUE(check()) << check().error().to_string();
    auto machine = compute_->start(order);
    ASSERT_TRUE(machine) << machine.error().to_string();
    EXPECT_EQ(says("ip='10.77.0.3'"), 2);
    EXPECT_EQ(check().error().code(), Code::kAlreadyExists) << "another machine's";
    machine->reset();
    reach("host");  // as after our restart
    ASSERT_TRUE(compute_->adopt(place()));
    LibvirtCompute other({.name = "host", .uri = libvirtd_->uri(), .scope = "another"});
    ASSERT_TRUE(other.clean_up({"t1", run() + "/none"}));
    EXPECT_EQ(says("ip='10.77.0.3'"), 2) << "another vault took it";
    ASSERT_TRUE(compute_->clean_up({"t", run() + "/none"}));
    EXPECT_EQ(says("ip='10.77.0.3'"), 2) << "another machine took it";
    ASSERT_TRUE(compute_->clean_up(place()));
    EXPECT_EQ(says("ip='10.77.0.3'"), 0);
    EXPECT_EQ(says("name='printer'"), 2);

    // A start that was cut short in its middle is begun again.
    const std::string name = compute_->doors(place()).domain;
    const std::string own = name.substr(0, name.find('.')) + "-t1-0";
    libvirtd_->virsh({"net-update", "lan", "add", "ip-dhcp-host",
                      "<host mac='52:54:00:77:00:02' name='" + own + "' ip='10.77.0.3'/>",
                      "--live"});
    EXPECT_EQ(says("ip='10.77.0.3'"), 1);
    machine = compute_->start(order);
    ASSERT_TRUE(machine) << machine.error().to_string();
    EXPECT_EQ(says("ip='10.77.0.3'"), 2);
    ASSERT_TRUE(compute_->clean_up(place()));
    EXPECT_EQ(says("ip='10.77.0.3'"), 0);

    // Somebody else's is neither taken nor removed.
    for (const bool same_address : {true, false}) {
        order.machine.nics[0].mac = same_address ? "52:54:00:77:00:02" : "52:54:00:77:00:01";
        order.addresses[0].address = same_address ? "10.77.0.9/24" : "10.77.0.3/24";
        EXPECT_EQ(check().error().code(), Code::kAlreadyExists);
        EXPECT_EQ(compute_->start(order).error().code(), Code::kAlreadyExists);
        ASSERT_TRUE(compute_->clean_up(place()));
        EXPECT_EQ(says("name='printer'"), 2);
        EXPECT_EQ(says("name='farshore"), 0);
        EXPECT_EQ(libvirtd_->virsh({"list", "--all", "--name"}), "");
    }
    order.machine.nics[0].mac = "52:54:00:77:00:02";
    order.addresses[0].address = "10.78.0.3/24";
    EXPECT_EQ(check().error().code(), Code::kUnsupported);
    order.addresses[0] = {"10.77.0.3/24", "", {}, AddressBy::kDhcp};
    order.networks = {{NetworkKind::kUser}};
    EXPECT_EQ(check().error().code(), Code::kUnsupported);
    EXPECT_EQ(compute_->start(order).error().code(), Code::kUnsupported);

    // A network that is gone has no reservation.
    order.networks = {{NetworkKind::kLibvirt, "lan"}};
    machine = compute_->start(order);
    ASSERT_TRUE(machine) << machine.error().to_string();
    libvirtd_->virsh({"net-destroy", "lan"});
    libvirtd_->virsh({"net-undefine", "lan"});
    ASSERT_TRUE(compute_->clean_up(place()));
    // One that does not run keeps none for its next start.
    define();
    machine = compute_->start(order);
    ASSERT_TRUE(machine) << machine.error().to_string();
    libvirtd_->virsh({"net-destroy", "lan"});
    ASSERT_TRUE(compute_->clean_up(place()));
    EXPECT_EQ(libvirtd_->virsh({"net-dumpxml", "lan", "--inactive"}).find("10.77.0.3"),
              std::string::npos);
}

// Broken if a disk that the guest can do without stopped the machine when it cannot be read.
TEST_F(LibvirtTest, ASpareDiskStopsNoMachine) {
    make_disk("a", boot_sector());
    serve();
    MachineOrder order = order_for({"a", "a"});
    order.machine.disks[1].read_only = order.disks[1].spare = true;
    order.machine.disks[1].pci_address = "1c.0";
    auto machine = compute_->start(order);
    ASSERT_TRUE(machine) << machine.error().to_string();
    wait_serial("DONE");
    const std::string xml = libvirtd_->virsh({"dumpxml", compute_->doors(place()).domain});
    EXPECT_NE(xml.find("rerror_policy='report'"), std::string::npos) << xml;
    EXPECT_NE(xml.find("rerror_policy='stop'"), std::string::npos) << xml;
    EXPECT_NE(xml.find("<readonly/>"), std::string::npos) << xml;
}

// Broken if the guest found other hardware than at its source: the same disks in the same order on
// every bus, at the slots that they had, and UEFI.
TEST_F(LibvirtTest, EveryBusAndFirmwareBoots) {
    make_disk("a", boot_sector({.disks = 2, .sectors = {1}}));
    make_disk("b", boot_sector({.disks = 2, .sectors = {1}}));
    serve();
    for (const std::string type : {"q35", "pc"})
        for (const DiskBus bus : {DiskBus::kVirtioBlk, DiskBus::kVirtioScsi, DiskBus::kScsi,
                                  DiskBus::kIde, DiskBus::kMegasas}) {
            MachineOrder order = order_for({"a", "b"});
            order.machine.machine_type = type;
            for (MachineDisk& disk : order.machine.disks) disk.bus = bus;
            if (bus == DiskBus::kVirtioBlk) {
                order.machine.disks[0].pci_address = "05.0";
                order.machine.disks[1].pci_address = "05.1";
                order.machine.disks[1].boot_index = 0;
                order.machine.nics[0].pci_address = "03.0";
            }
            auto machine = compute_->start(order);
            ASSERT_TRUE(machine) << type << " " << disk_bus_name(bus) << ": "
                                 << machine.error().to_string();
            const std::string said = wait_serial("DONE");
            EXPECT_NE(said.find("FARSHORE-BOOT"), std::string::npos)
                << type << " " << disk_bus_name(bus) << ": " << said;
            ASSERT_TRUE(compute_->clean_up(place()));
        }
    MachineOrder order = order_for({"a"});
    order.machine.firmware = Firmware::kUefi;
    ASSERT_TRUE(compute_->check(order.machine, order.networks));
    auto machine = compute_->start(order);
    ASSERT_TRUE(machine) << machine.error().to_string();
    EXPECT_EQ((*machine)->state().value_or(MachineState::kFailed), MachineState::kRunning);
    order.machine.disks[0].bus = DiskBus::kNvme;
    EXPECT_EQ(compute_->check(order.machine, order.networks).error().code(), Code::kUnsupported);
}

// The same on a host of its own network, which is reached over TLS, or SSH, and reads the disks
// over TLS: a libvirtd in a network namespace with one cable to us.
class LibvirtRemoteTest : public LibvirtTest {
  protected:
    void start_libvirtd() override {
        const std::string own = fmt::format("{}", key_of(::getpid())->pid);
        space_ = "fslv" + own;
        const auto ip = [](std::vector<std::string> arguments) {
            arguments.insert(arguments.begin(), "ip");
            run_tool(std::move(arguments));
        };
        const std::string here = "fsh" + own, there = "fst" + own;
        ip({"netns", "add", space_});
        ip({"link", "add", here, "type", "veth", "peer", "name", there, "netns", space_});
        ip({"addr", "add", std::string(kHere) + "/30", "dev", here});
        ip({"link", "set", here, "up"});
        ip({"-n", space_, "addr", "add", std::string(kThere) + "/30", "dev", there});
        ip({"-n", space_, "link", "set", there, "up"});
        const TimePoint now = RealClock().now();
        auto authority = CertificateAuthority::create("test-authority", now);
        ASSERT_TRUE(authority) << authority.error().to_string();
        authority_ = std::make_unique<CertificateAuthority>(std::move(*authority));
        // libvirt's own names of them.
        write_pki("pki", "daemon", {kThere}, "cacert.pem", "servercert.pem", "serverkey.pem");
        write_pki("pki", "vault", {}, "cacert.pem", "clientcert.pem", "clientkey.pem");
        // QEMU's.
        write_pki("libvirtd/nbd", "compute:host", {}, "ca-cert.pem", "client-cert.pem",
                  "client-key.pem");
        write("libvirtd/qemu-more.conf",
              fmt::format("nbd_tls_x509_cert_dir = \"{}\"\n", directory_ / "libvirtd/nbd"), 0644);
        run_tool({"chgrp", "-R", kGroup, directory_ / "libvirtd/nbd"});
        run_tool({"chmod", "0640", directory_ / "libvirtd/nbd/client-key.pem"});
        run_tool({"chmod", "0711", directory_ / "libvirtd"});
        make_ssh();
        libvirtd_ = std::make_unique<TestLibvirtd>(
            directory_.path(), space_,
            std::vector<std::string>{
                "listen_tls = 1", "auth_tls = \"none\"",
                fmt::format("ca_file = \"{}\"", directory_ / "pki/cacert.pem"),
                fmt::format("cert_file = \"{}\"", directory_ / "pki/servercert.pem"),
                fmt::format("key_file = \"{}\"", directory_ / "pki/serverkey.pem")});
    }
    void TearDown() override {
        if (libvirtd_) LibvirtTest::TearDown();
        run_tool({"ip", "netns", "del", space_});
    }
    void reach(const std::string& scope) override {
        reach_at(fmt::format("qemu+tls://{}/system?pkipath={}", kThere, directory_ / "pki"), scope,
                 "compute:host");
    }
    void reach_at(const std::string& uri, const std::string& scope, const std::string& client) {
        compute_ = std::make_unique<LibvirtCompute>(LibvirtOptions{
            .name = "host",
            .uri = uri,
            .scope = scope,
            .accelerator = Accelerator::kTcg,
            .disks_over_tls = DisksOverTls{.address = kHere,
                                           .first_port = 10810,
                                           .last_port = 10840,
                                           .issue =
                                               [this](const std::string& server) {
                                                   return authority_->issue_with_key(
                                                       {.common_name = "disks",
                                                        .alternative_names = {server},
                                                        .now = RealClock().now()});
                                               },
                                           .authority_pem = authority_->certificate_pem(),
                                           .client_name = client}});
    }
    std::string ssh_uri() const {
        return fmt::format(
            "qemu+libssh://root@{}/system?keyfile={}&known_hosts={}&known_hosts_verify=normal&"
            "sshauth=privkey",
            kThere, directory_ / "key", directory_ / "known_hosts");
    }

  private:
    void write(const std::string& name, std::string_view text, mode_t mode) {
        PosixFileSystem files;
        ASSERT_TRUE(write_file_durably(files, directory_ / name, as_bytes(text)));
        ASSERT_EQ(::chmod((directory_ / name).c_str(), mode), 0);
    }
    void write_pki(const std::string& where, const std::string& name,
                   const std::vector<std::string>& addresses, const char* authority,
                   const char* certificate, const char* key) {
        PosixFileSystem files;
        ASSERT_TRUE(files.make_directories(directory_ / where));
        auto issued = authority_->issue_with_key(
            {.common_name = name, .alternative_names = addresses, .now = RealClock().now()});
        ASSERT_TRUE(issued) << issued.error().to_string();
        ASSERT_EQ(::chmod((directory_ / where).c_str(), 0755), 0);
        write(where + "/" + authority, authority_->certificate_pem(), 0644);
        write(where + "/" + certificate, issued->certificate_pem, 0644);
        write(where + "/" + key, as_text(issued->key_pem.reveal()), 0600);
    }
    void make_ssh() {
        for (const char* key : {"key", "host_key"})
            run_tool({"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory_ / key});
        PosixFileSystem files;
        const auto read = [&](const std::string& name) {
            return std::string(
                as_text(read_whole_file(files, directory_ / name).value_or(Bytes{})));
        };
        write("authorized_keys", read("key.pub"), 0600);
        write("known_hosts", fmt::format("{} {}", kThere, read("host_key.pub")), 0644);
        write("libvirtd/sshd_config",
              fmt::format("ListenAddress {}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\n"
                          "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
                          "UsePAM no\nPidFile none\n",
                          kThere, directory_ / "host_key", directory_ / "authorized_keys"),
              0600);
    }

    static constexpr const char* kHere = "10.213.77.1";
    static constexpr const char* kThere = "10.213.77.2";
    std::string space_;
    std::unique_ptr<CertificateAuthority> authority_;
};

// Broken if a machine's disks left this machine in the clear, or could be had without the host's
// certificate; or if a cable that is pulled cost the guest more than time.
TEST_F(LibvirtRemoteTest, RunsOverTlsAndGoesOnAfterTheLineWasCut) {
    make_disk("a", boot_sector({.disks = 1, .sectors = {1}, .write_sector = 9}));
    serve();
    MachineOrder order = order_for({"a"});
    order.networks = {{NetworkKind::kIsolated}};
    auto machine = compute_->start(order);
    ASSERT_TRUE(machine) << machine.error().to_string();
    const std::string said = wait_serial("DONE");
    EXPECT_NE(said.find("WROTE"), std::string::npos) << said;
    const std::string xml = libvirtd_->virsh({"dumpxml", compute_->doors(place()).domain});
    EXPECT_NE(xml.find("tls='yes'"), std::string::npos) << xml;
    EXPECT_EQ(xml.find("nbd.sock"), std::string::npos) << xml;
    EXPECT_NE(xml.find("tlsHostname='" + compute_->doors(place()).domain + "'"), std::string::npos)
        << "another machine's disks would be taken for its own: " << xml;
    // The front ends, and the server behind it: both come back, the guest only waits.
    auto front = NbdFront::adopt(run());
    ASSERT_TRUE(front);
    ASSERT_TRUE(front->kill());
    ASSERT_TRUE(server_->kill());
    // As after a restart of this machine: /run is empty, and the guest knows one port only.
    PosixFileSystem files;
    ASSERT_TRUE(files.remove(run() + "/front.port"));
    libvirtd_->virsh({"reset", compute_->doors(place()).domain});
    ASSERT_TRUE(wait_state(**machine, MachineState::kPaused));
    serve();
    EXPECT_TRUE(wait_until(60'000, 50, [&] {
        (void)(*machine)->tend(true);
        const std::string text = tail_of_file(run() + "/serial.log", 65536);
        return text.find("DONE", text.find("DONE") + 1) != text.npos;
    })) << tail_of_file(run() + "/serial.log", 65536);
    EXPECT_EQ(tail_of_file(run() + "/serial.log", 65536).find("ERROR"), std::string::npos);
    ASSERT_TRUE(compute_->clean_up(place()));
    EXPECT_EQ(NbdFront::adopt(run()).error().code(), Code::kNotFound) << "nobody needs it any more";

    // Somebody else's certificate.
    reach_at(fmt::format("qemu+tls://10.213.77.2/system?pkipath={}", directory_ / "pki"), "host",
             "compute:other");
    const auto refused = compute_->start(order);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), Code::kGuestFailed) << refused.error().to_string();
    EXPECT_TRUE(compute_->clean_up(place()));
}

// Broken if libvirt over SSH asked somebody for a password, or took a host that nobody knows.
TEST_F(LibvirtRemoteTest, IsReachedOverSsh) {
    make_disk("a", boot_sector());
    serve();
    reach_at(ssh_uri(), "host", "compute:host");
    const auto report = compute_->report();
    ASSERT_TRUE(report) << report.error().to_string();
    EXPECT_EQ(report->libvirt_version.substr(0, 2), "9.");
    EXPECT_GT(report->memory_bytes, 0u);
    auto machine = compute_->start(order_for({"a"}));
    ASSERT_TRUE(machine) << machine.error().to_string();
    EXPECT_NE(wait_serial("DONE").find("FARSHORE-BOOT"), std::string::npos);
    ASSERT_TRUE(compute_->clean_up(place()));
    ASSERT_EQ(::truncate((directory_ / "known_hosts").c_str(), 0), 0);
    reach_at(ssh_uri(), "host", "compute:host");
    const auto unknown = compute_->report();
    ASSERT_FALSE(unknown) << "nobody vouches for that host";
    EXPECT_EQ(unknown.error().code(), Code::kUnavailable) << unknown.error().to_string();
    reach("host");
}

TEST(LibvirtUnreachable, IsSaidAtOnceAndNothingWaitsForIt) {
    LibvirtCompute compute(
        {.name = "far", .uri = "qemu+unix:///system?socket=/nonexistent/sock", .scope = "s"});
    const auto report = compute.report();
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().code(), Code::kUnavailable);
    EXPECT_NE(report.error().what().find("'far'"), std::string::npos) << report.error().what();
    EXPECT_EQ(compute.accelerator().error().code(), Code::kUnavailable);
    EXPECT_EQ(compute.clean_up({"t1", "/nonexistent"}).error().code(), Code::kUnavailable);
}

}  // namespace
}  // namespace farshore
