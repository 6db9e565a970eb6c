#include "vault/drill_leftovers.h"

#include "compute/nbd_server.h"
#include "compute/qemu_machine.h"
#include "os/log.h"
#include "vault/recovery_desk.h"

namespace farshore {

Status end_drill_machines(FileSystem& files, const std::string& recoveries_directory,
                          const std::string& run_directory) {
    const auto names = files.list(recoveries_directory);
    if (!names && names.error().code() == Code::kNotFound) return {};
    FS_TRY(names);
    Status all;
    for (std::string name : *names) {
        if (!name.ends_with('/') || !name.starts_with(kDrillRecoveryPrefix)) continue;
        name.pop_back();
        const std::string run = run_directory + "/" + name;
        FS_ASSIGN(const bool there, files.exists(run));
        if (!there) continue;
        // The machine first: it would wait for its disks.
        Status ended = QemuMachine::clean_up(run);
        if (ended) ended = NbdServer::clean_up(run);
        if (ended)
            log::info("vault", "the machine of {} ends: another vault node leads", name);
        else if (all)
            all = ended;
    }
    return all;
}

}  // namespace farshore
