// Memory that two processes share through a file on a tmpfs, and that outlives both of them, not
// the host. And the futex to wait in it.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/error.h"
#include "base/types.h"
#include "os/fd.h"

namespace farshore {

// A part of the file that is mapped a second time, twice in a row, so that whatever wraps at its
// end can be read and written as one piece. Both in whole pages (4096 bytes); 0 bytes: none.
struct SharedRing {
    uint64_t offset_bytes = 0;
    uint64_t length_bytes = 0;
};

// A mapped file, readable and writable. Movable, one owner; unmaps itself. Any thread may call the
// const functions; the content is for the users to order with atomics.
// Whoever shrinks the file under a mapping makes its users die of SIGBUS: nobody does.
class SharedMemory {
  public:
    SharedMemory() = default;
    SharedMemory(SharedMemory&& other) noexcept;
    SharedMemory& operator=(SharedMemory&& other) noexcept;
    ~SharedMemory();

    // Makes the file (mode 0600, all zero) and maps it. All of its memory is set aside at once, so
    // that a full tmpfs is kNoSpace here and not SIGBUS later. kAlreadyExists when it is there.
    static Result<SharedMemory> create(const std::string& path, uint64_t size_bytes,
                                       SharedRing ring = {});
    // Maps all of a file made before. kNotFound; kForbidden when somebody else owns it; kMalformed
    // when the ring does not lie within it.
    static Result<SharedMemory> open(const std::string& path, SharedRing ring = {});

    // Maps another ring (after its place was read from the header). data() stays where it is.
    Status map_ring(SharedRing ring);

    uint8_t* data() const { return data_; }
    uint64_t size_bytes() const { return size_bytes_; }
    // ring()[i] and ring()[i + length] are the same byte, for i in [0, length).
    uint8_t* ring() const { return ring_; }
    uint64_t ring_bytes() const { return ring_bytes_; }
    const std::string& path() const { return path_; }

  private:
    void unmap();
    void unmap_ring();

    UniqueFd fd_;
    std::string path_;
    uint8_t* data_ = nullptr;
    uint64_t size_bytes_ = 0;
    uint8_t* ring_ = nullptr;
    uint64_t ring_bytes_ = 0;
};

// Changes with every start of the host: tells memory of before a crash from that of now.
using BootId = Id<struct BootIdTag>;
Result<BootId> host_boot_id();

// Sleeps while `word` is `expected`, at most `timeout_us` (negative: for ever). False: timed out.
// True: woken, changed, or nothing at all: look again. Works between processes.
bool futex_wait(const std::atomic<uint32_t>& word, uint32_t expected, int64_t timeout_us);
// Wakes up to `count` sleepers; returns how many.
int futex_wake(std::atomic<uint32_t>& word, int count = 0x7fffffff);

}  // namespace farshore
