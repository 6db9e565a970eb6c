// Whether something takes connections at a port of this host.
#pragma once

#include <cstdint>

#include "os/fd.h"

namespace farshore {

// One connection to 127.0.0.1, closed with the object. Nothing is sent.
class TcpProbe {
  public:
    TcpProbe(uint16_t port, int timeout_ms);
    bool connected() const { return static_cast<bool>(fd_); }
    // Whether the other end has not closed it within that time, or has said something.
    bool stays_open(int timeout_ms) const;

  private:
    UniqueFd fd_;
};

}  // namespace farshore
