// A disk of a running QEMU that becomes a file: a mirror job into a node of its own, which takes
// the place of the disk's NBD node at its end. docs/design/recovery.md, "Files of its own".
//
// All state is QEMU's: whoever asks after a restart finds it. Blocking; one thread at a time.
// Source: QEMU 7.2, qapi/block-core.json and qapi/job.json.
#pragma once

#include <functional>

#include "compute/recovery_machine.h"

namespace farshore {

class QmpClient;

class QemuDiskCopy {
  public:
    // `qmp`: of a machine that qemu_arguments() started. Both are borrowed.
    QemuDiskCopy(QmpClient& qmp, const DiskCopyOrder& order) : qmp_(qmp), order_(order) {}

    // As RecoveryMachine's.
    Status begin();
    Result<CopyState> state();
    Result<int64_t> switch_over(const std::function<Status()>& note, int timeout_ms);
    Status end();

  private:
    Result<bool> is_switched();
    Status make_file();

    QmpClient& qmp_;
    const DiskCopyOrder& order_;
};

}  // namespace farshore
