// Says beforehand whether the in-guest capture will work on this machine, and what to do where it
// will not (`farshore agent check`; requirements: docs/design/ebpf.md §6).
//
// Changes nothing: it reads /proc and /sys, and one sector of each disk. What decides is pure
// (judge_*) and takes what was found. Blocking; one thread at a time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "ebpf/local_disks.h"

namespace farshore {

enum class CheckResult : uint8_t {
    kOk,
    kNote,     // information
    kWarning,  // works, with the loss that is named
    kRefused,  // capture will not work
};
std::string_view check_result_name(CheckResult result);  // "ok", "note", "warning", "refused"

struct CaptureCheck {
    CheckResult result = CheckResult::kOk;
    std::string subject;  // "kernel", "rights", "/dev/vda", …
    std::string what;
    std::string remedy;  // empty when there is nothing to do
};

struct CaptureCheckOptions {
    std::vector<std::string> devices;  // empty: all that can be captured
    std::string data_directory;        // of the agent; need not exist
    uint64_t ring_bytes = 256ull << 20;
    uint64_t trace_ring_bytes = 64ull << 20;
    std::string root;  // in front of the paths of what an installation leaves; for tests
};

// All checks, in the order to show them.
std::vector<CaptureCheck> check_capture(const CaptureCheckOptions& options);
// Nothing is refused.
bool capture_will_work(const std::vector<CaptureCheck>& checks);

// `release` as uname has it: "6.1.0-18-amd64".
CaptureCheck judge_kernel(const std::string& release);

// Effective capabilities as a mask; the text of /sys/kernel/security/lockdown ("none [integrity]
// confidentiality"), empty where there is none.
CaptureCheck judge_rights(uint64_t capabilities);
CaptureCheck judge_lockdown(const std::string& lockdown);
CaptureCheck judge_bpf_directory(bool mounted, bool there, uint64_t capabilities);
CaptureCheck judge_memory(uint64_t available_bytes, uint64_t ring_bytes, uint64_t trace_ring_bytes);
CaptureCheck judge_disk(const std::string& path, const Result<LocalDisk>& disk,
                        const Status& readable);

}  // namespace farshore
