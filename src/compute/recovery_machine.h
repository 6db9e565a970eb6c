// The one interface to where recovery machines run: QEMU on the vault's own machine
// (qemu_machine.h), libvirt hosts (libvirt_compute.h).
//
// A machine outlives us: letting go of a RecoveryMachine leaves it running, adopt() finds it again.
// Its disks are served over NBD by somebody else, who may be started anew while it runs: requests
// wait, or the machine is paused and tend() lets it go on; none is answered wrongly or lost.
// RecoveryMachine: one thread at a time. RecoveryCompute: any thread. Blocking.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "compute/accelerator.h"
#include "compute/guest_address.h"
#include "compute/guest_agent.h"
#include "compute/machine_description.h"
#include "compute/network_choice.h"
#include "os/host_capacity.h"

namespace farshore {

// A disk that is a file at its machine's host, which the QEMU there opens itself.
enum class DiskFormat : uint8_t { kRaw, kQcow2 };
std::string_view disk_format_name(DiskFormat format);             // "raw", "qcow2"
Result<DiskFormat> disk_format_from_name(std::string_view name);  // kInvalidArgument
struct DiskFile {
    std::string path;  // absolute
    DiskFormat format = DiskFormat::kQcow2;
};

struct DiskSource {
    std::string socket_path;
    std::string export_name;
    // The guest can do without it: what cannot be read for long is an error of the guest's, and
    // does not stop the machine.
    bool spare = false;
    // It is that, and nobody serves it: the rest is without meaning.
    std::optional<DiskFile> file = {};
};

// Of a machine's cards, by place.
using CardAddresses = std::map<uint32_t, GuestAddress>;

// Which machine; the same from its first start to its end.
struct MachinePlace {
    std::string id;             // of the recovery: [a-z0-9-], 1..40 bytes
    std::string run_directory;  // of the caller, who makes and owns it; our files are in it
    // Of the caller as well: what outlives a restart of this host. Empty: nothing does.
    std::string state_directory;
};

struct MachineOrder {
    MachinePlace place;
    std::string title;  // for people: the item
    MachineDescription machine;
    std::vector<DiskSource> disks;        // one for each of machine.disks
    std::vector<NetworkChoice> networks;  // of machine.nics, by place; the others are isolated
    CardAddresses addresses;              // what the networks' DHCP servers are told is among them
    std::string segment_scope;            // segment_address()
    Accelerator accelerator = Accelerator::kTcg;
    bool vnc = true;
    // Its serial port is heard from the first byte on, where that costs the start a second.
    bool whole_serial = true;
    // How long the guest's requests wait for an NBD server that is being restarted.
    uint32_t reconnect_delay_s = 60;
    int start_timeout_ms = 30000;
};

enum class MachineState : uint8_t {
    kRunning,
    kPaused,
    kFailed,   // panicked, internal error, I/O error
    kStopped,  // shut down, or the process is gone
    kLost,     // its host went down under it, and is there again
};
std::string_view machine_state_name(MachineState state);

struct MachineActivity {
    uint64_t read_operations = 0;  // of all disks
    uint64_t read_bytes = 0;
    uint64_t write_operations = 0;
    uint64_t write_bytes = 0;
};

// A disk of a machine that runs becomes a file at its host, behind it.
struct DiskCopyOrder {
    size_t place = 0;         // in MachineOrder::disks
    std::string export_name;  // as DiskSource's
    uint64_t size_bytes = 0;
    DiskFile file;             // nobody has it yet
    uint64_t bytes_per_s = 0;  // 0: as fast as it goes
};
enum class CopyStage : uint8_t {
    kNone,      // nobody copies, and it has what its server gives it
    kCopying,   //
    kStuck,     // it cannot be read or written: `words`; begin_copy() goes on
    kReady,     // the file has all of it, and each write since
    kSwitched,  // it is the file
};
struct CopyState {
    CopyStage stage = CopyStage::kNone;
    uint64_t done_bytes = 0, total_bytes = 0;  // of kCopying; the guest's writes are among them
    bool no_space = false;                     // of kStuck
    std::string words;
};

// Where people find the machine; what there is not is empty.
struct MachineDoors {
    std::string serial_log;                               // all that it said while somebody heard
    std::string serial_socket, vnc_socket, agent_socket;  // here
    std::string domain;                                   // its name at the libvirt host
};

class RecoveryMachine {
  public:
    virtual ~RecoveryMachine() = default;

    // False only when it has surely ended.
    virtual bool alive() = 0;
    // kUnavailable: its host cannot be reached; nobody knows.
    virtual Result<MachineState> state() = 0;
    virtual Result<MachineActivity> activity() = 0;
    // What TrialWatch wants; `age_ms` is the caller's. kUnsupported where nothing is on trial.
    virtual Result<TrialSample> trial_sample() = 0;
    // Once a second or so. `served`: some of its disks are, and somebody does.
    virtual Status tend(bool served) = 0;
    // The power button, which a guest may ignore.
    virtual Status press_power_button() = 0;
    // Its plug. Ok when it has ended already.
    virtual Status kill() = 0;
    // What its first screen shows, as PNG, into a file that is made.
    virtual Status screenshot(const std::string& path) = 0;
    // Lets us reach a TCP port of the guest, which still reaches nothing: the port at 127.0.0.1.
    // The guest must have its address by DHCP. kUnsupported.
    virtual Result<uint16_t> forward_port(uint16_t guest_port) = 0;
    // Of connections through forward_port(): how many the guest has taken.
    virtual Result<size_t> taken_connections(uint16_t guest_port) = 0;

    // Makes the file and begins to copy into it. Ok when it is under way, or done; one that is
    // stuck goes on. kAlreadyExists (the file), kNoSpace, kUnsupported.
    virtual Status begin_copy(const DiskCopyOrder& order);
    virtual Result<CopyState> copy_state(const DiskCopyOrder& order);
    // Of one that is ready: holds what the guest asks of the disk, calls `note`, and lets it go on
    // with the file alone; for how long it was held, in microseconds. kWrongState: there is no such
    // copy, and the guest goes on as before. After any other error, of `note` too, the guest may be
    // held until this is called again: then it goes on where it was, and calls `note` in any case.
    virtual Result<int64_t> switch_over(const DiskCopyOrder& order,
                                        const std::function<Status()>& note, int timeout_ms);
    // Gives up one that is not switched, with the file where that can be removed. Ok when there is
    // none.
    virtual Status end_copy(const DiskCopyOrder& order);
};

class RecoveryCompute {
  public:
    virtual ~RecoveryCompute() = default;

    // Which place this is: never the same for two.
    virtual std::string where() const = 0;
    // With what machines run there.
    virtual Result<AcceleratorVerdict> accelerator() = 0;
    // What it has for machines.
    virtual Result<HostCapacity> room() = 0;
    // Whether the networks are there, and the machine's hardware can be had. Changes nothing.
    virtual Status check(const MachineDescription& machine,
                         const std::vector<NetworkChoice>& networks) = 0;
    // Whether its DHCP servers can give the addresses that they are to give; the others are not
    // looked at. `machine`: its cards, with their MAC addresses where they are known. Changes
    // nothing. kInvalidArgument, kUnsupported, kAlreadyExists (another card's reservation or
    // lease).
    virtual Status check_addresses(const MachineDescription& machine,
                                   const std::vector<NetworkChoice>& networks,
                                   const CardAddresses& addresses) = 0;
    // Returns when the machine runs. kAlreadyExists when it does already, or an address is not
    // free, kGuestFailed with the words of whoever starts it when it ends at once, kLimitReached
    // when that was for want of memory, kDependencyMissing (UEFI firmware, a bridge, a network),
    // kForbidden, kUnsupported, kUnavailable (the host).
    virtual Result<std::unique_ptr<RecoveryMachine>> start(const MachineOrder& order) = 0;
    // The machine that runs there. kNotFound when it has surely ended. A host that cannot be
    // reached is no error: the machine's state() is.
    virtual Result<std::unique_ptr<RecoveryMachine>> adopt(const MachinePlace& place) = 0;
    // Ends whatever machine runs there and removes all that start() made (the logs too). Ok when
    // there is nothing.
    virtual Status clean_up(const MachinePlace& place) = 0;
    // The machine's guest agent, once it has answered: errors of GuestAgent::connect.
    virtual Result<GuestAgent> guest_agent(const MachinePlace& place, int timeout_ms) = 0;
    virtual MachineDoors doors(const MachinePlace& place) const = 0;
    // The machine that runs there, on files of its own, is somebody else's from now on. `script`: a
    // path for what starts it again, where its host has nothing else that does. Ok again.
    virtual Status let_go(const MachineOrder& order, const std::string& script);
};

}  // namespace farshore
