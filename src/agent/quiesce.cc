#include "agent/quiesce.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "ebpf/freezer.h"
#include "os/log.h"
#include "os/real.h"

namespace farshore {

Result<std::unique_ptr<Quiesce>> Quiesce::begin(const QuiesceTarget& target,
                                                const std::string& label, FileSystem& files,
                                                std::atomic<bool>& frozen) {
    std::unique_ptr<Quiesce> quiesce(new Quiesce(target, label, files, frozen));
    if (Status begun = quiesce->begin_here(); !begun) {
        quiesce->finish(false);
        return fail(begun.error());
    }
    return quiesce;
}

Quiesce::~Quiesce() { finish(false); }

Status Quiesce::begin_here() {
    FS_ASSIGN(scripts_, find_scripts(target_.scripts_directory, target_.item_name));
    if (target_.mode == CaptureMode::kDevice) {
        FS_ASSIGN(to_freeze_.mounts, find_mounts_to_freeze(target_.devices));
    }
    to_freeze_.guest_agent = target_.guest_agent;
    if (to_freeze_.empty() && !scripts_.any())
        return fail(Code::kUnsupported,
                    "nothing can bring this machine to rest: it has no guest agent that the host "
                    "reaches, no agent inside, and no scripts",
                    "install qemu-guest-agent in a mirrored machine, protect it from inside "
                    "(--device), write scripts (docs/operations/consistency.md), or make the point "
                    "without --consistent");
    if (!scripts_.pre.empty() || !scripts_.post.empty()) {
        FS_TRY(write_file_durably(files_, target_.script_note, as_bytes(label_)));
        began_ = true;
    }
    if (!scripts_.pre.empty()) {
        ScriptCall call;
        call.path = scripts_.pre;
        call.item = target_.item;
        call.item_name = target_.item_name;
        call.label = label_;
        call.timeout_us = target_.limits.script_us;
        FS_TRY(run_script(call));
    }
    return {};
}

Status Quiesce::freeze(Clock& clock) {
    if (to_freeze_.empty()) return {};
    frozen_ = !to_freeze_.mounts.empty();
    auto begun =
        FileSystemFreeze::begin(target_.freeze_note, to_freeze_, files_, clock, target_.limits);
    if (!begun) {
        frozen_ = false;
        left_over_ = files_.exists(target_.freeze_note).value_or(false);
        return fail(begun.error());
    }
    freeze_.emplace(std::move(*begun));
    return {};
}

Status Quiesce::thaw() {
    if (!freeze_) return {};
    const Status thawed = freeze_->end();
    freeze_.reset();
    frozen_ = false;
    left_over_ = !thawed;
    return thawed;
}

void Quiesce::finish(bool made) {
    if (auto thawed = thaw(); !thawed)
        log::warn("agent", {.item = target_.item_name, .item_id = target_.item.to_string()}, "{}",
                  thawed.error().to_string());
    if (!std::exchange(began_, false)) return;
    run_post(target_, scripts_.post, label_, made ? "made" : "failed", files_);
}

void Quiesce::run_post(const QuiesceTarget& target, const std::string& path,
                       const std::string& label, const char* outcome, FileSystem& files) {
    if (!path.empty()) {
        ScriptCall call;
        call.path = path;
        call.item = target.item;
        call.item_name = target.item_name;
        call.label = label;
        call.outcome = outcome;
        call.timeout_us = target.limits.script_us;
        if (auto ran = run_script(call); !ran)
            log::warn("agent",
                      {.item = target.item_name,
                       .item_id = target.item.to_string(),
                       .code = code_name(ran.error().code())},
                      "{}", ran.error().to_string());
    }
    (void)files.remove(target.script_note);
}

void Quiesce::finish_leftover(const QuiesceTarget& target, FileSystem& files) {
    const auto label = read_whole_file(files, target.script_note, kMaxLabelBytes);
    if (!label) return;
    auto scripts = find_scripts(target.scripts_directory, target.item_name);
    if (!scripts)
        log::warn("agent", {.item = target.item_name, .item_id = target.item.to_string()}, "{}",
                  scripts.error().to_string());
    run_post(target, scripts ? scripts->post : std::string(), std::string(as_text(*label)),
             "unknown", files);
}

}  // namespace farshore
