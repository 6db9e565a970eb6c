// A disk of a replica at a point as a read-only BlockDevice. Any thread; keeps the reader alive.
#pragma once

#include <memory>

#include "block/block_device.h"
#include "replica/replica_reader.h"

namespace farshore {

std::unique_ptr<BlockDevice> make_replica_device(std::shared_ptr<ReplicaDisk> disk);

}  // namespace farshore
