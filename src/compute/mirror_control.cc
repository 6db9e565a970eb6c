#include "compute/mirror_control.h"

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "compute/json_read.h"
#include "compute/nbd_server.h"
#include "compute/qmp_client.h"
#include "os/unix_stream.h"
#include "os/waiting.h"

namespace farshore {

using Json = nlohmann::json;

namespace {

constexpr std::string_view kOurPrefix = "farshore-";
// A cancelled job ends when its requests in flight have: at most the reconnect delay, and some.
constexpr int kJobEndPollMs = 20;
constexpr int kTapAnswerTimeoutMs = 2000;
// Of a mirror that is asked to end.
constexpr int kGentleEndMs = 5000;

std::string job_name(DiskIndex disk) { return fmt::format("{}mirror-{}", kOurPrefix, disk); }
std::string export_id(DiskIndex disk) { return fmt::format("{}source-{}", kOurPrefix, disk); }
std::string tap_node(DiskIndex disk) { return fmt::format("{}tap-{}", kOurPrefix, disk); }

// Entry of a list whose `key` is `value`, or null.
const Json& entry_of(const Json& list, const char* key, const std::string& value) {
    static const Json null;
    for (const Json& entry : list)
        if (json_text(entry, key) == value) return entry;
    return null;
}

// Ok also when QEMU says that there is nothing to do it to.
Status ignore_missing(const Result<Json>& answer) {
    if (answer) return {};
    const Code code = answer.error().code();
    if (code == Code::kNotFound) return {};
    const std::string& words = answer.error().what();
    for (const char* missing : {"not found", "Failed to find", "Cannot find", "not running"})
        if (words.find(missing) != std::string::npos) return {};
    return fail(answer.error());
}

}  // namespace

std::string source_export_name(DiskIndex disk) { return fmt::format("source-{}", disk); }

bool MirrorState::healthy() const {
    return std::all_of(disks.begin(), disks.end(),
                       [](const MirrorDiskState& disk) { return disk.exported && disk.mirrored; });
}

Result<std::vector<MirrorDisk>> match_disks(const MachineDescription& machine,
                                            const MachineDescription& now) {
    std::vector<MirrorDisk> matched;
    std::vector<bool> taken(now.disks.size());
    for (const MachineDisk& disk : machine.disks) {
        const auto find = [&](auto same) -> const MachineDisk* {
            for (size_t i = 0; i < now.disks.size(); ++i)
                if (!taken[i] && same(now.disks[i])) {
                    taken[i] = true;
                    return &now.disks[i];
                }
            return nullptr;
        };
        const MachineDisk* present = nullptr;
        if (!disk.qdev.empty())
            present = find([&](const MachineDisk& d) {
                return d.qdev == disk.qdev && d.serial == disk.serial;
            });
        if (present == nullptr && !disk.serial.empty())
            present = find([&](const MachineDisk& d) { return d.serial == disk.serial; });
        if (present == nullptr)
            present = find([&](const MachineDisk& d) {
                return d.index == disk.index && d.serial == disk.serial;
            });
        if (present == nullptr)
            return fail(Code::kNotFound,
                        fmt::format("disk {} ('{}') of the machine is no longer attached to it",
                                    disk.index, disk.qdev.empty() ? disk.path : disk.qdev),
                        "attach it again, or protect the machine anew");
        if (present->size_bytes < disk.size_bytes)
            return fail(Code::kDiskChanged,
                        fmt::format("disk {} had {} bytes when it was protected and has {} now",
                                    disk.index, disk.size_bytes, present->size_bytes),
                        "give it its old size again; or remove it from the protection (`farshore "
                        "disk remove`) and add it as a new one");
        matched.push_back(
            {disk.index, present->node_name, std::to_string(disk.index), present->size_bytes});
    }
    return matched;
}

MirrorControl::MirrorControl(QmpClient& qmp, MirrorOptions options)
    : qmp_(qmp), options_(std::move(options)) {}

Status MirrorControl::export_sources() {
    FS_ASSIGN(Json exports, qmp_.execute("query-block-exports"));
    const Json server = {
        {"addr", {{"type", "unix"}, {"data", {{"path", options_.source_socket}}}}}};
    auto started = qmp_.execute("nbd-server-start", server);
    if (!started && started.error().what().find("already running") != std::string::npos) {
        // Ours from before our restart, at this very path? Then it accepts there.
        const bool ours = unix_socket_accepts(options_.source_socket);
        const bool others = std::any_of(exports.begin(), exports.end(), [](const Json& entry) {
            return json_text(entry, "type") == "nbd" &&
                   !json_text(entry, "id").starts_with(kOurPrefix);
        });
        if (!ours && others)
            return fail(
                Code::kUnavailable,
                "this QEMU already runs an NBD server for somebody else, and it can run only one",
                "end the other use (a backup or a migration, most likely) and try again");
        if (!ours) {
            // A server without anybody's exports, or with ours at another path.
            FS_TRY(ignore_missing(qmp_.execute("nbd-server-stop")));
            FS_TRY(qmp_.execute("nbd-server-start", server));
            exports = Json::array();
        }
    } else {
        FS_TRY(started);
        exports = Json::array();
    }
    for (const MirrorDisk& disk : options_.disks) {
        if (!entry_of(exports, "id", export_id(disk.index)).is_null()) continue;
        FS_TRY(qmp_.execute("block-export-add", {{"type", "nbd"},
                                                 {"id", export_id(disk.index)},
                                                 {"node-name", disk.node_name},
                                                 {"name", source_export_name(disk.index)},
                                                 {"writable", false}}));
    }
    return {};
}

Status MirrorControl::attach_disk(const MirrorDisk& disk) {
    const Json node = {{"driver", "nbd"},
                       {"node-name", tap_node(disk.index)},
                       {"server", {{"type", "unix"}, {"path", options_.tap_socket}}},
                       {"export", disk.tap_export},
                       {"reconnect-delay", options_.reconnect_delay_s},
                       {"discard", "unmap"}};
    FS_TRY(qmp_.execute("blockdev-add", node));
    // "report": the first error that outlives the reconnect delay ends the job. "ignore" would go
    // on with writes out of order and nobody would know since when.
    FS_TRY(qmp_.execute("blockdev-mirror", {{"job-id", job_name(disk.index)},
                                            {"device", disk.node_name},
                                            {"target", tap_node(disk.index)},
                                            {"sync", "none"},
                                            {"copy-mode", "write-blocking"},
                                            {"on-source-error", "report"},
                                            {"on-target-error", "report"}}));
    return {};
}

Status MirrorControl::greet_tap() {
    // QEMU's main loop, and with it the guest, would hang on a tap that accepts and then says
    // nothing.
    if (Status greets = nbd_server_greets(options_.tap_socket, kTapAnswerTimeoutMs); !greets)
        return fail(greets.error().with_context("the tap does not answer"));
    return {};
}

Status MirrorControl::attach() {
    FS_TRY(detach_mirrors());
    FS_TRY(greet_tap());
    for (const MirrorDisk& disk : options_.disks) {
        if (Status attached = attach_anew(disk); !attached) {
            (void)detach_mirrors();
            return attached;
        }
    }
    return {};
}

// A mirror that is ended by force while the guest writes uses memory that it has freed (QEMU 7.2,
// block/mirror.c: its bitmaps go before the guest's requests are waited for), and may take the
// machine with it. So one whose tap is there is asked to end: it holds the guest's requests for a
// moment. The requests to a tap that is gone fail at once when the mirror is ended, by force.
Status MirrorControl::ask_to_end(DiskIndex disk) {
    if (!unix_socket_accepts(options_.tap_socket)) return {};
    bool asked = false;
    Status wrong;
    wait_until(kGentleEndMs, kJobEndPollMs, [&] {
        const auto jobs = qmp_.execute("query-block-jobs");
        if (!jobs) {
            wrong = fail(jobs.error());
            return true;
        }
        const Json& job = entry_of(*jobs, "device", job_name(disk));
        // One that is not ready would be ended by force all the same.
        if (!asked && json_text(job, "status") == "ready") {
            wrong = ignore_missing(
                qmp_.execute("block-job-cancel", {{"device", job_name(disk)}, {"force", false}}));
            asked = true;
        }
        return !wrong || job.is_null();
    });
    return wrong;
}

Status MirrorControl::detach_disk(DiskIndex disk) {
    FS_TRY(ask_to_end(disk));
    FS_TRY(ignore_missing(
        qmp_.execute("block-job-cancel", {{"device", job_name(disk)}, {"force", true}})));
    const int polls = static_cast<int>(options_.reconnect_delay_s + 10) * 1000 / kJobEndPollMs;
    for (int i = 0;; ++i) {
        FS_ASSIGN(const Json jobs, qmp_.execute("query-block-jobs"));
        if (entry_of(jobs, "device", job_name(disk)).is_null()) break;
        if (i == polls)
            return fail(Code::kTimeout,
                        fmt::format("QEMU does not end the mirror job of disk {}", disk));
        pause_ms(kJobEndPollMs);
    }
    return ignore_missing(qmp_.execute("blockdev-del", {{"node-name", tap_node(disk)}}));
}

Status MirrorControl::end_export(DiskIndex disk) {
    return ignore_missing(
        qmp_.execute("block-export-del", {{"id", export_id(disk)}, {"mode", "hard"}}));
}

Status MirrorControl::take_off(DiskIndex disk) {
    FS_TRY(detach_disk(disk));
    return end_export(disk);
}

Status MirrorControl::detach_mirrors() {
    Status first;
    for (const MirrorDisk& disk : options_.disks)
        if (Status detached = detach_disk(disk.index); !detached && first) first = detached;
    return first;
}

Status MirrorControl::stop_server() {
    for (const MirrorDisk& disk : options_.disks) FS_TRY(end_export(disk.index));
    // Somebody else's exports keep the server.
    FS_ASSIGN(const Json exports, qmp_.execute("query-block-exports"));
    for (const Json& entry : exports)
        if (json_text(entry, "type") == "nbd" && !json_text(entry, "id").starts_with(kOurPrefix))
            return {};
    return ignore_missing(qmp_.execute("nbd-server-stop"));
}

Status MirrorControl::detach() {
    Status mirrors = detach_mirrors();
    Status server = stop_server();
    return mirrors ? server : mirrors;
}

Result<MirrorState> MirrorControl::query() {
    FS_ASSIGN(const Json jobs, qmp_.execute("query-block-jobs"));
    FS_ASSIGN(const Json exports, qmp_.execute("query-block-exports"));
    MirrorState state;
    for (const MirrorDisk& disk : options_.disks) {
        MirrorDiskState entry;
        entry.index = disk.index;
        const Json& exported = entry_of(exports, "id", export_id(disk.index));
        entry.exported = exported.is_object() && !json_bool(exported, "shutting-down");
        const Json& job = entry_of(jobs, "device", job_name(disk.index));
        if (job.is_null()) {
            entry.words = "QEMU has no mirror job for the disk";
        } else if (json_text(job, "io-status", "ok") != "ok" || job.contains("error")) {
            entry.words =
                fmt::format("the mirror job failed: {}", json_text(job, "error", "I/O error"));
        } else if (json_text(job, "status") != "ready" && json_text(job, "status") != "running" &&
                   json_text(job, "status") != "standby") {
            entry.words =
                fmt::format("the mirror job is {}", json_text(job, "status", "in no state"));
        } else {
            entry.mirrored = true;
            if (!entry.exported) entry.words = "the disk is not exported to the tap";
        }
        state.disks.push_back(std::move(entry));
    }
    return state;
}

Status MirrorControl::attach_anew(const MirrorDisk& disk) {
    FS_TRY(detach_disk(disk.index));
    if (Status attached = attach_disk(disk); !attached) {
        // The first error is the one to tell.
        (void)detach_disk(disk.index);
        return fail(attached.error().with_context(fmt::format("disk {}", disk.index)));
    }
    return {};
}

Result<std::vector<DiskIndex>> MirrorControl::ensure_attached() {
    if (!gone_taken_off_) {
        for (const DiskIndex disk : options_.gone) FS_TRY(take_off(disk));
        gone_taken_off_ = true;
    }
    std::vector<DiskIndex> anew;
    FS_ASSIGN(const MirrorState state, query());
    if (state.healthy()) return anew;
    FS_TRY(export_sources());
    // Where a mirror is whole only the tap's reading was cut: nothing is unknown.
    for (size_t i = 0; i < state.disks.size(); ++i) {
        if (state.disks[i].mirrored) continue;
        Status attached;
        if (anew.empty()) attached = greet_tap();
        if (attached) attached = attach_anew(options_.disks[i]);
        if (!attached) {
            // Nobody would hear of these otherwise.
            for (const DiskIndex disk : anew) (void)detach_disk(disk);
            return fail(attached.error());
        }
        anew.push_back(state.disks[i].index);
    }
    return anew;
}

}  // namespace farshore
