// A page blob as a disk's image: a fixed VHD, whole MiB long, as Azure takes it for a managed disk.
//
// It is written under its own name, since blobs cannot be renamed; the footer comes last, so that
// nothing takes half of one for a disk.
#pragma once

#include <memory>

#include "vault/disk_image.h"

namespace farshore {

// As DiskImage's functions of the same names; `options.target` is an Azure page blob. Errors of the
// service (store/azure_client.h) come through.
Status check_azure_image(const DiskImageOptions& options);
Result<std::unique_ptr<DiskImage>> open_azure_image(const DiskImageOptions& options, bool resume);
Status discard_azure_image(const DiskImageOptions& options);

}  // namespace farshore
