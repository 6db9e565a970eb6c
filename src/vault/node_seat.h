// The seat of one vault process among those that share a database (docs/design/nodes.md): it tells
// the others that it is there, leads when nobody else does, and says who leads.
//
// A thread of its own asks once a second. The database alone decides who leads: while it is away
// nothing changes, and whoever leads goes on leading when it is back, unless another one was
// faster.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/seams.h"
#include "meta/nodes.h"

namespace farshore {

class Database;

inline constexpr int64_t kVaultLeaseUs = 8'000'000;
inline constexpr int64_t kSeatRoundUs = 1'000'000;
// A node that was not heard of for so long is away.
inline constexpr int64_t kNodeAwayUs = 6'000'000;

struct NodeSeatOptions {
    std::string database;  // libpq connection string
    std::string name;      // unique among the nodes
    std::string address;   // host:port at which the others reach this one's API
    // Where this node's recovered machines are listed; a node that has some leads before others.
    std::string recoveries_directory;
};

// Which of the nodes should lead, by what is known of them: `own` gives the lease up for one that
// runs recovered machines while it has none itself. Pure.
bool should_yield(const std::vector<VaultNode>& nodes, const std::string& own);

// Of a name in the directory of recoveries, as FileSystem::list() gives it. Pure.
bool is_recovered_machine(const std::string& name);

class NodeSeat {
  public:
    // `changed`: called, from the seat's thread, after each round, and when this node begins or
    // ceases to lead.
    static Result<std::unique_ptr<NodeSeat>> start(const NodeSeatOptions& options,
                                                   FileSystem& files, Clock& clock,
                                                   std::function<void()> changed);
    // Gives the lease up.
    ~NodeSeat();
    NodeSeat(const NodeSeat&) = delete;
    NodeSeat& operator=(const NodeSeat&) = delete;

    const std::string& name() const { return options_.name; }
    // Of the lease that this node has; 0: it does not lead.
    uint64_t epoch();
    // Where the one that leads is; empty: nobody, or this one.
    std::string leader_address();
    // Gives the lease up and asks for none for `pause_us`: this node cannot lead just now.
    void step_back(int64_t pause_us);

  private:
    NodeSeat(NodeSeatOptions options, FileSystem& files, Clock& clock,
             std::function<void()> changed);
    void run();
    Status round();
    Status tell();
    uint64_t machines();
    void set_epoch(uint64_t epoch);

    const NodeSeatOptions options_;
    FileSystem& files_;
    Clock& clock_;
    const std::function<void()> changed_;
    std::unique_ptr<Database> database_;
    TimePoint started_;
    bool said_ = false;  // that the database is away

    std::mutex mutex_;  // the rest
    std::condition_variable wake_;
    uint64_t epoch_ = 0;
    std::string leader_;
    int64_t not_before_us_ = 0;  // steady
    bool giving_up_ = false, ending_ = false;
    std::thread thread_;
};

// The name of the node whose data directory that is: made up once, and kept in `file`.
Result<std::string> node_name(FileSystem& files, Random& random, const std::string& file);

}  // namespace farshore
