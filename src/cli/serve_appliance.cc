#include <cstdio>

#include "base/error.h"
#include "cli/serve.h"

namespace farshore {

int run_appliance(const ApplianceServeOptions&) {
    std::fputs("farshore: unsupported: this build has no appliance of its own yet; use `up`\n", stderr);
    return code_exit_status(Code::kUnsupported);
}

}  // namespace farshore
