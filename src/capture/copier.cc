#include "capture/copier.h"

#include <algorithm>

#include "capture/comparer.h"
#include "codec/crc32c.h"

namespace farshore {

namespace {
// A write under way is over in about this time.
constexpr int64_t kQuietWaitUs = 1'000;
// Between two looks whether the copy may begin, and for answers meanwhile.
constexpr int64_t kHeldWaitUs = 50'000;
}  // namespace

std::vector<AppendRequest> records_for(DiskIndex disk, uint64_t offset_bytes, ByteView data) {
    std::vector<AppendRequest> records;
    const auto add = [&](bool zero, size_t from, size_t to) {
        AppendRequest record;
        record.kind = zero ? RecordKind::kZero : RecordKind::kWrite;
        record.disk = disk;
        record.offset_bytes = offset_bytes + from;
        record.length_bytes = static_cast<uint32_t>(to - from);
        if (!zero) {
            record.payload = data.subspan(from, to - from);
            record.payload_crc = crc32c(record.payload);
        }
        records.push_back(record);
    };
    size_t from = 0;
    bool from_zero = false;
    for (size_t at = 0; at < data.size();) {
        const size_t n = std::min<size_t>(
            kTodoGranuleBytes - (offset_bytes + at) % kTodoGranuleBytes, data.size() - at);
        const bool zero = all_zero(data.subspan(at, n));
        if (at > from && (zero != from_zero || (!zero && at + n - from > kMaxWriteBytes))) {
            add(from_zero, from, at);
            from = at;
        }
        from_zero = zero;
        at += n;
    }
    if (from < data.size()) add(from_zero, from, data.size());
    return records;
}

Copier::Copier(CaptureProducer& producer, std::vector<Source> sources, const Clock& clock,
               Random* random)
    : producer_(producer),
      sources_(std::move(sources)),
      clock_(clock),
      // A small ring still takes a few pieces.
      chunk_bytes_(std::clamp<uint64_t>(
          producer.header().geometry().ring_bytes / 8 / kTodoGranuleBytes * kTodoGranuleBytes,
          kTodoGranuleBytes, kMaxWriteBytes)) {
    FS_CHECK(sources_.size() == producer_.disks());
    if (random == nullptr) return;
    std::vector<Comparer::Source> compared;
    for (const Source& source : sources_) compared.push_back({source.device, source.lock});
    comparer_ = std::make_unique<Comparer>(producer_, std::move(compared), *random);
}

Copier::~Copier() = default;

void Copier::set_barrier(CopyBarrier* barrier) {
    barrier_ = barrier;
    if (comparer_) comparer_->set_barrier(barrier);
}

// The next run on todo that waits for no answer.
std::optional<ByteRange> Copier::next_sure(DiskIndex disk, uint64_t from) const {
    // All of it waits, as most of the time while a disk is compared: walking over what is left of
    // 1 TiB takes a millisecond, and this is asked at every step. What is set meanwhile is found
    // by the next search, as it would be behind a walk.
    if (producer_.all_unsure(disk)) return std::nullopt;
    while (auto run = producer_.todo(disk).next(from, kMaxZeroBytes)) {
        const auto unsure = producer_.unsure(disk, run->offset_bytes, kMaxZeroBytes);
        if (!unsure || unsure->offset_bytes >= run->end()) return run;
        if (unsure->offset_bytes > run->offset_bytes) {
            run->length_bytes = unsure->offset_bytes - run->offset_bytes;
            return run;
        }
        from = behind(*unsure);
    }
    return std::nullopt;
}

std::optional<Copier::Target> Copier::find(bool joining) const {
    const auto disks = static_cast<DiskIndex>(producer_.disks());
    // In disk order from where we are, then from the beginning.
    for (DiskIndex i = 0; i <= disks; ++i) {
        const auto disk = static_cast<DiskIndex>((disk_ + i) % disks);
        if (producer_.joining(disk) != joining) continue;
        const uint64_t from = i == 0 ? offset_ : 0;
        if (auto range = next_sure(disk, from)) return Target{disk, *range};
    }
    return std::nullopt;
}

// What the points lack comes first: a gap does not last until a disk that joins is copied.
std::optional<Copier::Target> Copier::find() const {
    if (auto target = find(false)) return target;
    if (producer_.any_joining()) return find(true);
    return std::nullopt;
}

bool Copier::copy_held() const { return producer_.header().word(LogWord::kHoldCopy).load() != 0; }

bool Copier::throttled() {
    const uint64_t rate = producer_.header().word(LogWord::kCopyBytesPerS).load();
    if (rate == 0) return false;
    const int64_t now = clock_.steady_us();
    wait_us_ = next_allowed_us_ - now;
    return wait_us_ > 0;
}

uint64_t Copier::known_zeroes(const Target& target) {
    if (target.disk == data_disk_ && target.range.offset_bytes >= data_.offset_bytes &&
        target.range.offset_bytes < data_.end())
        return 0;
    auto extents =
        sources_[target.disk].device->extents(target.range.offset_bytes, target.range.length_bytes);
    if (!extents) return 0;  // reading will tell
    uint64_t zeroes = 0;
    for (const BlockExtent& extent : *extents) {
        if (!extent.zero) {
            data_disk_ = target.disk;
            data_ = {extent.offset_bytes, extent.length_bytes};
            break;
        }
        zeroes += extent.length_bytes;
    }
    zeroes = std::min(zeroes, target.range.length_bytes);
    // Whole granules, or up to the disk's end, which the range ends with.
    if (zeroes < target.range.length_bytes) zeroes = zeroes / kTodoGranuleBytes * kTodoGranuleBytes;
    return zeroes;
}

bool Copier::spoilt(const CaptureProducer::CopyClaim& claim) {
    if (barrier_ == nullptr || barrier_->quiet(claim.disk, claim.range)) return false;
    producer_.abandon_copy(claim);
    wait_us_ = kQuietWaitUs;
    return true;
}

bool Copier::unsettled(const CaptureProducer::CopyClaim& claim) {
    if (barrier_ == nullptr || barrier_->settle()) return false;
    producer_.abandon_copy(claim);
    wait_us_ = kQuietWaitUs;
    return true;
}

Copier::Outcome Copier::copy_zeroes(const Target& target) {
    const Source& source = sources_[target.disk];
    std::optional<RangeLock::Held> held;
    if (source.lock != nullptr)
        held.emplace(source.lock->acquire(target.range.offset_bytes, target.range.length_bytes));
    const auto claim = producer_.claim_copy(target.disk, target.range);
    if (!claim) return Outcome::kNoSpace;
    if (spoilt(*claim)) return Outcome::kThrottled;
    // Asked before the claim: only a hint. What counts is what the source says now.
    data_ = {};
    if (known_zeroes(target) != target.range.length_bytes) {
        producer_.abandon_copy(*claim);
        return Outcome::kWorked;
    }
    AppendRequest record;
    record.kind = RecordKind::kZero;
    record.disk = target.disk;
    record.offset_bytes = target.range.offset_bytes;
    record.length_bytes = static_cast<uint32_t>(target.range.length_bytes);
    if (unsettled(*claim)) return Outcome::kThrottled;
    producer_.finish_copy(*claim, {record});
    return Outcome::kWorked;
}

Copier::Outcome Copier::copy_data(const Target& target) {
    const Source& source = sources_[target.disk];
    buffer_.resize(target.range.length_bytes);
    std::optional<RangeLock::Held> held;
    if (source.lock != nullptr)
        held.emplace(source.lock->acquire(target.range.offset_bytes, target.range.length_bytes));
    const auto claim = producer_.claim_copy(target.disk, target.range);
    if (!claim) return Outcome::kNoSpace;
    if (spoilt(*claim)) return Outcome::kThrottled;
    if (auto read = source.device->read(target.range.offset_bytes, buffer_); !read) {
        producer_.abandon_copy(*claim);
        producer_.header().word(LogWord::kCopyErrors).fetch_add(1);
        return Outcome::kFailed;
    }
    if (unsettled(*claim)) return Outcome::kThrottled;
    if (buggify(producer_.buggify_sites(), "copier.read_again")) {
        producer_.abandon_copy(*claim);
        return Outcome::kWorked;
    }
    producer_.finish_copy(*claim, records_for(target.disk, target.range.offset_bytes, buffer_));
    producer_.header().word(LogWord::kCopiedBytes).fetch_add(buffer_.size());
    pay_for(buffer_.size());
    return Outcome::kWorked;
}

void Copier::pay_for(uint64_t bytes) {
    const uint64_t rate = producer_.header().word(LogWord::kCopyBytesPerS).load();
    if (rate == 0 || bytes == 0) return;
    const int64_t now = clock_.steady_us();
    next_allowed_us_ =
        std::max(next_allowed_us_, now) + static_cast<int64_t>(bytes * 1'000'000 / rate);
}

Copier::Outcome Copier::nothing_to_copy() {
    if (barrier_ != nullptr) {
        // What it learns of now may be something to copy.
        if (!barrier_->settle()) {
            wait_us_ = kQuietWaitUs;
            return Outcome::kThrottled;
        }
        if (find(false)) return Outcome::kWorked;
    }
    if (comparer_ && !comparer_->verified()) return Outcome::kWorked;
    producer_.try_resynced();
    return Outcome::kNothing;
}

// Whatever else goes on: a disk that is copied is part of the points from then on.
void Copier::let_join() {
    if (!producer_.any_joining() || find(true)) return;
    // A write that the source has and the log does not would come after the copy that has it.
    if (barrier_ == nullptr || barrier_->settle()) producer_.try_joined();
}

// Disks that join are left: the points wait for nothing any more, or for the comparer's last look.
bool Copier::members_are_owed_an_end() const {
    return producer_.state().gap == GapState::kOpen ||
           (comparer_ &&
            producer_.header().word(LogWord::kCompareState).load() !=
                static_cast<uint64_t>(CompareState::kDone) &&
            producer_.header().word(LogWord::kCompareState).load() !=
                static_cast<uint64_t>(CompareState::kNone));
}

Copier::Outcome Copier::copy(Target target) {
    Outcome outcome;
    if (const uint64_t zeroes = known_zeroes(target); zeroes > 0) {
        target.range.length_bytes = zeroes;
        outcome = copy_zeroes(target);
    } else {
        uint64_t most = buggify(producer_.buggify_sites(), "copier.small_piece") ? kTodoGranuleBytes
                                                                                 : chunk_bytes_;
        // Not into the hole behind the data, as far as the source told.
        if (target.disk == data_disk_ && data_.end() > target.range.offset_bytes)
            most = std::min(most, (data_.end() + kTodoGranuleBytes - 1) / kTodoGranuleBytes *
                                          kTodoGranuleBytes -
                                      target.range.offset_bytes);
        target.range.length_bytes = std::min<uint64_t>(target.range.length_bytes, most);
        outcome = copy_data(target);
    }
    if (outcome != Outcome::kNoSpace) {
        disk_ = target.disk;
        offset_ = target.range.end();
    }
    return outcome;
}

Copier::Outcome Copier::step() {
    if (producer_.header().word(LogWord::kCopyPaused).load() != 0) return Outcome::kPaused;
    auto compared = Comparer::Outcome::kNothing;
    const bool held = comparer_ && comparer_->held();
    if (comparer_ && !held) {
        if (throttled()) return Outcome::kThrottled;
        compared = comparer_->step();
        pay_for(comparer_->bytes_read());
    }
    if (copy_held()) {
        if (compared == Comparer::Outcome::kWorked) return Outcome::kWorked;
        wait_us_ = kHeldWaitUs;
        return Outcome::kThrottled;
    }
    let_join();
    const auto target = find();
    if (target && producer_.joining(target->disk) && !held &&
        compared == Comparer::Outcome::kNothing && members_are_owed_an_end()) {
        const Outcome ended = nothing_to_copy();
        if (ended != Outcome::kNothing) return ended;
    }
    if (target && producer_.room_for_copy() && producer_.state().gap != GapState::kDropping) {
        if (throttled()) return Outcome::kThrottled;
        return copy(*target);
    }
    if (held) return target ? Outcome::kNoSpace : Outcome::kPaused;
    switch (compared) {
        case Comparer::Outcome::kWorked:
            return Outcome::kWorked;
        case Comparer::Outcome::kNotQuiet:
            wait_us_ = kQuietWaitUs;
            return Outcome::kThrottled;
        case Comparer::Outcome::kFailed:
            return Outcome::kFailed;
        case Comparer::Outcome::kWaiting:
            if (target) return Outcome::kNoSpace;
            if (producer_.bugs().early_end) producer_.try_resynced();
            return Outcome::kAwaiting;
        case Comparer::Outcome::kNothing:
            break;
    }
    return target ? Outcome::kNoSpace : nothing_to_copy();
}

}  // namespace farshore
