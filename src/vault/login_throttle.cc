#include "vault/login_throttle.h"

#include <algorithm>

namespace farshore {

int64_t lock_us(uint32_t failures, uint32_t free) {
    if (failures < free) return 0;
    const uint32_t doublings = std::min(failures - free, 16u);
    return std::min(kFirstLockUs << doublings, kLongestLockUs);
}

void LoginThrottle::fail(Table& table, const std::string& key, uint32_t free, int64_t now_us) {
    if (!table.contains(key) && table.size() >= kMaxThrottled)
        table.erase(std::ranges::min_element(
            table, {}, [](const auto& entry) { return entry.second.last_us; }));
    Failures& failures = table[key];
    if (now_us - failures.last_us > kFailuresKeptUs) failures = {};
    ++failures.count;
    failures.last_us = now_us;
    failures.locked_before_us = failures.locked_until_us;
    failures.locked_until_us = now_us + lock_us(failures.count, free);
}

int64_t LoginThrottle::wait_us(const Table& table, const std::string& key, int64_t now_us) {
    const auto at = table.find(key);
    return at == table.end() ? 0 : std::max<int64_t>(at->second.locked_until_us - now_us, 0);
}

int64_t LoginThrottle::wait_us(const std::string& user, const std::string& address,
                               int64_t now_us) const {
    return std::max(wait_us(users_, user, now_us), wait_us(addresses_, address, now_us));
}

uint32_t LoginThrottle::begin(const std::string& user, const std::string& address, int64_t now_us) {
    fail(users_, user, kFreeTriesOfUser, now_us);
    fail(addresses_, address, kFreeTriesOfAddress, now_us);
    return users_[user].count;
}

void LoginThrottle::take_back(Table& table, const std::string& key) {
    const auto at = table.find(key);
    if (at == table.end()) return;
    if (at->second.count > 0) --at->second.count;
    at->second.locked_until_us = at->second.locked_before_us;
}

void LoginThrottle::succeeded(const std::string& user, const std::string& address) {
    users_.erase(user);
    // One good login does not excuse what the address has tried with other names.
    take_back(addresses_, address);
}

void LoginThrottle::undecided(const std::string& user, const std::string& address) {
    take_back(users_, user);
    take_back(addresses_, address);
}

}  // namespace farshore
