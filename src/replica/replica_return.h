// A replica's side of a source that is written back (record/return_question.h): where the state
// after one sequence differs from that after a later one, by the log between them, and what the
// later one has there. Read from the store with the item's key alone.
//
// Memory: that of a ReplicaReader, and for each disk at most kMaxChangedPieces pieces. Whoever asks
// holds a lease on both sequences. One thread at a time.
#pragma once

#include <map>
#include <memory>
#include <optional>

#include "record/return_question.h"
#include "replica/replica_reader.h"

namespace farshore {

inline constexpr size_t kMaxChangedPieces = 2'000'000;
// A log of more segments than this between two states is not walked: comparing is less work.
inline constexpr size_t kMaxReturnSegments = 50'000;

class ReplicaReturn {
  public:
    // The state after `to`, a point; `end` is the newest segment that is registered. Errors of
    // ReplicaReader::open().
    static Result<std::unique_ptr<ReplicaReturn>> open(ObjectStore& store, const ItemId& item,
                                                       const Secret& item_key, Sequence to,
                                                       SegmentNumber end);
    ~ReplicaReturn();

    Sequence to() const;
    // kInvalidArgument: another `to`; kNotFound: no such disk. A range behind the disk's end reads
    // as zeroes.
    Result<ReturnAnswer> answer(const ReturnQuestion& question);

  private:
    struct Impl;
    explicit ReplicaReturn(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace farshore
