// The process that captures a machine's own disks: the kernel's trace (block_trace.h) goes into the
// capture log (block_capture.h), beside a tap's housekeeping and copying. Started by the agent,
// which it outlives, as a tap does; killed at any moment, the trace goes on in the kernel and the
// next process takes it over.
#pragma once

#include <functional>
#include <memory>

#include "capture/tap_config.h"

namespace farshore {

class CaptureServer {
  public:
    // `config` is of ServeMode::kBlock. kDuplicateIdentity when another process has the log;
    // kForbidden, kUnsupported (rights, kernel); kDiskChanged.
    static Result<std::unique_ptr<CaptureServer>> start(TapConfig config,
                                                        std::function<void()> on_quit);
    ~CaptureServer();

  private:
    struct Impl;
    explicit CaptureServer(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace farshore
