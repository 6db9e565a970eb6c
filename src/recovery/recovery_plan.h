// A recovery plan: which machines come up in which order, and what is done before and after them.
// docs/design/plans.md. As JSON it is what the API takes and shows, and what YAML files hold.
//
// Plain values; any thread. Decoding refuses by name what it does not know (kMalformed, kTooLarge),
// so that what is misspelt is not taken for unsaid.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "compute/network_choice.h"

namespace farshore {

inline constexpr size_t kMaxPlanNameBytes = 64;
inline constexpr size_t kMaxPlanBytes = 256u << 10;  // of the JSON document
inline constexpr size_t kMaxPlanGroups = 64;
inline constexpr size_t kMaxPlanItems = 500;    // of all groups
inline constexpr size_t kMaxPlanActions = 200;  // of all groups
inline constexpr uint32_t kMaxStepLimitS = 7 * 86'400;
inline constexpr uint32_t kMaxStepRetries = 20;

enum class PlanMode : uint8_t { kTest, kFailover, kFailback };
inline constexpr int kPlanModes = 3;
std::string_view plan_mode_name(PlanMode mode);  // "test", "failover", "failback"
Result<PlanMode> plan_mode_from_name(std::string_view name);

enum class OnFailure : uint8_t {
    kStop,  // nothing further begins until somebody resumes the run
    kSkip,  // the run goes on without it, and says so at its end
};
std::string_view on_failure_name(OnFailure what);

enum class StepKind : uint8_t {
    kItem,             // a machine is started
    kScript,           // a program of the vault's scripts directory
    kGuestScript,      // a program inside a machine that the run has started
    kWebhook,          // somebody else's program, told by a signed POST, which answers later
    kManual,           // a person
    kApplianceScript,  // a program of an appliance's scripts directory
};
std::string_view step_kind_name(StepKind kind);  // "item", "script", ...
Result<StepKind> step_kind_from_name(std::string_view name);

// What bounds one step, whatever it does.
struct StepLimits {
    uint32_t limit_s = 600;  // of one attempt, at least 1
    uint32_t retries = 0;    // attempts after the first
    uint32_t retry_pause_s = 5;
    OnFailure on_failure = OnFailure::kStop;
};

struct PlanAction {
    std::string name;
    StepKind kind = StepKind::kScript;  // not kItem
    bool modes[kPlanModes] = {};        // in which it is done; at least one
    StepLimits limits;
    // kScript, kApplianceScript: a file's name; kGuestScript: an absolute path
    std::string program;
    std::vector<std::string> arguments;  // of the program
    std::string appliance;               // kApplianceScript: on whose machine
    std::string item;                    // kGuestScript: in whose machine
    std::string url, settings_file;      // kWebhook
    bool wait_for_callback = true;       // kWebhook; else its answer is the end
    std::string instructions;            // kManual
};

// What becomes of the machine at home before it is started here, in a failover.
enum class PlanSource : uint8_t {
    kLeave,     // nothing: the site is lost
    kShutDown,  // it is shut down, as far as it can be reached
    kPlanned,   // the same, and the step fails unless nothing at all is lost
};
std::string_view plan_source_name(PlanSource source);  // "leave", "shut-down", "planned"
Result<PlanSource> plan_source_from_name(std::string_view name);

struct PlanItem {
    std::string name;  // of an item
    PlanSource source = PlanSource::kLeave;
    StepLimits limits;
};

struct PlanGroup {
    std::string name;
    std::vector<PlanAction> before;  // one after another
    std::vector<PlanItem> items;     // all at once
    std::vector<PlanAction> after;
};

struct RecoveryPlan {
    std::string name;
    std::string description;
    // Of all network cards, in a failover and in a test. None: in a failover what each item's cards
    // say, else the user network; in a test the same, else a closed segment of the run's own.
    std::optional<NetworkChoice> network, test_network;
    std::vector<PlanAction> shutdown;  // before the first group: what ends the machines at home
    std::vector<PlanGroup> groups;     // one after another
};

// [a-z0-9-], with a letter: kInvalidArgument.
Status check_plan_name(std::string_view name);

nlohmann::json plan_json(const RecoveryPlan& plan);
// kInvalidArgument also for what cannot work: an item that is in it twice, an action that is never
// done, a guest script of a machine that is not in it.
Result<RecoveryPlan> plan_from_json(const nlohmann::json& json);

// For the steps of runs (plan_run.h), which keep their own copy of an action.
nlohmann::json plan_action_json(const PlanAction& action);
Result<PlanAction> plan_action_from_json(const nlohmann::json& json, const std::string& path);

}  // namespace farshore
