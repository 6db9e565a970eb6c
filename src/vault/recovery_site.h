// The vault's own agent and appliance: they capture machines that run at the recovery site, as any
// other agent captures its own, so that these have recovery points and a way home
// (docs/design/return.md). In the vault's process; they speak to each other over TLS on the
// loopback address alone. They run from the first reprotection on, and at each start of the vault
// while an item needs them.
//
// Any thread may call. Borrows all that it is given. Taps outlive it.
#pragma once

#include <memory>
#include <mutex>

#include "recovery/failover.h"
#include "vault/vault.h"

namespace farshore {

class RecoverySite {
  public:
    RecoverySite(Vault& vault, Recoveries& recoveries);
    ~RecoverySite();

    // They run when it returns ok.
    Status ensure();
    // The same if there is an item that needs them.
    Status resume();
    // No tap of ours has anything to do with the item any more.
    bool has_let_go(const ItemId& item);

  private:
    struct Running;
    Vault& vault_;
    Recoveries& recoveries_;
    std::mutex mutex_;
    std::unique_ptr<Running> running_;  // guarded by mutex_
};

}  // namespace farshore
