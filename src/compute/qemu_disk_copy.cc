#include "compute/qemu_disk_copy.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "codec/hash.h"
#include "compute/child_files.h"
#include "compute/json_read.h"
#include "compute/qemu_arguments.h"
#include "compute/qmp_client.h"
#include "os/process.h"
#include "os/real.h"
#include "os/waiting.h"

namespace farshore {

using Json = nlohmann::json;

namespace {

constexpr int kJobPollMs = 1;
// A mirror begins when what the guest has asked of the disk is answered.
constexpr int kBeginTimeoutMs = 60'000;
// A cancelled job ends when its requests in flight have; those of a server that is gone wait for
// the reconnect delay.
constexpr int kCancelTimeoutMs = 90'000;

// All of a disk's copies; one of them.
std::string jobs_of(size_t place) { return fmt::format("farshore-copy-{}-", place); }
// Of a path: what is found again is the copy into that file, and no other.
std::string mark_of(const DiskFile& file) {
    return to_hex(ByteView(sha256(as_bytes(file.path))).first(6));
}
std::string job_of(const DiskCopyOrder& order) {
    return jobs_of(order.place) + mark_of(order.file);
}
std::string file_node(const DiskCopyOrder& order) {
    return fmt::format("disk{}-own-{}", order.place, mark_of(order.file));
}
std::string served_node(size_t place) { return fmt::format("disk{}", place); }
// As all that is asked what a disk's guest does: QemuMachine::activity().
std::string copy_node(size_t place) { return fmt::format("disk{}-copy", place); }

// Of query-jobs; null when there is none.
Result<Json> find_job(QmpClient& qmp, const std::string& name) {
    FS_ASSIGN(const Json jobs, qmp.execute("query-jobs"));
    for (const Json& job : jobs)
        if (json_text(job, "id") == name) return job;
    return Json();
}

bool means_no_such_node(const Error& error) {
    return error.what().find("Failed to find node") != std::string::npos ||
           error.what().find("Cannot find") != std::string::npos;
}

// Ok also when there is none.
Status remove_node(QmpClient& qmp, const std::string& node) {
    const auto removed = qmp.execute("blockdev-del", {{"node-name", node}});
    if (!removed && !means_no_such_node(removed.error())) return fail(removed.error());
    return {};
}

// Until it is over, and forgotten. Ok when there is none.
Status cancel_job(QmpClient& qmp, const std::string& name) {
    FS_ASSIGN(Json job, find_job(qmp, name));
    if (job.is_null()) return {};
    if (json_text(job, "status") != "concluded") {
        FS_TRY(qmp.execute("block-job-cancel", {{"device", name}, {"force", true}}));
        const bool over = wait_until(kCancelTimeoutMs, kJobPollMs * 10, [&] {
            const auto now = find_job(qmp, name);
            return !now || now->is_null() || json_text(*now, "status") == "concluded";
        });
        if (!over) return fail(Code::kTimeout, "QEMU does not end a copy that was given up");
        FS_ASSIGN(job, find_job(qmp, name));
    }
    if (!job.is_null()) FS_TRY(qmp.execute("job-dismiss", {{"id", name}}));
    return {};
}

// A refusal of QEMU's says nothing of whose the disk is.
Error undecided(const Error& error) {
    return error.code() == Code::kWrongState
               ? Error(Code::kGuestFailed, "QEMU: " + error.what(), error.remedy())
               : error;
}

}  // namespace

Result<bool> QemuDiskCopy::is_switched() {
    FS_ASSIGN(const Json devices, qmp_.execute("query-block"));
    for (const Json& device : devices)
        if (json_text(json_at(device, "inserted"), "node-name") == file_node(order_)) return true;
    return false;
}

Result<CopyState> QemuDiskCopy::state() {
    CopyState state;
    FS_ASSIGN(const Json job, find_job(qmp_, job_of(order_)));
    const std::string status = json_text(job, "status");
    if (status.empty() || status == "concluded") {
        FS_ASSIGN(const bool switched, is_switched());
        if (switched) state.stage = CopyStage::kSwitched;
        state.words = json_text(job, "error");
        return state;
    }
    state.done_bytes = json_u64(job, "current-progress");
    state.total_bytes = json_u64(job, "total-progress");
    if (status == "ready" || status == "waiting" || status == "pending") {
        state.stage = CopyStage::kReady;
        return state;
    }
    state.stage = CopyStage::kCopying;
    FS_ASSIGN(const Json jobs, qmp_.execute("query-block-jobs"));
    for (const Json& block : jobs) {
        if (json_text(block, "device") != job_of(order_)) continue;
        const std::string io = json_text(block, "io-status", "ok");
        if (io == "ok") continue;
        state.stage = CopyStage::kStuck;
        state.no_space = io == "nospace";
        state.words = state.no_space ? fmt::format("no space is left for {}", order_.file.path)
                                     : "the disk cannot be read, or its file not be written";
    }
    return state;
}

// Empty, durable, and nobody else's to read.
Status QemuDiskCopy::make_file() {
    PosixFileSystem files;
    const std::string& path = order_.file.path;
    {
        auto made = files.open(path, OpenMode::kCreateNew);
        if (!made && made.error().code() == Code::kAlreadyExists)
            return fail(Code::kAlreadyExists, fmt::format("{} is there already", path),
                        "remove it, or name another directory");
        if (!made) return fail(made.error());
    }
    const auto format = [&]() -> Status {
        ProcessOptions options;
        options.arguments = {"qemu-img",
                             "create",
                             "-q",
                             "-f",
                             std::string(disk_format_name(order_.file.format)),
                             path,
                             std::to_string(order_.size_bytes)};
        FS_ASSIGN(const CommandResult said, run_command(options));
        if (!said.exit.success())
            return fail(Code::kIo, fmt::format("qemu-img does not make {}: {}", path, said.error));
        return files.sync_directory(parent_directory(path));
    };
    Status formatted = format();
    if (!formatted) (void)files.remove(path);
    return formatted;
}

Status QemuDiskCopy::begin() {
    FS_ASSIGN(const CopyState now, state());
    const Json name{{"device", job_of(order_)}};
    switch (now.stage) {
        case CopyStage::kSwitched:
        case CopyStage::kReady:
            return {};
        case CopyStage::kStuck:
            FS_TRY(qmp_.execute("block-job-resume", name));
            [[fallthrough]];
        case CopyStage::kCopying: {
            Json speed = name;
            speed["speed"] = order_.bytes_per_s;
            FS_TRY(qmp_.execute("block-job-set-speed", speed));
            return {};
        }
        case CopyStage::kNone:
            break;
    }
    // One that somebody lost sight of.
    FS_ASSIGN(const Json jobs, qmp_.execute("query-jobs"));
    for (const Json& job : jobs)
        if (json_text(job, "id").starts_with(jobs_of(order_.place)))
            FS_TRY(cancel_job(qmp_, json_text(job, "id")));
    FS_TRY(remove_node(qmp_, file_node(order_)));
    FS_TRY(make_file());
    const auto run = [&]() -> Status {
        FS_TRY(qmp_.execute("blockdev-add", own_file_node(order_.file, file_node(order_))));
        // What cannot be read or written stops the job, not the machine: it goes on where it was.
        // Not copy-mode=write-blocking, by which a busy guest's copy would surely come to its end:
        // such a mirror cannot be given up safely (MirrorControl::ask_to_end()).
        FS_TRY(qmp_.execute("blockdev-mirror",
                            {{"job-id", job_of(order_)},
                             {"device", served_node(order_.place)},
                             {"target", file_node(order_)},
                             {"sync", "full"},
                             {"filter-node-name", copy_node(order_.place)},
                             {"speed", order_.bytes_per_s},
                             {"on-source-error", "stop"},
                             {"on-target-error", "stop"},
                             {"auto-finalize", false},
                             {"auto-dismiss", false}},
                            kBeginTimeoutMs));
        return {};
    };
    Status begun = run();
    if (begun) return begun;
    // What was not answered may happen still; then it is found by its name.
    const Code code = begun.error().code();
    if (code == Code::kTimeout || code == Code::kConnectionLost || code == Code::kUnavailable)
        return begun;
    if (remove_node(qmp_, file_node(order_))) (void)remove_if_there(order_.file.path);
    return begun;
}

Result<int64_t> QemuDiskCopy::switch_over(const std::function<Status()>& note, int timeout_ms) {
    const RealClock clock;
    const Json name{{"id", job_of(order_)}};
    int64_t from_us = 0, held_us = 0;
    bool noted = false;
    std::optional<Error> wrong;
    const bool over = wait_until(timeout_ms, kJobPollMs, [&] {
        const auto step = [&]() -> Result<bool> {
            FS_ASSIGN(const Json job, find_job(qmp_, job_of(order_)));
            const std::string status = json_text(job, "status");
            // Whoever asked it to complete may have been another one: then it can become ready
            // without us, and holds the guest.
            if (status == "standby" || status == "paused")
                return fail(Code::kIo, "the disk cannot be read, or its file not be written");
            if (status == "running" || status == "created")
                return fail(Code::kUnavailable, "the disk is not copied yet");
            if (status == "ready" && from_us == 0) {
                from_us = clock.steady_us();
                FS_TRY(qmp_.execute("job-complete", name));
            }
            // Everything is in the file and flushed, and the guest's requests are held until the
            // job is finalized.
            if (status == "pending") {
                FS_TRY(note());
                noted = true;
                FS_TRY(qmp_.execute("job-finalize", name));
                held_us = from_us == 0 ? 0 : clock.steady_us() - from_us;
            }
            return job.is_null() || status == "concluded";
        };
        const auto done = step();
        if (!done) wrong = undecided(done.error());
        return !done || *done;
    });
    if (wrong) return fail(*wrong);
    if (!over)
        return fail(Code::kTimeout,
                    fmt::format("QEMU does not end the copy of {}", order_.export_name));
    FS_ASSIGN(const bool switched, is_switched());
    if (!switched) {
        FS_ASSIGN(const CopyState now, state());
        return fail(Code::kWrongState, now.words.empty() ? "the disk is not copied any more"
                                                         : "the copy failed: " + now.words);
    }
    if (!noted) FS_TRY(note());
    // What is left of it costs nothing: another reader may have the node.
    (void)cancel_job(qmp_, job_of(order_));
    (void)remove_node(qmp_, served_node(order_.place));
    return held_us;
}

Status QemuDiskCopy::end() {
    FS_TRY(cancel_job(qmp_, job_of(order_)));
    FS_ASSIGN(const bool switched, is_switched());
    if (switched) return {};
    FS_TRY(remove_node(qmp_, file_node(order_)));
    return remove_if_there(order_.file.path);
}

}  // namespace farshore
