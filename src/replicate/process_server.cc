#include "replicate/process_server.h"

#include <fmt/core.h>

#include <atomic>

#include "base/party_names.h"
#include "replica/replica_return.h"
#include "replicate/frames.h"
#include "replicate/item_intake.h"

namespace farshore {

// What a connection reads of a replica; on the executor of comparisons alone.
struct ProcessServer::Returning {
    ItemId item;
    std::unique_ptr<ReplicaReturn> state;
};

struct ProcessServer::Session {
    enum class Role : uint8_t { kUnknown, kItem, kControl, kCompare, kReturn, kGroup, kEnding };
    std::unique_ptr<Connection> connection;
    Role role = Role::kUnknown;
    std::string peer;
    std::shared_ptr<ItemIntake> intake;
    bool busy = false;     // a control request is under way
    size_t questions = 0;  // of a comparison or a return, under way
    std::shared_ptr<Returning> returning = std::make_shared<Returning>();
    // Nobody waits for its questions any more; read by the executor of comparisons.
    std::shared_ptr<std::atomic<bool>> ended = std::make_shared<std::atomic<bool>>(false);
};

ProcessServer::ProcessServer(FileSystem& fs, ObjectStore& store, VaultLink& vault, Clock& clock,
                             Random& random, ProcessServerExecutors executors,
                             ProcessServerOptions options)
    : fs_(fs),
      store_(store),
      vault_(vault),
      clock_(clock),
      random_(random),
      executors_(executors),
      options_(std::move(options)),
      free_puts_(executors_.puts),
      relay_(*executors_.home, clock_, vault_, options_.name, executors_.groups) {
    if (free_puts_.empty()) free_puts_.push_back(executors_.upload);
}

ProcessServer::~ProcessServer() = default;

static Error not_enrolled(const std::string& agent) {
    return Error(Code::kUnauthenticated, fmt::format("'{}' is not enrolled, or was removed", agent),
                 "enrol it with a new token");
}

Status ProcessServer::start() {
    FS_TRY(fs_.make_directories(options_.spool_directory));
    FS_ASSIGN(std::vector<std::string> names, fs_.list(options_.spool_directory));
    for (std::string& name : names) {
        if (name.ends_with('/')) name.pop_back();
        if (auto id = ItemId::parse(name)) FS_TRY(intake(*id));
    }
    return {};
}

Result<ItemIntake*> ProcessServer::intake(const ItemId& item) {
    auto found = intakes_.find(item);
    if (found == intakes_.end()) {
        if (intakes_.size() >= kMaxItemsPerAppliance)
            return fail(Code::kLimitReached,
                        fmt::format("this appliance replicates {} items already", intakes_.size()),
                        "assign the item to another appliance");
        found = intakes_.emplace(item, std::make_shared<ItemIntake>(*this, item)).first;
        found->second->open();
    }
    return found->second.get();
}

void ProcessServer::accept(std::unique_ptr<Connection> connection) {
    const uint64_t id = next_session_++;
    auto session = std::make_shared<Session>();
    session->connection = std::move(connection);
    session->peer = session->connection->peer_name();
    sessions_[id] = session;
    Connection::Handlers handlers;
    handlers.on_frame = [this, id, alive = std::weak_ptr(alive_)](ByteView frame) {
        if (alive.expired()) return;
        auto found = sessions_.find(id);
        if (found == sessions_.end()) return;
        Session& s = *found->second;
        if (s.role == Session::Role::kEnding) return;
        if (s.role == Session::Role::kItem && !frame.empty() &&
            frame[0] == static_cast<uint8_t>(FrameType::kData)) {
            s.intake->on_data(id, frame.subspan(1));
            return;
        }
        on_first_frame(id, frame);
    };
    handlers.on_closed = [this, id, alive = std::weak_ptr(alive_)](const Error&) {
        if (!alive.expired()) end_session(id, nullptr);
    };
    session->connection->start(std::move(handlers));
    if (session->peer.empty()) bound_unnamed(id);
}

// Anybody may come to enrol, but not stay and keep agents out.
void ProcessServer::bound_unnamed(uint64_t session_id) {
    if (++unnamed_sessions_ > kMaxUnnamedSessions) {
        const Error error(
            Code::kLimitReached,
            fmt::format("{} peers without a certificate are here already", kMaxUnnamedSessions),
            "enrol again in a minute");
        end_session(session_id, &error);
        return;
    }
    executors_.home->post_after_us(
        kUnnamedSessionUs, [this, session_id, alive = std::weak_ptr(alive_)] {
            if (alive.expired()) return;
            const Error error(Code::kTimeout, "a peer without a certificate may not stay longer",
                              "connect again with the certificate, or to enrol");
            end_session(session_id, &error);
        });
}

void ProcessServer::end_session(uint64_t session_id, const Error* error) {
    auto found = sessions_.find(session_id);
    if (found == sessions_.end()) return;
    std::shared_ptr<Session> session = found->second;
    if (session->intake) session->intake->detach(session_id);
    session->intake.reset();
    if (session->role == Session::Role::kGroup) relay_.detach(session_id);
    *session->ended = true;
    if (error != nullptr && session->role != Session::Role::kEnding) {
        // The peer reads the reason, closes, and on_closed comes back here; if it does not, the
        // timer ends it.
        session->role = Session::Role::kEnding;
        session->connection->send(encode_error(*error));
        executors_.home->post_after_us(1'000'000,
                                       [this, session_id, alive = std::weak_ptr(alive_)] {
                                           if (!alive.expired()) end_session(session_id, nullptr);
                                       });
        return;
    }
    if (session->peer.empty()) --unnamed_sessions_;
    sessions_.erase(found);
    // Not inside its own callback.
    executors_.home->post([session] { session->connection->close(); });
}

void ProcessServer::on_first_frame(uint64_t session_id, ByteView frame) {
    Session& session = *sessions_.at(session_id);
    const auto refuse = [&](const Error& error) { end_session(session_id, &error); };
    auto view = decode_frame(frame);
    if (!view) return refuse(view.error());
    // Also while the vault is away, and nothing is known of who is enrolled.
    if (is_compute_name(session.peer)) return refuse(not_enrolled(session.peer));
    if (view->type == FrameType::kEnrol && session.role == Session::Role::kUnknown) {
        auto enrol = decode_enrol(view->body);
        if (!enrol) return refuse(enrol.error());
        if (refused_.contains(session.peer)) return refuse(not_enrolled(session.peer));
        session.role = Session::Role::kControl;
        // Who has a good certificate needs no token for its next one.
        executors_.control->post(
            [this, session_id, alive = std::weak_ptr(alive_), e = *enrol, peer = session.peer] {
                auto chain = std::make_shared<Result<std::string>>(
                    e.token.empty() && !peer.empty() ? vault_.renew(peer, e.request_pem)
                                                     : vault_.enrol(e.token, e.request_pem));
                executors_.home->post([this, session_id, alive, chain] {
                    if (alive.expired()) return;
                    auto found = sessions_.find(session_id);
                    if (found == sessions_.end()) return;
                    if (!*chain) {
                        end_session(session_id, &chain->error());
                        return;
                    }
                    found->second->connection->send(encode(EnrolledFrame{**chain}));
                });
            });
        return;
    }
    if (session.peer.empty())
        return refuse(Error(Code::kUnauthenticated, "this peer has shown no certificate",
                            "enrol it first with a token from 'farshore token create'"));
    if (refused_.contains(session.peer)) return refuse(not_enrolled(session.peer));
    if (view->type == FrameType::kHello && session.role == Session::Role::kUnknown) {
        auto hello = decode_hello(view->body);
        if (!hello) return refuse(hello.error());
        auto found = intake(hello->item);
        if (!found) return refuse(found.error());
        session.role = Session::Role::kItem;
        session.intake = (*found)->shared_from_this();
        ItemIntake::Peer peer;
        peer.session = session_id;
        peer.agent = session.peer;
        peer.send = [this, session_id](Bytes out) {
            auto at = sessions_.find(session_id);
            if (at != sessions_.end()) at->second->connection->send(std::move(out));
        };
        peer.end = [this, session_id](const Error& error) { end_session(session_id, &error); };
        session.intake->attach(std::move(peer), *hello);
        return;
    }
    if (view->type == FrameType::kCompare &&
        (session.role == Session::Role::kUnknown || session.role == Session::Role::kCompare)) {
        session.role = Session::Role::kCompare;
        on_compare(session_id, view->body);
        return;
    }
    if (view->type == FrameType::kBarrierReport &&
        (session.role == Session::Role::kUnknown || session.role == Session::Role::kGroup)) {
        if (session.role == Session::Role::kUnknown)
            relay_.attach(session_id, session.peer, [this, session_id](Bytes out) {
                auto at = sessions_.find(session_id);
                if (at != sessions_.end()) at->second->connection->send(std::move(out));
            });
        session.role = Session::Role::kGroup;
        if (auto heard = relay_.on_report(session_id, view->body); !heard) refuse(heard.error());
        return;
    }
    if (view->type == FrameType::kReturn &&
        (session.role == Session::Role::kUnknown || session.role == Session::Role::kReturn)) {
        session.role = Session::Role::kReturn;
        on_return(session_id, view->body);
        return;
    }
    if (view->type == FrameType::kSync &&
        (session.role == Session::Role::kUnknown || session.role == Session::Role::kControl)) {
        session.role = Session::Role::kControl;
        on_sync(session_id, view->body);
        return;
    }
    refuse(Error(Code::kMalformed,
                 fmt::format("frame of type {} is not due here", static_cast<int>(view->type))));
}

std::vector<std::string> ProcessServer::agents() const {
    std::set<std::string> names = refused_;
    for (const auto& [id, session] : sessions_)
        if (!session->peer.empty()) names.insert(session->peer);
    return {names.begin(), names.end()};
}

size_t ProcessServer::connected_agents() const {
    std::set<std::string_view> names;
    for (const auto& [id, session] : sessions_)
        if (!session->peer.empty()) names.insert(session->peer);
    return names.size();
}

void ProcessServer::refuse_agents(std::set<std::string> names) {
    refused_ = std::move(names);
    std::vector<uint64_t> ending;
    for (const auto& [id, session] : sessions_)
        if (session->role != Session::Role::kEnding && refused_.contains(session->peer))
            ending.push_back(id);
    for (const uint64_t id : ending) {
        const Error error = not_enrolled(sessions_.at(id)->peer);
        end_session(id, &error);
    }
}

void ProcessServer::on_sync(uint64_t session_id, ByteView body) {
    Session& session = *sessions_.at(session_id);
    auto sync = decode_sync(body);
    if (!sync) {
        end_session(session_id, &sync.error());
        return;
    }
    if (session.busy) {
        const Error error(Code::kLimitReached, "one control request at a time");
        end_session(session_id, &error);
        return;
    }
    session.busy = true;
    executors_.control->post([this, session_id, alive = std::weak_ptr(alive_), peer = session.peer,
                              request = std::make_shared<SyncFrame>(std::move(*sync))] {
        auto reply =
            std::make_shared<Result<std::string>>(vault_.sync_agent(peer, request->document));
        executors_.home->post([this, session_id, alive, request, reply] {
            if (alive.expired()) return;
            auto found = sessions_.find(session_id);
            if (found == sessions_.end()) return;
            found->second->busy = false;
            if (!*reply) {
                end_session(session_id, &reply->error());
                return;
            }
            found->second->connection->send(
                encode_sync_reply({request->request, std::move(**reply)}));
        });
    });
}

// A question that takes its time, off the home executor; `work` gives the answer's frame.
template <typename Frame>
void ProcessServer::on_question(uint64_t session_id, Result<Frame> frame,
                                std::function<Result<Bytes>(const Frame&)> work) {
    Session& session = *sessions_.at(session_id);
    if (!frame) {
        end_session(session_id, &frame.error());
        return;
    }
    if (session.questions >= kMaxCompareQuestions) {
        const Error error(Code::kLimitReached, "too many questions at a time");
        end_session(session_id, &error);
        return;
    }
    ++session.questions;
    Executor* const executor = executors_.compare ? executors_.compare : executors_.control;
    executor->post([this, session_id, alive = std::weak_ptr(alive_), ended = session.ended,
                    work = std::move(work), asked = std::make_shared<Frame>(std::move(*frame))] {
        // Who lost patience asks again on another connection: what he left must not delay that.
        if (*ended) return;
        auto answer = std::make_shared<Result<Bytes>>(work(*asked));
        executors_.home->post([this, session_id, alive, answer] {
            if (alive.expired()) return;
            auto found = sessions_.find(session_id);
            if (found == sessions_.end()) return;
            --found->second->questions;
            if (!*answer) {
                end_session(session_id, &answer->error());
                return;
            }
            found->second->connection->send(std::move(**answer));
        });
    });
}

void ProcessServer::on_compare(uint64_t session_id, ByteView body) {
    on_question<CompareFrame>(
        session_id, decode_compare(body),
        [this, peer = sessions_.at(session_id)->peer](const CompareFrame& asked) -> Result<Bytes> {
            FS_ASSIGN(CompareAnswer answer, vault_.compare(peer, asked.item, asked.question));
            return encode(ComparedFrame{asked.request, std::move(answer)});
        });
}

void ProcessServer::on_return(uint64_t session_id, ByteView body) {
    const Session& session = *sessions_.at(session_id);
    on_question<ReturnFrame>(
        session_id, decode_return(body),
        [this, peer = session.peer,
         reading = session.returning](const ReturnFrame& asked) -> Result<Bytes> {
            const Sequence to = asked.question.to;
            if (!reading->state || reading->item != asked.item || reading->state->to() != to) {
                reading->state.reset();
                FS_ASSIGN(const ReturnGrant grant,
                          vault_.open_return(options_.name, peer, asked.item, to));
                FS_ASSIGN(reading->state,
                          ReplicaReturn::open(store_, asked.item, grant.item_key, to, grant.end));
                reading->item = asked.item;
            }
            FS_ASSIGN(ReturnAnswer answer, reading->state->answer(asked.question));
            return encode(ReturnedFrame{asked.request, std::move(answer)});
        });
}

std::vector<IntakeStatus> ProcessServer::status() const {
    std::vector<IntakeStatus> all;
    for (const auto& [id, intake] : intakes_) all.push_back(intake->status());
    return all;
}

// ---- what may be sent

void ProcessServer::set_bandwidth(BandwidthLimit total) {
    bandwidth_ = std::move(total);
    follow_windows();
    pump_uploads();
}

void ProcessServer::set_item_bandwidths(std::map<ItemId, BandwidthLimit> limits) {
    const int64_t now_us = clock_.steady_us();
    for (const auto& [item, limit] : item_bandwidths_)
        if (!limits.contains(item)) gate_.set_rate(item, kUnlimited, now_us);
    item_bandwidths_ = std::move(limits);
    follow_windows();
    pump_uploads();
}

void ProcessServer::set_item_bandwidth(const ItemId& item, BandwidthLimit limit) {
    item_bandwidths_[item] = std::move(limit);
    follow_windows();
    pump_uploads();
}

// The rates that count now, and until when.
void ProcessServer::follow_windows() {
    const TimePoint now = clock_.now();
    const int64_t now_us = clock_.steady_us();
    rates_change_.reset();
    const auto follow = [&](const BandwidthLimit& limit) {
        const auto change = limit.next_change(now);
        if (change && (!rates_change_ || *change < *rates_change_)) rates_change_ = change;
        return limit.at(now);
    };
    gate_.set_total_rate(follow(bandwidth_), now_us);
    for (const auto& [item, limit] : item_bandwidths_) gate_.set_rate(item, follow(limit), now_us);
}

void ProcessServer::want_upload(const ItemId& item, uint64_t bytes) {
    gate_.want(item, bytes);
    pump_uploads();
}

void ProcessServer::withdraw_upload(const ItemId& item) { gate_.withdraw(item); }

void ProcessServer::give_back(Executor* put) {
    free_puts_.push_back(put);
    pump_uploads();
}

void ProcessServer::pump_uploads() {
    // An intake that was let through wants to send its next one: the loop below sees that.
    if (pumping_) return;
    pumping_ = true;
    const TimePoint now = clock_.now();
    if (rates_change_ && now >= *rates_change_) follow_windows();
    const int64_t now_us = clock_.steady_us();
    while (!free_puts_.empty()) {
        const auto item = gate_.next(now_us);
        if (!item) break;
        const auto found = intakes_.find(*item);
        if (found == intakes_.end()) continue;
        Executor* const put = free_puts_.back();
        free_puts_.pop_back();
        if (!found->second->upload(*put)) free_puts_.push_back(put);
    }
    pumping_ = false;
    if (upload_timer_) executors_.home->cancel(*upload_timer_);
    upload_timer_.reset();
    // With all of them taken, the next that is given back is what to wait for.
    std::optional<int64_t> wait_us;
    if (!free_puts_.empty()) wait_us = gate_.wait_us(now_us);
    // Also what is not held back now may be from then on, or the other way round.
    if (rates_change_) {
        const int64_t change_us = std::clamp<int64_t>(rates_change_->us - now.us, 0, kRatesAgeUs);
        wait_us = std::min(wait_us.value_or(change_us), change_us);
    }
    if (!wait_us) return;
    upload_timer_ = executors_.home->post_after_us(*wait_us, [this, alive = std::weak_ptr(alive_)] {
        if (alive.expired()) return;
        upload_timer_.reset();
        // The wall clock may have been set.
        follow_windows();
        pump_uploads();
    });
}

void ProcessServer::remove(const ItemId& item) {
    gate_.remove(item);
    item_bandwidths_.erase(item);
    auto found = intakes_.find(item);
    if (found == intakes_.end()) return;
    found->second->retire();
    intakes_.erase(found);
}

}  // namespace farshore
