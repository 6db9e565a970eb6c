// The process server: receives the logs of items from agents, keeps them in its spool, builds
// segments of them, puts these into the object store and registers them with the vault.
//
// A state machine over the seams: no socket, thread or clock of its own. It lives on
// `executors.home`; what blocks runs on the other executors (all may be the same one, as in the
// simulator). An acknowledgement `received` leaves only after the spool's sync, `stored` only after
// the registration, and registrations are in the order of the log, in whatever order the puts of an
// item end: up to kMaxSegmentsAhead are under way side by side. Everything borrowed outlives it,
// and the executors are stopped before it ends.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/buggify.h"
#include "base/seams.h"
#include "replicate/group_relay.h"
#include "replicate/limits.h"
#include "replicate/upload_gate.h"
#include "replicate/vault_link.h"

namespace farshore {

class ItemIntake;
class ObjectStore;

struct ProcessServerOptions {
    std::string name;  // the appliance's, for the vault
    std::string spool_directory;
    uint64_t spool_bytes = kSpoolBytes;
    uint64_t spool_file_bytes = kSpoolFileBytes;
    uint64_t window_bytes = kWindowBytes;
    uint64_t build_queue_bytes = kBuildQueueBytes;
    uint64_t segment_payload_bytes = kSegmentPayloadBytes;
    uint64_t sealed_bytes = kMaxSealedBytes;
    int64_t segment_age_us = kSegmentAgeUs;
    int64_t segment_max_age_us = kSegmentMaxAgeUs;
    uint64_t hurry_bytes = kHurryBytes;
    uint64_t hurry_more_bytes = kHurryMoreBytes;
    // Runs the chunk jobs of a segment, possibly in parallel; null: inline.
    std::function<void(size_t, const std::function<void(size_t)>&)> parallel_for;
    // Test-only bugs that the simulation must catch.
    struct PlantedBugs {
        bool ack_before_sync = false;
        bool stored_before_registered = false;
        bool stored_out_of_order = false;  // a segment whose predecessor is not registered counts
        bool swap_segments = false;        // two batches of a segment change places
        bool foreign_ack = false;          // an item is told what is stored of another one
    } planted;
    Buggify* buggify = nullptr;  // borrowed; simulation only
};

struct ProcessServerExecutors {
    Executor* home = nullptr;
    Executor* spool = nullptr;
    Executor* build = nullptr;
    Executor* upload = nullptr;  // registrations, one after the other
    Executor* control = nullptr;
    Executor* compare = nullptr;  // null: control
    // Each has one put at a time; as many puts are under way. Empty: `upload` has them, too.
    std::vector<Executor*> puts;
    // Each speaks with the vault about one shared point at a time (group_relay.h). Empty: none are
    // made by way of this appliance.
    std::vector<Executor*> groups;
};

// What is shown of one item's way through the appliance.
struct IntakeStatus {
    ItemId item;
    bool connected = false;
    std::string agent;
    Sequence received, stored;
    TimePoint received_time, stored_time;
    uint64_t spool_bytes = 0;
    uint64_t queued_bytes = 0;    // received, not yet in a segment
    uint64_t received_bytes = 0;  // since start
    uint64_t uploaded_bytes = 0;  // object bytes since start
    uint64_t segments = 0;
    UploadStatus upload;
    std::string last_error;  // empty when all is well
};

class ProcessServer {
  public:
    ProcessServer(FileSystem& fs, ObjectStore& store, VaultLink& vault, Clock& clock,
                  Random& random, ProcessServerExecutors executors, ProcessServerOptions options);
    ~ProcessServer();

    // Opens the spools that are there and goes on storing what they hold. On `home`.
    Status start();
    // A peer whose certificate was verified (empty peer_name: it has none and may only enrol). On
    // `home`.
    void accept(std::unique_ptr<Connection> connection);
    std::vector<IntakeStatus> status() const;
    // What may be sent to the store: of all items together, and of each; counts at once, also for
    // what waits. An item that is not named has no limit of its own. On `home`.
    void set_bandwidth(BandwidthLimit total);
    void set_item_bandwidths(std::map<ItemId, BandwidthLimit> limits);
    void set_item_bandwidth(const ItemId& item, BandwidthLimit limit);
    // Whose connections there are, and who was refused. On `home`.
    std::vector<std::string> agents() const;
    size_t connected_agents() const;                            // of these, who is connected now
    uint64_t connections() const { return next_session_ - 1; }  // that were taken, ever
    // Of these the connections end, and new ones are refused until they are not among them any
    // more. On `home`.
    void refuse_agents(std::set<std::string> names);
    // Shared points that the vault wants made. On `home`.
    void make_points(const std::vector<BarrierOrder>& points) { relay_.take(points); }
    // Forgets an item that is no longer protected, spool included.
    void remove(const ItemId& item);

  private:
    friend class ItemIntake;
    struct Session;
    struct Returning;
    void on_first_frame(uint64_t session_id, ByteView frame);
    void on_sync(uint64_t session_id, ByteView body);
    void on_compare(uint64_t session_id, ByteView body);
    void on_return(uint64_t session_id, ByteView body);
    template <typename Frame>
    void on_question(uint64_t session_id, Result<Frame> frame,
                     std::function<Result<Bytes>(const Frame&)> work);
    void end_session(uint64_t session_id, const Error* error);
    void bound_unnamed(uint64_t session_id);
    Result<ItemIntake*> intake(const ItemId& item);
    // The item has an object of that size to send: its intake's upload() is called when it may,
    // with an executor that it gives back once the put came to its end.
    void want_upload(const ItemId& item, uint64_t bytes);
    void give_back(Executor* put);
    void withdraw_upload(const ItemId& item);
    void follow_windows();
    void pump_uploads();

    FileSystem& fs_;
    ObjectStore& store_;
    VaultLink& vault_;
    Clock& clock_;
    Random& random_;
    const ProcessServerExecutors executors_;
    const ProcessServerOptions options_;
    std::map<ItemId, std::shared_ptr<ItemIntake>> intakes_;
    UploadGate gate_;
    BandwidthLimit bandwidth_;
    std::map<ItemId, BandwidthLimit> item_bandwidths_;
    std::optional<TimePoint> rates_change_;  // when another part of a limit counts
    std::optional<Executor::TimerId> upload_timer_;
    std::vector<Executor*> free_puts_;
    bool pumping_ = false;
    std::map<uint64_t, std::shared_ptr<Session>> sessions_;
    size_t unnamed_sessions_ = 0;  // of those, without a certificate
    GroupRelay relay_;
    std::set<std::string> refused_;  // agents whose certificates count no more
    uint64_t next_session_ = 1;
    std::shared_ptr<int> alive_ = std::make_shared<int>(0);  // tasks hold it weakly
};

}  // namespace farshore
