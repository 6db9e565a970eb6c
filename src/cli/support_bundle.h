// `farshore support-bundle`: what somebody who helps needs to know, in one file without secrets.
//
// Gathers from the vault's API, from the configuration and the journal of this machine, and from
// the parts' metrics; each piece on its own, so that what cannot be had (the vault is down, there
// is no journal) is named in the member MISSING and the rest is there all the same.
#pragma once

#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/error.h"
#include "cli/client_verbs.h"
#include "cli/environment.h"

namespace farshore {

// Newest rows of events, jobs and the audit; all else is whole.
inline constexpr uint64_t kBundleRows = 1000;
inline constexpr uint64_t kBundleLogLines = 20'000;  // of each unit

struct SupportBundle {
    std::map<std::string, std::string> members;          // path in the archive: its bytes
    std::vector<std::pair<std::string, Error>> missing;  // member, and why it is not there

    // The text of MISSING: a line each. Empty: nothing is.
    std::string missing_text() const;
};

// What is asked of the vault.
struct BundleApi {
    std::function<Result<nlohmann::json>(const std::string& target)> get;
    // All pages of a list, up to `limit` rows.
    std::function<Result<nlohmann::json>(const std::string& target, const char* member,
                                         const char* cursor, uint64_t limit)>
        list;
    std::function<Result<std::string>(const std::string& target)> text;
};

// One thread; blocks as long as its parts do (a vault that is away is asked once).
SupportBundle gather_bundle(CliEnvironment& environment, const BundleApi& api,
                            const SupportBundleArguments& arguments);

// Writes `bundle` as a tar.gz that only its owner can read, and so its members, under a directory
// of the archive's name. Needs `tar`. Errors of the files, kDependencyMissing, kIo.
Status write_bundle(CliEnvironment& environment, const SupportBundle& bundle,
                    const std::string& file);

}  // namespace farshore
