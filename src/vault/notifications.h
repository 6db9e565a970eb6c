// Tells people and programs of events: by webhooks and by mail. One thread of its own; what is to
// be told, and how far each was told, is in the database, so a vault that was restarted goes on
// where it was, and tells an event twice rather than never.
//
// A notifier that fails is tried again after 10 s, then after twice as long each time, up to 10
// min, and keeps nobody else waiting longer than its own time-out. What happens meanwhile goes with
// the next message: at most one each 5 s by webhook, one a minute by mail.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "meta/notifiers.h"
#include "vault/vault.h"

namespace farshore {

struct AddNotifierRequest {
    std::string name, kind, target;
    // JSON, for its owner's eyes only. Webhook: {"secret", "ca_file"?}; mail: {"server", "from",
    // "user"?, "password"?, "ca_file"?, "plain"?}.
    std::string settings_file;
    std::string least = "warning";
};

class Notifications {
  public:
    // `vault`, `files`, `clock` and `random` outlive it. `tick_interval_us` 0: only by tick().
    Notifications(Vault& vault, FileSystem& files, Clock& clock, Random& random,
                  int64_t tick_interval_us);
    ~Notifications();

    // Looks whether its settings can be read. kInvalidArgument, kAlreadyExists, kForbidden (others
    // may read the settings), kMalformed, kNotFound.
    Result<NotifierRecord> add(const AddNotifierRequest& request);
    Result<std::vector<NotifierRecord>> list();
    Status remove(const std::string& name);
    // Sends it a message that says that it is one to try it; errors of the sending.
    Status test(const std::string& name);
    // One round: whoever is due is told.
    void tick();

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace farshore
