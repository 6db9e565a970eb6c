// Asks an NBD server to have all of a disk at hand (NBD_CMD_CACHE), with many requests under way: a
// server of ours whose disk is an overlay copies what it has not into it.
//
// One thread at a time. Requests whose answers nobody waits for any more end with the object.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"

namespace farshore {

class NbdFiller {
  public:
    // `uri`: nbd+unix:///export?socket=PATH. kConnectionLost, kUnsupported (it takes no such
    // request).
    static Result<std::unique_ptr<NbdFiller>> connect(const std::string& uri);
    virtual ~NbdFiller() = default;

    virtual uint64_t size_bytes() const = 0;
    // Begins one; `length_bytes` 1 to 1 GiB, within the disk.
    virtual Status ask(uint64_t offset_bytes, uint32_t length_bytes) = 0;
    // Asks which of it is zero and need not be copied: zero_ranges(), once that is answered.
    virtual Status ask_zero_ranges(uint64_t offset_bytes, uint64_t length_bytes) = 0;
    // In order. A server need not say all.
    struct Range {
        uint64_t offset_bytes = 0;
        uint64_t length_bytes = 0;
    };
    virtual std::vector<Range> zero_ranges() = 0;
    // What is there by now is on stable storage when nothing is under way any more.
    virtual Status ask_flush() = 0;
    virtual size_t under_way() const = 0;
    // Waits until an answer has come, or so long. The first error that any request was answered
    // with: kNoSpace, kIo, kConnectionLost.
    virtual Status wait(int timeout_ms) = 0;
};

}  // namespace farshore
