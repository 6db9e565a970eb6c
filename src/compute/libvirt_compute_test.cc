#include "compute/libvirt_compute.h"

#include <fmt/core.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "compute/nbd_server.h"
#include "compute/test_libvirtd.h"
#include "compute/test_support.h"
#include "e2e/bootsector/boot_sector.h"
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
        ASSERT_TRUE(files.make_directories(directory_ / "disks"));
        libvirtd_ = std::make_unique<TestLibvirtd>(directory_.path());
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
    void reach(const std::string& scope) {
        compute_ = std::make_unique<LibvirtCompute>(LibvirtOptions{.name = "host",
                                                                   .uri = libvirtd_->uri(),
                                                                   .scope = scope,
                                                                   .accelerator = Accelerator::kTcg,
                                                                   .disks_group = kGroup});
    }
    std::string run() const { return directory_ / "run/t1"; }
    MachinePlace place() const { return {"t1", run()}; }
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
    (void)(*machine)->tend();
    ASSERT_TRUE(wait_state(**machine, MachineState::kPaused));
    serve();
    const auto count = [&] {
        const std::string text = tail_of_file(run() + "/serial.log", 65536);
        size_t n = 0;
        for (size_t at = 0; (at = text.find("DONE", at)) != text.npos; ++at) ++n;
        return n;
    };
    EXPECT_TRUE(wait_until(60'000, 50, [&] {
        (void)(*machine)->tend();
        return count() == 2;
    })) << tail_of_file(run() + "/serial.log", 65536);
    EXPECT_EQ(tail_of_file(run() + "/serial.log", 65536).find("ERROR"), std::string::npos);
    libvirtd_->virsh({"suspend", compute_->doors(place()).domain});
    ASSERT_TRUE(wait_state(**machine, MachineState::kPaused));
    ASSERT_TRUE((*machine)->tend());
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
