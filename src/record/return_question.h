// What the re-protection of a source asks of its recovery site, from the agent to the appliance
// (docs/design/return.md): where two states of the replica differ, and what the later one has
// there.
#pragma once

#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/types.h"

namespace farshore {

// Of a disk. Ranges are in order, do not overlap, and lie on it.
struct ReturnRange {
    uint64_t offset_bytes = 0;
    uint64_t length_bytes = 0;
    bool operator==(const ReturnRange&) const = default;
};

inline constexpr size_t kMaxReturnRanges = 1024;       // in one question or answer
inline constexpr uint64_t kMaxReturnBytes = 1u << 20;  // of data in one answer
inline constexpr uint64_t kReturnBlockBytes = 4096;    // what is told to differ is cut to these

enum class ReturnKind : uint8_t {
    kChanged = 1,  // where the states after `from` and after `to` differ, at `offset` or behind it
    kData = 2,     // the bytes of `ranges`, as they are after `to`
};

struct ReturnQuestion {
    ReturnKind kind = ReturnKind::kChanged;
    Sequence from, to;
    DiskIndex disk = 0;
    uint64_t offset_bytes = 0;
    std::vector<ReturnRange> ranges;
};

enum class ReturnVerdict : uint8_t {
    kOk = 1,
    kUnknown = 2,  // of kChanged: it is too long ago; compare
};

struct ReturnAnswer {
    ReturnVerdict verdict = ReturnVerdict::kOk;
    std::vector<ReturnRange> ranges;  // of kChanged
    uint64_t next_offset_bytes = 0;   // where to ask on; 0: that was all
    Bytes data;                       // of kData: of all ranges, one behind the other
};

// kMalformed: ranges that are none, too many, too long, out of order; kinds that there are not.
Status check_question(const ReturnQuestion& question);
Status check_answer(const ReturnAnswer& answer);

}  // namespace farshore
