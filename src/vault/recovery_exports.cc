// Disks of points that somebody looks into, of the recovery desk.
#include <fmt/core.h>

#include <algorithm>

#include "meta/items.h"
#include "vault/recovery_desk.h"

namespace farshore {

ExportReport RecoveryDesk::export_report(const RecoveryState& state) {
    const std::lock_guard hold(mutex_);
    const auto at = exports_.find(state.id);
    return {state, at == exports_.end() ? 0 : at->second.size_bytes};
}

Result<ExportReport> RecoveryDesk::start_export(const std::string& name, const std::string& point,
                                                DiskIndex disk, const std::string& socket,
                                                const std::string& copy) {
    if (socket.empty() || socket[0] != '/' || socket.size() > 107)
        return fail(Code::kInvalidArgument,
                    "the socket must be an absolute path of at most 107 bytes");
    FS_ASSIGN(const ItemRecord item, find_item(vault_.database(), name));
    FS_TRY(check_action(item.state, ItemAction::kRead));
    FS_ASSIGN(const auto replica, vault_.replica(item.id, copy));
    FS_ASSIGN(const ResolvedPoint resolved,
              replica->resolve(PointSpec::parse(point.empty() ? "latest" : point)));
    FS_ASSIGN(const auto disks, replica->disks_of(resolved.sequence));
    const auto size =
        std::ranges::find_if(disks, [&](const DiskSize& known) { return known.disk == disk; });
    if (size == disks.end() || size->joining)
        return fail(
            Code::kNotFound,
            fmt::format("'{}' has no disk {} at sequence {}{}", item.name, disk,
                        resolved.sequence.v, size == disks.end() ? "" : ": it is not copied yet"),
            "`farshore points` shows which disks a point has");
    ExportRequest request;
    request.id = new_id("export");
    request.item = item.id;
    request.item_name = item.name;
    request.copy = copy;
    request.sequence = resolved.sequence;
    request.point_time = resolved.time;
    request.disk = disk;
    request.socket_path = socket;
    {
        const std::lock_guard hold(mutex_);
        if (exports_.size() >= kMaxExports)
            return fail(Code::kLimitReached, fmt::format("{} exports serve already", kMaxExports),
                        "end some of them");
        for (const auto& [id, entry] : exports_)
            if (entry.socket == socket)
                return fail(Code::kAlreadyExists,
                            fmt::format("export {} serves at {} already", id, socket));
        exports_[request.id] = {clock_.steady_us() + kExportKeptUs, size->size_bytes, socket};
    }
    auto state = recoveries_->start_export(request);
    if (!state) {
        const std::lock_guard hold(mutex_);
        exports_.erase(request.id);
        return tl::unexpected(state.error());
    }
    return export_report(*state);
}

Result<ExportReport> RecoveryDesk::renew_export(const std::string& id) {
    {
        const std::lock_guard hold(mutex_);
        const auto at = exports_.find(id);
        if (at == exports_.end())
            return fail(Code::kNotFound, fmt::format("there is no export {}", id.substr(0, 64)));
        at->second.until_us = clock_.steady_us() + kExportKeptUs;
    }
    FS_ASSIGN(const RecoveryState state, recoveries_->get(id));
    return export_report(state);
}

std::vector<ExportReport> RecoveryDesk::exports() {
    std::vector<ExportReport> reports;
    for (const RecoveryState& state : recoveries_->list())
        if (state.kind == RecoveryKind::kExport) reports.push_back(export_report(state));
    return reports;
}

Status RecoveryDesk::end_export(const std::string& id) {
    {
        const std::lock_guard hold(mutex_);
        if (exports_.count(id) == 0)
            return fail(Code::kNotFound, fmt::format("there is no export {}", id.substr(0, 64)));
    }
    FS_TRY(recoveries_->clean_up(id));
    const std::lock_guard hold(mutex_);
    exports_.erase(id);
    return {};
}

}  // namespace farshore
