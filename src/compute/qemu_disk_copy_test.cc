#include "compute/qemu_disk_copy.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "compute/json_read.h"
#include "compute/nbd_server.h"
#include "compute/qemu_machine.h"
#include "compute/qmp_client.h"
#include "compute/test_writing_guest.h"
#include "os/real.h"

namespace farshore {
namespace {

using Json = nlohmann::json;

// A machine that writes all the time, on a disk that nbdkit serves.
class DiskCopy : public testing::Test {
  protected:
    void SetUp() override {
        auto file = files_.open(directory_ / "served/a", OpenMode::kCreate);
        if (!file) {
            ASSERT_TRUE(files_.make_directories(directory_ / "served"));
            file = files_.open(directory_ / "served/a", OpenMode::kCreate);
        }
        ASSERT_TRUE(file);
        ASSERT_TRUE((*file)->truncate(kWritingGuestDiskBytes));
        ASSERT_TRUE((*file)->write_at(0, writing_guest()));
        // Something to copy behind the guest.
        ASSERT_TRUE((*file)->write_at(9 << 20, Bytes(6 << 20, 0x5a)));
        auto server = NbdServer::start({.run_directory = directory_.path(),
                                        .plugin = "file",
                                        .parameters = {{"dir", directory_ / "served"}}});
        ASSERT_TRUE(server) << server.error().to_string();
        MachineOrder order;
        order.place.run_directory = directory_.path();
        order.disks.push_back({server->socket_path(), "a"});
        order.machine = describe_plain_machine("writer", {{"/a", kWritingGuestDiskBytes}});
        order.machine.memory_bytes = 64 << 20;
        auto machine = QemuMachine::start(order);
        ASSERT_TRUE(machine) << machine.error().to_string();
        machine_ = std::make_unique<QemuMachine>(std::move(*machine));
        wait_for_writes(100);
    }
    void TearDown() override {
        if (HasFailure()) std::cerr << tail_of_file(directory_ / "qemu.log", 4000) << "\n";
        machine_.reset();
        EXPECT_TRUE(QemuMachine::clean_up(directory_.path()));
        EXPECT_TRUE(NbdServer::clean_up(directory_.path()));
    }
    DiskCopyOrder to(DiskFormat format) {
        return {.export_name = "a",
                .size_bytes = kWritingGuestDiskBytes,
                .file = {directory_ / "own", format}};
    }
    Result<int64_t> switch_over(
        const DiskCopyOrder& order,
        const std::function<Status()>& note = []() -> Status { return {}; }) {
        return machine_->switch_over(order, note, 30'000);
    }
    // So many more than now.
    void wait_for_writes(uint64_t count) {
        uint64_t first = UINT64_MAX;
        EXPECT_TRUE(wait_until(60'000, 5, [&] {
            const auto now = machine_->activity();
            if (!now) return false;
            first = std::min(first, now->write_operations);
            return now->write_operations >= first + count;
        })) << "the guest does not write";
    }
    bool wait_for(const DiskCopyOrder& order, CopyStage stage) {
        return wait_until(60'000, 5, [&] {
            const auto now = machine_->copy_state(order);
            return now && now->stage == stage;
        });
    }
    // As after the death of whoever had the machine.
    void take_it_up() {
        machine_.reset();
        auto again = QemuMachine::adopt(directory_.path());
        ASSERT_TRUE(again) << again.error().to_string();
        machine_ = std::make_unique<QemuMachine>(std::move(*again));
    }
    void expect_it_is_the_file(DiskFormat format) {
        // Whoever served it is not needed.
        ASSERT_TRUE(NbdServer::clean_up(directory_.path()));
        wait_for_writes(200);
        ASSERT_TRUE(machine_->kill());
        const uint32_t there = last_write_on(directory_ / "served/a", "raw");
        const uint32_t own =
            last_write_on(directory_ / "own", std::string(disk_format_name(format)));
        EXPECT_GE(own, there + 200);
    }

    TestDirectory directory_;
    PosixFileSystem files_;
    std::unique_ptr<QemuMachine> machine_;
};

// Broken if a write that the guest makes before, in or after the moment of the switch were not in
// the file, or the guest's disk were still the server's.
TEST_F(DiskCopy, NoWriteOfARunningGuestIsLost) {
    const DiskCopyOrder order = to(DiskFormat::kQcow2);
    EXPECT_EQ(machine_->copy_state(order)->stage, CopyStage::kNone);
    ASSERT_TRUE(machine_->begin_copy(order));
    ASSERT_TRUE(machine_->begin_copy(order)) << "it is under way";
    ASSERT_TRUE(wait_for(order, CopyStage::kReady));
    wait_for_writes(100);
    bool noted = false;
    const auto held_us = switch_over(order, [&]() -> Status {
        noted = true;
        return {};
    });
    ASSERT_TRUE(held_us) << held_us.error().to_string();
    EXPECT_TRUE(noted);
    EXPECT_EQ(machine_->copy_state(order)->stage, CopyStage::kSwitched);
    ASSERT_TRUE(machine_->begin_copy(order));
    EXPECT_TRUE(machine_->end_copy(order));
    EXPECT_EQ(machine_->copy_state(order)->stage, CopyStage::kSwitched) << "it was given up";
    expect_it_is_the_file(DiskFormat::kQcow2);
}

// Broken if the guest went on, with either, while nobody knows which it is; or did not when it
// does.
TEST_F(DiskCopy, AGuestIsHeldUntilItIsNoted) {
    const DiskCopyOrder order = to(DiskFormat::kRaw);
    ASSERT_TRUE(machine_->begin_copy(order));
    ASSERT_TRUE(wait_for(order, CopyStage::kReady));
    const auto refused = switch_over(
        order, []() -> Status { return fail(Code::kNoSpace, "the vault's disk is full"); });
    EXPECT_EQ(refused.error().code(), Code::kNoSpace);
    const uint64_t held_at = machine_->activity()->write_operations;
    take_it_up();
    EXPECT_EQ(machine_->copy_state(order)->stage, CopyStage::kReady);
    EXPECT_EQ(machine_->activity()->write_operations, held_at) << "it wrote";
    ASSERT_TRUE(switch_over(order));
    expect_it_is_the_file(DiskFormat::kRaw);
}

// Broken if a copy into one file passed for one into another, of which nothing is there.
TEST_F(DiskCopy, ACopyOfWhichSomebodyLostSightIsNotAnother) {
    DiskCopyOrder lost = to(DiskFormat::kRaw);
    lost.bytes_per_s = 1 << 20;
    ASSERT_TRUE(machine_->begin_copy(lost));
    DiskCopyOrder order = to(DiskFormat::kRaw);
    order.file.path = directory_ / "another";
    EXPECT_EQ(machine_->copy_state(order)->stage, CopyStage::kNone);
    const Status begun = machine_->begin_copy(order);
    ASSERT_TRUE(begun) << begun.error().to_string();
    EXPECT_EQ(machine_->copy_state(lost)->stage, CopyStage::kNone);
    ASSERT_TRUE(wait_for(order, CopyStage::kReady));
    ASSERT_TRUE(switch_over(order));
    ASSERT_TRUE(files_.rename(order.file.path, lost.file.path));
    expect_it_is_the_file(DiskFormat::kRaw);
}

// Broken if a vault that ends in the middle left the guest held, or its disk in two places.
TEST_F(DiskCopy, WhoeverComesNextGoesOn) {
    DiskCopyOrder order = to(DiskFormat::kRaw);
    order.bytes_per_s = 1 << 20;
    ASSERT_TRUE(machine_->begin_copy(order));
    EXPECT_EQ(machine_->copy_state(order)->stage, CopyStage::kCopying);
    take_it_up();
    EXPECT_EQ(machine_->copy_state(order)->stage, CopyStage::kCopying);
    EXPECT_EQ(switch_over(order).error().code(), Code::kUnavailable)
        << "it was switched before it was whole";
    order.bytes_per_s = 0;
    ASSERT_TRUE(machine_->begin_copy(order));
    ASSERT_TRUE(wait_for(order, CopyStage::kReady));
    machine_.reset();
    {
        // It ended when the guest was held already.
        auto qmp = QmpClient::connect(directory_ / "qmp.sock");
        ASSERT_TRUE(qmp) << qmp.error().to_string();
        const auto job = (*qmp)->execute("query-jobs");
        ASSERT_TRUE(job);
        ASSERT_TRUE((*qmp)->execute("job-complete", {{"id", json_text(job->at(0), "id")}}));
        ASSERT_TRUE(wait_until(30'000, 1, [&] {
            const auto jobs = (*qmp)->execute("query-jobs");
            return jobs && !jobs->empty() && json_text((*jobs)[0], "status") == "pending";
        }));
    }
    take_it_up();
    EXPECT_EQ(machine_->copy_state(order)->stage, CopyStage::kReady);
    int notes = 0;
    const auto note = [&]() -> Status {
        ++notes;
        return {};
    };
    ASSERT_TRUE(switch_over(order, note));
    ASSERT_TRUE(switch_over(order, note)) << "once more";
    EXPECT_EQ(notes, 2) << "whoever asks again did not note it";
    expect_it_is_the_file(DiskFormat::kRaw);
}

// Broken if a file of somebody's were overwritten, or a copy that was given up left its own.
TEST_F(DiskCopy, FilesOfOthersStayAndGivenUpOnesGo) {
    const DiskCopyOrder order = to(DiskFormat::kQcow2);
    ASSERT_TRUE(write_file_durably(files_, order.file.path, as_bytes("somebody's")));
    EXPECT_EQ(machine_->begin_copy(order).error().code(), Code::kAlreadyExists);
    EXPECT_EQ(as_text(*read_whole_file(files_, order.file.path)), "somebody's");
    ASSERT_TRUE(files_.remove(order.file.path));
    DiskCopyOrder nowhere = order;
    nowhere.file.path = directory_ / "no/such/own";
    EXPECT_EQ(machine_->begin_copy(nowhere).error().code(), Code::kNotFound);
    ASSERT_TRUE(machine_->begin_copy(order));
    ASSERT_TRUE(machine_->end_copy(order));
    EXPECT_FALSE(*files_.exists(order.file.path));
    ASSERT_TRUE(machine_->end_copy(order)) << "there is none";
    EXPECT_EQ(switch_over(order).error().code(), Code::kWrongState);
    wait_for_writes(100);
    ASSERT_TRUE(machine_->kill());
    EXPECT_GT(last_write_on(directory_ / "served/a", "raw"), 100u);
}

}  // namespace
}  // namespace farshore
