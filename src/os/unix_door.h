// A stream socket in the file system with one client at a time, for a loop that looks after the
// descriptors itself: nothing here waits.
//
// One thread.
#pragma once

#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/error.h"
#include "os/fd.h"

namespace farshore {

class UnixDoor {
  public:
    // For our own user alone. What is at `path` is removed before. kInvalidArgument when the path
    // is too long for a socket (kMaxUnixPathBytes).
    static Result<UnixDoor> make(const std::string& path);

    int listening_fd() const { return listener_.get(); }
    // -1: nobody is there.
    int client_fd() const { return client_.get(); }
    // Whoever knocked; while somebody is there, the next one is sent away. True: somebody came in.
    bool let_in();
    // What the client says: 0 bytes when it says nothing just now, none when it is gone.
    std::optional<size_t> hear(MutableByteView out);
    // What the client does not take at once is lost.
    void say(ByteView words);
    void send_away() { client_.reset(); }

  private:
    UniqueFd listener_, client_;
};

}  // namespace farshore
