// What a drill is: when an item's points are tried, and by what a good machine is known. And the
// judgement of one, as a pure core. docs/operations/drills.md.
//
// Plain values; any thread. Decoding refuses by name what it does not know.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/types.h"
#include "compute/qemu_machine.h"

namespace farshore {

inline constexpr uint32_t kMinDrillIntervalS = 60;
inline constexpr uint32_t kMaxDrillSeconds = 366 * 86'400;
inline constexpr size_t kMaxDrillChecks = 20;
inline constexpr size_t kMaxDrillPolicyBytes = 64u << 10;
inline constexpr size_t kMaxSerialPatternBytes = 1000;
inline constexpr size_t kMaxDrillOutputBytes = 8u << 10;  // that is kept of one check

struct DrillCheck {
    bool inside = false;  // a program in the machine; else a script of the vault's
    std::string program;  // a path; a file of the vault's scripts directory
    std::vector<std::string> arguments;
    uint32_t limit_s = 60;
};

struct DrillPolicy {
    uint32_t interval_s = 0;        // between drills; 0: none by the clock
    bool after_consistent = false;  // of each application-consistent point
    uint32_t overdue_s = 0;         // a good one older than this is an alarm; 0: twice the interval
    uint32_t limit_s = 600;         // from the machine's start until all of these are seen
    bool agent = false;             // the guest agent answers; a check inside implies it
    uint16_t port = 0;              // a TCP port takes connections; 0: none
    std::string serial;             // this text is said at the serial line; empty: none
    std::string serial_pattern;     // a line there matches this (line_pattern.h); empty: none
    // When one may begin by itself (base/weekly_windows.h); empty: at any time.
    std::string windows;
    std::vector<DrillCheck> checks;  // then; each must exit with 0

    // After how long without a good drill it is overdue; 0: never.
    int64_t overdue_us() const;
};

nlohmann::json drill_policy_json(const DrillPolicy& policy);
// kInvalidArgument also for one by which no machine could be told from a broken one.
Result<DrillPolicy> drill_policy_from_json(const nlohmann::json& json);

enum class DrillVerdict : uint8_t {
    kOpen,  // it has none yet
    kGood,
    kBad,
    kNone,  // it could not be done, which says nothing of the machine
};
std::string_view drill_verdict_name(DrillVerdict verdict);  // "open", "good", "bad", "none"
Result<DrillVerdict> drill_verdict_from_name(std::string_view name);

// What is seen of a machine from time to time.
struct DrillSample {
    int64_t age_us = 0;  // since it was started
    MachineState machine = MachineState::kRunning;
    bool agent = false, port = false, serial = false, pattern = false;
};

// Undecided while all may still come; kGood: everything was seen (each at one time or another);
// kBad with the reason in `why`.
class DrillWatch {
  public:
    explicit DrillWatch(const DrillPolicy& policy) : policy_(policy) {}
    DrillVerdict feed(const DrillSample& sample);
    const std::string& why() const { return why_; }
    bool wants_agent() const { return policy_.agent && !seen_.agent; }
    bool wants_port() const { return policy_.port != 0 && !seen_.port; }
    bool wants_serial() const { return !policy_.serial.empty() && !seen_.serial; }
    bool wants_pattern() const { return !policy_.serial_pattern.empty() && !seen_.pattern; }

  private:
    std::string missing() const;

    DrillPolicy policy_;
    DrillSample seen_;
    std::string why_;
};

// Finds a text in what grows: told of the new bytes only.
class TextFinder {
  public:
    explicit TextFinder(std::string text) : text_(std::move(text)) {}
    bool feed(std::string_view bytes);

  private:
    std::string text_, tail_;
};

}  // namespace farshore
