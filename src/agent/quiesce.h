// A machine brought to rest for an application-consistent point, and back: its scripts, and its
// file systems frozen from inside (this machine's own) or by its guest agent (a mirrored QEMU).
//
// Whatever happens to this process, a frozen machine is thawed (file_system_freeze.h). Blocking,
// for as long as a script takes; one thread. Owned by whoever makes the point.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/file_system_freeze.h"
#include "agent/item_scripts.h"
#include "base/seams.h"
#include "ebpf/local_disks.h"
#include "meta/agent_documents.h"

namespace farshore {

struct QuiesceTarget {
    ItemId item;
    std::string item_name;
    CaptureMode mode = CaptureMode::kInPath;
    std::vector<LocalDisk> devices;  // of this machine's own
    std::string guest_agent;         // socket, of a mirrored machine; empty: it has none
    std::string scripts_directory;   // empty: none
    std::string freeze_note;         // on a tmpfs (file_system_freeze.h)
    std::string script_note;         // there, too: that `pre` has run and `post` has not
    RestLimits limits;
};

class Quiesce {
  public:
    // `pre`. kUnsupported: there is nothing that could bring this machine to rest. After an error
    // all is undone. `frozen` is true while nobody may touch a disk of ours.
    static Result<std::unique_ptr<Quiesce>> begin(const QuiesceTarget& target,
                                                  const std::string& label, FileSystem& files,
                                                  std::atomic<bool>& frozen);
    ~Quiesce();

    // The file systems. After an error none is, or left_over(); finish() is to be called still.
    Status freeze(Clock& clock);
    // Until when (steady) the file systems are at rest, if thaw() says so. INT64_MAX: scripts alone
    // answer for it.
    int64_t until_us() const { return freeze_ ? freeze_->until_us() : INT64_MAX; }
    // An error: they were not at rest until now. Again: ok.
    Status thaw();
    // Something may still be frozen: thaw_leftovers() is to be tried again.
    bool left_over() const { return left_over_; }
    // `post`; its failure costs nothing but a line in the log.
    void finish(bool made);

    // Of an agent that was killed: `post` with the outcome "unknown", if `pre` has run.
    static void finish_leftover(const QuiesceTarget& target, FileSystem& files);

  private:
    Quiesce(QuiesceTarget target, std::string label, FileSystem& files, std::atomic<bool>& frozen)
        : target_(std::move(target)), label_(std::move(label)), files_(files), frozen_(frozen) {}
    Status begin_here();
    static void run_post(const QuiesceTarget& target, const std::string& path,
                         const std::string& label, const char* outcome, FileSystem& files);

    const QuiesceTarget target_;
    const std::string label_;
    FileSystem& files_;
    std::atomic<bool>& frozen_;
    ItemScripts scripts_;
    FreezeTarget to_freeze_;
    std::optional<FileSystemFreeze> freeze_;
    bool began_ = false;  // `pre` was started
    bool left_over_ = false;
};

}  // namespace farshore
