// `farshore extract`: a disk at a point, out of a store and its key alone.
#pragma once

#include <cstdint>
#include <string>

#include "cli/environment.h"

namespace farshore {

struct ExtractArguments {
    std::string store;
    std::string store_settings;
    std::string key_file;  // or an escrow; or
    std::string key_source;
    std::string passphrase_file, private_key_file;
    std::string item;
    std::string point = "latest";
    uint64_t disk = 0;
    std::string out;
    bool force = false;
};

int run_extract(CliEnvironment& environment, const ExtractArguments& arguments, bool json);

}  // namespace farshore
