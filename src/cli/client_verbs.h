// The client's verbs: each is one or a few calls of the API, shown to a person or, with `json`, as
// the API's own document on one line. They return the exit code; errors have been printed then.
#pragma once

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
    bool wait = false;  // until it is protected
    uint64_t capture_wait_s = 30;
};

struct ExportArguments {
    std::string name;
    std::string point = "latest";
    uint64_t disk = 0;
    std::string socket;
};

struct ListArguments {
    std::string item;
    uint64_t limit = 100;
};

class ClientVerbs {
  public:
    ClientVerbs(CliEnvironment& environment, const LocationOptions& location, bool json);
    ~ClientVerbs();

    int items();
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
    int points(const ListArguments& arguments, const std::string& kind, bool suspicious);
    int point(const std::string& name, const std::string& point);
    int bookmark(const std::string& name, const std::string& label, bool consistent,
                 uint64_t timeout_s);
    int export_point(const ExportArguments& arguments);
    int failover(const std::string& action, const std::string& name, const std::string& point,
                 bool wait);
    int failovers(const std::string& name);
    int jobs(const ListArguments& arguments);
    int job(uint64_t id, bool wait);
    int cancel_job(uint64_t id);
    int events(const ListArguments& arguments);
    int agents();
    int create_token(const std::string& kind, const std::string& name, uint64_t valid_s);
    int server();

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

// Prints "farshore: error" (or, with json, the problem document) to `err`; returns the exit code.
int print_error(CliEnvironment& environment, const Error& error, bool json);

}  // namespace farshore
