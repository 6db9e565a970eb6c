// What is wrong with a component (an appliance, an agent's machine, a store, the vault itself), by
// what it says of itself from time to time. Pure: time and readings come as arguments. One thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/machine_load.h"
#include "vault/item_drive.h"

namespace farshore {

// From where on something is a warning and from where on critical, when it has been so for
// `lasting_s`. The defaults are those of the field.
struct HealthLimits {
    struct Pair {
        uint32_t warning = 0, critical = 0;
        bool operator==(const Pair&) const = default;
    };
    Pair cpu_percent{80, 95};
    Pair memory_percent{80, 95};
    Pair spool_free_percent{30, 25};  // less than
    Pair upload_eta_min{30, 45};
    uint32_t lasting_s = 900;
    uint32_t silent_s = 60;  // a component that was not heard of for so long is silent

    bool operator==(const HealthLimits&) const = default;
};
// kInvalidArgument, with the limit's name.
Status check_limits(const HealthLimits& limits);
std::string encode_limits(const HealthLimits& limits);
// Fields that are missing are as in `otherwise`. Refuses what check_limits() does.
Result<HealthLimits> decode_limits(std::string_view json, const HealthLimits& otherwise = {});

struct ComponentReading {
    std::string name;  // "appliance one"
    std::optional<int64_t> silent_us;
    MachineLoad load;
    int32_t spool_free_permille = -1;  // -1: not known, or it has none
    int64_t upload_eta_s = -1;         // -1: not known, or nothing waits
    TimePoint certificate_until;       // 0: not known
    TimePoint now;
    std::optional<Trouble> trouble;  // that it has itself
};

class ComponentWatch {
  public:
    std::vector<Trouble> look(int64_t now_us, const ComponentReading& reading,
                              const HealthLimits& limits);

  private:
    // By what is measured: since when it has been over each limit.
    struct Over {
        std::optional<int64_t> warning_us, critical_us;
    };
    std::map<std::string, Over> over_;

    std::optional<Severity> judge(int64_t now_us, const std::string& what, bool warning,
                                  bool critical, const HealthLimits& limits);
};

// Whether a store fails, by what was asked of it and what failed in all.
class StoreWatch {
  public:
    // None: something has succeeded since the last failure, or nothing was asked.
    std::optional<Trouble> look(int64_t now_us, uint64_t requests, uint64_t failed);

  private:
    uint64_t requests_ = 0, failed_ = 0;
    std::optional<int64_t> since_us_;
    uint64_t in_a_row_ = 0;
};

}  // namespace farshore
