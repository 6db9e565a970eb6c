#include "capture/todo_map.h"

#include <algorithm>
#include <bit>

namespace farshore {

namespace {
std::atomic_ref<uint64_t> ref(uint64_t& word) { return std::atomic_ref<uint64_t>(word); }
uint64_t load(const uint64_t& word) {
    return ref(const_cast<uint64_t&>(word)).load(std::memory_order_seq_cst);
}
}  // namespace

TodoMap::TodoMap(std::span<uint64_t> words, uint64_t disk_bytes)
    : words_(words),
      disk_bytes_(disk_bytes),
      granules_((disk_bytes + kTodoGranuleBytes - 1) / kTodoGranuleBytes),
      level1_((words.size() + 63) / 64),
      level2_((level1_.size() + 63) / 64),
      count_(std::make_unique<std::atomic<uint64_t>>(0)) {
    FS_CHECK(words.size() == (granules_ + 63) / 64);
    // Bits beyond the disk would be copied for ever; a damaged map must not have them.
    if (granules_ % 64 != 0) words_.back() &= (1ull << (granules_ % 64)) - 1;
    uint64_t count = 0;
    for (uint64_t w = 0; w < words_.size(); ++w) {
        const uint64_t bits = load(words_[w]);
        if (bits == 0) continue;
        count += static_cast<uint64_t>(std::popcount(bits));
        summarise(w);
    }
    count_->store(count, std::memory_order_relaxed);
}

void TodoMap::summarise(uint64_t word) {
    ref(level1_[word / 64]).fetch_or(1ull << (word % 64));
    const uint64_t upper = word / 64;
    ref(level2_[upper / 64]).fetch_or(1ull << (upper % 64));
}

void TodoMap::change(uint64_t first, uint64_t end, bool set) {
    int64_t delta = 0;
    for (uint64_t w = first / 64; w * 64 < end; ++w) {
        const uint64_t low = w * 64 < first ? first - w * 64 : 0;
        const uint64_t high = std::min<uint64_t>(end - w * 64, 64);
        const uint64_t mask = (high == 64 ? ~0ull : (1ull << high) - 1) & ~((1ull << low) - 1);
        if (set) {
            const uint64_t before = ref(words_[w]).fetch_or(mask);
            delta += std::popcount(mask & ~before);
            // The summary may be behind the word, never the other way round for long: a search
            // that misses this bit began before we return.
            summarise(w);
        } else {
            const uint64_t before = ref(words_[w]).fetch_and(~mask);
            delta -= std::popcount(mask & before);
            if ((before & ~mask) == 0) {
                ref(level1_[w / 64]).fetch_and(~(1ull << (w % 64)));
                // Somebody may have set a bit meanwhile and summarised before our clearing.
                if (load(words_[w]) != 0) summarise(w);
                if (load(level1_[w / 64]) == 0) {
                    const uint64_t upper = w / 64;
                    ref(level2_[upper / 64]).fetch_and(~(1ull << (upper % 64)));
                    if (load(level1_[upper]) != 0)
                        ref(level2_[upper / 64]).fetch_or(1ull << (upper % 64));
                }
            }
        }
    }
    count_->fetch_add(static_cast<uint64_t>(delta), std::memory_order_relaxed);
}

void TodoMap::set(uint64_t offset_bytes, uint64_t length_bytes) {
    if (unsure_ != nullptr) unsure_->clear_touched(offset_bytes, length_bytes);
    touch(offset_bytes, length_bytes, true);
}

void TodoMap::clear_touched(uint64_t offset_bytes, uint64_t length_bytes) {
    if (count() != 0) touch(offset_bytes, length_bytes, false);
}

void TodoMap::touch(uint64_t offset_bytes, uint64_t length_bytes, bool set) {
    if (length_bytes == 0 || offset_bytes >= disk_bytes_) return;
    const uint64_t end_bytes = offset_bytes + std::min(length_bytes, disk_bytes_ - offset_bytes);
    change(offset_bytes / kTodoGranuleBytes,
           (end_bytes + kTodoGranuleBytes - 1) / kTodoGranuleBytes, set);
}

void TodoMap::clear(uint64_t offset_bytes, uint64_t length_bytes) {
    if (offset_bytes >= disk_bytes_) return;
    const uint64_t end_bytes = offset_bytes + std::min(length_bytes, disk_bytes_ - offset_bytes);
    const uint64_t first = (offset_bytes + kTodoGranuleBytes - 1) / kTodoGranuleBytes;
    const uint64_t end = end_bytes == disk_bytes_ ? granules_ : end_bytes / kTodoGranuleBytes;
    if (first < end) change(first, end, false);
}

bool TodoMap::test(uint64_t offset_bytes) const {
    const uint64_t granule = offset_bytes / kTodoGranuleBytes;
    return granule < granules_ && (load(words_[granule / 64]) >> (granule % 64) & 1) != 0;
}

uint64_t TodoMap::next_word(uint64_t word) const {
    while (word < words_.size()) {
        if (load(words_[word]) != 0) return word;
        ++word;
        if (word >= words_.size()) break;
        uint64_t upper = word / 64;
        const uint64_t rest = load(level1_[upper]) & (~0ull << (word % 64));
        if (rest != 0) {
            word = upper * 64 + static_cast<uint64_t>(std::countr_zero(rest));
            continue;
        }
        // Nothing left under this level-1 word: by level 2 to the next one that has something.
        ++upper;
        while (upper < level1_.size()) {
            const uint64_t tops = load(level2_[upper / 64]) & (~0ull << (upper % 64));
            if (tops != 0) {
                upper = upper / 64 * 64 + static_cast<uint64_t>(std::countr_zero(tops));
                break;
            }
            upper = (upper / 64 + 1) * 64;
        }
        if (upper >= level1_.size()) break;
        const uint64_t bits = load(level1_[upper]);
        word = upper * 64 + (bits == 0 ? 63 : static_cast<uint64_t>(std::countr_zero(bits)));
    }
    return words_.size();
}

std::optional<ByteRange> TodoMap::next(uint64_t offset_bytes, uint64_t limit_bytes) const {
    uint64_t granule = offset_bytes / kTodoGranuleBytes;
    if (granule >= granules_) return std::nullopt;
    const uint64_t limit = std::max<uint64_t>(1, limit_bytes / kTodoGranuleBytes);
    uint64_t w = granule / 64;
    uint64_t bits = load(words_[w]) & (~0ull << (granule % 64));
    while (bits == 0) {
        w = next_word(w + 1);
        if (w >= words_.size()) return std::nullopt;
        bits = load(words_[w]);
    }
    const uint64_t first = w * 64 + static_cast<uint64_t>(std::countr_zero(bits));
    uint64_t end = first;
    while (end < granules_ && end - first < limit) {
        const uint64_t here = load(words_[end / 64]) >> (end % 64);
        const auto ones = static_cast<uint64_t>(std::countr_one(here));
        if (ones == 0) break;
        end += std::min<uint64_t>(ones, 64 - end % 64);
        if (end % 64 != 0) break;
    }
    end = std::min({end, granules_, first + limit});
    const uint64_t from = first * kTodoGranuleBytes;
    return ByteRange{from, std::min(end * kTodoGranuleBytes, disk_bytes_) - from};
}

}  // namespace farshore
