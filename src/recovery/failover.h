// Recovery: machines from points. Test failovers, failovers, and exports of a point's disks.
//
// Each is a *recovery* with an id of the caller's: lease on the point -> nbdkit with the replica at
// the point and, for machines, a local overlay per disk -> QEMU on it. It starts at once, whatever
// the disks' size: blocks are read from the replica when the guest asks. Any number at once.
//
// NBD servers and machines outlive this process. What runs is written to
// STATE_ROOT/<id>/recovery.json before each step; resume() after a restart adopts what still runs,
// goes on where a step was cut short, and starts a failed-over machine again on its overlay when
// the host itself was restarted. docs/design/recovery.md has the table.
//
// Blocking; any thread may call, calls for different ids run side by side, calls for one id one
// after the other. One object per vault process. Borrows what Options names. Callbacks are called
// from the calling thread, with nothing locked that they could wait for, except that they must not
// call back about the same id.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/seams.h"
#include "base/secret.h"
#include "capture/tap_config.h"
#include "compute/qemu_machine.h"
#include "recovery/recovery_state.h"

namespace farshore {

// Machines and exports of one vault at a time; more is kLimitReached.
inline constexpr size_t kMaxRecoveries = 1000;

// What the vault lends: the right to read a point for as long as it is needed. `copy`: of which
// copy of the item, as in RecoveryState.
struct PointLeases {
    // A lease on `sequence` for `duration_us`; its id (not 0). kPointOutsideWindow, kPointInGap,
    // kPointNotFound.
    std::function<Result<uint64_t>(const ItemId&, const std::string& copy, Sequence,
                                   const std::string& holder, int64_t duration_us)>
        take;
    // kNotFound when it is gone: then a new one is taken.
    std::function<Status(const ItemId&, const std::string& copy, uint64_t lease,
                         int64_t duration_us)>
        renew;
    // Ok also when it is gone.
    std::function<Status(const ItemId&, const std::string& copy, uint64_t lease)> release;
};

// A store as nbdkit's plugin opens it.
struct StorePlace {
    std::string location;       // store/store_settings.h
    std::string settings_file;  // empty: none
};

struct RecoveryOptions {
    FileSystem* files = nullptr;
    Clock* clock = nullptr;
    std::string state_root;  // state files and overlays; on a disk with room
    // Sockets, pid files, logs. Short (sockets' paths are limited to 107 bytes), may be on tmpfs,
    // private.
    std::string run_root;
    std::string store_location;       // store/store_settings.h
    std::string store_settings_file;  // empty: none
    // Where the copies are; kNotFound. Null: there are none.
    std::function<Result<StorePlace>(const std::string& copy)> copy_place;
    PointLeases leases;
    std::function<Result<Secret>(const ItemId&)> item_key;
    // Other hosts to run machines on, by name; kNotFound. Asked each time. Null: there are none.
    std::function<Result<std::shared_ptr<RecoveryCompute>>(const std::string& compute)> compute;
    // Told after each change of a state; may be empty.
    std::function<void(const RecoveryState&)> on_change;
    std::string plugin;       // empty: find_plugin()
    std::string accelerator;  // "kvm", "tcg", or empty: find out
    // The vault's own, the same after each restart: segment_address(). Empty: state_root.
    std::string segment_scope;
    int64_t lease_us = 3600ll * 1'000'000;
    uint64_t replica_cache_bytes = 64u << 20;  // for each recovery
    int first_read_timeout_ms = 30'000;
};

struct RecoveryRequest {
    std::string id;  // [a-z0-9-], 1..40 bytes, not used before
    RecoveryKind kind = RecoveryKind::kTest;
    ItemId item;
    std::string item_name;
    std::string compute;  // as in RecoveryState
    std::string copy;     // as in RecoveryState
    std::string note;     // as in RecoveryState
    Undecided undecided = Undecided::kWaits;
    uint32_t undecided_s = 0;  // after so long, from the request on
    Sequence sequence;         // resolved: ItemReplica::resolve()
    TimePoint point_time;
    MachineDescription machine;  // its disks are the replica's, by index
    MachineOverrides overrides;
    NetworkChoice network;
    std::vector<NetworkChoice> networks;         // as in RecoveryState
    std::map<uint32_t, GuestAddress> addresses;  // as in RecoveryState
};

struct ExportRequest {
    std::string id;
    ItemId item;
    std::string item_name;
    std::string copy;
    Sequence sequence;
    TimePoint point_time;
    DiskIndex disk = 0;
    std::string socket_path;  // made by us; the export's name is the disk's index, or nothing
};

struct MoveRequest {
    std::string id;       // of the failover
    std::string new_id;   // as RecoveryRequest::id
    std::string compute;  // as in RecoveryState, like all below
    NetworkChoice network;
    std::vector<NetworkChoice> networks;
    std::map<uint32_t, GuestAddress> addresses;
};

// Where the outside reaches what runs.
struct RecoveryAccess {
    std::string nbd_socket;
    MachineDoors doors;  // empty for exports
};

class Recoveries {
  public:
    explicit Recoveries(RecoveryOptions options);
    ~Recoveries();
    Recoveries(const Recoveries&) = delete;
    Recoveries& operator=(const Recoveries&) = delete;

    // Finds out about KVM; seconds, once a boot of the host. Best in the background when the vault
    // starts: until then a machine runs on trial.
    void prepare();

    // Returns when the machine has read its first block (or has not within first_read_timeout_ms,
    // or has ended: timings say). After an error nothing is left behind: no process, file or lease.
    // kAlreadyExists (id), kInvalidArgument, kLimitReached, those of leases, NbdServer,
    // QemuMachine.
    Result<RecoveryState> start(const RecoveryRequest& request);
    // A point's disk at a socket, read-only, until clean_up().
    Result<RecoveryState> start_export(const ExportRequest& request);

    // A failover that is not committed starts again at another point; what its machine wrote since
    // is thrown away. kWrongState for tests, exports and committed ones. When the new point cannot
    // be had, the machine goes on as it was; when it does not start, the state is kFailed. `disks`:
    // those of that point; the ones that the machine has stay as they are. Empty: it keeps all.
    Result<RecoveryState> change_point(const std::string& id, Sequence sequence,
                                       TimePoint point_time,
                                       const std::vector<MachineDisk>& disks = {});
    // A failover's machine goes on at another host, on its disks as they are, under a new id; as
    // after a power cut, if it was not shut down before. Its host need not be there: its machine
    // has no disks from now on, and is removed when the host is back; until then the old id is
    // `cleaning`. Ok again with the same ids. kWrongState for what is captured, on its way, or no
    // failover; kInvalidArgument when it is there already. When it does not start there the state
    // is kFailed, and it can be moved again.
    Result<RecoveryState> move(const MoveRequest& request);
    // From now on only clean_up(id, kRemoveCommitted) ends it. The lease stays: its disks still
    // read from the replica. Ok again for a committed one; kWrongState unless running or stopped.
    Status commit(const std::string& id);

    // Hydration (hydration.h). The disks of a committed failover that read from the replica still;
    // none: it has them to itself. kNotFound; kWrongState unless committed, and running or stopped.
    struct FillableDisk {
        DiskIndex index = 0;
        uint64_t size_bytes = 0;
        std::string uri;  // that fills it: NBD_CMD_CACHE
        std::string overlay_path;
    };
    Result<std::vector<FillableDisk>> disks_to_fill(const std::string& id);
    // They are whole, and on stable storage: from now on it needs neither the store nor its lease.
    Status note_hydrated(const std::string& id);

    // The disks of a committed failover's machine become files at its host, behind it, one after
    // the other. Does what there is to do just now, and never waits long: to be called until it is
    // done, in this or any later life of the vault. Afterwards the machine needs neither store nor
    // lease nor us, and its overlays are gone. kWrongState (not running, captured, or on its way to
    // another directory), kAlreadyExists, kNoSpace, kIo (a disk's copy ended; the next call begins
    // it anew), kUnavailable (it cannot go on just now), errors of RecoveryMachine::begin_copy().
    struct OwnFilesOrder {
        std::string directory;  // at the machine's host; absolute
        DiskFormat format = DiskFormat::kQcow2;
        uint64_t bytes_per_s = 0;  // 0: as fast as it goes
        bool go_on = false;        // a copy that could not read or write tries it again
    };
    struct OwnFilesStep {
        uint64_t done_bytes = 0, total_bytes = 0;
        uint64_t copied_bytes = 0;  // of the disk that is copied; a busy guest's more than it has
        int64_t held_us = -1;       // how long the guest was held, when a disk was switched
        bool done = false;
    };
    Result<OwnFilesStep> make_own_files(const std::string& id, const OwnFilesOrder& order);
    // Gives up what is surely not switched; what is, or may be, stays. Ok when there is nothing.
    Status stop_own_files(const std::string& id);
    // A machine on files of its own is not ours any more: it stays as it is, and everything that we
    // know of it goes. kWrongState unless it stands alone.
    Status let_go(const std::string& id);

    // The machine of a committed failover gets a tap of somebody else's in the place of its NBD
    // server, at the same socket: from now on it is his to start. Its requests wait until he has.
    // Ok again. kWrongState unless committed, and running or stopped.
    Status hand_over_disks(const std::string& id);
    // What that tap serves: disks and replica, without capture; and where. kUnavailable: they are
    // not handed over (yet).
    struct HandedDisks {
        TapConfig config;
        std::string socket_path;
    };
    Result<HandedDisks> handed_disks(const ItemId& item);
    // And back; once no tap runs.
    Status take_disks_back(const std::string& id);

    // Presses the power button and waits until the machine is off, pressing again each 20 s; with
    // `by_force` it is ended when `timeout_ms` is over, else kTimeout. Its disks stay.
    Status shut_down(const std::string& id, int timeout_ms, bool by_force,
                     const std::function<Status()>& meanwhile = {});
    // Starts it again on its disks, as they are. Ok when it runs. kWrongState unless stopped.
    Status start_again(const std::string& id);

    enum class CleanUp : uint8_t { kOrdinary, kRemoveCommitted };
    // Ends machine and NBD server, removes overlays, sockets and state, releases the lease. Ok when
    // there is no such id. kWrongState for a committed failover. After any other error: call again.
    Status clean_up(const std::string& id, CleanUp how = CleanUp::kOrdinary);

    // What came of the addresses of its cards. Ok, and nothing is noted, when nobody waits for it
    // any more. kNotFound.
    Status note_addresses(const std::string& id, AddressStage stage, const std::string& words);
    // A failover waits for a person from now on, however long (Undecided). kNotFound, kWrongState.
    Status keep_open(const std::string& id);
    // Asks a machine something, or looks at it; nothing else happens to it meanwhile. kNotFound,
    // kWrongState when none runs.
    Status with_machine(const std::string& id, const std::function<Status(RecoveryMachine&)>& use);
    // Its guest agent; nothing waits for what is done with it. kNotFound, errors of
    // RecoveryCompute::guest_agent().
    Result<GuestAgent> guest_agent(const std::string& id, int timeout_ms);
    // Where it would run: this host for an empty name. kNotFound.
    Result<std::shared_ptr<RecoveryCompute>> compute_named(const std::string& compute);

    // After a restart of the vault, before anything may expire leases. Errors of single recoveries
    // are in their states.
    Status resume();
    // About once a second. Renews leases first: nothing that a machine or a host does holds that
    // up. Of machines on this host: starts a dead NBD server again, notices machines that ended,
    // judges machines on trial and starts them with TCG when KVM does not carry them.
    void tick();
    // The same for machines on other hosts, which may be away, or slow: by a thread of its own.
    void tick_elsewhere();

    // As last saved; never waits for a start or a clean-up under way. kNotFound.
    Result<RecoveryState> get(const std::string& id);
    std::vector<RecoveryState> list();
    Result<RecoveryAccess> access(const std::string& id);

  private:
    struct Entry;
    using EntryPtr = std::shared_ptr<Entry>;

    Result<EntryPtr> find(const std::string& id);
    Result<EntryPtr> add(RecoveryState state);
    void forget(const std::string& id);
    std::string state_directory(const std::string& id) const;
    std::string run_directory(const std::string& id) const;
    std::string nbd_socket(const RecoveryState& state) const;

    // All below with the entry's mutex held.
    Status save(Entry& entry);
    void tell(Entry& entry);
    Status take_lease(Entry& entry);
    MachinePlace place_of(const RecoveryState& state) const;
    Result<std::shared_ptr<RecoveryCompute>> compute_of(const RecoveryState& state);
    Status clean_up_machine(const RecoveryState& state);
    Result<TapConfig> disk_config(const RecoveryState& state);
    Result<ServedDisk> make_seed(const RecoveryState& state);
    Status start_disks(Entry& entry);
    Status start_on_tap(Entry& entry);
    Status start_on_disks(Entry& entry);
    Result<MachineOrder> order_of(const RecoveryState& state, bool with_seed = true);
    Status start_machine(Entry& entry);
    DiskCopyOrder copy_of(const RecoveryState& state, size_t place, uint64_t bytes_per_s) const;
    Result<CopyState> begin_own(Entry& entry, size_t place, const OwnFilesOrder& order);
    Result<int64_t> switch_own(Entry& entry, size_t place, int timeout_ms);
    Status end_own(Entry& entry, size_t place);
    Status check_room(const RecoveryState& state, const std::string& directory);
    void drop_unfinished(Entry& entry);
    void finish_switch(Entry& entry);
    Status stand_alone(Entry& entry);
    void await_first_read(Entry& entry, int64_t requested_us);
    Status bring_up(Entry& entry, int64_t requested_us);
    Status end_processes(Entry& entry);
    Status remove_overlays(const Entry& entry);
    Status remove_everything(Entry& entry);
    Status fail_entry(Entry& entry, const Error& error);
    Result<RecoveryState> begin(RecoveryState state);
    Status begin_move(Entry& entry, const MoveRequest& request);
    Status carry_over(Entry& entry);
    Status drop_arrival(Entry& entry);
    Status end_move(Entry& entry);
    Status load_one(const std::string& id);
    void resume_entry(Entry& entry);
    std::vector<EntryPtr> all_entries();
    void renew_lease(Entry& entry);
    void tend(Entry& entry);
    void tend_trial(Entry& entry);
    void start_lost(Entry& entry);
    Status adopt_machine(Entry& entry);
    void note_host(Entry& entry, const Status& reached);
    Status choose_accelerator(Entry& entry);

    RecoveryOptions options_;
    const std::shared_ptr<RecoveryCompute> here_;
    std::mutex mutex_;
    std::map<std::string, EntryPtr> entries_;  // guarded by mutex_
};

}  // namespace farshore
