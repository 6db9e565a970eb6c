// For tests of recoveries: a store with a machine in it that boots, leases without a vault, and a
// vault that can be killed at any step.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <set>

#include "compute/nbd_server.h"
#include "compute/test_support.h"
#include "e2e/bootsector/boot_sector.h"
#include "os/real.h"
#include "os/test_paths.h"
#include "recovery/failover.h"
#include "replica/replica_test_model.h"
#include "store/directory_store.h"
#include "store/store_identity.h"

namespace farshore {

// The real clock, with time that the test lets pass.
class SkippingClock final : public Clock {
  public:
    TimePoint now() const override { return real_.now(); }
    int64_t steady_us() const override { return real_.steady_us() + skipped_us.load(); }
    std::atomic<int64_t> skipped_us = 0;

  private:
    RealClock real_;
};

inline constexpr uint64_t kRecoveredDiskBytes = 2 << 20;

inline std::string hex_of(const std::string& text) { return to_hex(as_bytes(text)); }

// The disk of a vault that loses its power after so many changes.
class StoppingFiles final : public FileSystem {
  public:
    explicit StoppingFiles(FileSystem& files) : files_(files) {}
    static constexpr int kNever = std::numeric_limits<int>::max();
    int left = kNever;

    Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override {
        if (mode != OpenMode::kRead) FS_TRY(step());
        FS_ASSIGN(auto file, files_.open(path, mode));
        return std::unique_ptr<File>(new StoppingFile(std::move(file), *this));
    }
    Status remove(const std::string& path) override {
        FS_TRY(step());
        return files_.remove(path);
    }
    Status rename(const std::string& from, const std::string& to) override {
        FS_TRY(step());
        return files_.rename(from, to);
    }
    Status link(const std::string& from, const std::string& to) override {
        FS_TRY(step());
        return files_.link(from, to);
    }
    Status make_directories(const std::string& path) override {
        FS_TRY(step());
        return files_.make_directories(path);
    }
    Status sync_directory(const std::string& path) override {
        FS_TRY(step());
        return files_.sync_directory(path);
    }
    Result<std::vector<std::string>> list(const std::string& path) override {
        return files_.list(path);
    }
    Result<bool> exists(const std::string& path) override { return files_.exists(path); }
    Result<uint64_t> free_bytes(const std::string& path) override {
        return files_.free_bytes(path);
    }

  private:
    struct StoppingFile final : File {
        StoppingFile(std::unique_ptr<File> file, StoppingFiles& all)
            : inner(std::move(file)), owner(all) {}
        Result<size_t> read_at(uint64_t at, MutableByteView out) override {
            return inner->read_at(at, out);
        }
        Status write_at(uint64_t at, ByteView data) override {
            FS_TRY(owner.step());
            return inner->write_at(at, data);
        }
        Status sync() override {
            FS_TRY(owner.step());
            return inner->sync();
        }
        Status truncate(uint64_t size_bytes) override {
            FS_TRY(owner.step());
            return inner->truncate(size_bytes);
        }
        Result<uint64_t> size() override { return inner->size(); }
        Status punch_hole(uint64_t at, uint64_t length_bytes) override {
            FS_TRY(owner.step());
            return inner->punch_hole(at, length_bytes);
        }
        std::unique_ptr<File> inner;
        StoppingFiles& owner;
    };
    Status step() {
        if (left == kNever) return {};
        if (left == 0) return fail(Code::kInternal, "the power is off");
        --left;
        return {};
    }
    FileSystem& files_;
};

// The leases of an item without a vault: which are held, and which points there are.
class Leases {
  public:
    PointLeases interface() {
        PointLeases leases;
        leases.take = [this](const ItemId&, const std::string&, Sequence sequence,
                             const std::string&, int64_t) -> Result<uint64_t> {
            if (gone.contains(sequence.v))
                return fail(Code::kPointOutsideWindow, "the window has passed it");
            held[++last] = sequence.v;
            return last;
        };
        leases.renew = [this](const ItemId&, const std::string&, uint64_t lease,
                              int64_t) -> Status {
            ++renewals;
            if (!held.contains(lease)) return fail(Code::kNotFound, "no such lease");
            return {};
        };
        leases.release = [this](const ItemId&, const std::string&, uint64_t lease) -> Status {
            held.erase(lease);
            return {};
        };
        return leases;
    }
    std::map<uint64_t, uint64_t> held;
    std::set<uint64_t> gone;
    uint64_t last = 0;
    int renewals = 0;
};

// A store with one machine of two disks in it. Disk 0 boots the guest of tests/e2e/bootsector; its
// sector 1 says "first version...", and from sequence `second_` on "second version..".
class RecoverySiteTest : public testing::Test {
  protected:
    void SetUp() override {
        ASSERT_TRUE(files_.make_directories(directory_ / "store"));
        auto store = DirectoryStore::open(files_, random_, {directory_ / "store", true});
        ASSERT_TRUE(store) << store.error().to_string();
        store_ = std::move(*store);
        ASSERT_TRUE(ensure_store_identity(*store_, clock_, random_));
        auto replica = ItemReplica::open(*store_, ledger_, clock_, random_,
                                         replica_test::test_item(), replica_test::test_key());
        ASSERT_TRUE(replica) << replica.error().to_string();
        replica_test::Appliance appliance(*store_, random_, replica_test::test_item(),
                                          replica_test::test_key());
        ASSERT_TRUE(appliance.acquire(**replica));
        Bytes records;
        const auto add = [&](RecordKind kind, DiskIndex disk, uint64_t offset, ByteView payload) {
            RecordHeader header;
            header.kind = kind;
            header.disk = disk;
            header.sequence = {++last_};
            header.time = clock_.now();
            header.offset_bytes = offset;
            header.length_bytes = static_cast<uint32_t>(payload.size());
            append_record(records, header, payload);
        };
        add(RecordKind::kGeometry, 0, kRecoveredDiskBytes, {});
        add(RecordKind::kGeometry, 1, kRecoveredDiskBytes, {});
        add(RecordKind::kWrite, 0, 0,
            boot_sector({.disks = 2, .sectors = {1, 9}, .write_sector = write_sector()}));
        add(RecordKind::kWrite, 1, 512, as_bytes("the second disk."));
        add(RecordKind::kWrite, 0, 512, as_bytes("first version.  "));
        first_ = {last_};
        ASSERT_TRUE(appliance.send(**replica, records));
        records.clear();
        add(RecordKind::kWrite, 0, 512, as_bytes("second version. "));
        second_ = {last_};
        ASSERT_TRUE(appliance.send(**replica, records));
        restart_vault();
    }
    virtual uint32_t write_sector() const { return 9; }
    void TearDown() override {
        recoveries_.reset();
        // Whatever a failed test left.
        for (const char* id : {"t1", "t2", "t3", "f1", "f2", "f3", "e1"}) {
            (void)QemuMachine::clean_up(run(id));
            (void)NbdServer::clean_up(run(id));
        }
        (void)NbdServer::clean_up(run("e1"), directory_ / "export.sock");
    }
    // As a vault that was killed and started again: knows only what is on disk.
    void restart_vault() {
        recoveries_.reset();
        new_recoveries();
        const Status resumed = recoveries_->resume();
        ASSERT_TRUE(resumed) << resumed.error().to_string();
    }
    void new_recoveries() {
        RecoveryOptions options;
        options.files = &disk_;
        options.clock = &clock_;
        options.state_root = directory_ / "s";
        options.run_root = directory_ / "r";
        options.store_location = directory_ / "store";
        options.leases = leases_.interface();
        options.item_key = [](const ItemId&) -> Result<Secret> { return replica_test::test_key(); };
        options.on_change = [this](const RecoveryState& state) {
            stages_.push_back(std::string(recovery_stage_name(state.stage)));
            if (on_change_) on_change_(state);
        };
        options.plugin = test_build_directory() + "/lib/nbdkit-farshore-plugin.so";
        options.accelerator = accelerator_;
        options.compute = compute_;
        recoveries_ = std::make_unique<Recoveries>(std::move(options));
    }
    RecoveryRequest request(const std::string& id, RecoveryKind kind, Sequence sequence) {
        RecoveryRequest request;
        request.id = id;
        request.kind = kind;
        request.item = replica_test::test_item();
        request.item_name = "machine";
        request.sequence = sequence;
        request.machine = describe_plain_machine(
            "machine", {{"/a", kRecoveredDiskBytes}, {"/b", kRecoveredDiskBytes}});
        request.machine.memory_bytes = 64 << 20;
        return request;
    }
    std::string run(const std::string& id) { return (directory_ / "r") + "/" + id; }
    std::string serial(const std::string& id, const std::string& wanted = "DONE") {
        std::string text;
        wait_until(60'000, 10, [&] {
            text = tail_of_file(run(id) + "/serial.log", 65536);
            return text.find(wanted) != std::string::npos;
        });
        return text;
    }
    void expect_nothing_left() {
        EXPECT_TRUE(leases_.held.empty()) << "a lease is held for ever";
        EXPECT_TRUE(files_.list(directory_ / "r")->empty()) << "run files are left";
        const auto states = files_.list(directory_ / "s");
        for (const std::string& name : *states)
            EXPECT_FALSE(name.ends_with('/')) << name << " is left";
        EXPECT_TRUE(recoveries_->list().empty());
    }
    pid_t pid_of(const std::string& file) {
        const auto key = read_pid_file(files_, file);
        EXPECT_TRUE(key) << file;
        return key ? key->pid : 0;
    }
    void kill_by_file(const std::string& file) {
        auto process = adopt_from_pid_file(files_, file);
        ASSERT_TRUE(process) << file;
        ASSERT_TRUE(process->kill(SIGKILL));
        ASSERT_TRUE(process->wait(10'000'000));
    }

    TestDirectory directory_;
    PosixFileSystem files_;
    StoppingFiles disk_{files_};  // the vault's
    SkippingClock clock_;
    std::string accelerator_ = "tcg";
    replica_test::TestRandom random_{1};
    MemoryLedger ledger_;
    Leases leases_;
    std::unique_ptr<DirectoryStore> store_;
    uint64_t last_ = 0;
    Sequence first_, second_;
    std::vector<std::string> stages_;
    std::function<void(const RecoveryState&)> on_change_;
    std::function<Result<std::shared_ptr<RecoveryCompute>>(const std::string&)> compute_;
    std::unique_ptr<Recoveries> recoveries_;
};

}  // namespace farshore
