#include "compute/qemu_machine.h"

#include <fmt/core.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "compute/nbd_server.h"
#include "compute/qemu_arguments.h"
#include "compute/qmp_client.h"
#include "compute/test_support.h"
#include "e2e/bootsector/boot_sector.h"
#include "os/real.h"
#include "os/tcp_probe.h"

namespace farshore {
namespace {

std::string hex_of(const std::string& text) { return to_hex(as_bytes(text)); }

// A machine that boots the 512-byte guest of tests/e2e/bootsector from nbdkit.
class QemuMachineTest : public testing::Test {
  protected:
    void make_disk(const std::string& name, const Bytes& boot, const std::string& sector_one) {
        PosixFileSystem files;
        auto file = files.open(directory_ / name, OpenMode::kCreate);
        ASSERT_TRUE(file);
        ASSERT_TRUE((*file)->truncate(2 << 20));
        ASSERT_TRUE((*file)->write_at(0, boot));
        ASSERT_TRUE((*file)->write_at(512, as_bytes(sector_one)));
    }
    void serve() {
        auto server = NbdServer::start({.run_directory = directory_.path(),
                                        .plugin = "file",
                                        .parameters = {{"dir", directory_.path()}}});
        ASSERT_TRUE(server) << server.error().to_string();
        server_ = std::make_unique<NbdServer>(std::move(*server));
    }
    MachineOrder options_for(const std::vector<std::string>& disks) {
        MachineOrder options;
        options.place.run_directory = directory_.path();
        std::vector<PlainDisk> plain;
        for (const std::string& disk : disks) {
            plain.push_back({"/source/" + disk, 2 << 20});
            options.disks.push_back({server_->socket_path(), disk});
        }
        options.machine = describe_plain_machine("guest, with a comma", plain);
        options.machine.memory_bytes = 64 << 20;
        return options;
    }
    void TearDown() override {
        EXPECT_TRUE(QemuMachine::clean_up(directory_.path()));
        EXPECT_TRUE(NbdServer::clean_up(directory_.path()));
    }
    std::string wait_serial(const std::string& wanted) {
        std::string text;
        wait_until(60'000, 10, [&] {
            text = tail_of_file(directory_ / "serial.log", 65536);
            return text.find(wanted) != std::string::npos;
        });
        return text;
    }

    TestDirectory directory_;
    std::unique_ptr<NbdServer> server_;
};

TEST_F(QemuMachineTest, BootsReadsWritesAndIsAdopted) {
    make_disk("a", boot_sector({.disks = 1, .sectors = {1}, .write_sector = 9}),
              "sixteen bytes it");
    serve();
    auto machine = QemuMachine::start(options_for({"a"}));
    ASSERT_TRUE(machine) << machine.error().to_string();
    const std::string said = wait_serial("DONE");
    EXPECT_NE(said.find("FARSHORE-BOOT"), std::string::npos) << said;
    EXPECT_NE(said.find(hex_of("sixteen bytes it")), std::string::npos) << said;
    EXPECT_NE(said.find("WROTE"), std::string::npos) << said;
    const auto activity = machine->activity();
    ASSERT_TRUE(activity);
    EXPECT_GT(activity->read_operations, 0u);
    EXPECT_EQ(activity->write_operations, 1u);
    EXPECT_EQ(QemuMachine::start(options_for({"a"})).error().code(), Code::kAlreadyExists);

    // As after our own restart.
    { const QemuMachine lost = std::move(*machine); }
    auto again = QemuMachine::adopt(directory_.path());
    ASSERT_TRUE(again) << again.error().to_string();
    EXPECT_EQ(*again->state(), MachineState::kRunning);
    ASSERT_TRUE(again->stop(0));
    EXPECT_EQ(*again->state(), MachineState::kStopped);
    EXPECT_EQ(QemuMachine::adopt(directory_.path()).error().code(), Code::kNotFound);

    PosixFileSystem files;
    const auto disk = read_whole_file(files, directory_ / "a");
    ASSERT_TRUE(disk);
    EXPECT_EQ((*disk)[9 * 512], 'W') << "what the guest wrote is not on its disk";
    EXPECT_EQ((*disk)[10 * 512 - 1], 'W');
    EXPECT_EQ((*disk)[10 * 512], 0);
}

// The guest finds each disk behind the controller that the source had.
class EveryBus : public QemuMachineTest,
                 public testing::WithParamInterface<std::pair<DiskBus, const char*>> {};

TEST_P(EveryBus, BootsFromItAndSeesTheOtherDisk) {
    make_disk("a", boot_sector({.disks = 2, .sectors = {1}}), "the first disk's");
    make_disk("b", Bytes(512), "the second disks");
    serve();
    MachineOrder options = options_for({"b", "a"});  // the boot disk is the second one
    options.machine.machine_type = GetParam().second;
    options.machine.disks[1].boot_index = 0;
    options.machine.disks[1].serial = "with, comma";
    options.machine.nics[0].pci_address = "03.0";
    for (MachineDisk& disk : options.machine.disks) disk.bus = GetParam().first;
    auto machine = QemuMachine::start(options);
    ASSERT_TRUE(machine) << machine.error().to_string();
    const std::string said = wait_serial("DONE");
    EXPECT_NE(said.find("D80 L00000001 " + hex_of("the first disk's")), std::string::npos) << said;
    EXPECT_NE(said.find("D81 L00000001 " + hex_of("the second disks")), std::string::npos) << said;
}

INSTANTIATE_TEST_SUITE_P(
    Buses, EveryBus,
    testing::Values(std::pair{DiskBus::kVirtioBlk, "q35"}, std::pair{DiskBus::kVirtioBlk, "pc"},
                    std::pair{DiskBus::kVirtioScsi, "q35"}, std::pair{DiskBus::kScsi, "pc"},
                    std::pair{DiskBus::kIde, "q35"}, std::pair{DiskBus::kIde, "pc"},
                    std::pair{DiskBus::kNvme, "q35"}, std::pair{DiskBus::kPvscsi, "q35"},
                    std::pair{DiskBus::kMegasas, "pc"}, std::pair{DiskBus::kMptSas, "q35"}));

// What is captured from a started machine starts the same machine: the way through both at once.
TEST_F(QemuMachineTest, DescriptionSurvivesStartAndCapture) {
    for (const char* name : {"a", "b", "c", "d"}) make_disk(name, boot_sector(), "x");
    serve();
    MachineOrder options = options_for({"a", "b", "c", "d"});
    options.machine.disks[0].pci_address = "09.0";
    options.machine.disks[1].bus = DiskBus::kVirtioScsi;
    options.machine.disks[1].serial = "two";
    options.machine.disks[2].bus = DiskBus::kIde;
    options.machine.disks[3].bus = DiskBus::kNvme;
    options.machine.disks[3].serial = "four";
    options.machine.nics[0].mac = "52:54:00:01:02:03";
    options.machine.cpus = 3;
    options.machine.rtc_offset_s = 7200;
    options.machine.uuid = "6f1b6a6e-0000-4000-8000-000000000001";
    auto machine = QemuMachine::start(options);
    ASSERT_TRUE(machine) << machine.error().to_string();
    { const QemuMachine lost = std::move(*machine); }  // its monitor takes one client
    auto qmp = QmpClient::connect(directory_ / "qmp.sock");
    ASSERT_TRUE(qmp) << qmp.error().to_string();
    const auto captured = capture_machine(**qmp, "m", RealClock().now());
    ASSERT_TRUE(captured) << captured.error().to_string();
    EXPECT_EQ(captured->cpus, 3u);
    EXPECT_EQ(captured->memory_bytes, 64u << 20);
    EXPECT_EQ(captured->rtc_offset_s, 7200);
    EXPECT_EQ(captured->uuid, options.machine.uuid);
    ASSERT_EQ(captured->nics.size(), 1u);
    EXPECT_EQ(captured->nics[0].mac, "52:54:00:01:02:03");
    ASSERT_EQ(captured->disks.size(), 4u) << encode_machine(*captured);
    for (const MachineDisk& disk : options.machine.disks) {
        const auto same = std::find_if(captured->disks.begin(), captured->disks.end(),
                                       [&](const MachineDisk& d) { return d.bus == disk.bus; });
        ASSERT_NE(same, captured->disks.end()) << disk_bus_name(disk.bus);
        EXPECT_EQ(same->size_bytes, 2u << 20);
        if (!disk.serial.empty()) {
            EXPECT_EQ(same->serial, disk.serial);
        }
        if (!disk.pci_address.empty()) {
            EXPECT_EQ(same->pci_address, disk.pci_address);
        }
    }
}

TEST_F(QemuMachineTest, UefiMachineStartsItsFirmwareAndIsCapturedAsOne) {
    make_disk("a", boot_sector(), "x");
    serve();
    MachineOrder options = options_for({"a"});
    options.machine.firmware = Firmware::kUefi;
    options.machine.memory_bytes = 256 << 20;
    auto machine = QemuMachine::start(options);
    ASSERT_TRUE(machine) << machine.error().to_string();  // ovmf stands in debian-packages.txt
    // There is nothing on the disk that it could boot; that it looks for it is what counts.
    EXPECT_NE(wait_serial("BdsDxe").find("BdsDxe"), std::string::npos);
    { const QemuMachine lost = std::move(*machine); }
    auto qmp = QmpClient::connect(directory_ / "qmp.sock");
    ASSERT_TRUE(qmp) << qmp.error().to_string();
    const auto captured = capture_machine(**qmp, "m", RealClock().now());
    ASSERT_TRUE(captured) << captured.error().to_string();
    EXPECT_EQ(captured->firmware, Firmware::kUefi);
    EXPECT_EQ(captured->disks.size(), 1u) << "the firmware's flash is taken for a disk";
}

TEST_F(QemuMachineTest, SixtyFourDisksFitOnTheBus) {
    make_disk("a", boot_sector({.disks = 1, .sectors = {1}}), "x");
    for (int i = 1; i < 64; ++i) make_disk("disk" + std::to_string(i), Bytes(512), "x");
    serve();
    std::vector<std::string> names = {"a"};
    for (int i = 1; i < 64; ++i) names.push_back("disk" + std::to_string(i));
    auto machine = QemuMachine::start(options_for(names));
    ASSERT_TRUE(machine) << machine.error().to_string();
    EXPECT_NE(wait_serial("DONE").find("DONE"), std::string::npos);
}

TEST_F(QemuMachineTest, DiskServerThatIsNotThereIsSaidInQemusWords) {
    make_disk("a", boot_sector(), "x");
    serve();
    MachineOrder options = options_for({"a"});
    options.disks[0].socket_path = directory_ / "nothing.sock";
    const auto machine = QemuMachine::start(options);
    ASSERT_FALSE(machine);
    EXPECT_EQ(machine.error().code(), Code::kGuestFailed);
    EXPECT_NE(machine.error().what().find("nothing.sock"), std::string::npos)
        << machine.error().what();
    EXPECT_EQ(QemuMachine::adopt(directory_.path()).error().code(), Code::kNotFound);
}

TEST_F(QemuMachineTest, GuestGoesOnOverARestartedDiskServer) {
    make_disk("a", boot_sector({.disks = 1, .sectors = {1}}), "sixteen bytes it");
    serve();
    auto machine = QemuMachine::start(options_for({"a"}));
    ASSERT_TRUE(machine) << machine.error().to_string();
    wait_serial("DONE");
    ASSERT_TRUE(server_->kill());
    serve();
    auto qmp = QmpClient::connect(directory_ / "qmp.sock", {.connect_timeout_ms = 100});
    EXPECT_EQ(qmp.error().code(), Code::kUnavailable) << "the machine's handle holds the monitor";
    { const QemuMachine lost = std::move(*machine); }
    qmp = QmpClient::connect(directory_ / "qmp.sock");
    ASSERT_TRUE(qmp) << qmp.error().to_string();
    const auto said = (*qmp)->human(
        "qemu-io -d /machine/peripheral/farshore-disk0/virtio-backend "
        "\"read -P 0x73 512 1\"");
    ASSERT_TRUE(said);
    EXPECT_EQ(said->find("rror"), std::string::npos) << *said;
}

// Broken if a screen could not be looked at, or a port led nowhere; or if a guest that takes no
// connection passed for one that does, since QEMU takes it first.
TEST_F(QemuMachineTest, ItsScreenAndItsPortsAreSeenFromOutside) {
    make_disk("a.img", boot_sector({}), "x");
    serve();
    MachineOrder options = options_for({"a.img"});
    options.machine.nics.resize(1);
    auto machine = QemuMachine::start(options);
    ASSERT_TRUE(machine) << machine.error().to_string();
    wait_serial("DONE");
    ASSERT_TRUE(machine->screenshot(directory_ / "screen.png"));
    PosixFileSystem files;
    const auto png = read_whole_file(files, directory_ / "screen.png", 16u << 20);
    ASSERT_TRUE(png);
    EXPECT_TRUE(as_text(*png).starts_with("\x89PNG"));
    const auto port = machine->forward_port(22);
    ASSERT_TRUE(port) << port.error().to_string();
    EXPECT_EQ(*machine->forward_port(22), *port) << "once for each";
    const TcpProbe probe(*port, 5000);
    EXPECT_TRUE(probe.connected());
    EXPECT_EQ(*machine->taken_connections(22), 0u) << "this guest has no network";
    options.networks = {{NetworkKind::kNone}};
    ASSERT_TRUE(machine->kill());
    ASSERT_TRUE(QemuMachine::clean_up(directory_.path()));
    machine = QemuMachine::start(options);
    ASSERT_TRUE(machine) << machine.error().to_string();
    EXPECT_EQ(machine->forward_port(22).error().code(), Code::kUnsupported);
    options.networks = {{NetworkKind::kSegment, "lab"}};
    ASSERT_TRUE(machine->kill());
    ASSERT_TRUE(QemuMachine::clean_up(directory_.path()));
    machine = QemuMachine::start(options);
    ASSERT_TRUE(machine) << machine.error().to_string();
    const auto refused = machine->forward_port(22);
    ASSERT_FALSE(refused) << "a segment is closed";
    EXPECT_EQ(refused.error().code(), Code::kUnsupported);
    EXPECT_NE(refused.error().remedy().find("isolated"), std::string::npos);
}

// Broken if a machine were not plugged into the bridge that was asked for, if its port outlived it,
// or if a bridge that is not there were only found by a machine that does not start.
TEST_F(QemuMachineTest, AMachineOnABridgeIsAPortOfItWhileItRuns) {
    make_disk("a.img", boot_sector({}), "x");
    serve();
    MachineOrder options = options_for({"a.img"});
    options.networks = {{NetworkKind::kBridge, "no-such-bridge"}};
    EXPECT_EQ(QemuMachine::start(options).error().code(), Code::kDependencyMissing);
    options.networks = {{NetworkKind::kBridge, "lo"}};
    EXPECT_EQ(QemuMachine::start(options).error().code(), Code::kDependencyMissing);
    const std::string bridge = fmt::format("fst{}", key_of(::getpid())->pid);
    const auto ip = [](std::vector<std::string> arguments) {
        ProcessOptions process;
        process.arguments = {"ip", "link"};
        process.arguments.insert(process.arguments.end(), arguments.begin(), arguments.end());
        const auto done = run_command(process);
        return done && done->exit.success();
    };
    ASSERT_TRUE(ip({"add", bridge, "type", "bridge"}))
        << "this user may make no bridge: run the tests as root";
    PosixFileSystem files;
    const auto ports = [&] {
        return files.list("/sys/class/net/" + bridge + "/brif")
            .value_or(std::vector<std::string>{});
    };
    options.networks = {{NetworkKind::kBridge, bridge}};
    auto machine = QemuMachine::start(options);
    EXPECT_TRUE(machine) << machine.error().to_string();
    EXPECT_EQ(ports().size(), 1u);
    if (machine) {
        EXPECT_EQ(machine->forward_port(22).error().code(), Code::kUnsupported);
        EXPECT_TRUE(machine->kill());
    }
    EXPECT_EQ(ports().size(), 0u);
    EXPECT_TRUE(ip({"del", bridge}));
}

TEST(Usernet, IsReadAsTheMonitorWritesIt) {
    const char* const text =
        "Hub -1 (net0):\r\n"
        "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n"
        "  TCP[ESTABLISHED]   15       127.0.0.1 40112       10.0.2.15    22     0     0\r\n"
        "  TCP[SYN_SENT]      16       127.0.0.1 40113       10.0.2.15    22     0     0\r\n"
        "  TCP[HOST_FORWARD]  12       127.0.0.1 43111       10.0.2.15    22     0     0\r\n"
        "  UDP[236 sec]       18       10.0.2.15    68        10.0.2.2    67     0     0\r\n";
    EXPECT_EQ(usernet_forward(text, 22), 43111);
    EXPECT_EQ(usernet_forward(text, 23), std::nullopt);
    EXPECT_EQ(usernet_taken(text, 22), 1u);
    EXPECT_EQ(usernet_taken("TCP[ESTABLISHED] x y z 99999999 22 22", 22), 0u);
    EXPECT_EQ(usernet_taken("", 22), 0u);
}

TEST(QemuArguments, NetworkOfATestIsRestricted) {
    MachineOrder options;
    options.machine = describe_plain_machine("m", {{"/a", 1 << 20}});
    options.disks = {{"/s", "0"}};
    options.place.run_directory = "/run/x";
    const auto joined = [&] {
        std::string all;
        const auto arguments = qemu_arguments(options, {});
        for (const std::string& argument : *arguments) all += argument + " ";
        return all;
    };
    EXPECT_NE(joined().find("user,id=net0,restrict=on"), std::string::npos);
    options.networks = {{NetworkKind::kUser}};
    EXPECT_EQ(joined().find("restrict=on"), std::string::npos);
    options.networks = {{NetworkKind::kNone}};
    EXPECT_EQ(joined().find("netdev"), std::string::npos);
    // Each card by its place; the scope of a segment is not its name.
    options.machine.nics.resize(3);
    options.networks = {{NetworkKind::kSegment, "run-1"}, {NetworkKind::kBridge, "br0"}};
    options.segment_scope = "vault 1";
    EXPECT_NE(joined().find("socket,id=net0,mcast=239.154.35.84:12170,localaddr=127.0.0.1 "),
              std::string::npos)
        << joined();
    EXPECT_NE(joined().find("tap,id=net1,fd=4,vhost=off "), std::string::npos) << joined();
    EXPECT_NE(joined().find("user,id=net2,restrict=on "), std::string::npos)
        << "what nobody has said is isolated";
    options.machine.machine_type = "pc-q35-99.9";
    EXPECT_EQ((*qemu_arguments(options, {"q35", "pc", "pc-q35-7.2"}))[6], "q35");
    options.machine.machine_type = "raspi3b";
    EXPECT_EQ(qemu_arguments(options, {"q35", "pc"}).error().code(), Code::kUnsupported);
    options.machine.architecture = "s390x";
    EXPECT_EQ(qemu_arguments(options, {}).error().code(), Code::kUnsupported);
    options.machine.architecture = "x86_64";
    options.disks.clear();
    EXPECT_EQ(qemu_arguments(options, {}).error().code(), Code::kInvalidArgument);
}

// Broken if what QEMU is told were not what its DHCP server gives: a machine whose disk boots
// nothing, so that its card asks for an address, and what goes over its cable.
TEST_F(QemuMachineTest, TheCardIsGivenThatAddressByDhcp) {
    PosixFileSystem files;
    make_disk("empty", Bytes(512), "nothing");
    serve();
    for (const NetworkKind kind : {NetworkKind::kIsolated, NetworkKind::kUser}) {
        MachineOrder order = options_for({"empty"});
        order.networks = {{kind}};
        order.addresses = {{0, {"10.77.0.3/24", "10.77.0.254", {"9.9.9.9"}, AddressBy::kDhcp}}};
        auto arguments = qemu_arguments(order, {});
        ASSERT_TRUE(arguments) << arguments.error().to_string();
        const std::string cable = directory_ / ("cable" + std::to_string(static_cast<int>(kind)));
        arguments->insert(arguments->end(),
                          {"-object", "filter-dump,id=cable,netdev=net0,file=" + cable});
        TestProcess qemu(*arguments, directory_ / "qemu.log");
        // A server's answer (RFC 2131): its options begin with this, 236 bytes behind its
        // beginning.
        constexpr std::string_view kCookie("\x63\x82\x53\x63", 4);
        std::string acknowledged;
        wait_until(60'000, 50, [&] {
            const std::string all =
                to_text(read_whole_file(files, cable, 64u << 20).value_or(Bytes{}));
            for (size_t at = 0; (at = all.find(kCookie, at)) != all.npos; at += 4)
                if (at >= 236 && all[at - 236] == 2 && all.substr(at + 4, 3) == "\x35\x01\x05")
                    acknowledged = all.substr(at - 236, 548);
            return !acknowledged.empty() || !qemu.alive();
        });
        ASSERT_FALSE(acknowledged.empty()) << tail_of_file(directory_ / "qemu.log");
        EXPECT_EQ(acknowledged.substr(16, 4), std::string("\x0a\x4d\x00\x03", 4));
        const auto has = [&](std::string_view option) {
            return acknowledged.find(option, 240) != acknowledged.npos;
        };
        EXPECT_TRUE(has(std::string_view("\x01\x04\xff\xff\xff\x00", 6)));
        const bool leads_out = kind == NetworkKind::kUser;
        EXPECT_EQ(has(std::string_view("\x03\x04\x0a\x4d\x00\xfe", 6)), leads_out);
        EXPECT_EQ(has(std::string_view("\x06\x04\x09\x09\x09\x09", 6)), leads_out);
    }
}

// Broken if an address by DHCP did not reach QEMU's server, one that is set inside did not fit what
// QEMU has beside it, or a card whose network gives none started without its address.
TEST(QemuArguments, AddressesByDhcpAreToldToQemu) {
    MachineOrder options;
    options.machine = describe_plain_machine("m", {{"/a", 1 << 20}});
    options.machine.nics.resize(3);
    options.disks = {{"/s", "0"}};
    options.place.run_directory = "/run/x";
    options.networks = {{NetworkKind::kUser}, {NetworkKind::kIsolated}, {NetworkKind::kIsolated}};
    options.addresses = {
        {0, {"10.1.2.3/24", "10.1.2.1", {"9.9.9.9"}, AddressBy::kDhcp}},
        {1, {"10.1.3.3/24", "10.9.9.1", {}, AddressBy::kCloudInit}},
        {2, {"2001:db8::3/64", "", {}, AddressBy::kCloudInit}},
    };
    const auto arguments = qemu_arguments(options, {});
    ASSERT_TRUE(arguments) << arguments.error().to_string();
    for (const char* netdev :
         {"user,id=net0,net=10.1.2.0/24,host=10.1.2.1,dhcpstart=10.1.2.3,dns=9.9.9.9",
          "user,id=net1,restrict=on,net=10.1.3.0/24,host=10.1.3.1,dhcpstart=10.1.3.3,dns=10.1.3.2",
          "user,id=net2,restrict=on"})
        EXPECT_EQ(std::ranges::count(*arguments, netdev), 1) << netdev;
    options.addresses[2].by = AddressBy::kDhcp;
    EXPECT_EQ(qemu_arguments(options, {}).error().code(), Code::kInvalidArgument);
    options.addresses[2].by = AddressBy::kAgent;
    EXPECT_TRUE(qemu_arguments(options, {}));
    options.networks[0] = {NetworkKind::kSegment, "lab"};
    EXPECT_EQ(qemu_arguments(options, {}).error().code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace farshore
