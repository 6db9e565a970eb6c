// The part of the command line about sites, and its verbs: as client_verbs.h.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>

#include "cli/client_verbs.h"

namespace farshore {

struct SiteArguments {
    std::string name, description;
};

class SiteVerbs {
  public:
    SiteVerbs(CliEnvironment& environment, const LocationOptions& location, bool json);
    ~SiteVerbs();

    int sites();
    int describe(const SiteArguments& arguments);
    int remove(const std::string& name);

  private:
    std::unique_ptr<ClientVerbs::Impl> impl_;
};

using SiteVerb = std::function<int(SiteVerbs&)>;
// As AddClientVerb (access_commands.h).
using AddSiteVerb =
    std::function<CLI::App*(CLI::App&, const std::string&, const std::string&, const SiteVerb&)>;

// `arguments` outlives the parser.
void add_site_commands(CLI::App& app, SiteArguments& arguments, const AddSiteVerb& verb);

}  // namespace farshore
