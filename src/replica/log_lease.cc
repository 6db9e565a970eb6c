#include "replica/log_lease.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>

#include "replica/log_walk.h"

namespace farshore {
namespace {

constexpr size_t kDigits = 16;

// 16 lower-case hexadecimal digits.
std::optional<uint64_t> take_number(std::string_view& text) {
    if (text.size() < kDigits) return std::nullopt;
    const std::string_view digits = text.substr(0, kDigits);
    if (digits.find_first_not_of("0123456789abcdef") != std::string_view::npos) return std::nullopt;
    uint64_t value = 0;
    std::from_chars(digits.data(), digits.data() + kDigits, value, 16);
    text.remove_prefix(kDigits);
    return value;
}

bool take_dash(std::string_view& text) {
    if (!text.starts_with('-')) return false;
    text.remove_prefix(1);
    return true;
}

}  // namespace

std::string log_lease_prefix(const ItemId& item) { return item_prefix(item) + "lease/"; }

std::string log_lease_name(const ItemId& item, const LogLeaseMark& mark) {
    return fmt::format("{}{:016x}-{:016x}-{:016x}", log_lease_prefix(item), mark.epoch.v,
                       mark.start.v, mark.before.v);
}

std::optional<LogLeaseMark> parse_log_lease_name(const ItemId& item, std::string_view name) {
    const std::string prefix = log_lease_prefix(item);
    if (!name.starts_with(prefix)) return std::nullopt;
    name.remove_prefix(prefix.size());
    const auto epoch = take_number(name);
    if (!epoch || !take_dash(name)) return std::nullopt;
    const auto start = take_number(name);
    if (!start || !take_dash(name)) return std::nullopt;
    const auto before = take_number(name);
    if (!before || !name.empty() || *start == 0 || (*before == 0) != (*start == 1))
        return std::nullopt;
    return LogLeaseMark{{*epoch}, {*start}, {*before}};
}

Status put_log_lease(ObjectStore& store, const ItemId& item, const LogLeaseMark& mark) {
    const std::string name = log_lease_name(item, mark);
    return put_idempotent(store, name, as_bytes(name));
}

LogOwners::LogOwners(std::vector<LogLeaseMark> marks) : all_(std::move(marks)) {
    std::ranges::sort(all_, [](const LogLeaseMark& a, const LogLeaseMark& b) {
        return std::pair(a.epoch, a.start) > std::pair(b.epoch, b.start);
    });
    for (const LogLeaseMark& mark : all_) {
        if (marks_.empty() ||
            (mark.epoch == marks_.back().before && mark.start < marks_.back().start))
            marks_.push_back(mark);
    }
}

Result<LogOwners> LogOwners::list(ObjectStore& store, const ItemId& item) {
    FS_ASSIGN(const auto infos, list_all(store, log_lease_prefix(item)));
    std::vector<LogLeaseMark> marks;
    for (const ObjectInfo& info : infos)
        if (const auto mark = parse_log_lease_name(item, info.name)) marks.push_back(*mark);
    return LogOwners(std::move(marks));
}

bool LogOwners::may_own(SegmentNumber number, Epoch epoch) const {
    for (size_t i = 0; i < marks_.size(); ++i) {
        if (number < marks_[i].start) continue;
        // A log that follows another store's has leases that are written down there.
        return i == 0 ? epoch >= marks_[i].epoch : epoch == marks_[i].epoch;
    }
    return marks_.empty() || epoch <= marks_.back().before;
}

SegmentNumber LogOwners::registered() const {
    return marks_.empty() ? SegmentNumber{} : SegmentNumber{marks_.front().start.v - 1};
}

std::vector<LogLeaseMark> LogOwners::unneeded(SegmentNumber floor) const {
    std::vector<LogLeaseMark> out;
    for (const LogLeaseMark& mark : all_)
        if (mark.start <= floor && mark != marks_.front()) out.push_back(mark);
    return out;
}

}  // namespace farshore
