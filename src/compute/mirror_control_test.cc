#include "compute/mirror_control.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "compute/nbd_server.h"
#include "compute/qemu_machine.h"
#include "compute/qmp_client.h"
#include "compute/test_support.h"
#include "compute/test_writing_guest.h"
#include "os/real.h"

namespace farshore {
namespace {

// A QEMU without a guest system with two disks: one given as -blockdev, one the old way as -drive,
// whose node has a name that QEMU made up. The test is the guest: it writes through the block
// layer.
class MirrorTest : public testing::Test {
  protected:
    void SetUp() override {
        run_tool({"truncate", "-s", "4M", directory_ / "a", directory_ / "b", directory_ / "ta",
                  directory_ / "tb"});
        start_qemu();
        start_tap();
    }
    void start_qemu() {
        qmp_.reset();
        qemu_ = std::make_unique<TestProcess>(
            std::vector<std::string>{"qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-S",
                                     "-nodefaults", "-display", "none", "-m", "32", "-blockdev",
                                     "{\"driver\":\"raw\",\"node-name\":\"d0\",\"file\":{"
                                     "\"driver\":\"file\",\"filename\":\"" +
                                         (directory_ / "a") + "\"}}",
                                     "-device", "virtio-blk-pci,drive=d0,id=vd0,serial=A", "-drive",
                                     "if=virtio,format=raw,file=" + (directory_ / "b"), "-qmp",
                                     "unix:" + (directory_ / "q") + ",server=on,wait=off"},
            directory_ / "log");
        ASSERT_TRUE(wait_for_socket(directory_ / "q")) << tail_of_file(directory_ / "log");
        auto qmp = QmpClient::connect(directory_ / "q");
        ASSERT_TRUE(qmp) << qmp.error().to_string();
        qmp_ = std::move(*qmp);
        auto machine = capture_machine(*qmp_, "m", RealClock().now());
        ASSERT_TRUE(machine) << machine.error().to_string();
        ASSERT_EQ(machine->disks.size(), 2u);
        machine_ = std::move(*machine);
        auto disks = match_disks(machine_, machine_);
        ASSERT_TRUE(disks);
        // The stand-in for the tap serves files by name.
        (*disks)[0].tap_export = "ta";
        (*disks)[1].tap_export = "tb";
        options_ = {directory_ / "source.sock", directory_ / "nbd.sock", *disks, 5};
        control_ = std::make_unique<MirrorControl>(*qmp_, options_);
    }
    void start_tap() {
        auto tap = NbdServer::start({.run_directory = directory_.path(),
                                     .plugin = "file",
                                     .parameters = {{"dir", directory_.path()}}});
        ASSERT_TRUE(tap) << tap.error().to_string();
        tap_ = std::make_unique<NbdServer>(std::move(*tap));
    }
    void TearDown() override {
        if (tap_) {
            EXPECT_TRUE(tap_->stop(0));
        }
    }
    std::string write(size_t disk, const std::string& what) {
        const auto said =
            qmp_->human("qemu-io -d " + machine_.disks[disk].qdev + " \"write " + what + "\"");
        return said ? *said : said.error().to_string() + "; " + tail_of_file(directory_ / "log");
    }
    void expect_target(const std::string& name, const std::string& what) {
        const std::string said =
            run_tool({"qemu-io", "-r", "-f", "raw", "-c", "read " + what, directory_ / name});
        EXPECT_EQ(said.find("verification failed"), std::string::npos) << name << ": " << said;
    }

    TestDirectory directory_;
    std::unique_ptr<TestProcess> qemu_;
    std::unique_ptr<QmpClient> qmp_;
    std::unique_ptr<NbdServer> tap_;
    MachineDescription machine_;
    MirrorOptions options_;
    std::unique_ptr<MirrorControl> control_;
};

// Broken if a machine that writes could be killed by taking its mirror off: QEMU uses memory that
// it has freed when that is done by force.
TEST(Mirror, ComesOffAMachineThatWrites) {
    TestDirectory directory;
    PosixFileSystem files;
    for (const std::string name : {"source", "tap"}) {
        ASSERT_TRUE(files.make_directories(directory / name));
        auto file = files.open(directory / (name + "/a"), OpenMode::kCreate);
        ASSERT_TRUE(file);
        ASSERT_TRUE((*file)->truncate(kWritingGuestDiskBytes));
        if (name == "source") ASSERT_TRUE((*file)->write_at(0, writing_guest()));
    }
    const auto serve = [&](const std::string& name) {
        return NbdServer::start({.run_directory = directory / name,
                                 .plugin = "file",
                                 .parameters = {{"dir", directory / name}}});
    };
    auto source = serve("source"), tap = serve("tap");
    ASSERT_TRUE(source && tap);
    MachineOrder order;
    order.place.run_directory = directory.path();
    order.disks.push_back({source->socket_path(), "a"});
    order.machine = describe_plain_machine("writer", {{"/a", kWritingGuestDiskBytes}});
    order.machine.memory_bytes = 64 << 20;
    {
        const auto machine = QemuMachine::start(order);
        ASSERT_TRUE(machine) << machine.error().to_string();
    }
    auto qmp = QmpClient::connect(directory / "qmp.sock");
    ASSERT_TRUE(qmp) << qmp.error().to_string();
    const auto writes = [&]() -> uint64_t {
        const auto all = (*qmp)->execute("query-blockstats");
        return all ? (*all)[0]["stats"]["wr_operations"].get<uint64_t>() : 0;
    };
    ASSERT_TRUE(wait_until(60'000, 10, [&] { return writes() > 100; }));
    MirrorControl control(**qmp, {directory / "source.sock",
                                  tap->socket_path(),
                                  {{0, "disk0", "a", kWritingGuestDiskBytes}},
                                  5});
    for (int round = 0; round < 150; ++round) {
        const Status attached = control.attach();
        ASSERT_TRUE(attached) << round << ": " << attached.error().to_string()
                              << tail_of_file(directory / "qemu.log");
        const uint64_t before = writes();
        ASSERT_TRUE(wait_until(60'000, 1, [&] { return writes() > before + 3; })) << round;
        const Status detached = control.detach_mirrors();
        ASSERT_TRUE(detached) << round << ": " << detached.error().to_string()
                              << tail_of_file(directory / "qemu.log");
    }
    EXPECT_TRUE(QemuMachine::clean_up(directory.path()));
    EXPECT_TRUE(source->stop(0));
    EXPECT_TRUE(tap->stop(0));
}

TEST_F(MirrorTest, TapGetsEveryWriteAndCanReadTheSource) {
    write(0, "-P 0x11 0 64k");
    ASSERT_TRUE(control_->export_sources());
    const Status attached = control_->attach();
    ASSERT_TRUE(attached) << attached.error().to_string();
    EXPECT_TRUE(control_->query()->healthy());
    EXPECT_EQ(write(0, "-P 0x22 128k 64k"), "");
    EXPECT_EQ(write(1, "-P 0x33 512 1024"), "");
    EXPECT_EQ(write(1, "-z 1M 64k"), "");
    expect_target("ta", "-P 0x22 128k 64k");
    expect_target("ta",
                  "-P 0 0 64k");  // from before the mirror: the copier's work, not the mirror's
    expect_target("tb", "-P 0x33 512 1024");
    const std::string read = run_tool({"qemu-io", "-r", "-f", "raw", "-c", "read -P 0x11 0 64k",
                                       "-c", "read -P 0x22 128k 64k",
                                       "nbd+unix:///source-0?socket=" + options_.source_socket});
    EXPECT_EQ(read.find("verification failed"), std::string::npos) << read;

    ASSERT_TRUE(control_->detach());
    EXPECT_EQ(write(0, "-P 0x44 0 64k"), "") << "the guest does not go on after detaching";
    expect_target("ta", "-P 0 0 64k");
    EXPECT_FALSE(control_->query()->healthy());
    EXPECT_FALSE(unix_socket_accepts(options_.source_socket));
    EXPECT_TRUE(control_->detach()) << "detaching what is detached is an error";
}

TEST_F(MirrorTest, TapThatIsRestartedInTimeLosesNothing) {
    ASSERT_TRUE(control_->export_sources());
    ASSERT_TRUE(control_->attach());
    EXPECT_EQ(write(0, "-P 0x11 0 64k"), "");
    ASSERT_TRUE(tap_->kill());
    start_tap();
    EXPECT_EQ(write(0, "-P 0x22 64k 64k"), "");
    EXPECT_EQ(write(1, "-P 0x33 0 64k"), "");
    expect_target("ta", "-P 0x22 64k 64k");
    expect_target("tb", "-P 0x33 0 64k");
    const auto again = control_->ensure_attached();
    ASSERT_TRUE(again);
    EXPECT_TRUE(again->empty()) << "a mirror that never broke was attached anew: a gap for nothing";
}

TEST_F(MirrorTest, TapThatStaysAwayCostsTheMirrorNotTheGuest) {
    options_.reconnect_delay_s = 1;
    control_ = std::make_unique<MirrorControl>(*qmp_, options_);
    ASSERT_TRUE(control_->export_sources());
    ASSERT_TRUE(control_->attach());
    ASSERT_TRUE(tap_->kill());
    ASSERT_EQ(write(0, "-P 0x11 0 64k"), "") << "the guest's write failed";
    EXPECT_TRUE(wait_until(10'000, 20, [&] { return !control_->query()->disks[0].mirrored; }));
    const auto state = control_->query();
    ASSERT_TRUE(state);
    EXPECT_FALSE(state->healthy());
    EXPECT_FALSE(state->disks[0].words.empty());
    EXPECT_EQ(control_->ensure_attached().error().code(), Code::kUnavailable);
    EXPECT_EQ(write(0, "-P 0x12 0 64k"), "");
    start_tap();
    const auto again = control_->ensure_attached();
    ASSERT_TRUE(again) << again.error().to_string();
    EXPECT_FALSE(again->empty()) << "the tap is not told that it missed writes";
    EXPECT_EQ(write(0, "-P 0x13 1M 64k"), "");
    expect_target("ta", "-P 0x13 1M 64k");
    expect_target("ta", "-P 0 0 64k");
}

TEST_F(MirrorTest, AgentThatWasRestartedFindsItsMirror) {
    ASSERT_TRUE(control_->export_sources());
    ASSERT_TRUE(control_->attach());
    qmp_.reset();
    auto qmp = QmpClient::connect(directory_ / "q");
    ASSERT_TRUE(qmp) << qmp.error().to_string();
    qmp_ = std::move(*qmp);
    // As a restarted agent does it: the description from before, the nodes as they are now.
    const auto now = capture_machine(*qmp_, "m", RealClock().now());
    ASSERT_TRUE(now) << now.error().to_string();
    auto disks = match_disks(machine_, *now);
    ASSERT_TRUE(disks) << disks.error().to_string();
    for (size_t i = 0; i < disks->size(); ++i) {
        EXPECT_EQ((*disks)[i].node_name, options_.disks[i].node_name);
        (*disks)[i].tap_export = options_.disks[i].tap_export;
    }
    options_.disks = *disks;
    control_ = std::make_unique<MirrorControl>(*qmp_, options_);
    ASSERT_TRUE(control_->export_sources());
    const auto again = control_->ensure_attached();
    ASSERT_TRUE(again) << again.error().to_string();
    EXPECT_TRUE(again->empty());
    EXPECT_EQ(write(0, "-P 0x11 0 64k"), "");
    expect_target("ta", "-P 0x11 0 64k");
}

TEST_F(MirrorTest, QemuThatWasRestartedIsAttachedAnew) {
    ASSERT_TRUE(control_->export_sources());
    ASSERT_TRUE(control_->attach());
    const MachineDescription before = machine_;
    qemu_->kill();
    EXPECT_EQ(control_->query().error().code(), Code::kConnectionLost);
    start_qemu();
    EXPECT_TRUE(match_disks(before, machine_));
    const auto again = control_->ensure_attached();
    ASSERT_TRUE(again) << again.error().to_string();
    EXPECT_EQ(again->size(), 2u);
    EXPECT_EQ(write(1, "-P 0x11 0 64k"), "");
    expect_target("tb", "-P 0x11 0 64k");
}

TEST_F(MirrorTest, NbdServerOfSomebodyElseIsLeftAlone) {
    const std::string other = directory_ / "other.sock";
    ASSERT_TRUE(qmp_->execute("nbd-server-start",
                              {{"addr", {{"type", "unix"}, {"data", {{"path", other}}}}}}));
    ASSERT_TRUE(qmp_->execute(
        "block-export-add",
        {{"type", "nbd"}, {"id", "backup"}, {"node-name", "d0"}, {"name", "backup"}}));
    const Status exported = control_->export_sources();
    ASSERT_FALSE(exported);
    EXPECT_EQ(exported.error().code(), Code::kUnavailable);
    EXPECT_FALSE(exported.error().remedy().empty());
    ASSERT_TRUE(control_->detach());
    EXPECT_TRUE(unix_socket_accepts(other)) << "somebody else's server was stopped";
}

TEST_F(MirrorTest, TapThatSaysNothingIsNotGivenToQemu) {
    const FakeMonitor hung(directory_ / "hung.sock", "", {});
    options_.tap_socket = directory_ / "hung.sock";
    MirrorControl control(*qmp_, options_);
    EXPECT_EQ(control.attach().error().code(), Code::kUnavailable);
    EXPECT_EQ(write(0, "-P 1 0 64k"), "");
}

TEST(MatchDisks, FindsThemByDeviceThenSerialThenPlace) {
    MachineDescription before =
        describe_plain_machine("m", {{"/a", 100}, {"/b", 200}, {"/c", 300}});
    before.disks[0].qdev = "x";
    before.disks[1].serial = "S";
    MachineDescription now = before;
    now.disks[0].node_name = "n0";
    now.disks[1].node_name = "n1";
    now.disks[2].node_name = "n2";
    std::swap(now.disks[0], now.disks[1]);
    const auto matched = match_disks(before, now);
    ASSERT_TRUE(matched) << matched.error().to_string();
    EXPECT_EQ((*matched)[0].node_name, "n0");
    EXPECT_EQ((*matched)[1].node_name, "n1");
    EXPECT_EQ((*matched)[2].node_name, "n2");
    now.disks[2].size_bytes = 301;
    EXPECT_EQ(match_disks(before, now)->at(2).size_bytes, 301u) << "one that has grown";
    now.disks[2].size_bytes = 299;
    EXPECT_EQ(match_disks(before, now).error().code(), Code::kDiskChanged);
    now.disks.pop_back();
    EXPECT_EQ(match_disks(before, now).error().code(), Code::kNotFound);
}

}  // namespace
}  // namespace farshore
