// What a provider charges, from a TOML file that whoever plans fills in:
//
//     currency = "EUR"
//     storage-gb-month = "0.0000"
//     put-1000 = "0.0000"
//
// Pure; any thread. docs/operations/planner.md, packaging/config/prices.toml.
#pragma once

#include <string>
#include <string_view>

#include "plan/plan.h"

namespace farshore {

// What is not there is 0. The errors of parse_config(), and kInvalidArgument for a key that is no
// price and a value that is no number from 0 to 10^9; all begin with FILE:LINE:COLUMN.
Result<PlanPrices> parse_prices(std::string_view text, const std::string& file);

}  // namespace farshore
