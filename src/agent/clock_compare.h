// How far this host's clock is from the vault's, from the agent's control conversation: a request
// goes out at one time, the answer, which says what time it was there, comes back at another. The
// error is at most half of the time in between, so the quickest round of the last while counts.
//
// Times of rounds are taken by the steady clock: a jump of this host's clock shows at once, one of
// the vault's with the first round that contradicts. One thread at a time.
#pragma once

#include <optional>

#include "base/types.h"

namespace farshore {

class ClockCompare {
  public:
    static constexpr int64_t kRoundLifeUs = 60'000'000;

    void sent(int64_t steady_us) { sent_us_ = steady_us; }
    // `vault`: its time when it answered.
    void answered(int64_t steady_us, TimePoint vault) {
        if (!sent_us_) return;
        const int64_t round_us = steady_us - *sent_us_;
        const Round round{vault.us - (*sent_us_ + round_us / 2), round_us / 2, steady_us};
        sent_us_.reset();
        const bool contradicts =
            best_ && (round.ahead_us > best_->ahead_us ? round.ahead_us - best_->ahead_us
                                                       : best_->ahead_us - round.ahead_us) >
                         round.error_us + best_->error_us + 1'000;
        if (!best_ || contradicts || round.error_us <= best_->error_us ||
            steady_us - best_->at_us > kRoundLifeUs)
            best_ = round;
    }
    // This host's clock minus the vault's; nothing before the first round.
    std::optional<int64_t> ahead_us(TimePoint now, int64_t steady_us) const {
        if (!best_) return std::nullopt;
        return now.us - (best_->ahead_us + steady_us);
    }

  private:
    struct Round {
        int64_t ahead_us = 0;  // the vault's clock minus our steady one
        int64_t error_us = 0;
        int64_t at_us = 0;
    };
    std::optional<int64_t> sent_us_;
    std::optional<Round> best_;
};

}  // namespace farshore
