// A configuration file as words of the command line: each key becomes the option of its name.
//
// For .cc files of this folder only: it pulls in CLI11.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace farshore {

// Options that are about this run, and so never a key.
inline constexpr std::string_view kNoConfigKeys[] = {"help", "config", "check"};

// The options of `app` that a file may set, by the names of their keys, in the order of the help.
std::vector<const CLI::Option*> config_options(const CLI::App& app);

// `given`: the words behind the verb. Returns the words to put behind them: what `text` sets, each
// as one "--key=value". What the command line names itself, or excludes, is left out; an empty text
// is as if the key were not there. Every value is checked by its option, also those left out:
// kInvalidArgument for an unknown key, a wrong type and a value that the option refuses, and the
// errors of parse_config(); all begin with FILE:LINE:COLUMN. `app` serves for the checks: its
// options hold no results afterwards.
Result<std::vector<std::string>> config_arguments(CLI::App& app, std::string_view text,
                                                  const std::string& file,
                                                  const std::vector<std::string>& given);

}  // namespace farshore
