#include "vault/recovery_site.h"

#include <algorithm>

#include "agent/agent.h"
#include "appliance/appliance.h"
#include "base/party_names.h"
#include "os/log.h"
#include "vault/local_party.h"

namespace farshore {
namespace {

// Beside the agent of this machine, if there is one, and other vaults.
constexpr const char* kSharedDirectory = "/dev/shm/farshore-recovery-";
constexpr size_t kOfVaultId = 12;
constexpr const char* kListen = "127.0.0.1:0";

}  // namespace

struct RecoverySite::Running {
    LocalParty appliance_party, agent_party;
    std::unique_ptr<Appliance> appliance;
    std::unique_ptr<Agent> agent;
};

RecoverySite::RecoverySite(Vault& vault, Recoveries& recoveries)
    : vault_(vault), recoveries_(recoveries) {}

RecoverySite::~RecoverySite() {
    if (!running_) return;
    // From the source to the store, so that nobody talks to what has ended.
    running_->agent.reset();
    running_->appliance.reset();
}

Status RecoverySite::ensure() {
    const std::lock_guard hold(mutex_);
    if (running_) return {};
    auto made = std::make_unique<Running>();
    FS_ASSIGN(made->appliance_party,
              local_party(vault_, PartyKind::kAppliance, kRecoveryAppliance));
    FS_ASSIGN(made->agent_party, local_party(vault_, PartyKind::kAgent, kRecoveryAgent));
    ApplianceOptions appliance;
    appliance.name = kRecoveryAppliance;
    appliance.directory = vault_.directory() + "/recovery-appliance";
    appliance.listen = kListen;
    appliance.site = "recovery";
    appliance.time_zone = vault_.info().time_zone;
    FS_ASSIGN(made->appliance,
              Appliance::start(appliance, made->appliance_party.tls, vault_.store(), vault_));
    AgentOptions agent;
    agent.name = kRecoveryAgent;
    agent.directory = vault_.directory() + "/recovery-agent";
    agent.shared_directory = kSharedDirectory + vault_.info().vault_id.substr(0, kOfVaultId);
    agent.appliances = {made->appliance->address()};
    agent.appliance_name = kRecoveryAppliance;
    agent.recovery_disks = [this](const ItemId& item) -> Result<RecoveryDisks> {
        FS_ASSIGN(auto handed, recoveries_.handed_disks(item));
        RecoveryDisks disks;
        disks.disks = std::move(handed.config.disks);
        disks.replica = std::move(handed.config.replica);
        disks.socket_path = std::move(handed.socket_path);
        return disks;
    };
    FS_ASSIGN(made->agent, Agent::start(agent, made->agent_party.tls));
    running_ = std::move(made);
    log::info("vault", "machines that run here can be captured: appliance on {}",
              running_->appliance->address());
    return {};
}

Status RecoverySite::resume() {
    for (const RecoveryState& state : recoveries_.list())
        if (state.captured) return ensure();
    return {};
}

bool RecoverySite::has_let_go(const ItemId& item) {
    const std::lock_guard hold(mutex_);
    if (!running_) return true;
    const AgentNumbers numbers = running_->agent->numbers();
    return std::ranges::none_of(numbers.items, [&](const AgentItemNumbers& one) {
        return one.status.item == item && one.status.state != AgentItemState::kRemoved;
    });
}

}  // namespace farshore
