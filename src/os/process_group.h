// Programs that lead a process group of their own (ProcessOptions::new_session): ending one with
// all that it has started; and letting one go on that waits for a word.
#pragma once

#include <string_view>

#include "os/process.h"

namespace farshore {

// SIGKILL to the leader's whole group. kNotFound when the leader has ended: its group's number may
// be another one's then. Does not wait.
Status kill_group(const Process& leader);
// Writes a few bytes to its standard input, a pipe, and closes that. kConnectionLost when nobody
// reads it.
Status give_word(Process& process, std::string_view word);

}  // namespace farshore
