// An NBD export as a BlockDevice, through libnbd. Read-only unless asked otherwise.
//
// Any thread; a call takes one of a few connections, made when needed and made anew after an error:
// a server that comes back is used again, without another try inside the call (kConnectionLost).
// Reads and writes need not be aligned to what the server wants for reads; writes must be.
#pragma once

#include <memory>
#include <string>

#include "block/block_device.h"

namespace farshore {

struct NbdDeviceOptions {
    std::string uri;            // nbd+unix:///export?socket=PATH, nbd://host/export, ...
    uint64_t expect_bytes = 0;  // when set, connecting waits for the first use
    bool writable = false;
    size_t connections = 4;
};

// Without expect_bytes: kConnectionLost when there is no server.
// Later, on use: kDiskChanged when the export is not expect_bytes long.
Result<std::unique_ptr<BlockDevice>> open_nbd_device(NbdDeviceOptions options);

}  // namespace farshore
