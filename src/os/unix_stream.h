// A client's end of a stream socket in the file system: monitors of other programs (QMP), and
// asking whether a server accepts at all.
//
// One thread may read while another writes; shutdown() from any thread. Times are milliseconds of
// the steady clock, at least 1. Errors: kNotFound (no such socket), kUnavailable (nobody
// listens), kTimeout (also: the queue of who listens is full), kConnectionLost.
#pragma once

#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/error.h"
#include "os/fd.h"

namespace farshore {

// Longest path that the kernel takes for a socket (sun_path without its end).
inline constexpr size_t kMaxUnixPathBytes = 107;

class UnixStream {
  public:
    // kInvalidArgument when the path is longer than kMaxUnixPathBytes.
    static Result<std::unique_ptr<UnixStream>> connect(const std::string& path, int timeout_ms);

    // At least one byte, or 0 at the peer's end of the stream.
    Result<size_t> read_some(MutableByteView out, int timeout_ms);
    // Waits without a limit; shutdown() ends it.
    Result<size_t> read_some(MutableByteView out);
    // All of it or an error. After an error the stream is useless.
    Status write_all(ByteView data, int timeout_ms);
    // Ends both directions and wakes a reader.
    void shutdown();
    // The process at the other end.
    Result<int> peer_pid() const;

  private:
    explicit UnixStream(UniqueFd fd) : fd_(std::move(fd)) {}
    Result<size_t> read_until(MutableByteView out, int64_t deadline_us);
    UniqueFd fd_;
};

// Whether a server accepts connections at `path` now.
bool unix_socket_accepts(const std::string& path);
// The process that made the socket at `path` and still listens. Errors as connect().
Result<int> unix_socket_server_pid(const std::string& path);

}  // namespace farshore
