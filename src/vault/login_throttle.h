// How often a password may be tried: for each user name, whether there is such a user or not, and
// for each address. Time is an argument. One thread at a time.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>

namespace farshore {

// So many wrong passwords in a row are free; each further one locks, twice as long each time.
inline constexpr uint32_t kFreeTriesOfUser = 5;
inline constexpr uint32_t kFreeTriesOfAddress = 20;
inline constexpr int64_t kFirstLockUs = 30'000'000;
inline constexpr int64_t kLongestLockUs = 900'000'000;
// Failures are forgotten when none has come for so long.
inline constexpr int64_t kFailuresKeptUs = 3'600'000'000;
// Of each kind; when there are more, the one that failed longest ago is forgotten.
inline constexpr size_t kMaxThrottled = 10'000;

// How long the lock is behind so many failures; 0: there is none.
int64_t lock_us(uint32_t failures, uint32_t free);

class LoginThrottle {
  public:
    // How long somebody must wait who would try now; 0: he may.
    int64_t wait_us(const std::string& user, const std::string& address, int64_t now_us) const;
    // A try begins, which counts as a failure until it is known better: tries at one time must not
    // be more than tries in a row. How often the user's have failed then.
    uint32_t begin(const std::string& user, const std::string& address, int64_t now_us);
    // It was the right password.
    void succeeded(const std::string& user, const std::string& address);
    // It was neither: somebody else was in the way.
    void undecided(const std::string& user, const std::string& address);

  private:
    struct Failures {
        uint32_t count = 0;
        int64_t last_us = 0, locked_until_us = 0;
        int64_t locked_before_us = 0;  // as it was before the newest
    };
    using Table = std::unordered_map<std::string, Failures>;
    static void fail(Table& table, const std::string& key, uint32_t free, int64_t now_us);
    static void take_back(Table& table, const std::string& key);
    static int64_t wait_us(const Table& table, const std::string& key, int64_t now_us);

    Table users_, addresses_;
};

}  // namespace farshore
