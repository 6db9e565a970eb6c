// The client's verbs about recovery plans, drills and tests: as client_verbs.h.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>

#include "cli/client_verbs.h"

namespace farshore {

struct TestArguments {
    std::string name, point, copy;
    std::string note, id, network, compute;
    bool wait = true;
};

// What is set for a network card; what is not named stays.
struct NicArguments {
    uint64_t nic = 0;
    std::optional<std::string> failover, test, mac;
    std::optional<std::string> address, gateway;  // "none": it is given none
    std::optional<std::string> address_by;
    std::vector<std::string> name_servers;
    bool clear = false;
};

struct RecoveryPlanArguments {
    std::string name, file;
    std::string mode, point = "latest", note;
    bool replace = false, force = false, unchecked = false, no_wait = false;
    uint64_t run = 0, limit = 100;
    std::vector<std::string> skip;
    std::string step;
    bool done = false, failed = false;
};

struct DrillArguments {
    std::string item;
    uint64_t drill = 0, limit = 100;
    std::optional<uint64_t> every_s, overdue_s, limit_s, port;
    bool after_consistent = false, agent = false, force = false, no_wait = false;
    std::string serial, serial_pattern, windows, point = "latest", screenshot_file, serial_file;
    std::vector<std::string> scripts, guest_scripts;
    std::optional<uint64_t> cpus, memory_bytes;
};

class RecoveryVerbs {
  public:
    RecoveryVerbs(CliEnvironment& environment, const LocationOptions& location, bool json);
    ~RecoveryVerbs();

    // Of test failovers.
    int start_test(const TestArguments& arguments);
    int clean_up_tests(const TestArguments& arguments);
    // `directory`: empty, or where its disks become files of that format, at its host.
    int hydrate(const std::string& item, uint64_t bytes_per_s, const std::string& directory,
                const std::string& format, bool wait);

    // Of an item's network cards: shows them, or changes what is set for one.
    int item_network(const std::string& name, const NicArguments& arguments);

    int recovery_plans();
    int recovery_plan(const std::string& name);
    int import_recovery_plan(const RecoveryPlanArguments& arguments);
    int export_recovery_plan(const RecoveryPlanArguments& arguments);
    int remove_recovery_plan(const std::string& name);
    int check_recovery_plan(const RecoveryPlanArguments& arguments);
    int start_recovery_plan(const RecoveryPlanArguments& arguments);
    int plan_runs(const RecoveryPlanArguments& arguments);
    int plan_run(uint64_t id);
    int report_plan_run(const RecoveryPlanArguments& arguments);
    int change_plan_run(const RecoveryPlanArguments& arguments, const std::string& action);
    int clean_up_plan_run(const RecoveryPlanArguments& arguments);
    int answer_plan_step(const RecoveryPlanArguments& arguments);

    int drill_policy(const std::string& item);
    int set_drill_policy(const DrillArguments& arguments);
    int remove_drill_policy(const std::string& item);
    int start_drill(const DrillArguments& arguments);
    int drills(const DrillArguments& arguments);
    int drill(const DrillArguments& arguments);
    int drill_budget(const DrillArguments& arguments);

  private:
    std::unique_ptr<ClientVerbs::Impl> impl_;
};

using RecoveryVerb = std::function<int(RecoveryVerbs&)>;
// As AddClientVerb (access_commands.h).
using AddRecoveryVerb = std::function<CLI::App*(CLI::App&, const std::string&, const std::string&,
                                                const RecoveryVerb&)>;

}  // namespace farshore
