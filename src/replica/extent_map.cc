#include "replica/extent_map.h"

#include <algorithm>

namespace farshore {

void ExtentMap::erase(uint32_t start, uint32_t length) {
    if (length == 0) return;
    const uint32_t end = start + length;
    auto it = map_.lower_bound(start);
    if (it != map_.begin()) {
        auto before = std::prev(it);
        const uint32_t before_end = before->first + before->second.length;
        if (before_end > start) {
            const Target old = before->second;
            const uint32_t before_start = before->first;
            before->second.length = start - before_start;
            if (before_end > end) {  // a hole in the middle of one extent
                const uint32_t skipped = end - before_start;
                map_.insert(it, {end, {before_end - end, old.object, old.position + skipped}});
                return;
            }
        }
    }
    auto last = it;
    while (last != map_.end() && last->first < end) {
        const uint32_t last_end = last->first + last->second.length;
        if (last_end > end) {
            const uint32_t skipped = end - last->first;
            const Target rest{last_end - end, last->second.object, last->second.position + skipped};
            it = map_.erase(it, std::next(last));
            map_.insert(it, {end, rest});
            return;
        }
        ++last;
    }
    if (it != last) map_.erase(it, last);
}

void ExtentMap::write(const Extent& extent) {
    // The common overwrite: exactly the range that one extent has.
    auto it = map_.lower_bound(extent.start);
    if (it != map_.end() && it->first == extent.start && it->second.length == extent.length) {
        it->second.object = extent.object;
        it->second.position = extent.position;
        return;
    }
    if (it != map_.end() || !map_.empty()) {
        erase(extent.start, extent.length);
        it = map_.lower_bound(extent.start);
        if (it != map_.begin()) {
            auto before = std::prev(it);
            Target& target = before->second;
            if (before->first + target.length == extent.start && target.object == extent.object &&
                target.position + target.length == extent.position) {
                target.length += extent.length;
                return;
            }
        }
    }
    map_.insert(it, {extent.start, {extent.length, extent.object, extent.position}});
}

bool ExtentMap::append(const Extent& extent) {
    if (!map_.empty()) {
        const auto& [start, last] = *std::prev(map_.end());
        if (extent.start < start + last.length) return false;
    }
    map_.insert(map_.end(), {extent.start, {extent.length, extent.object, extent.position}});
    return true;
}

void ExtentMap::lookup(uint32_t start, uint32_t length, std::vector<Extent>& out) const {
    uint32_t at = start;
    const uint32_t end = start + length;
    auto it = map_.upper_bound(start);
    if (it != map_.begin()) {
        auto before = std::prev(it);
        if (before->first + before->second.length > start) it = before;
    }
    for (; at < end && it != map_.end() && it->first < end; ++it) {
        if (it->first > at) {
            out.push_back({at, it->first - at, kNoObject, 0});
            at = it->first;
        }
        const uint32_t skipped = at - it->first;
        const uint32_t piece = std::min(it->second.length - skipped, end - at);
        out.push_back({at, piece, it->second.object, it->second.position + skipped});
        at += piece;
    }
    if (at < end) out.push_back({at, end - at, kNoObject, 0});
}

}  // namespace farshore
