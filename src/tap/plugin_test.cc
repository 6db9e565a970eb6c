// The plugin in a real nbdkit, driven by real NBD clients, with a real agent's side behind it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <csignal>
#include <random>
#include <thread>

#include "block/file_device.h"
#include "block/nbd_device.h"
#include "capture/capture_session.h"
#include "capture/capture_test_reader.h"
#include "capture/compare_board.h"
#include "capture/tap_config.h"
#include "os/process.h"
#include "os/real.h"
#include "os/test_directory.h"
#include "os/test_paths.h"
#include "os/waiting.h"

namespace farshore {
namespace {

using capture_test::take_records;

const std::string kPlugin = test_build_directory() + "/lib/nbdkit-farshore-plugin.so";

std::string run(std::vector<std::string> arguments, bool expect_success = true) {
    ProcessOptions options;
    options.arguments = std::move(arguments);
    const std::string name = options.arguments[0];
    auto result = run_command(std::move(options));
    if (!result) {
        ADD_FAILURE() << name << ": " << result.error().to_string();
        return "";
    }
    if (expect_success)
        EXPECT_TRUE(result->exit.success()) << name << ": " << result->output << result->error;
    else
        EXPECT_FALSE(result->exit.success()) << name << " did not fail";
    return result->output + result->error;
}

void make_file(const std::string& path, uint64_t bytes, uint64_t seed) {
    PosixFileSystem files;
    auto file = files.open(path, OpenMode::kCreate);
    ASSERT_TRUE(file);
    ASSERT_TRUE((*file)->truncate(bytes));
    std::mt19937_64 random(seed);
    // Data here and there, holes between.
    Bytes some(50'000);
    for (uint64_t at = 0; at + some.size() < bytes; at += 1u << 20) {
        for (auto& byte : some) byte = static_cast<uint8_t>(random());
        ASSERT_TRUE((*file)->write_at(at, some));
    }
}

Bytes content(const std::string& path) {
    PosixFileSystem files;
    auto bytes = read_whole_file(files, path, 1u << 30);
    EXPECT_TRUE(bytes);
    return bytes ? *bytes : Bytes();
}

// A machine with a capture in path (or a mirror), its tap, and its agent, whose appliance keeps a
// replica in memory.
class Machine {
  public:
    explicit Machine(std::vector<uint64_t> sizes, ServeMode mode = ServeMode::kInPath)
        : shared_("/dev/shm") {
        config_.mode = mode;
        config_.test_hooks = true;
        config_.capture.item.raw[0] = 7;
        config_.capture.mode = mode == ServeMode::kMirror ? TapMode::kMirror : TapMode::kInPath;
        config_.capture.shared_memory_path = shared_ / "log";
        config_.capture.spill_path = directory_ / "spill";
        config_.capture.dirty_map_path = directory_ / "dirty";
        config_.capture.ring_bytes = 4u << 20;
        config_.capture.spill_bytes = 4u << 20;
        config_.capture.disk_bytes = sizes;
        for (size_t i = 0; i < sizes.size(); ++i) {
            ServedDisk disk;
            disk.index = static_cast<DiskIndex>(i);
            disk.size_bytes = sizes[i];
            disk.path = directory_ / ("disk" + std::to_string(i));
            make_file(disk.path, sizes[i], i + 1);
            if (mode == ServeMode::kMirror) {
                disk.backing = BackingKind::kNbd;
                disk.uri =
                    "nbd+unix:///" + std::to_string(i) + "?socket=" + (directory_ / "source");
            }
            config_.disks.push_back(disk);
            replica_.emplace_back(sizes[i]);
        }
        auto session = CaptureSession::open(config_.capture, files_, clock_);
        FS_CHECK(session.has_value());
        session_ = std::move(*session);
        write_config();
    }
    ~Machine() {
        stop_agent();
        if (tap_) (void)tap_->terminate(2'000'000);
        if (source_) (void)source_->terminate(2'000'000);
    }

    void write_config() {
        ASSERT_TRUE(write_file_durably(files_, directory_ / "tap.json",
                                       as_bytes(encode_tap_config(config_))));
    }
    std::string uri(int disk) const {
        return "nbd+unix:///" + std::to_string(disk) + "?socket=" + socket();
    }
    std::string socket() const { return directory_ / "socket"; }
    std::string disk_path(int disk) const { return directory_ / ("disk" + std::to_string(disk)); }

    ProcessOptions nbdkit() const {
        ProcessOptions options;
        options.arguments = {"nbdkit", "-f",    "-U",
                             socket(), kPlugin, "config=" + (directory_ / "tap.json")};
        options.environment = {{"FARSHORE_TAP_HANG_FILE", directory_ / "hang"}};
        options.error = StdStream::file(directory_ / "nbdkit.log");
        options.die_with_parent = true;
        return options;
    }
    void start_tap() {
        (void)files_.remove(socket());
        auto started = Process::spawn(nbdkit());
        ASSERT_TRUE(started) << started.error().to_string();
        tap_.emplace(std::move(*started));
        // The socket's file is there before nbdkit listens on it.
        ASSERT_TRUE(wait_until(20'000, 5, [&] {
            return open_nbd_device({uri(0), 0, false, 1}).has_value();
        })) << to_text(content(directory_ / "nbdkit.log"));
    }
    void kill_tap() {
        ASSERT_TRUE(tap_->kill(SIGKILL));
        ASSERT_TRUE(tap_->wait(10'000'000));
        tap_.reset();
    }
    // The source of a mirror, as QEMU would export it.
    void start_source() {
        ProcessOptions options;
        options.arguments = {
            "nbdkit", "-f", "-r", "-U", directory_ / "source", "file", "dir=" + directory_.path()};
        // Export names are file names.
        for (ServedDisk& disk : config_.disks)
            disk.uri = "nbd+unix:///disk" + std::to_string(disk.index) +
                       "?socket=" + (directory_ / "source");
        write_config();
        options.die_with_parent = true;
        auto started = Process::spawn(options);
        ASSERT_TRUE(started);
        source_.emplace(std::move(*started));
        ASSERT_TRUE(wait_until(20'000, 5, [&] {
            return open_nbd_device({config_.disks[0].uri, 0, false, 1}).has_value();
        }));
    }

    // ---- agent ----
    void start_agent() {
        stop_ = false;
        agent_ = std::thread([this] {
            while (!stop_) {
                if (!session_->wait(50'000)) continue;
                drain();
            }
        });
    }
    void stop_agent() {
        stop_ = true;
        if (agent_.joinable()) agent_.join();
    }
    void drain() {
        const auto last = take_records(session_->log(), 1u << 20, [this](const RecordView& record) {
            const RecordHeader& h = record.header;
            if (h.kind == RecordKind::kWrite)
                std::copy(record.payload.begin(), record.payload.end(),
                          replica_[h.disk].begin() + static_cast<ptrdiff_t>(h.offset_bytes));
            else if (h.changes_disk())
                std::fill_n(replica_[h.disk].begin() + static_cast<ptrdiff_t>(h.offset_bytes),
                            h.length_bytes, 0);
            if (h.kind == RecordKind::kPoint) labels_ += std::string(as_text(record.payload)) + ";";
        });
        if (!last) {
            ADD_FAILURE() << last.error().to_string();
            stop_ = true;
            return;
        }
        session_->log().release(*last);
        session_->log().set_stored(*last);
    }
    // This recovery site has nothing to compare with: all is copied.
    void answer_questions() {
        const LogHeader header = session_->log().header();
        CompareResponder responder(header);
        for (const auto& asked : responder.asked())
            (void)responder.answer(asked, {CompareVerdict::kNothing, {}, 0});
        auto& bell = header.futex(LogWord::kTapDoorbell);
        bell.fetch_add(1);
        futex_wake(bell);
    }
    // Until there is nothing left to copy and to read.
    void settle() {
        ASSERT_TRUE(wait_until(60'000, 5, [&] {
            answer_questions();
            const CaptureStatus status = session_->status();
            return status.gap == GapState::kNone &&
                   status.copy_done_bytes == status.copy_total_bytes &&
                   status.released == status.last;
        })) << "the tap does not settle";
        stop_agent();
        while (!session_->log().at_end() && !::testing::Test::HasFailure()) drain();
    }
    void expect_equal() {
        for (size_t i = 0; i < replica_.size(); ++i)
            EXPECT_TRUE(content(disk_path(static_cast<int>(i))) == replica_[i]) << "disk " << i;
    }

    TestDirectory directory_;
    TestDirectory shared_;
    RealClock clock_;
    PosixFileSystem files_;
    TapConfig config_;
    std::unique_ptr<CaptureSession> session_;
    std::optional<Process> tap_;
    std::optional<Process> source_;
    std::vector<Bytes> replica_;
    std::string labels_;
    std::thread agent_;
    std::atomic<bool> stop_{false};
};

// Broken: what NBD clients need of us (sizes, exports, zeroes, trims, FUA, many connections).
TEST(Plugin, NbdClientsWorkOnItAndTheReplicaFollows) {
    Machine m({(20u << 20) + 777, 3u << 20});
    m.start_tap();
    m.start_agent();
    const std::string info = run({"nbdinfo", "--list", "nbd+unix:///?socket=" + m.socket()});
    EXPECT_NE(info.find("export=\"1\""), std::string::npos) << info;
    EXPECT_NE(info.find("export-size: 20972297"), std::string::npos) << info;
    EXPECT_NE(info.find("can_multi_conn: true"), std::string::npos) << info;
    run({"qemu-io",
         "-f",
         "raw",
         "-t",
         "writethrough",
         "-c",
         "write -P 0x5a 1000 30000",
         "-c",
         "write -z 65536 200000",
         "-c",
         "write -zu 1M 1M",
         "-c",
         "discard 3M 1M",
         "-c",
         "write -f -P 0x11 5M 2M",
         "-c",
         "read -P 0x5a 1000 30000",
         "-c",
         "read -P 0 65536 200000",
         "-c",
         "read -P 0x11 5M 2M",
         "-c",
         "flush",
         m.uri(0)});
    make_file(m.directory_ / "in", 3u << 20, 99);
    run({"nbdcopy", m.directory_ / "in", m.uri(1)});
    run({"nbdcopy", m.uri(1), m.directory_ / "out"});
    EXPECT_TRUE(content(m.directory_ / "in") == content(m.directory_ / "out"));
    run({"fio", "--name=t", "--ioengine=nbd", "--uri=" + m.uri(0), "--rw=randrw", "--bs=1k-64k",
         "--size=20m", "--io_size=40m", "--iodepth=16", "--verify=crc32c", "--randrepeat=1",
         "--minimal", "--verify_state_save=0"});
    const std::string map = run({"nbdinfo", "--map", m.uri(1)});
    EXPECT_NE(map.find("hole"), std::string::npos) << map;
    run({"qemu-io", "-f", "raw", "-c", "write 3M 4k", m.uri(1)}, false);  // beyond the end
    run({"nbdinfo", m.uri(5)}, false);                                    // no such disk
    m.settle();
    m.expect_equal();
}

// Broken: commands from the agent, points, and what the status says.
TEST(Plugin, CommandsAreAnswered) {
    Machine m({1u << 20});
    m.start_tap();
    m.start_agent();
    m.settle();
    m.start_agent();
    auto point = m.session_->run({TapCommandKind::kPoint, PointKind::kBookmark, "before upgrade"},
                                 10'000'000);
    ASSERT_TRUE(point) << point.error().to_string();
    EXPECT_GT(point->sequence.v, 0u);
    ASSERT_TRUE(
        m.session_->run({TapCommandKind::kResyncAll, PointKind::kBookmark, ""}, 10'000'000));
    m.settle();
    EXPECT_NE(m.labels_.find("before upgrade;"), std::string::npos);
    EXPECT_EQ(m.session_->status().gaps, 2u);
    m.expect_equal();
    ASSERT_TRUE(m.session_->run({TapCommandKind::kQuit, PointKind::kBookmark, ""}, 10'000'000));
    EXPECT_TRUE(m.tap_->wait(10'000'000));
    m.tap_.reset();
}

// Broken: anything that a tap leaves behind when it is killed in the middle of writes.
TEST(Plugin, KillsUnderLoadLoseNothing) {
    Machine m({8u << 20, (2u << 20) + 1});
    m.start_tap();
    m.start_agent();
    std::atomic<bool> stop{false};
    std::atomic<uint64_t> writes{0};
    std::vector<std::thread> guests;
    for (int t = 0; t < 3; ++t) {
        guests.emplace_back([&, t] {
            std::mt19937_64 random(static_cast<uint64_t>(t) + 1);
            std::unique_ptr<BlockDevice> disk;
            const int index = t % 2;
            while (!stop) {
                if (!disk) {
                    auto opened = open_nbd_device({m.uri(index), 0, true, 1});
                    if (!opened) {
                        pause_ms(2);
                        continue;
                    }
                    disk = std::move(*opened);
                }
                const uint64_t length = 1 + random() % 100'000;
                const uint64_t offset = random() % (disk->size_bytes() - length);
                Status status;
                if (random() % 8 == 0)
                    status = disk->zero(offset, length, true);
                else
                    status = disk->write(offset, Bytes(length, static_cast<uint8_t>(random())));
                // Killed under us: the write is neither done nor undone; go on with others.
                if (!status)
                    disk.reset();
                else
                    ++writes;
            }
        });
    }
    for (int kill = 0; kill < 12; ++kill) {
        const uint64_t until = writes + 40;
        ASSERT_TRUE(wait_until(30'000, 1, [&] { return writes >= until; }));
        m.kill_tap();
        m.start_tap();
    }
    stop = true;
    for (auto& guest : guests) guest.join();
    m.settle();
    m.expect_equal();
    EXPECT_EQ(m.session_->status().tap_starts, 13u);
}

// Broken: the mirror's copy of the source through its NBD export.
TEST(Plugin, MirrorCopiesTheSourceAndTakesItsWrites) {
    Machine m({(4u << 20) + 512}, ServeMode::kMirror);
    m.start_source();
    m.start_tap();
    m.start_agent();
    // As QEMU does: the source first, then the mirror's target.
    auto source = open_file_device(m.disk_path(0));
    ASSERT_TRUE(source);
    auto target = open_nbd_device({m.uri(0), 0, true, 1});
    ASSERT_TRUE(target) << target.error().to_string();
    std::mt19937_64 random(5);
    for (int i = 0; i < 300; ++i) {
        const uint64_t length = 512 * (1 + random() % 100);
        const uint64_t offset = random() % (((*source)->size_bytes() - length) / 512) * 512;
        const Bytes data(length, static_cast<uint8_t>(random()));
        ASSERT_TRUE((*source)->write(offset, data));
        ASSERT_TRUE((*target)->write(offset, data));
    }
    m.settle();
    m.expect_equal();
}

// Broken: the watchdog's measure.
TEST(Plugin, AHungWriteShowsItsAge) {
    Machine m({1u << 20});
    m.start_tap();
    make_file(m.directory_ / "hang", 0, 0);
    std::thread guest([&] { run({"qemu-io", "-f", "raw", "-c", "write 0 4k", m.uri(0)}); });
    EXPECT_TRUE(
        wait_until(20'000, 1, [&] { return m.session_->status().oldest_in_flight_us > 1'000; }));
    ASSERT_TRUE(m.files_.remove(m.directory_ / "hang"));
    guest.join();
    EXPECT_TRUE(wait_until(20'000, 1, [&] { return m.session_->status().in_flight == 0; }));
}

// Broken: a write that an earlier connection of a reconnecting machine still has comes behind what
// its newer one wrote, or the newer one is let in before that write has ended.
TEST(Plugin, TheNewestConnectionOfASoleClientAloneChangesTheDisk) {
    Machine m({1u << 20});
    m.start_tap();
    const std::string sole = "nbd+unix:///" + sole_export_name(0) + "?socket=" + m.socket();
    auto older = open_nbd_device({sole, 0, true, 1});
    ASSERT_TRUE(older) << older.error().to_string();
    auto plain = open_nbd_device({m.uri(0), 0, true, 1});
    ASSERT_TRUE(plain) << plain.error().to_string();
    make_file(m.directory_ / "hang", 0, 0);
    std::atomic<bool> released{false};
    std::thread slow([&] { EXPECT_TRUE((*older)->write(0, Bytes(4096, 1))); });
    m.start_agent();
    EXPECT_TRUE(wait_until(20'000, 1, [&] { return m.session_->status().in_flight == 1; }));
    Result<std::unique_ptr<BlockDevice>> newer = tl::unexpected(Error(Code::kInternal, ""));
    std::thread comes([&] {
        newer = open_nbd_device({sole, 0, true, 1});
        EXPECT_TRUE(released) << "let in while an older write is under way";
    });
    // It has the time of twenty others to come.
    for (int i = 0; i < 20; ++i) EXPECT_TRUE(open_nbd_device({m.uri(0), 0, true, 1}));
    released = true;
    ASSERT_TRUE(m.files_.remove(m.directory_ / "hang"));
    slow.join();
    comes.join();
    ASSERT_TRUE(newer) << newer.error().to_string();
    ASSERT_TRUE((*newer)->write(0, Bytes(4096, 2)));
    EXPECT_FALSE((*older)->write(0, Bytes(4096, 3)));
    EXPECT_FALSE((*older)->zero(0, 4096, true));
    EXPECT_FALSE((*older)->discard(0, 4096));
    Bytes now(4096);
    ASSERT_TRUE((*newer)->read(0, now));
    EXPECT_EQ(now, Bytes(4096, 2));
    ASSERT_TRUE((*plain)->write(4096, Bytes(512, 4))) << "whoever does not ask for it shares";
    m.settle();
    m.expect_equal();
}

// Broken: bad configurations and a second tap are not refused by name.
TEST(Plugin, RefusesWhatItMust) {
    Machine m({1u << 20});
    m.start_tap();
    auto options = m.nbdkit();
    options.arguments[3] = m.directory_ / "second";
    const auto expect_refused = [&](const std::string& words) {
        auto result = run_command(options);
        ASSERT_TRUE(result) << result.error().to_string();
        EXPECT_FALSE(result->exit.success());
        EXPECT_NE(result->error.find(words), std::string::npos) << result->error;
    };
    expect_refused("duplicate-identity");
    m.kill_tap();
    ASSERT_EQ(::chmod((m.directory_ / "tap.json").c_str(), 0644), 0);
    expect_refused("0600");
    ASSERT_TRUE(write_file_durably(m.files_, m.directory_ / "tap.json", as_bytes("{\"mode\":1}")));
    expect_refused("malformed");
    m.config_.disks[0].size_bytes = 2u << 20;
    m.write_config();
    expect_refused("disk-changed");
}

}  // namespace
}  // namespace farshore
