// The seams: everything outside a process stands behind one of these interfaces. src/os has the
// real ones, src/sim the simulated ones; no other folder touches clocks, random numbers, files,
// sockets or processes of the system.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/types.h"

namespace farshore {

// Any thread may call.
class Clock {
  public:
    virtual ~Clock() = default;
    // Wall clock; may step in either direction.
    virtual TimePoint now() const = 0;
    // Microseconds since an arbitrary start; never steps back. For durations and time-outs.
    virtual int64_t steady_us() const = 0;
};

// Any thread may call.
class Random {
  public:
    virtual ~Random() = default;
    // Cryptographically strong in production, seeded in the simulator.
    virtual void fill(MutableByteView out) = 0;
    uint64_t next_u64() {
        uint8_t raw[8];
        fill(raw);
        return load_u64(raw);
    }
    // Uniform in [0, bound); bound > 0.
    uint64_t below(uint64_t bound) { return next_u64() % bound; }
};

using Task = std::function<void()>;

// Runs tasks one after the other, in the order posted. An object that lives on one executor needs
// no lock. Any thread may post. Tasks that have not run when the executor ends are dropped.
class Executor {
  public:
    using TimerId = uint64_t;
    virtual ~Executor() = default;
    virtual void post(Task task) = 0;
    // Runs `task` after `delay_us` of the steady clock.
    virtual TimerId post_after_us(int64_t delay_us, Task task) = 0;
    // A timer that has fired or is unknown is ignored. From the executor's own tasks it is exact:
    // the task will not run afterwards.
    virtual void cancel(TimerId timer) = 0;
};

enum class OpenMode : uint8_t {
    kRead,       // must exist
    kReadWrite,  // must exist
    kCreate,     // read-write, made when missing
    kCreateNew,  // read-write, kAlreadyExists when there
};

// An open file. One thread at a time, except that read_at may run beside others.
class File {
  public:
    virtual ~File() = default;
    // Reads up to out.size() bytes; fewer only at the end of the file.
    virtual Result<size_t> read_at(uint64_t offset_bytes, MutableByteView out) = 0;
    // All of it or an error; after an error any part may have been written.
    virtual Status write_at(uint64_t offset_bytes, ByteView data) = 0;
    // Data and size are on stable storage when this returns (fdatasync). After an error the state
    // of unsynced data is unknown: the caller must not retry the sync and trust it.
    virtual Status sync() = 0;
    virtual Status truncate(uint64_t size_bytes) = 0;
    virtual Result<uint64_t> size() = 0;
    // Frees the range; it reads as zeroes. kUnsupported where the file system cannot.
    virtual Status punch_hole(uint64_t offset_bytes, uint64_t length_bytes) = 0;
};

// Paths are absolute or relative to the process; '/' separates. Any thread may call.
class FileSystem {
  public:
    virtual ~FileSystem() = default;
    virtual Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) = 0;
    // For a file that is written from front to end and hardly ever read, as logs and objects are:
    // the same contract, but its bytes need not pass through the page cache, and what was not
    // synced is lost when the file is closed.
    virtual Result<std::unique_ptr<File>> open_stream(const std::string& path, OpenMode mode) {
        return open(path, mode);
    }
    virtual Status remove(const std::string& path) = 0;
    // Atomic within a file system; replaces `to`. Durable only after sync_directory.
    virtual Status rename(const std::string& from, const std::string& to) = 0;
    // Hard link; kAlreadyExists when `to` is there. The write-once primitive.
    virtual Status link(const std::string& from, const std::string& to) = 0;
    // What it makes is durable when it returns, up to the first directory that was there.
    virtual Status make_directories(const std::string& path) = 0;
    // Directory entries made, renamed or removed before this are durable when it returns.
    virtual Status sync_directory(const std::string& path) = 0;
    // Names (not paths) in a directory, sorted; directories end in '/'. kNotFound when missing.
    virtual Result<std::vector<std::string>> list(const std::string& path) = 0;
    virtual Result<bool> exists(const std::string& path) = 0;
    virtual Result<uint64_t> free_bytes(const std::string& path) = 0;
};

// A connection that carries whole frames, in order, at most kMaxFrameBytes each. Lives on the
// executor that it was made for: all calls and all callbacks happen there. Callbacks never run
// inside a call.
inline constexpr size_t kMaxFrameBytes = 4u << 20;

class Connection {
  public:
    struct Handlers {
        std::function<void(ByteView frame)> on_frame;  // the view ends with the call
        std::function<void(Error)> on_closed;          // last callback, once
        std::function<void()> on_drained;              // queued bytes fell under the low mark
    };
    virtual ~Connection() = default;  // closes without callbacks
    virtual void start(Handlers handlers) = 0;
    // Queues a frame. The caller bounds what it queues by queued_bytes().
    virtual void send(Bytes frame) = 0;
    virtual size_t queued_bytes() const = 0;
    virtual void close() = 0;
    // Who the peer proved to be: the common name of its certificate.
    virtual const std::string& peer_name() const = 0;
};

class Dialer {
  public:
    virtual ~Dialer() = default;
    // Calls back once on `executor`. The address is "host:port".
    virtual void dial(Executor& executor, const std::string& address,
                      std::function<void(Result<std::unique_ptr<Connection>>)> done) = 0;
};

}  // namespace farshore
