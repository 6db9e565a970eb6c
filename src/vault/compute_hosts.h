// The libvirt hosts of the vault's settings, as src/compute runs machines on them.
//
// Borrows the vault. Any thread may call; blocking.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "compute/libvirt_compute.h"

namespace farshore {

class Vault;

class ComputeHosts {
  public:
    // `scope`: the vault's own, as LibvirtOptions.
    // `run_root`: where the machines' run directories are.
    ComputeHosts(Vault& vault, std::string scope, std::string run_root);

    // The host of that name, as it is set now; connections are kept. kNotFound; errors of the
    // database.
    Result<std::shared_ptr<LibvirtCompute>> named(const std::string& name);

  private:
    struct Known {
        std::string document;
        std::shared_ptr<LibvirtCompute> compute;
    };
    Vault& vault_;
    const std::string scope_, run_root_;
    std::mutex mutex_;
    std::map<std::string, Known> known_;  // guarded by mutex_
};

}  // namespace farshore
