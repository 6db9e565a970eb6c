#include "os/waiting.h"

#include <chrono>
#include <thread>

namespace farshore {

void pause_ms(int milliseconds) {
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
}

}  // namespace farshore
