#include "sim/file_data.h"

#include <algorithm>

namespace farshore::sim {
namespace {

using Fate = PowerLossPolicy::Fate;

uint8_t sector_mask(uint64_t from_in_page, uint64_t to_in_page) {
    const uint64_t first = from_in_page / kSectorBytes;
    const uint64_t end = (to_in_page + kSectorBytes - 1) / kSectorBytes;
    return static_cast<uint8_t>(((1u << (end - first)) - 1) << first);
}

}  // namespace

size_t FileData::read(uint64_t offset, MutableByteView out, bool durable) const {
    const uint64_t size = durable ? durable_size_ : size_;
    if (offset >= size) return 0;
    const size_t length = std::min<uint64_t>(out.size(), size - offset);
    size_t done = 0;
    while (done < length) {
        const uint64_t at = offset + done, in_page = at % kPageBytes;
        const size_t n = std::min<uint64_t>(length - done, kPageBytes - in_page);
        const PageSlot* slot = find(at / kPageBytes);
        const Page* page = slot == nullptr ? nullptr : durable ? &slot->durable : &slot->cached;
        if (page == nullptr || page->hole()) {
            std::memset(out.data() + done, 0, n);
        } else {
            std::memcpy(out.data() + done, page->read() + in_page, n);
        }
        done += n;
    }
    return length;
}

uint64_t FileData::new_pages(uint64_t offset, uint64_t length) const {
    if (length == 0) return 0;
    uint64_t count = 0;
    for (uint64_t p = offset / kPageBytes; p <= (offset + length - 1) / kPageBytes; ++p) {
        const PageSlot* slot = find(p);
        count += slot == nullptr || slot->cached.hole();
    }
    return count;
}

void FileData::write(uint64_t offset, ByteView data) {
    size_t done = 0;
    while (done < data.size()) {
        const uint64_t at = offset + done, in_page = at % kPageBytes;
        const size_t n = std::min<uint64_t>(data.size() - done, kPageBytes - in_page);
        PageSlot& slot = make(at / kPageBytes);
        pages_ += slot.cached.hole();
        std::memcpy(slot.cached.write() + in_page, data.data() + done, n);
        mark(at / kPageBytes, slot, sector_mask(in_page, in_page + n));
        done += n;
    }
    if (!data.empty()) size_ = std::max(size_, offset + data.size());
}

void FileData::punch(uint64_t offset, uint64_t length) {
    const uint64_t end =
        std::min(size_, offset + std::min(length, size_ - std::min(size_, offset)));
    for (uint64_t at = offset; at < end;) {
        const uint64_t p = at / kPageBytes, in_page = at % kPageBytes;
        const uint64_t n = std::min(end - at, kPageBytes - in_page);
        PageSlot* slot = find(p);
        if (slot == nullptr) {  // nothing in the whole chunk
            at = (p / kPagesPerChunk + 1) * kPagesPerChunk * kPageBytes;
            continue;
        }
        if (n == kPageBytes) {
            pages_ -= !slot->cached.hole();
            slot->cached = {};
            if (!slot->durable.hole()) {
                mark(p, *slot, 0xff);
            } else {
                slot->dirty = 0;
            }
        } else if (!slot->cached.hole()) {
            std::memset(slot->cached.write() + in_page, 0, n);
            mark(p, *slot, sector_mask(in_page, in_page + n));
        }
        at += n;
    }
}

void FileData::truncate(uint64_t to) {
    if (to < size_) {
        cut(to, false);
        least_size_ = std::min(least_size_, to);
    }
    size_ = to;
}

void FileData::sync() {
    if (least_size_ < durable_size_) {
        for_each_from(least_size_ / kPageBytes, [](uint64_t, PageSlot& slot) {
            slot.durable = slot.cached;
            slot.dirty = 0;
        });
    }
    for (const uint64_t p : dirty_) {
        PageSlot* slot = find(p);
        if (slot == nullptr || slot->dirty == 0) continue;
        slot->durable = slot->cached;
        slot->dirty = 0;
    }
    dirty_.clear();
    durable_size_ = least_size_ = size_;
}

void FileData::write_back_some(Rng& rng) {
    if (least_size_ < durable_size_ || dirty_.empty()) return;
    const uint64_t p = dirty_[rng.below(dirty_.size())];
    PageSlot* slot = find(p);
    if (slot == nullptr) return;
    for (unsigned s = 0; s < kSectorsPerPage; ++s) {
        if ((slot->dirty & (1u << s)) == 0 || !rng.coin()) continue;
        keep_sector(*slot, s, kSectorBytes);
        slot->dirty &= static_cast<uint8_t>(~(1u << s));
    }
}

void FileData::sync_failed(Rng& rng) {
    for (const uint64_t p : dirty_) {
        PageSlot* slot = find(p);
        if (slot == nullptr || slot->dirty == 0) continue;
        if (least_size_ >= durable_size_)
            for (unsigned s = 0; s < kSectorsPerPage; ++s)
                if ((slot->dirty & (1u << s)) != 0 && rng.coin())
                    keep_sector(*slot, s, kSectorBytes);
        slot->dirty = 0;
        if (rng.below(4) == 0 && (p + 1) * kPageBytes <= std::min(size_, durable_size_)) {
            pages_ -= !slot->cached.hole();
            slot->cached = slot->durable;
            pages_ += !slot->cached.hole();
        }
    }
    dirty_.clear();
    if (least_size_ >= durable_size_ && rng.coin()) durable_size_ = size_;
    least_size_ = std::min(size_, durable_size_);
    lost_ = true;
}

void FileData::lose_power(const PowerLossPolicy& policy, Rng& rng) {
    const bool shrunk = least_size_ < durable_size_;
    if (dirty_.empty() && size_ == durable_size_ && !shrunk && !lost_) return;
    const Fate fate = draw_fate(policy.data, rng);
    const bool shrink_kept =
        shrunk && (fate == Fate::kKept || (fate == Fate::kMixed && rng.coin()));
    if (shrink_kept) cut(least_size_, true);
    if (fate != Fate::kDropped) {
        const uint32_t keep_ppm =
            fate == Fate::kKept ? 1'000'000 : static_cast<uint32_t>(rng.between(50'000, 950'000));
        const uint32_t torn_ppm = fate == Fate::kKept ? 0 : policy.torn_sector_ppm;
        for (const uint64_t p : dirty_) {
            PageSlot* slot = find(p);
            if (slot == nullptr) continue;
            for (unsigned s = 0; s < kSectorsPerPage; ++s) {
                if ((slot->dirty & (1u << s)) == 0 || !rng.chance_ppm(keep_ppm)) continue;
                // A truncation that was lost takes with it what was written behind it.
                if (shrunk && !shrink_kept && p * kPageBytes + (s + 1) * kSectorBytes > least_size_)
                    continue;
                keep_sector(*slot, s,
                            rng.chance_ppm(torn_ppm) ? rng.below(kSectorBytes) : kSectorBytes);
            }
        }
    }
    if (!shrunk || shrink_kept) {
        const uint64_t least = std::min(least_size_, durable_size_);
        if (fate == Fate::kKept) {
            durable_size_ = size_;
        } else if (fate == Fate::kMixed) {
            const uint64_t n = rng.below(3);
            durable_size_ =
                n == 0   ? least
                : n == 1 ? size_
                         : least + rng.below((size_ - least) / kSectorBytes + 1) * kSectorBytes;
        } else {
            durable_size_ = least;
        }
    }
    dirty_.clear();
    lost_ = false;
    size_ = least_size_ = durable_size_;
    cut(durable_size_, true);
    pages_ = 0;
    for_each_from(0, [this](uint64_t, PageSlot& slot) {
        slot.cached = slot.durable;
        slot.dirty = 0;
        pages_ += !slot.cached.hole();
    });
}

void FileData::flip_bit(uint64_t bit) {
    const uint64_t at = bit / 8;
    PageSlot& slot = make(at / kPageBytes);
    const auto mask = static_cast<uint8_t>(1u << (bit % 8));
    const bool same = slot.cached.same(slot.durable);
    pages_ += slot.cached.hole();
    slot.durable.write()[at % kPageBytes] ^= mask;
    if (same) {
        slot.cached = slot.durable;
    } else {
        slot.cached.write()[at % kPageBytes] ^= mask;
    }
}

PageSlot* FileData::find(uint64_t page) const {
    const auto chunk = chunks_.find(page / kPagesPerChunk);
    return chunk == chunks_.end() ? nullptr : &(*chunk->second)[page % kPagesPerChunk];
}

PageSlot& FileData::make(uint64_t page) {
    auto& chunk = chunks_[page / kPagesPerChunk];
    if (chunk == nullptr) chunk = std::make_unique<Chunk>();
    return (*chunk)[page % kPagesPerChunk];
}

void FileData::mark(uint64_t page, PageSlot& slot, uint8_t mask) {
    if (slot.dirty == 0) dirty_.push_back(page);
    slot.dirty |= mask;
}

void FileData::keep_sector(PageSlot& slot, unsigned sector, uint64_t bytes) {
    uint8_t* to = slot.durable.write() + sector * kSectorBytes;
    if (slot.cached.hole()) {
        std::memset(to, 0, bytes);
    } else {
        std::memcpy(to, slot.cached.read() + sector * kSectorBytes, bytes);
    }
}

void FileData::cut(uint64_t size, bool durable) {
    const uint64_t tail = size % kPageBytes;
    if (tail != 0) {
        PageSlot* slot = find(size / kPageBytes);
        if (slot != nullptr) {
            Page& page = durable ? slot->durable : slot->cached;
            if (!page.hole()) {
                std::memset(page.write() + tail, 0, kPageBytes - tail);
                if (!durable) mark(size / kPageBytes, *slot, sector_mask(tail, kPageBytes));
            }
        }
    }
    for_each_from((size + kPageBytes - 1) / kPageBytes, [&](uint64_t, PageSlot& slot) {
        if (durable) {
            slot.durable = {};
        } else {
            pages_ -= !slot.cached.hole();
            slot.cached = {};
            slot.dirty = 0;  // sync() and lose_power() go by least_size_
        }
    });
}

}  // namespace farshore::sim
