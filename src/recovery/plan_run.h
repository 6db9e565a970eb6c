// One run of a recovery plan as a state machine: it takes what happened and the time, and says
// which steps begin now. It does nothing itself. docs/design/plans.md has the table of states.
//
// A step is begun at most once for each attempt, and each attempt has a handle that is drawn
// before: whoever begins a step with a handle that was begun already, takes it up. So the order is:
// begin() here, save the run, then begin the steps; after a crash those that are running are begun
// again with the handles that they have.
//
// Times are of the wall clock, because a run outlives its vault. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "recovery/recovery_plan.h"
#include "recovery/recovery_state.h"

namespace farshore {

inline constexpr size_t kMaxPlanRunBytes = 8u << 20;
inline constexpr size_t kMaxStepOutputBytes = 8u << 10;  // that is kept of one attempt
inline constexpr size_t kMaxStepNoteBytes = 1024;
// Steps of one group that run at once; the others wait for their turn.
inline constexpr size_t kMaxParallelSteps = 40;

enum class StepState : uint8_t {
    kWaiting,
    kRunning,
    kSucceeded,
    kFailed,   // all attempts
    kSkipped,  // a person said so
};
std::string_view step_state_name(StepState state);  // "waiting", "running", ...

enum class PlanRunState : uint8_t {
    kRunning,
    kStopping,    // nothing begins; what runs comes to its end
    kStopped,     // goes on when somebody resumes it
    kSucceeded,   // every step
    kIncomplete,  // at its end, but steps were skipped or failed
    kCancelled,
};
std::string_view plan_run_state_name(PlanRunState state);  // "running", "stopping", ...
Result<PlanRunState> plan_run_state_from_name(std::string_view name);

struct PlanStep {
    std::string id;      // "shutdown-1", "g2-before-1", "g2-item-3", "g2-after-1"
    uint32_t stage = 0;  // steps of one stage run at once, stages one after another
    std::string group;
    PlanAction action;                       // kItem: `name` is the item's, and `limits`
    PlanSource source = PlanSource::kLeave;  // kItem

    StepState state = StepState::kWaiting;
    uint32_t attempts = 0;  // that were begun
    std::string handle;     // of the newest attempt: 24 hexadecimal digits
    std::string node;       // of several vault nodes, the one that began it
    std::string reference;  // what whoever runs it wants to remember, saved some time later
    bool overdue = false;   // the newest attempt was told to end
    // It waits again because the run stopped; its handle, and whoever was given it, go on.
    bool withdrawn = false;
    TimePoint begin_after;     // the next attempt: not before
    TimePoint started, ended;  // of the first attempt, of the last
    TimePoint attempt_started;
    std::string output;  // of the newest attempt
    std::string note;    // of the person or the program that answered
    std::string by;      // who skipped or answered it
    std::optional<RecoveryError> error;

    bool over() const { return state > StepState::kRunning; }
};

struct PlanRun {
    uint64_t id = 0;
    std::string plan;  // its name
    uint64_t plan_version = 0;
    PlanMode mode = PlanMode::kTest;
    std::string point = "latest";  // of every item
    // Of every card; none: as RecoveryPlan says.
    std::optional<NetworkChoice> network;
    std::string note;
    std::string by;  // who began it
    PlanRunState state = PlanRunState::kRunning;
    std::string why;  // it stopped
    TimePoint created, ended;
    uint64_t job = 0;  // that works on it
    std::vector<PlanStep> steps;

    bool over() const {
        return state == PlanRunState::kSucceeded || state == PlanRunState::kIncomplete ||
               state == PlanRunState::kCancelled;
    }
};

struct StepOutcome {
    std::optional<RecoveryError> error;  // none: it succeeded
    std::string output;
    std::string note, by;
    // It may have been done, and nobody can tell: another attempt would do it twice.
    bool unknown = false;
};

// The steps of `plan` in a run of that mode, all waiting.
PlanRun make_plan_run(const RecoveryPlan& plan, PlanMode mode);

class PlanMachine {
  public:
    explicit PlanMachine(PlanRun run) : run_(std::move(run)) {}
    const PlanRun& run() const { return run_; }

    // Marks the steps that begin now as running, each with a handle that `draw` gives; their
    // indexes. Save the run before any of them is begun. Also moves the run to its end.
    std::vector<size_t> begin(TimePoint now, const std::function<std::string()>& draw,
                              const std::string& node);
    // Running steps whose time has passed, once for each attempt: tell them to end, and report what
    // came of it. A person's step and a webhook's need nobody to end them.
    std::vector<size_t> overdue(TimePoint now);
    // Steps that nobody waits for any more because the run is to stop: they are waiting again, and
    // go on with the handle that they have when the run does.
    std::vector<size_t> withdraw();
    // A step that begin() gave could not be begun until now: its time counts from here.
    void restamp(size_t step, TimePoint now);
    void refer(size_t step, const std::string& reference);
    void ended(size_t step, const StepOutcome& outcome, TimePoint now);

    // A person. Each kWrongState when it makes no sense in this state.
    Status stop(const std::string& by);
    // What has failed is tried again, but for the steps named in `skip`.
    Status resume(const std::vector<std::string>& skip, const std::string& by, TimePoint now);
    // For good; only of a run that is stopped.
    Status cancel(const std::string& by, TimePoint now);

    // Running: when begin() or overdue() has something to say next without any event.
    std::optional<TimePoint> next_time() const;

  private:
    bool any(StepState state) const;
    void settle(TimePoint now);

    PlanRun run_;
};

// Where machines of a test are that nothing else is said of: a closed segment, which no other run
// has. None in a failover.
std::optional<NetworkChoice> usual_network_of(const PlanRun& run);

// The step with that id; null: there is none.
const PlanStep* find_step(const PlanRun& run, std::string_view id);

std::string encode_plan_run(const PlanRun& run);
// kMalformed, kTooLarge, kNewerVersion.
Result<PlanRun> decode_plan_run(std::string_view json);

}  // namespace farshore
