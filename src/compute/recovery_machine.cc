#include "compute/recovery_machine.h"

#include <fmt/core.h>

namespace farshore {
namespace {

constexpr std::string_view kStateNames[] = {"running", "paused", "failed", "stopped", "lost"};
constexpr std::string_view kDiskFormatNames[] = {"raw", "qcow2"};

tl::unexpected<Error> no_files() {
    return fail(Code::kUnsupported, "machines here have no files of their own");
}

}  // namespace

std::string_view machine_state_name(MachineState state) {
    return kStateNames[static_cast<size_t>(state)];
}

std::string_view disk_format_name(DiskFormat format) {
    return kDiskFormatNames[static_cast<size_t>(format)];
}

Result<DiskFormat> disk_format_from_name(std::string_view name) {
    for (const DiskFormat format : {DiskFormat::kRaw, DiskFormat::kQcow2})
        if (disk_format_name(format) == name) return format;
    return fail(Code::kInvalidArgument,
                fmt::format("'{}' is no format of a disk's file", name.substr(0, 64)),
                "raw or qcow2");
}

Status RecoveryMachine::begin_copy(const DiskCopyOrder& /*order*/) { return no_files(); }
Result<CopyState> RecoveryMachine::copy_state(const DiskCopyOrder& /*order*/) { return no_files(); }
Result<int64_t> RecoveryMachine::switch_over(const DiskCopyOrder& /*order*/,
                                             const std::function<Status()>& /*note*/,
                                             int /*timeout_ms*/) {
    return no_files();
}
Status RecoveryMachine::end_copy(const DiskCopyOrder& /*order*/) { return no_files(); }
Status RecoveryCompute::let_go(const MachineOrder& /*order*/, const std::string& /*script*/) {
    return no_files();
}

}  // namespace farshore
