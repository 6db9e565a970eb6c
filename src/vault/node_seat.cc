#include "vault/node_seat.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/version.h"
#include "meta/database.h"
#include "os/real.h"
#include "vault/log_about.h"
#include "vault/recovery_desk.h"

namespace farshore {
namespace {

// After a node has yielded, so that the other one is faster.
constexpr int64_t kYieldPauseUs = 5'000'000;
constexpr size_t kMaxNameBytes = 128;

}  // namespace

// A drill's is nobody's reason to lead: whoever leads begins it anew.
bool is_recovered_machine(const std::string& name) {
    return name.ends_with('/') && !name.starts_with(kDrillRecoveryPrefix);
}

bool should_yield(const std::vector<VaultNode>& nodes, const std::string& own) {
    bool has_machines = false, another = false;
    for (const VaultNode& node : nodes) {
        if (node.name == own)
            has_machines = node.machines != 0;
        else if (node.machines != 0 && node.silent_us < kNodeAwayUs)
            another = true;
    }
    return another && !has_machines;
}

Result<std::string> node_name(FileSystem& files, Random& random, const std::string& file) {
    FS_ASSIGN(const bool there, files.exists(file));
    if (!there) {
        std::array<char, 65> host{};
        if (::gethostname(host.data(), host.size() - 1) != 0 || host[0] == '\0')
            host = {'v', 'a', 'u', 'l', 't'};
        std::array<uint8_t, 4> tail{};
        random.fill(tail);
        FS_TRY(write_file_durably(files, file,
                                  as_bytes(fmt::format("{}-{}\n", host.data(), to_hex(tail)))));
    }
    FS_ASSIGN(const Bytes text, read_whole_file(files, file, kMaxNameBytes));
    std::string name(as_text(text));
    name.erase(name.find_last_not_of(" \n") + 1);
    if (name.empty()) return fail(Code::kMalformed, file + " holds no name", "remove the file");
    return name;
}

Result<std::unique_ptr<NodeSeat>> NodeSeat::start(const NodeSeatOptions& options, FileSystem& files,
                                                  Clock& clock, std::function<void()> changed) {
    std::unique_ptr<NodeSeat> seat(new NodeSeat(options, files, clock, std::move(changed)));
    FS_ASSIGN(seat->database_,
              Database::open({.postgresql = options.database, .sessions = 1}, clock));
    seat->started_ = clock.now();
    FS_TRY(seat->tell());
    seat->thread_ = std::thread([raw = seat.get()] { raw->run(); });
    return seat;
}

NodeSeat::NodeSeat(NodeSeatOptions options, FileSystem& files, Clock& clock,
                   std::function<void()> changed)
    : options_(std::move(options)), files_(files), clock_(clock), changed_(std::move(changed)) {}

NodeSeat::~NodeSeat() {
    if (!thread_.joinable()) return;
    {
        const std::lock_guard hold(mutex_);
        ending_ = true;
    }
    wake_.notify_all();
    thread_.join();
    if (epoch_ != 0) (void)give_up_vault_lease(*database_, epoch_);
}

uint64_t NodeSeat::epoch() {
    const std::lock_guard hold(mutex_);
    return giving_up_ ? 0 : epoch_;
}

std::string NodeSeat::leader_address() {
    const std::lock_guard hold(mutex_);
    return epoch_ != 0 ? std::string() : leader_;
}

void NodeSeat::step_back(int64_t pause_us) {
    {
        const std::lock_guard hold(mutex_);
        not_before_us_ = clock_.steady_us() + pause_us;
        giving_up_ = true;
    }
    wake_.notify_all();
}

void NodeSeat::run() {
    while (true) {
        const Status done = round();
        if (!done && !said_)
            log::warn("node", about(done.error()), "the database does not answer: {}",
                      done.error().to_string());
        if (done && said_) log::info("node", "the database answers again");
        said_ = !done;
        changed_();
        std::unique_lock hold(mutex_);
        wake_.wait_for(hold, std::chrono::microseconds(kSeatRoundUs),
                       [&] { return ending_ || (giving_up_ && epoch_ != 0); });
        if (ending_) return;
    }
}

void NodeSeat::set_epoch(uint64_t epoch) {
    {
        const std::lock_guard hold(mutex_);
        if (epoch_ == epoch) return;
        epoch_ = epoch;
        if (epoch == 0) giving_up_ = false;
    }
    if (epoch != 0)
        log::info("node", "'{}' leads, epoch {}", options_.name, epoch);
    else
        log::warn("node", "'{}' leads no more", options_.name);
    changed_();
}

Status NodeSeat::round() {
    FS_TRY(tell());
    uint64_t epoch = 0;
    bool give_up = false, may_lead = false;
    {
        const std::lock_guard hold(mutex_);
        epoch = epoch_;
        give_up = giving_up_;
        may_lead = clock_.steady_us() >= not_before_us_;
        if (epoch == 0) giving_up_ = false;
    }
    if (epoch != 0) {
        FS_ASSIGN(const auto nodes, list_vault_nodes(*database_));
        if (should_yield(nodes, options_.name)) {
            log::info("node", "recovered machines run on another node: it should lead");
            const std::lock_guard hold(mutex_);
            not_before_us_ = clock_.steady_us() + kYieldPauseUs;
            give_up = true;
        }
        if (give_up) {
            // Changes of this node's vault are refused from here on.
            FS_TRY(give_up_vault_lease(*database_, epoch));
            set_epoch(0);
            return {};
        }
        const Status renewed = renew_vault_lease(*database_, epoch, kVaultLeaseUs);
        if (renewed || renewed.error().code() != Code::kFenced) return renewed;
        set_epoch(0);
    }
    FS_ASSIGN(VaultLease lease, read_vault_lease(*database_));
    if (may_lead && (lease.left_us <= 0 || lease.node == options_.name)) {
        FS_ASSIGN(lease,
                  take_vault_lease(*database_, options_.name, options_.address, kVaultLeaseUs));
        if (lease.node == options_.name) {
            set_epoch(lease.epoch);
            return {};
        }
    }
    const std::lock_guard hold(mutex_);
    leader_ = lease.left_us > 0 && lease.node != options_.name ? lease.address : std::string();
    if (!leader_.empty() && leader_ == options_.address) {
        // Handing on to ourselves would never end.
        log::error("node",
                   "the node that leads says that it is at {}, which is this one's address: "
                   "give each its own --node-address",
                   leader_);
        leader_.clear();
    }
    return {};
}

Status NodeSeat::tell() {
    VaultNode node;
    node.name = options_.name;
    node.address = options_.address;
    node.version = kFarshoreVersion;
    node.started = started_;
    node.machines = machines();
    return vault_node_seen(*database_, node);
}

uint64_t NodeSeat::machines() {
    auto names = files_.list(options_.recoveries_directory);
    if (!names) return 0;
    return static_cast<uint64_t>(std::ranges::count_if(*names, is_recovered_machine));
}

}  // namespace farshore
