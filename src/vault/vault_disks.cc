// Disks that are added to a protected machine, taken from it, or grow. The agent carries it out;
// the log says when (docs/format/record.md, GEOMETRY).
#include <fmt/core.h>

#include <algorithm>

#include "vault/vault_impl.h"

namespace farshore {
namespace {

std::string words_for(const DesiredDisk& disk) {
    return disk.path.empty() ? fmt::format("disk {}", disk.index)
                             : fmt::format("disk {} ({})", disk.index, disk.path);
}

}  // namespace

Result<ItemReport> Vault::add_disk(const std::string& name_or_id, const std::string& path) {
    FS_ASSIGN(const ItemRecord record, find_item(*impl_->database, name_or_id));
    if (const auto error = impl_->why_set_aside(record.id)) return fail(*error);
    const bool absolute = !path.empty() && path[0] == '/';
    if (path.empty() || path.size() > kMaxPathBytes ||
        (!absolute && record.mode != CaptureMode::kMirror))
        return fail(Code::kInvalidArgument,
                    fmt::format("'{}' is not an absolute path", path.substr(0, 200)));
    FS_ASSIGN(
        const ItemRecord changed,
        change_item(*impl_->database, record.id, [&](ItemRecord& item) -> Status {
            FS_TRY(check_action(item.state, ItemAction::kChangeDisks));
            for (const DesiredDisk& disk : item.disks)
                if (!disk.removed && disk.path == path)
                    return fail(Code::kAlreadyExists,
                                fmt::format("{} of '{}' is that", words_for(disk), item.name));
            // Which indexes are taken is not known before the agent has said it.
            if (item.disks.empty())
                return fail(Code::kWrongState,
                            "the agent has not described the machine's disks yet",
                            "try again in a moment");
            if (item.disks.size() >= kMaxDisks)
                return fail(Code::kLimitReached,
                            fmt::format("an item has at most {} disks in its life", kMaxDisks),
                            "unprotect the machine and protect it anew");
            DesiredDisk disk;
            disk.index = static_cast<DiskIndex>(item.disks.size());
            disk.path = path;
            disk.joining = true;
            item.disks.push_back(std::move(disk));
            return {};
        }));
    event(Severity::kInformation, "disk-added", &changed,
          fmt::format("{} is being copied; the points have it when that is done",
                      words_for(changed.disks.back())));
    impl_->notify();
    return impl_->report(changed);
}

Result<ItemReport> Vault::remove_disk(const std::string& name_or_id, DiskIndex index) {
    FS_ASSIGN(const ItemRecord record, find_item(*impl_->database, name_or_id));
    if (const auto error = impl_->why_set_aside(record.id)) return fail(*error);
    std::string words;
    FS_ASSIGN(
        const ItemRecord changed,
        change_item(*impl_->database, record.id, [&](ItemRecord& item) -> Status {
            FS_TRY(check_action(item.state, ItemAction::kChangeDisks));
            const auto found = std::ranges::find_if(item.disks, [&](const DesiredDisk& disk) {
                return disk.index == index && !disk.removed;
            });
            if (found == item.disks.end())
                return fail(Code::kNotFound, fmt::format("'{}' has no disk {}", item.name, index),
                            "`farshore item` lists them");
            if (std::ranges::count_if(item.disks,
                                      [](const DesiredDisk& disk) { return !disk.removed; }) == 1)
                return fail(Code::kInvalidArgument,
                            fmt::format("{} is the last one of '{}'", words_for(*found), item.name),
                            "to end the protection, unprotect the machine");
            words = words_for(*found);
            found->removed = true;
            found->joining = false;
            return {};
        }));
    event(Severity::kInformation, "disk-removed", &changed,
          words + " is not protected any more; the points until now keep it");
    impl_->notify();
    return impl_->report(changed);
}

// What the log says of disks that were added.
Status Vault::Impl::tend_disks(Vault& vault, const ItemRecord& record,
                               const std::vector<DiskSize>& stored) {
    const auto joined = [&](const DesiredDisk& disk) {
        return disk.joining && std::ranges::any_of(stored, [&](const DiskSize& known) {
                   return known.disk == disk.index && !known.joining;
               });
    };
    if (std::ranges::none_of(record.disks, joined)) return {};
    std::vector<std::string> words;
    FS_ASSIGN(const ItemRecord changed,
              change_item(*database, record.id, [&](ItemRecord& item) -> Status {
                  words.clear();
                  for (DesiredDisk& disk : item.disks)
                      if (joined(disk)) {
                          disk.joining = false;
                          words.push_back(words_for(disk));
                      }
                  return {};
              }));
    for (const std::string& disk : words)
        vault.event(Severity::kInformation, "disk-joined", &changed,
                    disk + " is copied: the newest points have it");
    notify();
    return {};
}

}  // namespace farshore
