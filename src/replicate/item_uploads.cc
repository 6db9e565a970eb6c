// ItemIntake: what is sealed, on its way into the store and into the log. Puts are side by side,
// registrations in order.
#include <algorithm>
#include <cmath>

#include "replicate/item_intake.h"
#include "store/object_store.h"

namespace farshore {

// As much as the line takes in kSegmentSendUs: so that what is new does not wait behind one object,
// and the limit is kept evenly.
uint64_t ItemIntake::segment_bytes() const {
    const BytesPerS rate = server_.gate_.rate(item_);
    if (rate == kUnlimited) return options_.segment_payload_bytes;
    const uint64_t bytes = std::max<uint64_t>(
        std::min<uint64_t>(rate, options_.segment_payload_bytes) * (kSegmentSendUs / 1'000'000),
        kSegmentWorthBytes);
    return std::min(bytes, options_.segment_payload_bytes);
}

uint64_t ItemIntake::sealed_bytes() const {
    uint64_t bytes = putting_bytes_;
    for (const auto& sealed : sealed_)
        if (sealed->state != Sealed::State::kPutting) bytes += sealed->bytes();
    return bytes;
}

// The next one that waits is told to the gate; when it was let through, the one behind it.
void ItemIntake::schedule_upload() {
    if (wanting_ || !lease_ || puts_ >= kMaxSegmentsAhead) return;
    const auto next = std::ranges::find_if(
        sealed_, [](const auto& sealed) { return sealed->state == Sealed::State::kWaiting; });
    if (next == sealed_.end()) return;
    wanting_ = true;
    server_.want_upload(item_, (*next)->bytes());
}

// What is under way goes on. It is of the lease that was lost, under names that are used by no
// other one: whether it lands or not makes no difference to anybody (docs/design/replica.md §3).
void ItemIntake::stop_uploading() {
    wanting_ = registering_ = false;
    server_.withdraw_upload(item_);
}

bool ItemIntake::upload(Executor& executor) {
    wanting_ = false;
    const auto next = std::ranges::find_if(
        sealed_, [](const auto& one) { return one->state == Sealed::State::kWaiting; });
    if (next == sealed_.end() || !lease_) return false;
    const std::shared_ptr<Sealed> sealed = *next;
    sealed->state = Sealed::State::kPutting;
    putting_bytes_ += sealed->bytes();
    ++puts_;
    if (options_.planted.stored_before_registered) {
        stored_ = std::max(stored_, sealed->segment.header.last);
        send_ack();
    }
    // Also when this was retired or lost its lease meanwhile, the executor is given back.
    executor.post([self = shared_from_this(), &executor, sealed, generation = generation_] {
        const Status status =
            put_idempotent(self->server_.store_, segment_object_name(sealed->segment.header),
                           sealed->segment.object);
        self->server_.executors_.home->post([self, &executor, sealed, generation, status] {
            self->putting_bytes_ -= sealed->bytes();
            --self->puts_;
            if (!self->retired_) {
                if (generation == self->generation_) self->put(sealed, status);
                // There is more room, for a put and in memory.
                self->schedule_upload();
                self->maybe_cut();
            }
            self->server_.give_back(&executor);
        });
    });
    schedule_upload();
    return true;
}

void ItemIntake::put(const std::shared_ptr<Sealed>& sealed, Status status) {
    if (!status) {
        // A name that is taken by other bytes was taken by somebody with this epoch: as good as a
        // fence.
        if (status.error().code() == Code::kAlreadyExists) {
            lose_lease(status.error());
            return;
        }
        troubled(storing_trouble_, status.error());
        sealed->state = Sealed::State::kFailed;  // the others go on
        retry_after(sealed->retry_us, [this, sealed, generation = generation_] {
            if (generation != generation_) return;
            sealed->state = Sealed::State::kWaiting;
            schedule_upload();
        });
        return;
    }
    sealed->state = Sealed::State::kPut;
    if (options_.planted.stored_out_of_order) {
        stored_ = std::max(stored_, sealed->segment.header.last);
        send_ack();
    }
    schedule_registration();
}

void ItemIntake::schedule_registration() {
    if (registering_ || !lease_ || sealed_.empty() || sealed_.front()->state != Sealed::State::kPut)
        return;
    registering_ = true;
    const SegmentHeader& header = sealed_.front()->segment.header;
    SegmentRegistration registration;
    registration.item = item_;
    registration.epoch = header.epoch;
    registration.number = header.number;
    registration.object_name = segment_object_name(header);
    registration.object_bytes = sealed_.front()->bytes();
    registration.header_hash = header.header_hash;
    registration.previous_header = header.previous_header;
    registration.first = header.first;
    registration.last = header.last;
    registration.first_time = header.first_time;
    registration.last_time = header.last_time;
    registration.written_bytes = sealed_.front()->written_bytes;
    run_on(
        *server_.executors_.upload,
        [this, registration] { return server_.vault_.register_segment(registration); },
        [this, generation = generation_](Status status) {
            if (generation == generation_) registered(std::move(status));
        });
}

void ItemIntake::registered(Status status) {
    // It went well, and nobody heard of it.
    if (status && buggify(options_.buggify, "intake.register_again"))
        status = fail(Code::kUnavailable, "nothing was wrong");
    else if (status && buggify(options_.buggify, "intake.lease_again"))
        status = fail(Code::kFenced, "nothing was wrong");
    if (!status) {
        const Code code = status.error().code();
        // A hole is what only a vault that lost its memory reports.
        if (code == Code::kFenced || code == Code::kAlreadyExists || code == Code::kSequenceHole) {
            lose_lease(status.error());
            return;
        }
        troubled(storing_trouble_, status.error());
        // Until then registering_ stays. What the vault does not find whole is put again.
        const bool whole =
            code != Code::kNotFound && code != Code::kTruncated && code != Code::kCorrupt;
        retry([this, whole, generation = generation_] {
            if (generation != generation_) return;
            registering_ = false;
            if (!whole) sealed_.front()->state = Sealed::State::kWaiting;
            schedule_upload();
            schedule_registration();
        });
        return;
    }
    registering_ = false;
    retry_us_ = fenced_retry_us_ = kRetryFirstUs;
    last_error_.clear();
    mended(storing_trouble_);
    const std::shared_ptr<Sealed> done = sealed_.front();
    sealed_.pop_front();
    stored_ = std::max(stored_, done->segment.header.last);
    stored_time_ = std::max(stored_time_, done->segment.header.last_time);
    uploaded_bytes_ += done->bytes();
    uploaded_payload_bytes_ += changed_bytes(done->ranges);
    ++segments_;
    trim();
    send_ack();
    schedule_registration();
    maybe_cut();
}

UploadStatus ItemIntake::upload_status() const {
    UploadStatus upload;
    upload.item = item_;
    upload.rate = server_.gate_.rate(item_);
    upload.total_counts = server_.gate_.total_counts(item_);
    upload.sent_bytes = uploaded_bytes_;
    upload.waiting_bytes = queue_payload_bytes_ + changed_bytes(building_ranges_);
    for (const auto& sealed : sealed_) upload.waiting_bytes += changed_bytes(sealed->ranges);
    upload.limited = wanting_ && !sealed_.empty() && upload.rate != kUnlimited &&
                     server_.clock_.steady_us() - sealed_.front()->since_us > kBandwidthBehindUs;
    if (upload.rate != kUnlimited && upload.rate != 0) {
        // As well as it compressed so far.
        const double share = uploaded_payload_bytes_ == 0
                                 ? 1.0
                                 : static_cast<double>(uploaded_bytes_) /
                                       static_cast<double>(uploaded_payload_bytes_);
        upload.eta_s = static_cast<int64_t>(std::ceil(static_cast<double>(upload.waiting_bytes) *
                                                      share / static_cast<double>(upload.rate)));
    }
    return upload;
}

}  // namespace farshore
