#include "agent/kept_tap.h"

#include <utility>

namespace farshore {

bool KeptTap::has_one() const {
    const std::lock_guard lock(mutex_);
    return tap_.has_value();
}

bool KeptTap::alive() const {
    const std::lock_guard lock(mutex_);
    return tap_ && tap_->alive();
}

std::string KeptTap::socket_path() const {
    const std::lock_guard lock(mutex_);
    return tap_ ? tap_->socket_path() : std::string();
}

uint32_t KeptTap::restarts() const {
    const std::lock_guard lock(mutex_);
    return restarts_;
}

bool KeptTap::adopt(const std::string& run_directory, const std::string& socket_path) {
    const std::lock_guard lock(mutex_);
    auto running = NbdServer::adopt(run_directory, socket_path);
    if (!running || !running->alive()) return false;
    tap_ = std::move(*running);
    ++number_;
    return true;
}

Status KeptTap::start(const NbdServerOptions& options) {
    const std::lock_guard lock(mutex_);
    // The watcher was faster. Ending that one would end the mirror that has come back to it.
    if (tap_ && tap_->alive()) return {};
    if (tap_ && too_soon())
        return fail(Code::kUnavailable, "the tap ends again and again",
                    "see " + tap_->log_path() + "; it is started again every second");
    return start_locked(options);
}

Status KeptTap::start_locked(const NbdServerOptions& options) {
    FS_TRY(NbdServer::clean_up(options.run_directory, options.socket_path));
    FS_ASSIGN(NbdServer started, NbdServer::start(options));
    const int64_t now_us = clock_.steady_us();
    const bool hasty = started_us_ && now_us - *started_us_ < kTapCalmUs;
    hasty_starts_ = hasty ? hasty_starts_ + 1 : 0;
    started_us_ = now_us;
    ++number_;
    if (std::exchange(tap_, std::move(started)).has_value()) ++restarts_;
    return {};
}

void KeptTap::keep(const NbdServerOptions& options) {
    const std::lock_guard lock(mutex_);
    keep_ = options;
}

void KeptTap::let_go() {
    const std::lock_guard lock(mutex_);
    tap_.reset();
    keep_.reset();
}

Status KeptTap::kill() {
    const std::lock_guard lock(mutex_);
    keep_.reset();
    if (!tap_) return {};
    FS_TRY(tap_->kill());
    tap_.reset();
    return {};
}

bool KeptTap::kept() const {
    const std::lock_guard lock(mutex_);
    return keep_ && tap_;
}

bool KeptTap::ended() const {
    const std::lock_guard lock(mutex_);
    return keep_ && tap_ && !tap_->alive() && !too_soon();
}

bool KeptTap::too_soon() const {
    return hasty_starts_ >= kTapStartsAtOnce && clock_.steady_us() - *started_us_ < kTapPaceUs;
}

uint64_t KeptTap::number() const {
    const std::lock_guard lock(mutex_);
    return number_;
}

Status KeptTap::replace(uint64_t seen) {
    const std::lock_guard lock(mutex_);
    if (!keep_ || !tap_ || number_ != seen) return {};
    const NbdServerOptions options = *std::exchange(keep_, std::nullopt);
    FS_TRY(tap_->kill());
    FS_TRY(start_locked(options));
    keep_ = options;
    return {};
}

}  // namespace farshore
