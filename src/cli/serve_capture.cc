// farshore capture serve: the process that captures this machine's own disks. The agent starts it.
#include <unistd.h>

#include <functional>

#include "agent/capture_process.h"
#include "base/error.h"
#include "capture/tap_config.h"
#include "cli/serve.h"
#include "cli/serve_common.h"
#include "compute/guest_freezer.h"
#include "ebpf/block_trace.h"
#include "ebpf/capture_server.h"
#include "ebpf/clean_stop.h"
#include "ebpf/freezer.h"
#include "os/log.h"
#include "os/process.h"
#include "os/real.h"

namespace farshore {
namespace {

Status serve(const CaptureServeOptions& options) {
    ShutdownSignals signals;
    FS_TRY(set_up_server(options.log));
    PosixFileSystem files;
    FS_ASSIGN(const Bytes text, read_whole_file(files, options.config_file));
    FS_ASSIGN(TapConfig config, decode_tap_config(as_text(text)));
    if (config.mode != ServeMode::kBlock)
        return fail(Code::kInvalidArgument, "this configuration is for the nbdkit plugin");
    FS_ASSIGN(auto server, CaptureServer::start(std::move(config), [&] { signals.request(); }));
    if (!options.ready_file.empty()) {
        FS_ASSIGN(auto ready, files.open(options.ready_file, OpenMode::kCreate));
        FS_TRY(ready->truncate(0));
    }
    const int signal = signals.wait();
    log::info("capture", "signal {}: the trace goes on in the kernel", signal);
    return {};
}

// What is pinned, and the processes that read it: for the removal of an agent.
Status stop_all(const CaptureServeOptions& options) {
    PosixFileSystem files;
    auto names = files.list(kBpfDirectory);
    if (!names) return {};
    for (std::string name : *names) {
        if (name.ends_with('/')) name.pop_back();
        if (!name.starts_with(kPinPrefix)) continue;
        FS_TRY(CaptureProcess::clean_up(options.agent_data + "/taps/" +
                                        name.substr(std::string_view(kPinPrefix).size())));
        FS_TRY(BlockTrace::remove(std::string(kBpfDirectory) + "/" + name));
    }
    return {};
}

int logged(const CaptureServeOptions& options, const std::function<Status()>& program) {
    if (auto ready = set_up_server(options.log); !ready) return exit_code_of(ready);
    return exit_code_of(program());
}

}  // namespace

int run_capture_early(const CaptureServeOptions& options) {
    return logged(options, [&] { return capture_early(options.early_file); });
}
int run_capture_save(const CaptureServeOptions& options) {
    return logged(options, [&] { return capture_save(options.early_file); });
}
int run_capture_stop(const CaptureServeOptions& options) {
    return logged(options, [&] { return stop_all(options); });
}

int run_capture_freeze(const FreezeOptions& options, const std::string& guest_agent) {
    // Whoever wants it to end closes its standard input; a signal would leave something frozen.
    const ShutdownSignals ignored;
    if (guest_agent.empty() == options.mounts.empty())
        return exit_code_of(fail(Code::kInvalidArgument, "either mounts or a guest agent"));
    if (guest_agent.empty())
        return exit_code_of(freeze_until_told(options, STDIN_FILENO, STDOUT_FILENO));
    return exit_code_of(freeze_guest_until_told(
        {guest_agent, options.timeout_ms, options.thaw_only}, STDIN_FILENO, STDOUT_FILENO));
}

int run_capture(const CaptureServeOptions& options) { return exit_code_of(serve(options)); }

}  // namespace farshore
