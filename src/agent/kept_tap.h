// The tap of a protected machine: started by the item's worker, and kept running. The worker may
// wait for a QEMU that itself waits for the tap (one that drains its disks answers nobody), so
// another thread, the watcher, replaces a tap that hangs or has ended; it asks QEMU nothing.
//
// Threads: any. A call waits for one that starts a tap.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/seams.h"
#include "compute/nbd_server.h"

namespace farshore {

// A tap that ends is started again at once: a machine's mirror waits for it for a few seconds only.
// When so many starts in a row have come within kTapCalmUs of each other, the next ones are
// kTapPaceUs apart.
inline constexpr uint32_t kTapStartsAtOnce = 3;
inline constexpr int64_t kTapCalmUs = 5'000'000;
inline constexpr int64_t kTapPaceUs = 1'000'000;

class KeptTap {
  public:
    explicit KeptTap(Clock& clock) : clock_(clock) {}  // which outlives it

    // There is one, or was: it may have ended.
    bool has_one() const;
    bool alive() const;
    std::string socket_path() const;  // empty without one
    // One that was started in the place of another, by anybody.
    uint32_t restarts() const;

    // Takes one that runs already. False: none does.
    bool adopt(const std::string& run_directory, const std::string& socket_path);
    // Unless one runs, by then. What is left of another one is removed first. Errors: those of
    // NbdServer::start; kUnavailable when it has ended again and again, and it is too soon.
    Status start(const NbdServerOptions& options);
    // From here on replace() may start it, so.
    void keep(const NbdServerOptions& options);
    // It is another's from here on: nobody starts it again, and it goes on.
    void let_go();
    // SIGKILL, and let go.
    Status kill();

    bool kept() const;
    // One that is kept, and has ended, and may be started again.
    bool ended() const;
    // Which of those that there have been the newest one is.
    uint64_t number() const;
    // Ends it, if it has not, and starts another one; nothing when it is not kept, or is not the
    // one whose number() is `seen` any more. When that fails it is not kept any more: the next
    // start() is somebody's who can tell.
    Status replace(uint64_t seen);

  private:
    Status start_locked(const NbdServerOptions& options);
    bool too_soon() const;

    Clock& clock_;
    mutable std::mutex mutex_;
    std::optional<NbdServer> tap_;
    std::optional<NbdServerOptions> keep_;
    uint32_t restarts_ = 0;
    uint64_t number_ = 0;
    std::optional<int64_t> started_us_;  // the newest, by us
    uint32_t hasty_starts_ = 0;          // in a row
};

}  // namespace farshore
