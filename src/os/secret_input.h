// Secrets from outside the process, by ways that do not show in its command line: a descriptor that
// the parent handed over, the terminal, the environment.
#pragma once

#include <string>

#include "base/error.h"
#include "base/secret.h"

namespace farshore {

inline constexpr size_t kMaxSecretInputBytes = 8192;

// Everything up to the end of the descriptor, which is closed. kInvalidArgument: not open;
// kTooLarge, kIo.
Result<Secret> read_secret_descriptor(int descriptor);

// A line from the terminal, not shown while it is typed. kUnsupported: there is no terminal.
Result<Secret> ask_secret(const std::string& prompt);

// The value of a variable, which is taken out of the environment, so that programs that are started
// later do not inherit it; the process remembers it. Empty when there is none. Not beside other
// threads that read the environment: for the start of a program.
Secret take_secret_variable(const std::string& name);
// Takes all variables whose names begin like that.
void take_secret_variables(const std::string& prefix);

// A variable that is no secret, or empty.
std::string plain_variable(const std::string& name);

}  // namespace farshore
