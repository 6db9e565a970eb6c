// `farshore store check`: whether a store is fit for use, before a vault is set up on it or while
// one uses it.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "cli/environment.h"

namespace farshore {

struct StoreCheckArguments {
    std::string location;
    std::string settings;  // file; empty: none
};

// What is printed with --json. Errors of opening the store.
Result<nlohmann::json> store_check_document(const StoreCheckArguments& arguments);

// A line a finding or, with `json`, one document. 0 when it is fit, else that of kUnsupported, or
// of the error that kept it from being opened.
int run_store_check(CliEnvironment& environment, const StoreCheckArguments& arguments, bool json);

}  // namespace farshore
