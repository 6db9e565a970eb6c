#include "replicate/group_relay.h"

#include <fmt/core.h>

#include <algorithm>

#include "replicate/frames.h"

namespace farshore {
namespace {

// How long agents have for a step. The vault's own limits (barrier.h) are a little longer.
int64_t limit_us(BarrierStep step, PointKind kind) {
    const bool quiesce = kind == PointKind::kApplication;
    switch (step) {
        case BarrierStep::kPrepare:
            return quiesce ? 35'000'000 : 800'000;
        case BarrierStep::kFreeze:
            return 7'500'000;
        case BarrierStep::kHold:
            return kHoldUs;
        default:
            return quiesce ? 13'000'000 : 2'000'000;
    }
}
// Meanwhile the vault is asked so often whether it still makes sense.
constexpr int64_t kLookUs = 500'000;
constexpr unsigned kMaxLostCalls = 5;
constexpr int64_t kCallAgainUs = 100'000;

}  // namespace

GroupRelay::GroupRelay(Executor& home, Clock& clock, VaultLink& vault, std::string appliance,
                       std::vector<Executor*> callers)
    : home_(home),
      clock_(clock),
      vault_(vault),
      appliance_(std::move(appliance)),
      callers_(std::move(callers)) {}

GroupRelay::~GroupRelay() {
    for (auto& [point, talk] : talks_)
        if (talk.timer) home_.cancel(*talk.timer);
}

void GroupRelay::attach(uint64_t session, const std::string& agent,
                        std::function<void(Bytes)> send) {
    sessions_[session] = {agent, std::move(send)};
}

void GroupRelay::detach(uint64_t session) {
    if (sessions_.erase(session) == 0) return;
    for (auto& [point, talk] : talks_) {
        bool lost = false;
        for (const auto& [item, by] : talk.members) {
            if (by != session || talk.outcomes.contains(item)) continue;
            talk.outcomes[item] = {item,
                                   Error(Code::kConnectionLost, "the agent's connection was lost",
                                         "the next point is tried when it is due"),
                                   {},
                                   {}};
            lost = true;
        }
        if (lost) look(talk);
    }
}

Status GroupRelay::on_report(uint64_t session, ByteView body) {
    FS_ASSIGN(const BarrierReport report, decode_barrier_report(body));
    if (report.point.is_nil()) {
        // So that the agent sees that we are here.
        const auto who = sessions_.find(session);
        if (who != sessions_.end()) who->second.send(encode_barrier({}));
        return {};
    }
    const auto found = talks_.find(report.point);
    if (found == talks_.end()) return {};
    Talk& talk = found->second;
    if (report.step != talk.order.step) return {};
    for (const MemberOutcome& one : report.members) {
        const auto member = talk.members.find(one.item);
        // One agent does not speak for another's.
        if (member == talk.members.end() || member->second != session) continue;
        talk.outcomes.emplace(one.item, one);
    }
    look(talk);
    return {};
}

void GroupRelay::take(const std::vector<BarrierOrder>& points) {
    for (const BarrierOrder& order : points) {
        if (talks_.contains(order.point) || callers_.empty()) continue;
        Talk talk;
        talk.order = order;
        talk.order.step = BarrierStep::kReady;
        find_members(talk);
        if (talk.members.empty()) continue;
        talk.caller = callers_.back();
        callers_.pop_back();
        call(talks_.emplace(order.point, std::move(talk)).first->second);
    }
}

void GroupRelay::find_members(Talk& talk) {
    talk.members.clear();
    talk.outcomes.clear();
    for (const BarrierMember& member : talk.order.members)
        for (const auto& [id, session] : sessions_)
            if (session.agent == member.agent) {
                talk.members[member.item] = id;  // the newest is the last
                talk.outcomes[member.item] = {member.item, {}, {}, {}};
            }
}

void GroupRelay::call(Talk& talk) {
    if (talk.timer) home_.cancel(*talk.timer);
    talk.timer.reset();
    talk.calling = true;
    auto report = std::make_shared<BarrierReport>();
    report->point = talk.order.point;
    report->step = talk.order.step;
    for (const auto& [item, outcome] : talk.outcomes) report->members.push_back(outcome);
    talk.caller->post([this, alive = std::weak_ptr(alive_), report] {
        auto next =
            std::make_shared<Result<BarrierOrder>>(vault_.shared_point_step(appliance_, *report));
        home_.post([this, alive, point = report->point, next] {
            if (!alive.expired()) answered(point, *next);
        });
    });
}

void GroupRelay::answered(const SharedPointId& point, const Result<BarrierOrder>& next) {
    const auto found = talks_.find(point);
    if (found == talks_.end()) return;
    Talk& talk = found->second;
    talk.calling = false;
    if (!next) {
        // Only the last word is worth a second try: before it, nothing is lost but the point.
        if (talk.order.step == BarrierStep::kMark && next.error().retry() != Retry::kNever &&
            ++talk.lost_calls < kMaxLostCalls) {
            talk.timer =
                home_.post_after_us(kCallAgainUs, [this, point, alive = std::weak_ptr(alive_)] {
                    if (alive.expired()) return;
                    const auto at = talks_.find(point);
                    if (at == talks_.end()) return;
                    at->second.timer.reset();
                    call(at->second);
                });
            return;
        }
        end(found, talk.order.step != BarrierStep::kMark);
        return;
    }
    const bool all = talk.outcomes.size() == talk.members.size();
    if (next->step == BarrierStep::kAbandon) return end(found, true);
    if (talk.order.step == BarrierStep::kMark && all) return end(found, false);
    if (next->step > talk.order.step) return begin_step(talk, next->step);
    if (talk.order.step == BarrierStep::kReady) find_members(talk);
    if (all)
        call(talk);
    else
        look_later(talk, kLookUs);
}

void GroupRelay::begin_step(Talk& talk, BarrierStep step) {
    talk.order.step = step;
    talk.outcomes.clear();
    talk.give_up_us = clock_.steady_us() + limit_us(step, talk.order.kind);
    send(talk, step);
    look_later(talk, std::min(limit_us(step, talk.order.kind), kLookUs));
}

void GroupRelay::look(Talk& talk, bool long_since) {
    if (talk.calling || talk.order.step == BarrierStep::kReady) return;
    const bool late = clock_.steady_us() >= talk.give_up_us;
    if (late)
        for (const auto& [item, session] : talk.members)
            if (!talk.outcomes.contains(item))
                talk.outcomes[item] = {
                    item,
                    Error(Code::kTimeout,
                          fmt::format("the agent did not answer in time ({})",
                                      barrier_step_name(talk.order.step)),
                          "look at the agent; the next point is tried when it is due"),
                    {},
                    {}};
    // One that cannot ends it for all. And after a while it is asked whether it still makes sense.
    const bool failed = std::ranges::any_of(
        talk.outcomes, [](const auto& one) { return one.second.error.has_value(); });
    const bool ask = long_since && talk.order.step != BarrierStep::kHold;
    if (failed || ask || talk.outcomes.size() == talk.members.size()) return call(talk);
    look_later(talk, std::min(talk.give_up_us - clock_.steady_us(), kLookUs));
}

void GroupRelay::look_later(Talk& talk, int64_t delay_us) {
    if (talk.timer) home_.cancel(*talk.timer);
    talk.timer =
        home_.post_after_us(std::max<int64_t>(delay_us, 1'000),
                            [this, point = talk.order.point, alive = std::weak_ptr(alive_)] {
                                if (alive.expired()) return;
                                const auto found = talks_.find(point);
                                if (found == talks_.end()) return;
                                found->second.timer.reset();
                                look(found->second, true);
                            });
}

void GroupRelay::end(Talks::iterator found, bool abandon) {
    Talk talk = std::move(found->second);
    talks_.erase(found);
    if (talk.timer) home_.cancel(*talk.timer);
    callers_.push_back(talk.caller);
    if (abandon && talk.order.step != BarrierStep::kReady) send(talk, BarrierStep::kAbandon);
}

void GroupRelay::send(const Talk& talk, BarrierStep step) {
    std::map<uint64_t, BarrierOrder> orders;
    for (const BarrierMember& member : talk.order.members) {
        const auto ours = talk.members.find(member.item);
        if (ours == talk.members.end()) continue;
        BarrierOrder& order = orders[ours->second];
        order.point = talk.order.point;
        order.kind = talk.order.kind;
        order.label = talk.order.label;
        order.step = step;
        order.members.push_back(member);
    }
    for (const auto& [session, order] : orders) {
        const auto found = sessions_.find(session);
        if (found != sessions_.end()) found->second.send(encode_barrier(order));
    }
}

}  // namespace farshore
