#include "compute/accelerator.h"

#include <fmt/core.h>
#include <signal.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <nlohmann/json.hpp>

#include "compute/json_read.h"
#include "os/process.h"
#include "os/program_files.h"
#include "os/real.h"
#include "os/waiting.h"

namespace farshore {

using Json = nlohmann::json;

namespace {

// Any of these in the console means that the kernel came through all of its own start: it has no
// root file system here, so it panics, but late.
constexpr std::string_view kSignsOfLife[] = {"VFS: Cannot open root", "Unable to mount root",
                                             "No working init", "Run /init",
                                             "VFS: Unable to mount"};

std::string newest_kernel(FileSystem& files) {
    const auto names = files.list("/boot");
    if (!names) return {};
    std::string newest;
    for (const std::string& name : *names)
        if (name.starts_with("vmlinuz-")) newest = std::max(newest, "/boot/" + name);
    return newest;
}

// Boots a kernel under KVM without a disk and looks for a sign of life on its console.
AcceleratorVerdict boot_kernel(const std::string& kernel, const std::string& console,
                               int timeout_ms) {
    ProcessOptions options;
    options.arguments = {"qemu-system-x86_64",
                         "-machine",
                         "q35,accel=kvm",
                         "-cpu",
                         "host",
                         "-m",
                         "256",
                         "-no-user-config",
                         "-nodefaults",
                         "-display",
                         "none",
                         "-no-reboot",
                         "-kernel",
                         kernel,
                         "-append",
                         "console=ttyS0 panic=-1",
                         "-serial",
                         "file:" + console};
    options.die_with_parent = true;
    auto process = Process::spawn(options);
    if (!process) return {Accelerator::kTcg, false, process.error().what()};
    std::string text;
    const auto alive = [&] {
        text = tail_of_file(console, 8192);
        return std::any_of(std::begin(kSignsOfLife), std::end(kSignsOfLife),
                           [&](std::string_view sign) { return text.find(sign) != text.npos; });
    };
    wait_until(timeout_ms, 50, [&] { return alive() || !process->is_alive(); });
    const bool lives = alive();
    (void)process->kill(SIGKILL);
    (void)process->wait(10'000'000);
    if (lives) return {Accelerator::kKvm, false, fmt::format("{} starts under KVM", kernel)};
    return {Accelerator::kTcg, false,
            fmt::format("{} does not start under KVM ({})", kernel,
                        text.empty() ? "it says nothing" : "it dies early")};
}

}  // namespace

std::string_view accelerator_name(Accelerator accelerator) {
    return accelerator == Accelerator::kKvm ? "kvm" : "tcg";
}

Result<Accelerator> accelerator_from_name(std::string_view name) {
    if (name == "kvm") return Accelerator::kKvm;
    if (name == "tcg") return Accelerator::kTcg;
    return fail(Code::kInvalidArgument,
                fmt::format("the accelerator is kvm or tcg, not '{}'", name.substr(0, 32)));
}

Status remember_accelerator(FileSystem& files, const std::string& state_path,
                            Accelerator accelerator, const std::string& words) {
    // The probe in the background and a machine's trial may end at once.
    static std::mutex one_writer;
    const std::lock_guard lock(one_writer);
    FS_ASSIGN(const BootId boot, host_boot_id());
    const Json json = {{"boot", boot.to_string()},
                       {"accelerator", accelerator_name(accelerator)},
                       {"words", words}};
    return write_file_durably(files, state_path,
                              as_bytes(json.dump(2, ' ', false, Json::error_handler_t::replace)));
}

AcceleratorVerdict probe_accelerator(FileSystem& files, const ProbeOptions& options) {
    const char* environment = std::getenv("FARSHORE_ACCEL");
    for (const auto& [given, where] :
         {std::pair<std::string, const char*>{environment == nullptr ? "" : environment,
                                              "FARSHORE_ACCEL"},
          std::pair<std::string, const char*>{options.configured, "the configuration"}}) {
        if (given.empty()) continue;
        if (const auto chosen = accelerator_from_name(given))
            return {*chosen, false, fmt::format("{} says so", where)};
    }
    const auto boot = host_boot_id();
    if (const auto kept = read_whole_file(files, options.state_path, 64u << 10); kept && boot) {
        const Json json = Json::parse(as_text(*kept), nullptr, false);
        const auto chosen = accelerator_from_name(json_text(json, "accelerator"));
        if (chosen && json_text(json, "boot") == boot->to_string())
            return {*chosen, false, json_text(json, "words")};
    }
    const auto device = files.exists("/dev/kvm");
    if (!device || !*device) return {Accelerator::kTcg, false, "there is no /dev/kvm"};
    if (!files.open("/dev/kvm", OpenMode::kReadWrite))
        return {Accelerator::kTcg, false, "/dev/kvm may not be opened"};

    std::vector<std::string> kernels = options.kernels;
    if (kernels.empty())
        if (const std::string kernel = newest_kernel(files); !kernel.empty()) kernels = {kernel};
    if (!options.may_boot_kernel) kernels.clear();
    for (const std::string& kernel : kernels) {
        const auto there = files.exists(kernel);
        if (!there || !*there) continue;
        const std::string console = options.state_path + ".console";
        AcceleratorVerdict verdict = boot_kernel(kernel, console, options.kernel_timeout_ms);
        (void)files.remove(console);
        // Not remembered when it cannot be written: the next start asks again, no harm.
        (void)remember_accelerator(files, options.state_path, verdict.accelerator, verdict.words);
        return verdict;
    }
    return {Accelerator::kKvm, true,
            "/dev/kvm is there; the first machine will show whether it works"};
}

TrialVerdict TrialWatch::decide(TrialVerdict verdict, std::string words) {
    verdict_ = verdict;
    words_ = std::move(words);
    return verdict_;
}

TrialVerdict TrialWatch::feed(const TrialSample& sample) {
    if (verdict_ != TrialVerdict::kUndecided) return verdict_;
    if (sample.internal_error) return decide(TrialVerdict::kDead, "KVM reported an internal error");
    if (sample.resets >= 2)
        return decide(TrialVerdict::kDead,
                      fmt::format("the guest reset itself {} times", sample.resets));
    if (sample.ended) return decide(TrialVerdict::kDead, "the machine ended by itself");
    if (sample.write_operations > 0)
        return decide(TrialVerdict::kAlive, "the guest wrote to a disk");
    if (sample.serial_bytes != last_.serial_bytes ||
        sample.read_operations != last_.read_operations) {
        // Somewhere between the two samples: the earliest counts as a sign of life, the latest
        // against silence, so that samples far apart decide nothing wrongly.
        progress_after_ms_ = last_.age_ms;
        last_progress_ms_ = sample.age_ms;
    }
    last_ = sample;
    if (progress_after_ms_ >= kAliveAfterMs)
        return decide(TrialVerdict::kAlive, "the guest still works after its start");
    if (sample.age_ms - last_progress_ms_ >= kSilenceMs)
        return decide(TrialVerdict::kDead,
                      fmt::format("the guest neither read a disk nor wrote to its console for {} s",
                                  kSilenceMs / 1000));
    return TrialVerdict::kUndecided;
}

}  // namespace farshore
