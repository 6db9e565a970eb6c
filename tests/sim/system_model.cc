#include "system_model.h"

#include <fmt/core.h>

#include <algorithm>

namespace farshore::system_sim {

void SystemModel::begin_log(uint64_t first, Disks disks) {
    latest_ = disks;
    logs_.push_back({first, std::move(disks), {}});
    doubts_.clear();
}

void SystemModel::apply(Disks& disks, const Change& change) {
    auto to = disks[change.disk].begin() + static_cast<ptrdiff_t>(change.offset);
    if (change.bytes.empty())
        std::fill_n(to, change.length, uint8_t{0});
    else
        std::copy(change.bytes.begin(), change.bytes.end(), to);
}

bool SystemModel::in_doubt(DiskIndex disk, uint64_t at) const {
    return std::ranges::any_of(
        doubts_, [&](const Doubt& d) { return d.disk == disk && d.offset <= at && at < d.end; });
}

void SystemModel::note(const AppendRequest& request, const Appended& result, std::string& broken) {
    if (request.kind != RecordKind::kWrite && request.kind != RecordKind::kZero &&
        request.kind != RecordKind::kDiscard)
        return;
    Change change{result.sequence.v, request.disk, request.offset_bytes, request.length_bytes,
                  to_bytes(request.payload)};
    if (!logs_.back().changes.empty() && logs_.back().changes.back().sequence >= change.sequence &&
        broken.empty())
        broken = fmt::format("sequence {} was given out again after {}\n", change.sequence,
                             logs_.back().changes.back().sequence);
    if (result.dropped) dropped_.push_back(change.sequence);
    if (!request.guest && broken.empty()) {
        const uint8_t* was = latest_[change.disk].data() + change.offset;
        for (uint64_t i = 0; i < change.length; ++i) {
            const uint8_t now = change.bytes.empty() ? 0 : change.bytes[i];
            if (was[i] == now || in_doubt(change.disk, change.offset + i)) continue;
            broken = fmt::format("copy {} changes byte {} of disk {}, which nobody wrote\n",
                                 change.sequence, change.offset + i, change.disk);
            break;
        }
    }
    apply(latest_, change);
    last_change_ = change.sequence;
    logs_.back().changes.push_back(std::move(change));
}

uint64_t SystemModel::begin_change(DiskIndex disk, uint64_t offset, uint64_t length) {
    doubts_.push_back({next_doubt_, disk, offset, offset + length});
    return next_doubt_++;
}

void SystemModel::end_change(uint64_t change) {
    std::erase_if(doubts_, [&](const Doubt& d) { return d.id == change; });
}

bool SystemModel::knows(uint64_t sequence) const {
    return !logs_.empty() && sequence >= logs_.front().first;
}

void SystemModel::replay(const std::vector<uint64_t>& sequences,
                         const std::function<void(uint64_t, const Disks&)>& visit) const {
    size_t at = 0;
    for (size_t i = 0; i < logs_.size() && at < sequences.size(); ++i) {
        const uint64_t end = i + 1 < logs_.size() ? logs_[i + 1].first : UINT64_MAX;
        if (sequences[at] >= end) continue;
        Disks disks = logs_[i].base;
        auto change = logs_[i].changes.begin();
        for (; at < sequences.size() && sequences[at] < end; ++at) {
            for (; change != logs_[i].changes.end() && change->sequence <= sequences[at]; ++change)
                apply(disks, *change);
            visit(sequences[at], disks);
        }
    }
}

uint64_t SystemModel::dropped_within(uint64_t first, uint64_t last) const {
    const auto found = std::ranges::lower_bound(dropped_, first);
    return found != dropped_.end() && *found <= last ? *found : 0;
}

}  // namespace farshore::system_sim
