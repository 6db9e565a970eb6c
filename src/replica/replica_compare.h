// A replica's side of a comparison with its source (record/compare.h).
#pragma once

#include "record/compare.h"
#include "replica/replica_reader.h"

namespace farshore {

// What the replica has there. A block that cannot be read any more (kCorrupt, kTruncated,
// kNotFound, kWrongKey) is told as unreadable, so that the source sends it again; other errors of
// the store are errors. A disk that the replica does not have, or of another size: everything
// differs.
Result<CompareAnswer> compare_replica(ReplicaReader& replica, const CompareQuestion& question);

}  // namespace farshore
