// `farshore appliance check`: whether all that an appliance must reach can be reached, a line a
// step. Starts nothing and changes nothing.
#pragma once

#include "appliance/proxy_settings.h"
#include "cli/environment.h"
#include "cli/serve.h"
#include "store/store_settings.h"

namespace farshore {

// A line a step or, with `json`, one document. 0 when nothing failed, else that of the first failed
// step's code, or of the error in the options.
int run_appliance_check(CliEnvironment& environment, const ApplianceServeOptions& options,
                        bool json);

// The store's settings as the appliance uses them: a remote store without a proxy of its own is
// reached through the appliance's. Errors of load_store_settings.
Result<StoreSettings> appliance_store_settings(FileSystem& files,
                                               const ApplianceServeOptions& options,
                                               const ProxySettings& proxy);

}  // namespace farshore
