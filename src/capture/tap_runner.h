// The threads of a tap: housekeeping (Tap::tick), copying (Copier::step), and the commands that
// writes wait for (Tap::serve_gate), woken by what there is to do. Used by the process that serves
// a machine's disks and by the one that traces them.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "capture/tap.h"

namespace farshore {

class TapRunner {
  public:
    // Borrows the tap, which outlives it. `on_quit` is called once, from the housekeeping thread,
    // when the agent asks for the end. The destructor ends all threads.
    TapRunner(Tap& tap, std::function<void()> on_quit);
    ~TapRunner();

  private:
    void keep_house();
    void copy();
    void serve_gate();
    bool stopped();

    Tap& tap_;
    const std::function<void()> on_quit_;
    std::mutex mutex_;
    std::condition_variable work_;
    uint64_t news_ = 0;
    bool stopping_ = false;
    std::thread housekeeping_;
    std::thread copying_;
    std::thread gate_;
};

// Held as long as the process lives, however it ends: one tap for a capture log. Waits a little for
// one before that may be dying.
class InstanceLock;
Result<InstanceLock> lock_tap(const std::string& shared_memory_path);

}  // namespace farshore
