// What waits of a streamed answer between whoever sends it and its connection. Private to src/os.
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <utility>

#include "os/http.h"

namespace farshore {

class QueuedStream final : public HttpStream {
  public:
    // `wake` has the connection's thread take() what there is, soon; it may be called by any
    // thread.
    QueuedStream(size_t limit_bytes, std::function<void()> wake)
        : limit_bytes_(limit_bytes), wake_(std::move(wake)) {}

    bool send(std::string bytes) override {
        {
            const std::lock_guard hold(mutex_);
            if (ended_ || ending_) return false;
            if (waiting_bytes_ + bytes.size() > limit_bytes_) {
                ended_ = true;
            } else {
                waiting_bytes_ += bytes.size();
                queued_ += bytes;
            }
        }
        wake_();
        return !ended();
    }
    size_t waiting_bytes() const override {
        const std::lock_guard hold(mutex_);
        return waiting_bytes_;
    }
    void end() override {
        {
            const std::lock_guard hold(mutex_);
            ending_ = true;
        }
        wake_();
    }

    // For the connection: what is to be written now; `is_last`: then the end.
    std::string take(bool& is_last) {
        const std::lock_guard hold(mutex_);
        is_last = ending_;
        return std::exchange(queued_, {});
    }
    void written(size_t bytes) {
        const std::lock_guard hold(mutex_);
        waiting_bytes_ -= bytes;
    }
    // The connection is gone, or its reader too slow.
    void close() {
        const std::lock_guard hold(mutex_);
        ended_ = true;
    }
    bool ended() const {
        const std::lock_guard hold(mutex_);
        return ended_;
    }

  private:
    const size_t limit_bytes_;
    const std::function<void()> wake_;
    mutable std::mutex mutex_;
    std::string queued_;
    size_t waiting_bytes_ = 0;  // queued, and being written
    bool ending_ = false, ended_ = false;
};

}  // namespace farshore
