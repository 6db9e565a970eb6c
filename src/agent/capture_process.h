// The process that captures this machine's own disks (`farshore capture serve`, see
// ebpf/capture_server.h), as NbdServer is for a tap that serves: a handle that leaves the process
// running when it goes, and finds it again.
//
// Files in the run directory, which the caller makes: tap.pid, tap.json (0600), tap.log, tap.ready.
// One thread at a time. Blocking.
#pragma once

#include <string>

#include "base/error.h"
#include "os/process.h"

namespace farshore {

class CaptureProcess {
  public:
    // Returns when it captures. The process's own error when it cannot; kTimeout.
    static Result<CaptureProcess> start(const std::string& run_directory,
                                        const std::string& config_json);
    // kNotFound when none runs there.
    static Result<CaptureProcess> adopt(const std::string& run_directory);
    // Ends whatever runs there and removes its files.
    static Status clean_up(const std::string& run_directory);

    bool alive() const { return process_.is_alive(); }
    const ProcessKey& process_key() const { return process_.key(); }

  private:
    explicit CaptureProcess(Process process) : process_(std::move(process)) {}
    Process process_;
};

}  // namespace farshore
