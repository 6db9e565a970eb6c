// What values of options must be, so that the command line and a configuration refuse the same ones
// in the same words. For .cc files of this folder only: it pulls in CLI11.
#pragma once

#include <CLI/CLI.hpp>

namespace farshore {

CLI::Validator log_level_check();
CLI::Validator log_format_check();
CLI::Validator metrics_address_check();
CLI::Validator bandwidth_check();       // base/bandwidth_limit.h
CLI::Validator time_zone_check();       // of the IANA's list
CLI::Validator address_check();         // host:port, [v6]:port
CLI::Validator addresses_check();       // one or several, with commas between
CLI::Validator vault_url_check();       // https://host:port
CLI::Validator store_location_check();  // store/store_settings.h

}  // namespace farshore
