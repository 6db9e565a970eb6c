#include "capture/compare_board.h"

#include <algorithm>
#include <cstring>

namespace farshore {
namespace {

// Words of a slot; docs/format/shared-memory.md.
constexpr size_t kState = 0, kDisk = 1, kOffset = 2, kLength = 3, kAtLeast = 4, kSum = 5, kKey = 7,
                 kVerdict = 11, kCount = 12, kUnreadable = 13;
static_assert(kUnreadable < LogHeader::kCompareSlotWords);

// The state word is ticket * 4 + one of these.
constexpr uint64_t kFree = 0, kAsked = 1, kAnswering = 2, kAnswered = 3, kStateMask = 3;

// Also where a responder died while it answered.
bool unanswered(uint64_t state) {
    return (state & kStateMask) == kAsked || (state & kStateMask) == kAnswering;
}
uint64_t next_ticket(uint64_t state) { return ((state >> 2) + 1) << 2; }

template <size_t kBytes>
void put(const LogHeader& header, size_t slot, size_t word,
         const std::array<uint8_t, kBytes>& bytes) {
    for (size_t i = 0; i < kBytes / 8; ++i)
        header.compare_slot(slot, word + i).store(load_u64(bytes.data() + 8 * i));
}
template <size_t kBytes>
void get(const LogHeader& header, size_t slot, size_t word, std::array<uint8_t, kBytes>& bytes) {
    for (size_t i = 0; i < kBytes / 8; ++i)
        store_u64(bytes.data() + 8 * i, header.compare_slot(slot, word + i).load());
}

}  // namespace

CompareAsker::CompareAsker(LogHeader header) : header_(std::move(header)) {
    for (size_t slot = 0; slot < kCompareSlots; ++slot) forget(slot);
}

void CompareAsker::forget(size_t slot) {
    auto state = header_.compare_slot(slot, kState);
    state.store(next_ticket(state.load()) | kFree);
    blocks_[slot] = 0;
}

void CompareAsker::ask(size_t slot, const CompareQuestion& question) {
    auto state = header_.compare_slot(slot, kState);
    const uint64_t ticket = next_ticket(state.load());
    blocks_[slot] = question.blocks();
    // Until all of it is there, nobody may read it.
    state.store(ticket | kFree);
    header_.compare_slot(slot, kDisk).store(question.disk);
    header_.compare_slot(slot, kOffset).store(question.offset_bytes);
    header_.compare_slot(slot, kLength).store(question.length_bytes);
    header_.compare_slot(slot, kAtLeast).store(question.at_least.v);
    put(header_, slot, kSum, question.sum);
    put(header_, slot, kKey, question.key);
    state.store(ticket | kAsked);
}

std::optional<CompareAnswer> CompareAsker::take(size_t slot) {
    auto state = header_.compare_slot(slot, kState);
    if (blocks_[slot] == 0 || (state.load() & kStateMask) != kAnswered) return std::nullopt;
    CompareAnswer answer;
    const uint64_t verdict = header_.compare_slot(slot, kVerdict).load();
    const uint64_t count = header_.compare_slot(slot, kCount).load();
    if (verdict == static_cast<uint64_t>(CompareVerdict::kEqual)) {
        answer.verdict = CompareVerdict::kEqual;
    } else if (verdict == static_cast<uint64_t>(CompareVerdict::kSums) && count == blocks_[slot] &&
               count <= kMaxCompareBlocks) {
        answer.verdict = CompareVerdict::kSums;
        answer.sums.resize(count);
        std::memcpy(answer.sums.data(), header_.compare_sums(slot).data(),
                    count * sizeof(BlockSum));
        answer.unreadable =
            static_cast<uint32_t>(std::min(count, header_.compare_slot(slot, kUnreadable).load()));
    }
    forget(slot);
    return answer;
}

bool CompareResponder::any(const LogHeader& header) {
    for (size_t slot = 0; slot < kCompareSlots; ++slot)
        if (unanswered(header.compare_slot(slot, kState).load())) return true;
    return false;
}

std::vector<CompareResponder::Asked> CompareResponder::asked() const {
    std::vector<Asked> all;
    for (size_t slot = 0; slot < kCompareSlots; ++slot) {
        auto state = header_.compare_slot(slot, kState);
        const uint64_t before = state.load();
        if (!unanswered(before)) continue;
        Asked one;
        one.slot = slot;
        one.ticket = before >> 2;
        CompareQuestion& question = one.question;
        const uint64_t disk = header_.compare_slot(slot, kDisk).load();
        question.offset_bytes = header_.compare_slot(slot, kOffset).load();
        question.length_bytes = header_.compare_slot(slot, kLength).load();
        question.at_least = {header_.compare_slot(slot, kAtLeast).load()};
        get(header_, slot, kSum, question.sum);
        get(header_, slot, kKey, question.key);
        const auto& sizes = header_.geometry().disk_bytes;
        if (disk >= sizes.size() || !check_question(question) ||
            question.offset_bytes > sizes[disk] ||
            question.length_bytes > sizes[disk] - question.offset_bytes)
            continue;
        question.disk = static_cast<DiskIndex>(disk);
        if (state.load() == before) all.push_back(one);
    }
    return all;
}

bool CompareResponder::answer(const Asked& asked, const CompareAnswer& answer) {
    auto state = header_.compare_slot(asked.slot, kState);
    const uint64_t answering = asked.ticket << 2 | kAnswering;
    uint64_t before = asked.ticket << 2 | kAsked;
    if (!state.compare_exchange_strong(before, answering) && before != answering) return false;
    header_.compare_slot(asked.slot, kVerdict).store(static_cast<uint64_t>(answer.verdict));
    const size_t count = std::min(answer.sums.size(), kMaxCompareBlocks);
    header_.compare_slot(asked.slot, kCount).store(count);
    header_.compare_slot(asked.slot, kUnreadable).store(answer.unreadable);
    if (count != 0)
        std::memcpy(header_.compare_sums(asked.slot).data(), answer.sums.data(),
                    count * sizeof(BlockSum));
    before = answering;
    return state.compare_exchange_strong(before, asked.ticket << 2 | kAnswered);
}

}  // namespace farshore
