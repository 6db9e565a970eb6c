// One drill of the drill desk: its machine is started, watched, judged and taken away.
#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "base/text.h"
#include "compute/guest_agent.h"
#include "meta/items.h"
#include "meta/jobs.h"
#include "meta/json_fields.h"
#include "os/log.h"
#include "os/program_files.h"
#include "os/real.h"
#include "os/remove_directory.h"
#include "os/tcp_probe.h"
#include "os/waiting.h"
#include "recovery/line_pattern.h"
#include "vault/drill_desk.h"
#include "vault/log_about.h"
#include "vault/recovery_desk.h"

namespace farshore {
namespace {

constexpr int64_t kLookUs = 250'000;  // at a machine that is starting
constexpr int kAgentTimeoutMs = 300, kCheckAgentTimeoutMs = 5000;
constexpr int kPortTimeoutMs = 200;
constexpr uint32_t kMaxAttempts = 3;  // of one drill, by vaults that were killed meanwhile

// A file that something else appends to.
Result<Bytes> read_from(FileSystem& files, const std::string& path, uint64_t from, size_t limit) {
    FS_ASSIGN(const auto file, files.open(path, OpenMode::kRead));
    Bytes bytes(limit);
    FS_ASSIGN(const size_t n, file->read_at(from, bytes));
    bytes.resize(n);
    return bytes;
}

// Also in a job that was cancelled, whose pause() is over at once.
void wait_again(JobRun& run) {
    if (!run.pause(2'000'000) && !run.vault_ends()) pause_ms(1000);
}

}  // namespace

struct DrillDesk::Evidence {
    Json checks = Json::array();
    std::string why, remedy;
    std::optional<uint16_t> port;  // of this host, that leads to the policy's
    int64_t first_read_ms = -1, ready_ms = -1;
    bool screen = false, serial = false;
    std::string accelerator;
};

Result<std::string> DrillDesk::run_job(JobRun& run, uint64_t id) {
    FS_ASSIGN(DrillRecord drill, get_drill(vault_.database(), id));
    if (drill.verdict != "open") return fmt::format("{{\"drill\":{}}}", id);
    FS_ASSIGN(Json document, parse_json(drill.document, "the drill", kMaxDrillDocumentBytes));
    const std::string point = document.value("point", std::string("latest"));
    Evidence evidence;
    // The machine first, and all of it whatever cannot be removed.
    const auto clean_up = [&]() -> Status {
        Status all = recovery_.clean_up_test(drill.recovery);
        for (size_t i = 0; i < kMaxDrillChecks; ++i)
            if (Status gone = scripts_.forget(fmt::format("{}-{}", drill.recovery, i));
                !gone && all)
                all = gone;
        return all;
    };
    const auto work = [&]() -> Result<DrillVerdict> {
        // Whatever an earlier vault was at when it was killed.
        FS_TRY(clean_up());
        const uint32_t attempts = document.value("attempts", 0u) + 1;
        document["attempts"] = attempts;
        drill.document = dump_json(document);
        FS_TRY(save_drill(vault_.database(), drill));
        if (attempts > kMaxAttempts)
            return fail(Code::kCancelled,
                        fmt::format("the vault ended {} times in the middle of it", kMaxAttempts));
        const auto wanted = policy(drill.item);
        if (!wanted) return fail(Code::kCancelled, "the item has no drill policy any more");
        FS_ASSIGN(RecoveryRequest request, recovery_.test_request(drill.item, point));
        FS_TRY(wait_in_line(run, id, request.machine));
        // It may have waited for long.
        FS_ASSIGN(request, recovery_.test_request(drill.item, point));
        request.id = drill.recovery;
        request.kind = RecoveryKind::kTest;
        if (wanted->port != 0 && !request.compute.empty())
            return fail(Code::kUnsupported,
                        fmt::format("the drill waits for a port, which cannot be reached on "
                                    "compute host '{}'",
                                    request.compute),
                        "let it wait for the guest agent or the serial port, or let the item's "
                        "machine run at `local`");
        request.network = {NetworkKind::kIsolated};
        request.networks.clear();
        request.note = fmt::format("drill {}", id);
        drill.sequence = request.sequence;
        drill.point_time = request.point_time;
        FS_TRY(save_drill(vault_.database(), drill));
        FS_TRY(run.report(0.1,
                          fmt::format("booting the point of {}", to_rfc3339(request.point_time))));
        const auto started = recovery_.recoveries().start(request);
        if (!started) {
            // That this machine cannot be started, or its point not be read, is what a drill is to
            // find; that there is no room, no store or no QEMU just now is not.
            // An object that is missing is of the point as well, and QEMU that ended at once.
            static constexpr std::array kOfThePoint{
                Code::kUnsupported,   Code::kInvalidArgument, Code::kCorrupt,
                Code::kTruncated,     Code::kMalformed,       Code::kNotFound,
                Code::kPointNotFound, Code::kWrongKey,        Code::kGuestFailed};
            // What a compute host lacks is told in as many ways.
            static constexpr std::array kOfThePointAnywhere{Code::kCorrupt, Code::kTruncated,
                                                            Code::kPointNotFound, Code::kWrongKey};
            const auto is_of = [code = started.error().code()](const auto& codes) {
                return std::ranges::find(codes, code) != codes.end();
            };
            if (request.compute.empty() ? !is_of(kOfThePoint) : !is_of(kOfThePointAnywhere))
                return tl::unexpected(started.error());
            evidence.why = "it does not start: " + started.error().what();
            evidence.remedy = started.error().remedy();
            return DrillVerdict::kBad;
        }
        evidence.first_read_ms = started->timings.first_read_ms;
        evidence.accelerator = started->accelerator_words;
        DrillVerdict verdict = watch(run, *wanted, drill, evidence);
        if (verdict == DrillVerdict::kGood) verdict = check(run, *wanted, drill, evidence);
        if (run.vault_ends()) return fail(Code::kCancelled, "the vault ends");
        if (verdict == DrillVerdict::kOpen)
            return fail(Code::kCancelled, "somebody cancelled it, or ended its machine");
        keep_evidence(drill, evidence);
        return verdict;
    };
    auto verdict = work();
    leave_line(id);
    // Machines are never left to whoever comes next, when there is time to end them.
    Status cleaned = clean_up();
    if (run.vault_ends() && !verdict) return tl::unexpected(verdict.error());
    while (!cleaned) {
        log::warn("vault", about(cleaned.error()), "drill {}: {}", id, cleaned.error().to_string());
        (void)run.report(0.95, "what it left cannot be removed: " + cleaned.error().what());
        wait_again(run);
        if (run.vault_ends()) return tl::unexpected(cleaned.error());
        cleaned = clean_up();
    }
    if (!verdict) {
        evidence.why = verdict.error().what();
        evidence.remedy = verdict.error().remedy();
    }
    const DrillVerdict judged = verdict.value_or(DrillVerdict::kNone);
    drill.verdict = std::string(drill_verdict_name(judged));
    drill.ended = vault_.clock().now();
    document["why"] = plain_text(evidence.why);
    document["remedy"] = plain_text(evidence.remedy);
    document["checks"] = evidence.checks;
    document["screenshot"] = evidence.screen;
    document["serial"] = evidence.serial;
    document["accelerator"] = evidence.accelerator;
    if (evidence.first_read_ms >= 0) document["first_read_ms"] = evidence.first_read_ms;
    if (evidence.ready_ms >= 0) document["ready_ms"] = evidence.ready_ms;
    drill.document = dump_json(document);
    // The disk may be full just now; the verdict is worth waiting for.
    while (true) {
        const Status saved = save_drill(vault_.database(), drill);
        if (saved) break;
        if (saved.error().retry() == Retry::kNever) return tl::unexpected(saved.error());
        wait_again(run);
        if (run.vault_ends()) return tl::unexpected(saved.error());
    }
    learn(drill);
    if (const auto old = forget_old_drills(vault_.database(), drill.item))
        for (const uint64_t gone : *old) (void)remove_directory(files_, directory(gone));
    const auto item = get_item(vault_.database(), drill.item);
    const ItemRecord* whose = item ? &*item : nullptr;
    if (judged == DrillVerdict::kGood)
        vault_.event(Severity::kInformation, "drill-good", whose,
                     fmt::format("drill {} has shown a good machine at {}", id,
                                 to_rfc3339(drill.point_time)));
    else if (judged == DrillVerdict::kBad)
        vault_.event(Severity::kCritical, "drill-bad", whose,
                     fmt::format("drill {} has shown that the point of {} is not good: {}", id,
                                 to_rfc3339(drill.point_time), plain_text(evidence.why)),
                     fmt::format("`farshore drill show {}` has its screen and serial line", id));
    else if (is_news(drill.item, evidence.why))
        vault_.event(Severity::kWarning, "drill-not-done", whose,
                     fmt::format("drill {} could not be done: {}", id, plain_text(evidence.why)),
                     evidence.remedy);
    if (!verdict) return tl::unexpected(verdict.error());
    return dump_json({{"drill", id}, {"verdict", drill.verdict}});
}

// Each cause is told once until a drill is judged again; numbers in it make no other one.
bool DrillDesk::is_news(const ItemId& item, const std::string& why) {
    std::string cause;
    for (const char c : why)
        if (c < '0' || c > '9') cause += c;
    const std::lock_guard hold(mutex_);
    Known& known = known_[item];
    if (known.said == cause) return false;
    known.said = cause;
    return true;
}

DrillVerdict DrillDesk::watch(JobRun& run, const DrillPolicy& policy, const DrillRecord& drill,
                              Evidence& evidence) {
    DrillWatch watch(policy);
    TextFinder finder(policy.serial);
    std::optional<LinePattern> pattern;
    if (!policy.serial_pattern.empty())
        if (auto parsed = LinePattern::parse(policy.serial_pattern)) pattern = std::move(*parsed);
    const auto access = recovery_.recoveries().access(drill.recovery);
    if (!access) return DrillVerdict::kOpen;
    uint64_t heard = 0;
    const int64_t from_us = vault_.clock().steady_us();
    while (true) {
        const auto state = recovery_.recoveries().get(drill.recovery);
        if (!state) return DrillVerdict::kOpen;  // somebody has cleaned it up
        DrillSample sample;
        sample.age_us = vault_.clock().steady_us() - from_us;
        if (state->stage == RecoveryStage::kStopped) sample.machine = MachineState::kStopped;
        if (state->stage == RecoveryStage::kFailed) sample.machine = MachineState::kFailed;
        if (sample.machine == MachineState::kRunning)
            (void)recovery_.recoveries().with_machine(
                drill.recovery, [&](RecoveryMachine& machine) -> Status {
                    FS_ASSIGN(sample.machine, machine.state());
                    if (!watch.wants_port()) return {};
                    auto port = machine.forward_port(policy.port);
                    if (port) evidence.port = *port;
                    return {};
                });
        if (watch.wants_serial() || watch.wants_pattern()) {
            // It was started again, and says everything anew.
            if (file_size_or_zero(access->doors.serial_log) < heard) {
                heard = 0;
                finder = TextFinder(policy.serial);
                if (pattern) pattern->restart();
            }
            // Only what is new; a line that says much is read in pieces.
            while (const auto bytes = read_from(files_, access->doors.serial_log, heard, 65536)) {
                if (bytes->empty()) break;
                heard += bytes->size();
                sample.serial = finder.feed(as_text(*bytes)) || sample.serial;
                if (pattern) sample.pattern = pattern->feed(as_text(*bytes)) || sample.pattern;
            }
        }
        if (watch.wants_agent() && sample.machine == MachineState::kRunning)
            sample.agent =
                recovery_.recoveries().guest_agent(drill.recovery, kAgentTimeoutMs).has_value();
        if (watch.wants_port() && evidence.port) {
            // QEMU takes the connection itself; whether the guest did, its monitor says.
            const TcpProbe probe(*evidence.port, kPortTimeoutMs);
            if (probe.connected() && probe.stays_open(kPortTimeoutMs))
                (void)recovery_.recoveries().with_machine(
                    drill.recovery, [&](RecoveryMachine& machine) -> Status {
                        FS_ASSIGN(const size_t taken, machine.taken_connections(policy.port));
                        sample.port = taken > 0;
                        return {};
                    });
        }
        const DrillVerdict verdict = watch.feed(sample);
        evidence.why = watch.why();
        if (verdict == DrillVerdict::kGood) evidence.ready_ms = sample.age_us / 1000;
        if (verdict != DrillVerdict::kOpen) return verdict;
        (void)run.report(
            0.2 + 0.5 * std::min(1.0, static_cast<double>(sample.age_us) / (policy.limit_s * 1e6)),
            "waits until the machine is up");
        if (!run.pause(kLookUs)) return DrillVerdict::kOpen;
    }
}

DrillVerdict DrillDesk::check(JobRun& run, const DrillPolicy& policy, const DrillRecord& drill,
                              Evidence& evidence) {
    for (size_t i = 0; i < policy.checks.size(); ++i) {
        (void)run.report(
            0.7 + 0.2 * static_cast<double>(i) / static_cast<double>(policy.checks.size()),
            fmt::format("check {}: {}", i + 1, policy.checks[i].program));
        const auto good = run_check(run, policy.checks[i], i, drill, evidence);
        if (!good) return DrillVerdict::kOpen;
        if (!*good) return DrillVerdict::kBad;
    }
    return DrillVerdict::kGood;
}

Result<bool> DrillDesk::run_check(JobRun& run, const DrillCheck& check, size_t number,
                                  const DrillRecord& drill, Evidence& evidence) {
    FS_ASSIGN(const RecoveryAccess access, recovery_.recoveries().access(drill.recovery));
    const int64_t from_us = vault_.clock().steady_us();
    const auto over = [&] {
        return vault_.clock().steady_us() - from_us > int64_t{check.limit_s} * 1'000'000;
    };
    const auto ended = [&](const std::string& bad, const std::string& output) {
        evidence.checks.push_back({{"program", check.program},
                                   {"kind", check.inside ? "guest-script" : "script"},
                                   {"good", bad.empty()},
                                   {"duration_ms", (vault_.clock().steady_us() - from_us) / 1000},
                                   {"output", plain_text(output)}});
        if (!bad.empty())
            evidence.why = fmt::format("check {} ({}): {}", number + 1, check.program, bad);
        return bad.empty();
    };
    if (check.inside) {
        auto agent = recovery_.recoveries().guest_agent(drill.recovery, kCheckAgentTimeoutMs);
        if (!agent) return ended(agent.error().what(), "");
        const auto pid =
            agent->start_program(check.program, check.arguments, {}, kCheckAgentTimeoutMs);
        if (!pid) return ended(pid.error().what(), "");
        while (true) {
            const auto exit = agent->program_exit(*pid, kMaxDrillOutputBytes, kCheckAgentTimeoutMs);
            if (!exit) return ended(exit.error().what(), "");
            if (*exit)
                return ended((*exit)->code == 0
                                 ? ""
                                 : fmt::format("it exited with {}", (*exit)->code.value_or(-1)),
                             (*exit)->output);
            if (over())
                return ended(fmt::format("it has not ended within {} s", check.limit_s), "");
            FS_TRY(run.pause(kLookUs));
        }
    }
    const std::string handle = fmt::format("{}-{}", drill.recovery, number);
    ScriptRequest request;
    request.program = scripts_directory_ + "/" + check.program;
    request.arguments = check.arguments;
    request.environment = {{"FARSHORE_ITEM", drill.item_name},
                           {"FARSHORE_DRILL", std::to_string(drill.id)},
                           {"FARSHORE_POINT_TIME", to_rfc3339(drill.point_time)},
                           {"FARSHORE_SEQUENCE", std::to_string(drill.sequence.v)},
                           {"FARSHORE_SERIAL_LOG", access.doors.serial_log},
                           {"FARSHORE_NBD_SOCKET", access.nbd_socket},
                           {"FARSHORE_AGENT_SOCKET", access.doors.agent_socket},
                           {"FARSHORE_PORT", evidence.port ? std::to_string(*evidence.port) : ""}};
    if (const auto begun = scripts_.begin(handle, request); !begun)
        return ended(begun.error().what(), "");
    while (true) {
        const auto result = scripts_.look(handle);
        // Our own files may be out of reach just now; the script runs on.
        if (!result && (result.error().retry() == Retry::kNever || over()))
            return ended(over() ? fmt::format("it has not ended within {} s", check.limit_s)
                                : result.error().what(),
                         "");
        if (result && *result) {
            const ScriptResult& done = **result;
            return ended(!done.code ? fmt::format("it has not ended within {} s", check.limit_s)
                         : *done.code == 0 ? ""
                                           : fmt::format("it exited with {}", *done.code),
                         done.output);
        }
        // When that fails it is ended again.
        if (over()) (void)scripts_.end(handle);
        FS_TRY(run.pause(kLookUs));
    }
}

void DrillDesk::keep_evidence(const DrillRecord& drill, Evidence& evidence) {
    const auto kept = [&]() -> Status {
        FS_ASSIGN(const RecoveryAccess access, recovery_.recoveries().access(drill.recovery));
        FS_TRY(files_.make_directories(directory(drill.id)));
        const std::string screen =
            access.doors.serial_log.substr(0, access.doors.serial_log.rfind('/')) + "/screen.png";
        const Status shot = recovery_.recoveries().with_machine(
            drill.recovery, [&](RecoveryMachine& machine) { return machine.screenshot(screen); });
        if (shot) {
            FS_ASSIGN(const Bytes png, read_whole_file(files_, screen, kMaxScreenBytes));
            FS_TRY(write_file_durably(files_, directory(drill.id) + "/screen.png", png));
            evidence.screen = true;
        }
        const uint64_t size = file_size_or_zero(access.doors.serial_log);
        FS_ASSIGN(const Bytes said,
                  read_from(files_, access.doors.serial_log,
                            size - std::min<uint64_t>(size, kMaxSerialBytes), kMaxSerialBytes));
        FS_TRY(write_file_durably(files_, directory(drill.id) + "/serial.log", said));
        evidence.serial = true;
        return {};
    }();
    // The verdict counts without it.
    if (!kept)
        log::warn("vault", about(kept.error()), "what drill {} has seen is not kept: {}", drill.id,
                  kept.error().to_string());
}

}  // namespace farshore
