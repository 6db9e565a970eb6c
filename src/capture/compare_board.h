// Where the tap asks what the replica has, and the agent answers: slots in the shared memory.
// Nobody waits; a slot's ticket tells an answer to an older question from one to the present one,
// so either side may be killed and started again at any moment.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "capture/log_memory.h"
#include "record/compare.h"

namespace farshore {

// The tap's side; one thread.
class CompareAsker {
  public:
    explicit CompareAsker(LogHeader header);

    // kSums with as many sums as blocks were asked, or kEqual without; else it counts as kNothing.
    // What the slot says of its question by now is not believed.
    std::optional<CompareAnswer> take(size_t slot);
    // The slot is free, or what was asked there before is forgotten.
    void ask(size_t slot, const CompareQuestion& question);
    void forget(size_t slot);

  private:
    LogHeader header_;
    std::array<size_t, kCompareSlots> blocks_{};  // asked; 0: nothing
};

// The agent's side; one thread.
class CompareResponder {
  public:
    explicit CompareResponder(LogHeader header) : header_(std::move(header)) {}

    struct Asked {
        size_t slot = 0;
        uint64_t ticket = 0;
        CompareQuestion question;
    };
    // What waits for an answer, read whole. What cannot be read is left out.
    std::vector<Asked> asked() const;
    // Whether any slot waits for an answer, half answered ones too; any thread.
    static bool any(const LogHeader& header);
    // False: it is not asked any more.
    bool answer(const Asked& asked, const CompareAnswer& answer);

  private:
    LogHeader header_;
};

}  // namespace farshore
