// farshore capture serve: the process that captures this machine's own disks. The agent starts it.
#include "base/error.h"
#include "capture/tap_config.h"
#include "cli/serve.h"
#include "cli/serve_common.h"
#include "ebpf/capture_server.h"
#include "os/log.h"
#include "os/process.h"
#include "os/real.h"

namespace farshore {
namespace {

Status serve(const CaptureServeOptions& options) {
    ShutdownSignals signals;
    FS_TRY(set_up_log(options.log_level));
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

}  // namespace

int run_capture(const CaptureServeOptions& options) { return exit_code_of(serve(options)); }

}  // namespace farshore
