#include "capture/comparer.h"

#include <algorithm>

#include "block/block_device.h"
#include "block/range_lock.h"
#include "capture/copier.h"

namespace farshore {
namespace {

constexpr uint64_t kReadBytes = 1u << 20;
constexpr size_t kReadsPerStep = 4;

constexpr size_t kSamples = 48;
constexpr uint64_t kSampleBytes = 1u << 20;
// Looked for in this many places, so that samples are not all holes.
constexpr size_t kSampleTries = 4;
// A second look that finds a difference this often: no sums are believed any more.
constexpr unsigned kMaxFailures = 2;

void add(const LogHeader& header, LogWord word, uint64_t value) {
    header.word(word).fetch_add(value);
}

}  // namespace

Comparer::Comparer(CaptureProducer& producer, std::vector<Source> sources, Random& random)
    : producer_(producer),
      sources_(std::move(sources)),
      random_(random),
      asker_(producer.header()) {
    // Which of todo was found to differ is not known any more; what was equal is off it.
    if (state() == CompareState::kComparing || state() == CompareState::kVerifying)
        producer_.begin_compare();
}

CompareState Comparer::state() const {
    return static_cast<CompareState>(producer_.header().word(LogWord::kCompareState).load());
}

bool Comparer::held() const {
    const CompareState now = state();
    if (now != CompareState::kComparing && now != CompareState::kVerifying) return false;
    switch (static_cast<CompareHold>(producer_.header().word(LogWord::kCompareHold).load())) {
        case CompareHold::kAlways:
            return true;
        case CompareHold::kWithoutGap:
            return producer_.state().gap == GapState::kNone;
        default:
            return false;
    }
}

void Comparer::begin_generation() {
    generation_ = producer_.compare_generation();
    random_.fill(key_);
    summer_ = std::make_unique<BlockSummer>(key_);
    forget_questions();
    read_there_.clear();
    disk_ = 0;
    offset_ = 0;
    begin_samples();
}

void Comparer::forget_questions() {
    for (size_t i = 0; i < kCompareSlots; ++i) {
        asker_.forget(i);
        slots_[i].used = false;
    }
    reading_.used = false;
}

void Comparer::give_up() {
    forget_questions();
    producer_.end_compare();
    producer_.header()
        .word(LogWord::kCompareState)
        .store(static_cast<uint64_t>(CompareState::kNone));
}

void Comparer::settle(const Slot& slot, const CompareAnswer& answer) {
    const bool verifying = state() == CompareState::kVerifying;
    const auto granules =
        producer_.settle_compare(generation_, slot.disk, slot.range, [&](size_t block) {
            return answer.verdict == CompareVerdict::kEqual ||
                   answer.sums[block] == slot.sums[block];
        });
    const LogHeader& header = producer_.header();
    if (verifying) {
        add(header, LogWord::kVerifiedBytes, slot.range.length_bytes);
        sample_differences_ += granules.differing;
        return;
    }
    if (slot.sample) {
        sampled_bytes_ += slot.range.length_bytes;
        sampled_differing_bytes_ += granules.differing * kTodoGranuleBytes;
    }
    add(header, LogWord::kComparedBytes, slot.range.length_bytes);
    add(header, LogWord::kDifferingBytes, granules.differing * kTodoGranuleBytes);
    add(header, LogWord::kUnreadableBytes, answer.unreadable * kTodoGranuleBytes);
}

// In pieces: the guest's writes wait while one is settled.
void Comparer::settle_zeroes(const Slot& slot, const CompareAnswer& answer) {
    for (uint64_t done = 0; done < slot.range.length_bytes; done += kMaxCompareBytes) {
        const ByteRange piece{slot.range.offset_bytes + done,
                              std::min(kMaxCompareBytes, slot.range.length_bytes - done)};
        if (answer.verdict != CompareVerdict::kEqual &&
            answer.sums[done / kMaxCompareBytes] != kZeroSum) {
            read_there_.emplace(slot.disk, piece.offset_bytes);
            continue;
        }
        (void)producer_.settle_compare(generation_, slot.disk, piece, [](size_t) { return true; });
        add(producer_.header(), LogWord::kComparedBytes, piece.length_bytes);
    }
}

bool Comparer::take_answers() {
    bool any = false;
    for (size_t i = 0; i < kCompareSlots; ++i) {
        if (!slots_[i].used) continue;
        const auto answer = asker_.take(i);
        if (!answer) continue;
        any = true;
        slots_[i].used = false;
        if (answer->verdict == CompareVerdict::kNothing) {
            // Nothing to compare with: all of it is copied.
            give_up();
            return true;
        }
        if (slots_[i].range.length_bytes > kMaxCompareBytes)
            settle_zeroes(slots_[i], *answer);
        else
            settle(slots_[i], *answer);
    }
    return any;
}

void Comparer::begin_samples() {
    sampling_ = state() == CompareState::kComparing &&
                producer_.header().word(LogWord::kHoldCopy).load() != 0;
    ahead_.clear();
    if (!sampling_) return;
    ahead_ = samples();
    sampled_bytes_ = sampled_differing_bytes_ = 0;
}

bool Comparer::find_sample() {
    while (!ahead_.empty()) {
        const auto [disk, range] = ahead_.back();
        ahead_.pop_back();
        // What was written meanwhile, or was sampled already, is no sample.
        const auto run = producer_.unsure(disk, range.offset_bytes, range.length_bytes);
        if (!run || run->offset_bytes >= range.end()) continue;
        reading_.used = reading_.sample = true;
        reading_.disk = disk;
        reading_.range = {run->offset_bytes,
                          std::min(run->length_bytes, range.end() - run->offset_bytes)};
        reading_.sums.clear();
        reading_done_ = 0;
        return true;
    }
    return false;
}

// Told when the last one is settled.
void Comparer::end_samples() {
    if (!sampling_ || !ahead_.empty() || (reading_.used && reading_.sample) ||
        std::ranges::any_of(slots_, [](const Slot& slot) { return slot.used && slot.sample; }))
        return;
    sampling_ = false;
    const LogHeader& header = producer_.header();
    header.word(LogWord::kSampleDifferingBytes).store(sampled_differing_bytes_);
    header.word(LogWord::kSampledBytes).store(std::max<uint64_t>(sampled_bytes_, 1));
}

// One question does for all of a long hole, as far as it is in question.
ByteRange Comparer::widened(DiskIndex disk, const ByteRange& run) {
    if (run.length_bytes != kMaxCompareBytes || state() != CompareState::kComparing) return run;
    BlockDevice& device = *sources_[disk].device;
    uint64_t most = std::min(kMaxCompareZeroBytes, device.size_bytes() - run.offset_bytes);
    // Neither over what is under way nor over what was asked so in vain.
    for (const Slot& slot : slots_)
        if (slot.used && slot.disk == disk && slot.range.offset_bytes > run.offset_bytes)
            most = std::min(most, slot.range.offset_bytes - run.offset_bytes);
    const auto next = read_there_.lower_bound({disk, run.offset_bytes});
    if (next != read_there_.end() && next->first == disk)
        most = std::min(most, next->second - run.offset_bytes);
    if (next != read_there_.begin())
        if (const auto& before = *std::prev(next);
            before.first == disk && before.second + kMaxCompareBytes > run.offset_bytes)
            return run;
    // Further and further: a source lists all extents of what it is asked for.
    uint64_t empty = 0;
    for (uint64_t length = kMaxCompareBytes; empty < most; length *= 2) {
        length = std::min(length, most - empty);
        const auto extents = device.extents(run.offset_bytes + empty, length);
        if (!extents || extents->empty() || !extents->front().zero) break;
        const uint64_t found = std::min(length, extents->front().length_bytes);
        empty += found;
        if (found < length) break;
    }
    if (empty != device.size_bytes() - run.offset_bytes)
        empty = empty / kSumBlockBytes * kSumBlockBytes;
    if (empty <= kMaxCompareBytes) return run;
    const auto wide = producer_.unsure(disk, run.offset_bytes, empty + kTodoGranuleBytes - 1);
    // The guest may have written there by now.
    return wide && wide->offset_bytes == run.offset_bytes ? *wide : run;
}

bool Comparer::find_run() {
    if (find_sample()) return true;
    const auto disks = static_cast<DiskIndex>(sources_.size());
    for (DiskIndex i = 0; i <= disks; ++i) {
        const auto disk = static_cast<DiskIndex>((disk_ + i) % disks);
        const uint64_t from = i == 0 ? offset_ : 0;
        uint64_t at = from;
        const uint64_t most = buggify(producer_.buggify_sites(), "comparer.small_run")
                                  ? kTodoGranuleBytes
                                  : kMaxCompareBytes;
        while (const auto run = producer_.unsure(disk, at, most)) {
            // What was asked already waits for its answer.
            const auto asked = std::ranges::find_if(slots_, [&](const Slot& slot) {
                return slot.used && slot.disk == disk && slot.range.offset_bytes < run->end() &&
                       run->offset_bytes < slot.range.end();
            });
            if (asked != slots_.end()) {
                at = behind(asked->range);
                continue;
            }
            reading_.used = true;
            reading_.sample = false;
            reading_.disk = disk;
            reading_.range = widened(disk, *run);
            reading_.sums.clear();
            // A long hole is known to be one.
            reading_done_ =
                reading_.range.length_bytes > kMaxCompareBytes ? reading_.range.length_bytes : 0;
            disk_ = disk;
            offset_ = reading_.range.end();
            return true;
        }
    }
    return false;
}

// The planted bug: the next disk that is long enough.
DiskIndex Comparer::disk_to_look_at() const {
    if (!producer_.bugs().wrong_disk) return reading_.disk;
    const auto other = static_cast<DiskIndex>((reading_.disk + 1) % sources_.size());
    return sources_[other].device->size_bytes() >= reading_.range.end() ? other : reading_.disk;
}

Comparer::Outcome Comparer::read_some() {
    const DiskIndex looked_at = disk_to_look_at();
    BlockDevice& device = *sources_[looked_at].device;
    RangeLock* const lock = sources_[looked_at].lock;
    if (reading_done_ == 0 && barrier_ != nullptr && state() == CompareState::kVerifying &&
        !barrier_->quiet(reading_.disk, reading_.range)) {
        // Another one first.
        reading_.used = false;
        return Outcome::kNotQuiet;
    }
    for (size_t i = 0; i < kReadsPerStep && reading_done_ < reading_.range.length_bytes; ++i) {
        const uint64_t at = reading_.range.offset_bytes + reading_done_;
        uint64_t length = reading_.range.length_bytes - reading_done_;
        if (const auto extents = device.extents(at, length);
            extents && !extents->empty() && extents->front().zero) {
            // Whole blocks of what the source knows to be empty are not read.
            const uint64_t empty = std::min(length, extents->front().length_bytes);
            const uint64_t blocks = empty == length ? (empty + kSumBlockBytes - 1) / kSumBlockBytes
                                                    : empty / kSumBlockBytes;
            if (blocks != 0) {
                reading_.sums.insert(reading_.sums.end(), blocks, kZeroSum);
                reading_done_ += std::min(length, blocks * kSumBlockBytes);
                continue;
            }
        }
        length = std::min(length, kReadBytes);
        buffer_.resize(length);
        Status read;
        {
            // Half of a write that is under way would differ from everything.
            std::optional<RangeLock::Held> held;
            if (lock != nullptr) held.emplace(lock->acquire(at, length));
            read = device.read(at, buffer_);
        }
        if (!read) {
            add(producer_.header(), LogWord::kCopyErrors, 1);
            return Outcome::kFailed;
        }
        bytes_read_ += length;
        add(producer_.header(), LogWord::kComparedEver, length);
        for (uint64_t block = 0; block < length; block += kSumBlockBytes)
            reading_.sums.push_back(summer_->block(
                looked_at, at + block,
                ByteView(buffer_).subspan(block, std::min(kSumBlockBytes, length - block))));
        reading_done_ += length;
    }
    if (reading_done_ < reading_.range.length_bytes) return Outcome::kWorked;

    const auto slot = std::ranges::find_if(slots_, [](const Slot& one) { return !one.used; });
    CompareQuestion question;
    question.key = key_;
    question.at_least = producer_.compare_after();
    question.disk = looked_at;
    question.offset_bytes = reading_.range.offset_bytes;
    question.length_bytes = reading_.range.length_bytes;
    question.sum = question.long_zeroes()
                       ? kZeroSum
                       : summer_->run(question.disk, question.offset_bytes, reading_.sums);
    asker_.ask(static_cast<size_t>(slot - slots_.begin()), question);
    *slot = std::move(reading_);
    reading_ = {};
    producer_.ring_agent();
    return Outcome::kWorked;
}

Comparer::Outcome Comparer::step() {
    bytes_read_ = 0;
    const CompareState now = state();
    if (now != CompareState::kComparing && now != CompareState::kVerifying) {
        // It was cancelled: nobody shall be asked what is not to be known any more.
        if (std::ranges::any_of(slots_, [](const Slot& slot) { return slot.used; }) ||
            reading_.used)
            forget_questions();
        return Outcome::kNothing;
    }
    if (now == CompareState::kComparing &&
        buggify(producer_.buggify_sites(), "comparer.begin_again"))
        producer_.begin_compare();
    if (generation_ != producer_.compare_generation()) begin_generation();
    // Writes that began before now spoil what they touch.
    if (now == CompareState::kVerifying && barrier_ != nullptr && !barrier_->settle())
        return Outcome::kNotQuiet;
    const bool answered = take_answers();
    end_samples();
    if (answered) return Outcome::kWorked;
    const bool room = std::ranges::any_of(slots_, [](const Slot& slot) { return !slot.used; });
    if (room && (reading_.used || find_run())) return read_some();
    const bool waits = std::ranges::any_of(slots_, [](const Slot& slot) { return slot.used; });
    return waits ? Outcome::kWaiting : Outcome::kNothing;
}

// ---- the second look ----------------------------------------------------------------------------

std::vector<std::pair<DiskIndex, ByteRange>> Comparer::samples() {
    std::vector<std::pair<DiskIndex, ByteRange>> chosen;
    uint64_t total = 0;
    std::vector<uint64_t> sizes;
    for (DiskIndex disk = 0; disk < sources_.size(); ++disk) {
        sizes.push_back(producer_.joining(disk) ? 0 : sources_[disk].device->size_bytes());
        total += sizes.back();
    }
    if (total == 0) return chosen;
    for (size_t i = 0; i < kSamples; ++i) {
        std::pair<DiskIndex, ByteRange> sample;
        for (size_t tries = 0; tries < kSampleTries; ++tries) {
            uint64_t at = random_.below(total);
            DiskIndex disk = 0;
            while (at >= sizes[disk]) at -= sizes[disk++];
            BlockDevice& device = *sources_[disk].device;
            at = at / kSampleBytes * kSampleBytes;
            sample = {disk, {at, std::min(kSampleBytes, device.size_bytes() - at)}};
            const auto extents = device.extents(at, sample.second.length_bytes);
            if (!extents || std::ranges::any_of(*extents, [](const auto& e) { return !e.zero; }))
                break;
        }
        chosen.push_back(sample);
    }
    return chosen;
}

void Comparer::start_over() {
    const bool compare = failures_ <= kMaxFailures;
    producer_.open_gap(
        [&] {
            for (size_t disk = 0; disk < producer_.disks(); ++disk)
                producer_.todo(static_cast<DiskIndex>(disk)).set_all();
        },
        compare);
    if (!compare) give_up();
}

bool Comparer::verified() {
    auto word = producer_.header().word(LogWord::kCompareState);
    auto expected = word.load();
    switch (static_cast<CompareState>(expected)) {
        case CompareState::kComparing:
            if (producer_.unsure_granules() != 0) return false;
            sample_differences_ = 0;
            // Unless it is cancelled at this moment.
            if (!word.compare_exchange_strong(expected,
                                              static_cast<uint64_t>(CompareState::kVerifying)))
                return false;
            producer_.compare_again(samples());
            return false;
        case CompareState::kVerifying:
            if (producer_.unsure_granules() != 0) return false;
            if (sample_differences_ == 0) {
                failures_ = 0;
                if (!word.compare_exchange_strong(expected,
                                                  static_cast<uint64_t>(CompareState::kDone)))
                    return false;
                add(producer_.header(), LogWord::kCompareRuns, 1);
                return true;
            }
            ++failures_;
            add(producer_.header(), LogWord::kVerifyFailures, 1);
            start_over();
            return false;
        default:
            return true;
    }
}

}  // namespace farshore
