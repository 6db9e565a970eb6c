// The client's verbs: each is one or a few calls of the API, shown to a person or, with `json`, as
// the API's own document on one line. They return the exit code; errors have been printed then.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cli/environment.h"
#include "cli/server_location.h"

namespace farshore {

// Exit codes beside those of base/error_codes.h.
inline constexpr int kExitUsage = 64;
inline constexpr int kExitInterrupted = 130;

// What was named of an item's policy; the rest stays as it is.
struct PolicyArguments {
    std::optional<uint64_t> crash_point_interval_s;
    std::optional<uint64_t> window_s;
    std::optional<std::string> keep;
    std::optional<uint64_t> grace_s;
    std::optional<uint64_t> copy_throttle_bytes_per_s;
    std::optional<uint64_t> consistent_interval_s;
    std::optional<uint64_t> rpo_threshold_s;
    std::optional<std::string> resync_windows;
    std::optional<std::string> resync_windows_for;
    std::optional<uint64_t> verify_interval_s;
    std::optional<std::string> bandwidth;
    std::optional<std::string> catch_up;
    std::optional<uint64_t> scrub_interval_s;
};

enum class ResyncWish : uint8_t { kNow, kInWindow, kCancel };

struct ProtectArguments {
    std::string name;
    std::string qmp_socket;
    std::vector<std::string> devices;
    std::vector<std::string> disks;
    std::string agent;
    std::vector<std::string> seeds;
    PolicyArguments policy;
    std::string policy_name;  // to follow, instead
    bool wait = false;        // until it is protected
    uint64_t capture_wait_s = 30;
};

struct ExportArguments {
    std::string name;
    std::string copy;  // the store to read from; empty: the vault's own
    std::string point = "latest";
    uint64_t disk = 0;
    std::string socket;
};

struct MaterialiseArguments {
    std::string name;
    std::string copy;
    std::string point = "latest";
    uint64_t disk = 0;
    std::string to;
    std::string settings;
    bool force = false;
    uint64_t throttle_bytes_per_s = 0;
    bool wait = true;
};

struct FilesArguments {
    std::string name;
    std::string copy;
    std::string point = "latest";
    std::string path = "/";
    std::optional<uint64_t> disk;
    std::optional<uint64_t> partition;
    std::string volume;
    std::string to;
    bool force = false;
    bool emulate = false;
    uint64_t max_bytes = 64ull << 30;
};

struct StoreArguments {
    std::string name, location, settings;
    bool take_over = false;
};

struct NotifierArguments {
    std::string name, kind, target, settings;
    std::string severity = "warning";
};

struct AccessArguments {
    std::string name;  // of a user; of a token, or its id
    std::string role;
    std::vector<std::string> items;
    bool all_items = false;
    bool disable = false, enable = false;
    std::string password_file, old_password_file;
    std::string id_token_file;  // of a login by a provider
    uint64_t valid_s = 0;       // 0: as long as the vault thinks fit
};

struct GroupArguments {
    std::string name, label;
    std::vector<std::string> items;
    std::optional<uint64_t> crash_interval_s, application_interval_s;
    bool consistent = false;
    uint64_t timeout_s = 120;
    uint64_t limit = 100;
};

struct AuditArguments {
    std::string who, item, outcome;
    uint64_t limit = 100;
};

struct PlanArguments {
    std::vector<std::string> items;
    std::optional<uint64_t> rpo_s, outage_s, window_s;
    std::optional<std::string> keep;
    uint64_t growth_percent = 0;  // a year
    uint64_t months = 12;
    std::string bandwidth;
    std::string measured_file, prices_file;
    double stored_per_written = 1;  // of a measured machine
    bool explain = false;
};

struct MeasureArguments {
    std::vector<std::string> disks;
    uint64_t for_s = 600, interval_s = 1;
    std::string output;  // empty: standard output
};

struct SupportBundleArguments {
    std::string output;  // empty: a name with the time, where we are
    std::string config_directory = "/etc/farshore";
    std::vector<std::string> logs;  // files
    bool audit = false;
};

// Of `failover test|start|change-point|commit|cancel|cleanup`.
struct FailoverArguments {
    std::string action, name, point, copy, network, compute;
    bool shut_down = false, planned = false, power_off = false, wait = true;
    uint64_t timeout_s = 0;  // 0: not said
    // Seconds until it decides by itself; 0: it does not. One of them at most.
    uint64_t commit_after_s = 0, roll_back_after_s = 0;
};

// Of `reprotect` and `failback`.
struct ReturnArguments {
    std::string action, name, agent, appliance;
    std::vector<std::string> disks;
    bool accept = false, power_off = false, wait = true;
    uint64_t timeout_s = 0;  // 0: not said
};

struct ListArguments {
    std::string item;
    std::string copy;  // of points
    uint64_t limit = 100;
    // What is asked for in a query, as name and value.
    std::map<std::string, std::string> filters;
};

struct NamedPolicyArguments {
    std::string name;
    PolicyArguments values;
    std::vector<std::string> items;
    bool preview = false;  // show what it would do, and do nothing
    bool yes = false;      // do not ask
};

struct KeyArguments {
    std::string to;  // a source, or the file of an escrow
    std::string passphrase_file, public_key_file;
    bool force = false;
    std::string confirm;
    bool end_replication = false;
};

// Two numbers each, warning and critical; empty: as it is.
struct HealthLimitArguments {
    std::vector<uint32_t> cpu_percent, memory_percent, spool_free_percent, upload_eta_min;
    std::optional<uint32_t> lasting_s, silent_s;
};

class ClientVerbs {
  public:
    ClientVerbs(CliEnvironment& environment, const LocationOptions& location, bool json);
    ~ClientVerbs();

    int items(const ListArguments& arguments);
    int item(const std::string& name);
    int protect(const ProtectArguments& arguments);
    int unprotect(const std::string& name, bool force, bool wait);
    int change_seed(const std::string& name, const std::string& action);
    int disks(const std::string& name);
    int add_disk(const std::string& name, const std::string& path, bool wait);
    int remove_disk(const std::string& name, uint64_t index);
    int resynchronise(const std::string& name, ResyncWish wish, bool wait);
    int scrub(const std::string& name, bool now, bool wait);
    int set(const std::string& name, const PolicyArguments& policy);
    int policies();
    int policy(const std::string& name);
    int create_policy(const NamedPolicyArguments& arguments);
    int edit_policy(const NamedPolicyArguments& arguments);
    int remove_policy(const std::string& name);
    int assign_policy(const NamedPolicyArguments& arguments);

    // client_group_verbs.cc
    int groups();
    int group(const std::string& name);
    int create_group(const GroupArguments& arguments);
    int change_group(const GroupArguments& arguments);
    int join_group(const GroupArguments& arguments);
    int leave_group(const GroupArguments& arguments);
    int remove_group(const std::string& name);
    // Waits until it is stored.
    int group_point(const GroupArguments& arguments);
    int group_points(const GroupArguments& arguments);
    int points(const ListArguments& arguments, const std::string& kind, bool suspicious);
    int point(const std::string& name, const std::string& point, const std::string& copy);
    int holds(const std::string& name);
    int place_hold(const std::string& name, const std::string& point, const std::string& reason);
    int release_hold(const std::string& name, const std::string& id);
    // What `policy` would need, or what the item's own does.
    int cost(const std::string& name, const PolicyArguments& policy);
    int bookmark(const std::string& name, const std::string& label, bool consistent,
                 uint64_t timeout_s);
    int export_point(const ExportArguments& arguments);
    int materialise(const MaterialiseArguments& arguments);
    // Files out of a point, through a small machine of libguestfs on this host.
    int file_volumes(const FilesArguments& arguments);
    int list_files(const FilesArguments& arguments);
    int get_files(const FilesArguments& arguments);
    int failover(const FailoverArguments& arguments);
    int way_home(const ReturnArguments& arguments);
    int states(const std::string& name);
    int failovers(const std::string& name);
    int jobs(const ListArguments& arguments);
    int job(uint64_t id, bool wait);
    int cancel_job(uint64_t id);
    int retry_job(uint64_t id, bool wait);
    int events(const ListArguments& arguments);
    // Those that come, until it is interrupted; a lost connection goes on where it was.
    int follow_events(const ListArguments& arguments);
    int notifiers();
    int add_notifier(const NotifierArguments& arguments);
    int remove_notifier(const std::string& name);
    int test_notifier(const std::string& name);
    int agents();
    int revoke_agent(const std::string& name);
    int nodes();
    int appliances();
    int health_limits(const HealthLimitArguments& arguments);
    int move_items(const std::vector<std::string>& items, const std::string& to, bool lost);
    int evacuate_appliance(const std::string& name, const std::string& to, bool lost);
    int balance_appliances(const std::string& site);
    int alarms(const ListArguments& arguments, bool all);
    int acknowledge_alarm(uint64_t id, const std::string& note);
    int stores();
    int add_store(const StoreArguments& arguments);
    int remove_store(const std::string& name);
    int copies(const std::string& name);
    int change_copy(const std::string& name, const std::string& store,
                    const PolicyArguments& policy, bool add);
    int remove_copy(const std::string& name, const std::string& store, bool delete_points,
                    bool wait);
    int keys();
    int rotate_key(const std::string& to, bool wait);
    int verify_keys();
    int escrow_keys(const KeyArguments& arguments);
    int destroy_key(const std::string& name, const std::string& confirm, bool end_replication,
                    bool wait);
    int create_token(const std::string& kind, const std::string& name, uint64_t valid_s);
    int server();
    int login(const AccessArguments& arguments);
    int logout();
    int whoami();
    int change_password(const AccessArguments& arguments);
    int users();
    int add_user(const AccessArguments& arguments);
    int set_user(const AccessArguments& arguments);
    int set_user_password(const AccessArguments& arguments);
    int remove_user(const std::string& name);
    int access_tokens(bool all);
    int create_access_token(const AccessArguments& arguments);
    int revoke_access_token(const std::string& id);
    int audit(const AuditArguments& arguments);
    int plan(const PlanArguments& arguments);
    int measure(const MeasureArguments& arguments);
    int support_bundle(const SupportBundleArguments& arguments);  // support_bundle.h

    struct Impl;  // client_verbs_impl.h

  private:
    std::unique_ptr<Impl> impl_;
};

// Prints "farshore: error" (or, with json, the problem document) to `err`; returns the exit code.
int print_error(CliEnvironment& environment, const Error& error, bool json);

}  // namespace farshore
