// What cloud-init inside a guest is told by a disk beside the machine's own: the NoCloud data
// source (https://docs.cloud-init.io/en/22.4/topics/datasources/nocloud.html), network
// configuration version 2. docs/design/recovery.md says why it is as it is.
//
// Any thread. Making the image is blocking.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "compute/guest_address.h"
#include "compute/machine_description.h"

namespace farshore {

struct SeedCard {
    std::string mac;
    GuestAddress address;
    friend bool operator==(const SeedCard&, const SeedCard&) = default;
};

struct SeedFiles {
    std::string meta_data, network_config, user_data;
};
inline constexpr size_t kMaxSeedFileBytes = 64u << 10;  // each; 32 cards have about 8 KiB

// The same for the same cards, in every byte. kInvalidArgument: a MAC or IP address is none, or
// there is no card.
Result<SeedFiles> seed_files(const std::vector<SeedCard>& cards);

// kDependencyMissing: what makes images is not installed.
Status check_seed_maker();

// An ISO 9660 image of the volume CIDATA with those files; replaces what is there, durably. Files
// whose names begin with `work` and a dot are made for it, and removed. kTooLarge, kUnavailable
// with the program's words, kDependencyMissing.
Status make_seed_image(const SeedFiles& files, const std::string& path, const std::string& work);

// The disk as which the machine has the image: on the bus of its last one, whose driver the guest
// has, and behind it, so that no other disk gets another name. kLimitReached: there is no index
// left.
Result<MachineDisk> seed_disk(const MachineDescription& machine);

}  // namespace farshore
