// Where a mirrored machine has its guest agent, and the program that brings a machine's file
// systems to rest through its guest agent, for a moment
// (`farshore capture freeze --guest-agent`): a process of its own, so that the machine is thawed
// whatever becomes of the agent that asked for it. Blocking; one thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace farshore {

class QmpClient;

// The socket at which a running QEMU has its machine's guest agent: of the virtio port that is
// called org.qemu.guest_agent.0. Empty: it has none that we could use.
Result<std::string> find_guest_agent(QmpClient& qmp);
// "unix:PATH,server=on", as QEMU says of a character device; empty: something else.
std::string socket_of_chardev(std::string_view filename);

struct GuestFreezeOptions {
    std::string socket_path;
    int64_t timeout_ms = 10'000;
    bool thaw_only = false;  // what an earlier one may have left
};
// As freeze_until_told() (ebpf/freezer.h), of the machine behind the guest agent: says "frozen\n"
// to `output`, waits for the end of `input`, thaws, says "thawed\n" when nothing that it froze is
// frozen any more. What somebody else has frozen is left alone.
// kTimeout: the time was over before the end of `input`; kWrongState: somebody else has frozen or
// thawed.
Status freeze_guest_until_told(const GuestFreezeOptions& options, int input, int output);

}  // namespace farshore
