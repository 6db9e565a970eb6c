#include "ebpf/capture_check.h"

#include <gtest/gtest.h>
#include <linux/capability.h>

#include <algorithm>

#include "ebpf/test_loop_disk.h"

namespace farshore {
namespace {

// Broken if a kernel that cannot be captured is called good, or one that can is refused.
TEST(CaptureCheck, KernelsFrom510On) {
    EXPECT_EQ(judge_kernel("4.19.0-26-amd64").result, CheckResult::kRefused);
    EXPECT_EQ(judge_kernel("5.9.16").result, CheckResult::kRefused);
    EXPECT_EQ(judge_kernel("5.10.0-30-amd64").result, CheckResult::kOk);
    EXPECT_EQ(judge_kernel("6.1.0").result, CheckResult::kOk);
    EXPECT_EQ(judge_kernel("odd").result, CheckResult::kWarning);
}

// Broken if missing rights are found out only when protection begins.
TEST(CaptureCheck, RightsAndLockdown) {
    constexpr uint64_t kAdmin = 1ull << CAP_SYS_ADMIN, kPerfmon = 1ull << 38, kBpf = 1ull << 39;
    EXPECT_EQ(judge_rights(0).result, CheckResult::kRefused);
    EXPECT_EQ(judge_rights(kBpf).result, CheckResult::kRefused);
    EXPECT_NE(judge_rights(kBpf).what.find("CAP_PERFMON"), std::string::npos);
    EXPECT_EQ(judge_rights(kBpf | kPerfmon).result, CheckResult::kWarning);
    EXPECT_EQ(judge_rights(kAdmin).result, CheckResult::kOk);
    EXPECT_EQ(judge_lockdown("").result, CheckResult::kOk);
    EXPECT_EQ(judge_lockdown("[none] integrity confidentiality\n").result, CheckResult::kOk);
    EXPECT_EQ(judge_lockdown("none [integrity] confidentiality\n").result, CheckResult::kOk);
    EXPECT_EQ(judge_lockdown("none integrity [confidentiality]\n").result, CheckResult::kRefused);
    EXPECT_EQ(judge_bpf_directory(true, true, 0).result, CheckResult::kOk);
    EXPECT_EQ(judge_bpf_directory(false, true, 0).result, CheckResult::kRefused);
    EXPECT_EQ(judge_bpf_directory(false, true, kAdmin).result, CheckResult::kOk);
    EXPECT_EQ(judge_bpf_directory(false, false, kAdmin).result, CheckResult::kRefused);
}

// Broken if rings that do not fit are promised.
TEST(CaptureCheck, MemoryForBothRings) {
    EXPECT_EQ(judge_memory(319u << 20, 256u << 20, 64u << 20).result, CheckResult::kRefused);
    EXPECT_EQ(judge_memory(320u << 20, 256u << 20, 64u << 20).result, CheckResult::kWarning);
    EXPECT_EQ(judge_memory(640u << 20, 256u << 20, 64u << 20).result, CheckResult::kOk);
}

// Broken if a refusal loses its alternative, or a disk that a restart may confuse is called good.
TEST(CaptureCheck, DisksKeepTheirReasons) {
    const auto stacked =
        judge_disk("/dev/dm-0",
                   Result<LocalDisk>(fail(Code::kUnsupported, "stacked", "protect /dev/vda")), {});
    EXPECT_EQ(stacked.result, CheckResult::kRefused);
    EXPECT_EQ(stacked.remedy, "protect /dev/vda");
    LocalDisk disk;
    disk.identity = "serial:1";
    disk.size_bytes = 5u << 20;
    EXPECT_EQ(judge_disk("/dev/vda", disk, {}).result, CheckResult::kOk);
    EXPECT_EQ(judge_disk("/dev/vda", disk, fail(Code::kForbidden, "no")).result,
              CheckResult::kRefused);
    disk.identity = "name:vda";
    EXPECT_EQ(judge_disk("/dev/vda", disk, {}).result, CheckResult::kWarning);
}

// Broken if the check of a real disk says something else than capture would, leaves something
// behind, or one bad disk does not make the whole refuse.
TEST(CaptureCheck, ALoopDisk) {
    TestDirectory directory;
    const LoopDisk disk(directory.path(), "disk", 8u << 20);
    CaptureCheckOptions options;
    options.devices = {disk.device()};
    options.data_directory = directory.path() + "/not/there";
    options.ring_bytes = options.trace_ring_bytes = 1u << 20;
    options.root = directory.path();
    const auto checks = check_capture(options);
    const auto of = [&](const std::string& subject) {
        const auto found = std::find_if(checks.begin(), checks.end(), [&](const CaptureCheck& one) {
            return one.subject == subject;
        });
        return found == checks.end() ? CaptureCheck{CheckResult::kRefused, "", "none", ""} : *found;
    };
    EXPECT_EQ(of(disk.device()).result, CheckResult::kOk) << of(disk.device()).what;
    EXPECT_NE(of(disk.device()).what.find("loop:"), std::string::npos);
    EXPECT_EQ(of("clean restart").result, CheckResult::kWarning);
    EXPECT_EQ(of("initramfs hook").result, CheckResult::kNote);
    EXPECT_FALSE(PosixFileSystem().exists(directory.path() + "/not").value_or(true));
    EXPECT_TRUE(capture_will_work(checks));
    options.devices.push_back(directory.path() + "/none");
    EXPECT_FALSE(capture_will_work(check_capture(options)));
}

}  // namespace
}  // namespace farshore
