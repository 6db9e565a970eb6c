// What vault and appliance say to each other of programs that run on the appliance's machine
// (docs/design/plans.md, "Scripts on appliances"): orders down, words up, all of them each time.
//
// An order is what is wanted, not a message: it is repeated until it is no more wanted, and what it
// leads to happens once, because of its handle. Plain values as JSON. Decoders name what they
// refuse: kMalformed, kTooLarge. Any thread.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/script_names.h"

namespace farshore {

inline constexpr size_t kMaxScriptOrders = 64;              // of one appliance, at a time
inline constexpr size_t kMaxScriptsTold = 256;              // programs that an appliance names
inline constexpr size_t kMaxOrderedOutputBytes = 8u << 10;  // that is kept

struct ScriptOrder {
    std::string handle;   // used once
    std::string program;  // check_script_name()
    std::vector<std::string> arguments;
    std::vector<std::pair<std::string, std::string>> environment;
    // From its begin on, also while nobody gives orders; at least 1.
    uint32_t limit_s = 1;
    // Only what has said kReady begins, and only with this: an appliance that has lost what it knew
    // cannot tell what was never begun from what it has forgotten.
    bool go = false;
    bool end = false;  // it is not wanted any more
};

enum class ScriptState : uint8_t {
    kReady,    // it may begin
    kRunning,  // it was begun
    kEnded,    // `code`, or none when it was ended; `output`
    kFailed,   // `error`: it did not begin, or nobody knows how it ended (kOutcomeUnknown)
};

struct ScriptWord {
    std::string handle;
    ScriptState state = ScriptState::kReady;
    std::optional<int> code{};
    std::string output{};
    std::optional<Error> error{};
};

nlohmann::json script_order_json(const ScriptOrder& order);
Result<ScriptOrder> script_order_of(const nlohmann::json& json);
nlohmann::json script_word_json(const ScriptWord& word);
Result<ScriptWord> script_word_of(const nlohmann::json& json);

}  // namespace farshore
