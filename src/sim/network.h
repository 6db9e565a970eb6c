// The simulated network: Dialer and Connection between the processes of a world.
//
// Frames of one connection keep their order; everything else is drawn: latency, when a link stalls,
// at which frame a connection breaks, how late either end notices, and which frames in flight still
// arrive. A process that is killed has its connections closed by its kernel; a host that loses
// power says nothing, and the peer notices by keep-alive, or when it sends after the host is back.
// So an end may believe for long in a connection that the other end knows to be gone.
//
// Fault sites: net.reset, net.clog, net.slow, net.late_notice, net.dial_fail, net.half_dial; for
// calls also those named there.
// Connections check that they are used on their own executor. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/seams.h"
#include "sim/world.h"

namespace farshore {

// How links behave; one for the whole network. Times in microseconds of virtual time.
struct LinkProfile {
    int64_t latency_min_us = 100;
    int64_t latency_max_us = 600;
    uint64_t bandwidth_bytes_per_s = 500'000'000;
    size_t window_bytes = 256u << 10;    // sent and not yet taken by the receiver
    size_t low_mark_bytes = 256u << 10;  // on_drained comes when queued bytes fall to this
    int64_t notice_min_us = 2'000'000;   // until keep-alive finds the peer gone
    int64_t notice_max_us = 30'000'000;
    int64_t dial_timeout_us = 5'000'000;
    int64_t call_timeout_us = 10'000'000;
};

struct NetworkCounters {
    uint64_t dials = 0, dials_failed = 0, accepted = 0;
    uint64_t frames_sent = 0, frames_delivered = 0, frames_lost = 0;
    uint64_t resets = 0;
};

// A connection that queues more was given it by a caller without bounds: a failed check.
inline constexpr size_t kMaxSimQueuedBytes = 256u << 20;

// Stops listening when it is destroyed. An address belongs to one living listener.
class SimListener {
  public:
    virtual ~SimListener() = default;
};

class SimNetwork {
  public:
    explicit SimNetwork(SimWorld& world);
    ~SimNetwork();
    SimNetwork(const SimNetwork&) = delete;
    SimNetwork& operator=(const SimNetwork&) = delete;

    // `identity` is what the other end sees as peer_name().
    std::unique_ptr<Dialer> dialer(SimProcess& process, std::string identity);
    // `on_accept` runs on `executor`, which must be one of the process. kAlreadyExists.
    Result<std::unique_ptr<SimListener>> listen(
        SimProcess& process, Executor& executor, const std::string& address, std::string identity,
        std::function<void(std::unique_ptr<Connection>)> on_accept);

    void set_profile(const LinkProfile& profile);

    // A request and its answer, for seams that are plain calls (VaultLink and the like): runs
    // `body` as code of `to`. Ok: it ran and the answer came back. Otherwise kTimeout, kUnavailable
    // or kConnectionLost, and it may have run nevertheless; it may also run twice. The time that it
    // takes, time-outs included, is the caller's. From code of `from`. Fault sites:
    // net.request_lost, net.answer_lost, net.request_twice.
    Status call(SimProcess& from, SimProcess& to, const std::function<void()>& body);

    // No frame passes between the two hosts, in either direction, until healed.
    void partition(SimHost& a, SimHost& b);
    void heal(SimHost& a, SimHost& b);
    void heal_all();
    bool partitioned(const SimHost& a, const SimHost& b) const;
    // Frames from `from` to `to` stall for a while; nothing is lost by it.
    void clog(SimHost& from, SimHost& to, int64_t duration_us);
    // Breaks every connection between the two hosts, or every one there is.
    void reset(SimHost& a, SimHost& b);
    void reset_all();
    // One end of each connection between the two hosts goes, and the other is not told.
    void half_open(SimHost& goes, SimHost& stays);

    // Connections of which at least one end is open.
    size_t open_connections() const;
    const NetworkCounters& counters() const;

  private:
    struct Core;
    friend class SimConnection;
    friend class SimDialer;
    friend class SimListenerImpl;
    std::shared_ptr<Core> core_;  // shared with connections, which may outlive this
};

}  // namespace farshore
