// Whether machines run here with KVM or are emulated (TCG).
//
// That /dev/kvm is there and takes a virtual machine does not mean that a real kernel survives in
// it (nested virtualisation). So KVM is believed only when a kernel has shown a sign of life under
// it: the probe boots one where the host has one; else the first machine runs on trial, is watched,
// and is started again with TCG when it shows none. The verdict is kept for this boot of the host.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/seams.h"

namespace farshore {

enum class Accelerator : uint8_t { kKvm, kTcg };
std::string_view accelerator_name(Accelerator accelerator);  // "kvm", "tcg"
Result<Accelerator> accelerator_from_name(std::string_view name);

struct AcceleratorVerdict {
    Accelerator accelerator = Accelerator::kTcg;
    bool on_trial = false;  // watch the machine (TrialWatch), and remember how it went
    std::string words;      // how this was found, for people
};

struct ProbeOptions {
    std::string state_path;  // where the verdict of this boot is kept; its directory must exist
    std::string configured;  // "kvm", "tcg" or empty; FARSHORE_ACCEL goes before it
    std::vector<std::string> kernels;  // to boot as a probe; empty: the newest of /boot/vmlinuz-*
    int kernel_timeout_ms = 10000;
    // Without: answers at once, by what is known.
    bool may_boot_kernel = true;
};

// Blocks for some seconds at most once a boot; call it before the first failover is asked for.
// Never fails: what cannot be found out is TCG, which always works.
AcceleratorVerdict probe_accelerator(FileSystem& files, const ProbeOptions& options);

// Keeps how a machine on trial went.
Status remember_accelerator(FileSystem& files, const std::string& state_path,
                            Accelerator accelerator, const std::string& words);

// What a machine on trial has done so far.
struct TrialSample {
    int64_t age_ms = 0;  // since it was started
    uint64_t serial_bytes = 0;
    uint64_t read_operations = 0;
    uint64_t write_operations = 0;
    uint32_t resets = 0;          // by the guest itself
    bool internal_error = false;  // KVM gave up (QEMU's state "internal-error")
    bool ended = false;           // the process is gone or the guest has shut down
};

enum class TrialVerdict : uint8_t { kUndecided, kAlive, kDead };

// Judges a machine on trial. No I/O, no clock; one thread.
//   alive: it wrote to a disk, or still read or talked kAliveAfterMs after its start;
//   dead:  KVM gave up, the guest reset itself twice, ended, or did nothing for kSilenceMs.
class TrialWatch {
  public:
    static constexpr int64_t kAliveAfterMs = 12'000;
    static constexpr int64_t kSilenceMs = 8'000;

    TrialVerdict feed(const TrialSample& sample);
    // Why, after a verdict.
    const std::string& words() const { return words_; }

  private:
    TrialVerdict decide(TrialVerdict verdict, std::string words);

    TrialSample last_;
    // It did something after the first and not later than the second.
    int64_t progress_after_ms_ = 0;
    int64_t last_progress_ms_ = 0;
    TrialVerdict verdict_ = TrialVerdict::kUndecided;
    std::string words_;
};

}  // namespace farshore
