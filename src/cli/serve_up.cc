#include <cstdio>

#include "base/error.h"
#include "cli/serve.h"

namespace farshore {

int run_up(const UpOptions&) { return code_exit_status(Code::kUnsupported); }
int run_vault(const VaultServeOptions&) { return code_exit_status(Code::kUnsupported); }

}  // namespace farshore
