// Points of an item for which its machine comes to rest, and its part in points that its group
// shares: what runs where. What is done is in point_maker.h and quiesce.h.
#include <fmt/core.h>

#include <algorithm>

#include "agent/item_supervisor.h"
#include "os/log.h"

namespace farshore {

namespace {
// After thawing failed it is tried again and again.
constexpr int64_t kThawAgainUs = 1'000'000;
}  // namespace

// In memory, so that it is gone when the machine is.
std::string ItemSupervisor::freeze_note() const {
    return options_.shared_directory + "/" + item_.to_string() + kFreezeNoteSuffix;
}

// What the machine is like by now; of the worker, for the thread that brings it to rest.
void ItemSupervisor::tell_quiesce_target(const DesiredItem& desired) {
    QuiesceTarget target;
    target.item = item_;
    target.item_name = desired.name;
    target.mode = desired.mode;
    target.devices = devices_;
    if (desired.mode == CaptureMode::kMirror) target.guest_agent = guest_agent_;
    target.scripts_directory = options_.directory + "/scripts";
    target.freeze_note = freeze_note();
    target.limits = options_.rest_limits;
    target.script_note = options_.shared_directory + "/" + item_.to_string() + ".scripts";
    const bool first = !std::exchange(looked_for_leftover_, true);
    {
        const std::lock_guard lock(mutex_);
        quiesce_target_ = target;
    }
    // Of an agent before this one.
    if (first) slow_->post([this, target] { Quiesce::finish_leftover(target, files_); });
}

std::unique_ptr<PointMaker> ItemSupervisor::make_point_maker(TapMode mode) {
    PointMaker::Commands commands;
    commands.post = [this](const TapCommand& command) { return session_->post(command); };
    commands.take = [this](size_t ticket) { return session_->poll(ticket); };
    PointMaker::Rest rest;
    rest.begin = [this](const std::string& label, std::function<void(Status)> begun) {
        begin_rest(label, std::move(begun));
    };
    rest.freeze = [this](std::function<void(Result<int64_t>)> frozen) {
        freeze_rest(std::move(frozen));
    };
    rest.end = [this](bool made, std::function<void(Status)> thawed) {
        end_rest(made, std::move(thawed));
    };
    PointMaker::Options options;
    options.holds = mode != TapMode::kBlock;
    options.in_gap = [this] { return session_->status().gap != GapState::kNone; };
    if (mode == TapMode::kMirror)
        options.confirm = [this](std::function<void(Status)> confirmed) {
            confirm_mirrored(std::move(confirmed));
        };
    return std::make_unique<PointMaker>(home_, clock_, std::move(commands), std::move(rest),
                                        std::move(options));
}

// A mirror that has ended lets the machine's writes go past the tap, which does not know it; no
// write does while it is whole, and a gap is open before it is made anew (ensure_mirror()).
void ItemSupervisor::confirm_mirrored(std::function<void(Status)> confirmed) {
    if (stopping_) return confirmed(fail(Code::kCancelled, "the capture is set up anew"));
    worker_->post([this, confirmed = std::move(confirmed)] {
        Status good;
        const Result<MirrorState> state =
            mirror_ && session_ ? mirror_->query() : fail(Code::kUnavailable, "no mirror runs");
        if (!state)
            good = fail(state.error());
        else if (!std::ranges::all_of(state->disks, &MirrorDiskState::mirrored) ||
                 session_->status().gap != GapState::kNone)
            good = fail(Code::kPointInGap, "the machine's mirror ended while the point was made",
                        "wait until it is protected again");
        home_.post([confirmed, good] { confirmed(good); });
    });
}

void ItemSupervisor::begin_rest(const std::string& label, std::function<void(Status)> begun) {
    slow_->post([this, label, begun = std::move(begun)] {
        QuiesceTarget target;
        {
            const std::lock_guard lock(mutex_);
            target = quiesce_target_;
        }
        auto quiesce = Quiesce::begin(target, label, files_, frozen_);
        Status status;
        if (quiesce)
            quiesce_ = std::move(*quiesce);
        else
            status = fail(quiesce.error());
        home_.post([begun, status] { begun(status); });
    });
}

void ItemSupervisor::freeze_rest(std::function<void(Result<int64_t>)> frozen) {
    slow_->post([this, frozen = std::move(frozen)] {
        Result<int64_t> until = fail(Code::kCancelled, "the machine's scripts were ended");
        if (quiesce_) {
            if (auto status = quiesce_->freeze(clock_); status)
                until = quiesce_->until_us();
            else
                until = fail(status.error());
        }
        home_.post([frozen, until] { frozen(until); });
    });
}

void ItemSupervisor::end_rest(bool made, std::function<void(Status)> thawed) {
    slow_->post([this, made, thawed = std::move(thawed)] {
        Status status;
        if (quiesce_) {
            status = quiesce_->thaw();
            freeze_left_over_ = quiesce_->left_over();
        } else {
            status = FileSystemFreeze::thaw_leftovers(freeze_note(), files_);
            freeze_left_over_ = !status;
            if (!status) log::warn("agent", "{}", status.error().to_string());
        }
        // Nobody waits for the script.
        home_.post([thawed, status] { thawed(status); });
        if (quiesce_) quiesce_->finish(made && status);
        quiesce_.reset();
        if (freeze_left_over_)
            slow_->post_after_us(kThawAgainUs, [this] { end_rest(false, [](const Status&) {}); });
    });
}

void ItemSupervisor::begin_consistent_point(const BookmarkRequest& request) {
    if (!consistent_request_.empty()) return;  // its turn comes
    consistent_request_ = request.request_id;
    home_.post([this, request] {
        if (stopping_) return;  // end_capture() forgets it
        const auto done = [this, request](const Result<TapCommandResult>& point) {
            if (stopping_) return;
            BookmarkDone answer;
            answer.request_id = request.request_id;
            if (point) {
                answer.sequence = point->sequence;
                answer.time = point->time;
            } else {
                const Error& error = point.error();
                answer.error = AgentItemError{error.code(), error.what(), error.remedy()};
            }
            worker_->post([this, answer, label = request.label] {
                consistent_request_.clear();
                if (answer.error)
                    log::warn("agent",
                              {.item_id = item_.to_string(), .code = code_name(answer.error->code)},
                              "no consistent point '{}': {}", label, answer.error->what);
                bookmarks_done_.push_back(answer);
            });
        };
        if (points_ && !points_->idle()) {
            // Its group's; this one's turn comes.
            worker_->post([this] { consistent_request_.clear(); });
            return;
        }
        if (points_)
            points_->make(request.label, done);
        else
            done(fail(Code::kCancelled, "the capture is set up anew", "try again"));
    });
}

void ItemSupervisor::serve_shared_point(const BarrierOrder& order, PointMaker::Answer answer) {
    if (points_) return points_->serve(order, std::move(answer));
    answer(fail(Code::kWrongState, "the machine is not captured yet",
                "`farshore item` shows what it waits for"));
}

void ItemSupervisor::abandon_shared_point() {
    if (points_) points_->abandon_all();
}

}  // namespace farshore
