// Waiting for something that can only be asked for: other programs' sockets and states.
#pragma once

namespace farshore {

// Sleeps. For threads that may block, never on an executor.
void pause_ms(int milliseconds);

// Asks `done` every `step_ms` until it is true (true) or `timeout_ms` have passed (its last
// answer).
template <typename Done>
bool wait_until(int timeout_ms, int step_ms, Done done) {
    for (int waited_ms = 0; waited_ms < timeout_ms; waited_ms += step_ms) {
        if (done()) return true;
        pause_ms(step_ms);
    }
    return done();
}

}  // namespace farshore
