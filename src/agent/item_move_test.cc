#include "agent/item_move.h"

#include <gtest/gtest.h>

#include <deque>

#include "agent/test_capture_log.h"

namespace farshore {
namespace {

struct Steps final : Executor {
    std::deque<Task> tasks;
    void post(Task task) override { tasks.push_back(std::move(task)); }
    TimerId post_after_us(int64_t, Task) override { return 1; }
    void cancel(TimerId) override {}
    void run() {
        while (!tasks.empty()) {
            const Task task = std::move(tasks.front());
            tasks.pop_front();
            task();
        }
    }
};

struct Watch final : Clock {
    int64_t us = 1'000'000;
    TimePoint now() const override { return {us}; }
    int64_t steady_us() const override { return us; }
};

struct Silent final : Connection {
    explicit Silent(std::string peer) : peer_(std::move(peer)) {}
    void start(Handlers) override {}
    void send(Bytes) override {}
    size_t queued_bytes() const override { return 0; }
    void close() override {}
    const std::string& peer_name() const override { return peer_; }
    const std::string peer_;
};

// Everybody is there, under the name that is asked for; at once, or when it is let.
struct Everybody final : Dialer {
    struct Answers {
        bool wait = false;
        std::deque<Task> waiting;
    };
    Everybody(std::string name, Answers& answers) : name_(std::move(name)), answers_(answers) {}
    void dial(Executor&, const std::string&,
              std::function<void(Result<std::unique_ptr<Connection>>)> done) override {
        Task answer = [name = name_, done = std::move(done)] {
            done(std::make_unique<Silent>(name));
        };
        if (!answers_.wait) return answer();
        answers_.waiting.push_back(std::move(answer));
    }
    const std::string name_;
    Answers& answers_;
};

// A machine's log, of which `one` has received a part and stored less, and a sender on its way
// there.
struct WithClock {
    Watch clock;
};
struct Moving : WithClock, TestCaptureLog {
    Moving() : TestCaptureLog(clock) {
        route.set(one);
        sender.start();
        steps.run();
    }
    void follow(const ApplianceAddress& now, const ApplianceAddress& next) {
        move.follow(now, next);
        steps.run();
    }

    const ApplianceAddress one{"one", "one:1"}, two{"two", "two:2"};
    Steps steps;
    Everybody::Answers answers;
    ApplianceRoutes routes{{"one:1"}, "", [this](const std::string& name) {
                               return std::make_unique<Everybody>(name, answers);
                           }};
    ItemRoute route{routes};
    struct NoRecords final : RecordSource {
        Sequence first_unstored() override { return {1}; }
        Status resume(Sequence, Sequence) override { return {}; }
        Result<ByteView> next(size_t) override { return ByteView{}; }
        void release(Sequence) override {}
        void set_stored(Sequence) override {}
    } none;
    LogSender sender{steps, clock, route, "", {}, {}, none};
    ItemMove move{route, *source, sender, clock};
};

// Broken if an item went to another appliance while only the one before has some of its records, if
// it did not go as soon as that is over, or if it waited for ever where more is written than the
// log keeps.
TEST(ItemMove, GoesWhenTheLogHasAllThatIsNotStored) {
    Moving m;
    EXPECT_EQ(m.sender.peer_name(), "one");
    ASSERT_FALSE(m.source->has_all_unstored());
    m.follow(m.one, m.two);
    EXPECT_EQ(m.sender.peer_name(), "one");
    EXPECT_NE(m.move.waits_since_us(), 0);
    EXPECT_FALSE(m.source->paused());
    m.clock.us += 4'000'000;
    m.follow(m.one, m.two);
    EXPECT_TRUE(m.source->paused());
    m.append(3);
    EXPECT_TRUE(m.source->next(1u << 20)->empty());
    m.source->set_stored({m.last.v - 3});
    m.follow(m.one, m.two);
    EXPECT_EQ(m.sender.peer_name(), "two");
    EXPECT_FALSE(m.source->paused());
    EXPECT_EQ(m.move.waits_since_us(), 0);
    // The vault has not heard of it yet; then it has.
    m.follow(m.one, m.two);
    EXPECT_EQ(m.sender.peer_name(), "two");
    m.follow(m.two, {});
    EXPECT_EQ(m.sender.peer_name(), "two");
}

// Broken if a pause filled the log until order is lost.
TEST(ItemMove, APauseEndsBeforeTheLogIsHalfFull) {
    Moving m;
    m.follow(m.one, m.two);
    m.clock.us += 4'000'000;
    m.follow(m.one, m.two);
    ASSERT_TRUE(m.source->paused());
    m.append(40);
    ASSERT_TRUE(m.source->half_full());
    m.follow(m.one, m.two);
    EXPECT_FALSE(m.source->paused());
    m.send_all();
    m.source->release(m.last);
    m.clock.us += 4'000'000;
    m.follow(m.one, m.two);
    EXPECT_FALSE(m.source->paused()) << "not at once again";
    EXPECT_EQ(m.sender.peer_name(), "one");
    m.clock.us += 30'000'000;
    m.follow(m.one, m.two);
    EXPECT_TRUE(m.source->paused());
    // Called back: all goes on as before.
    m.follow(m.one, {});
    EXPECT_FALSE(m.source->paused());
    EXPECT_EQ(m.sender.peer_name(), "one");
    EXPECT_EQ(m.move.waits_since_us(), 0);
}

// Broken if the room that a move has in the log was taken back while what it holds is still needed:
// by the one that takes over, and until that one has said what it has.
TEST(ItemMove, WhatTheOneBeforeHadReceivedIsKeptForTheNext) {
    Moving m;
    const uint64_t ring = m.source->ring_bytes();
    m.follow(m.one, m.two);
    const Sequence stored = m.last;
    m.source->set_stored(stored);
    // More than is kept always, less than is kept for a move.
    const int records = static_cast<int>(ring / 16 * 5 / (m.payload.size() + kRecordHeaderBytes));
    m.append(records);
    m.send_all();
    m.source->release(m.last);
    ASSERT_TRUE(m.source->has_all_unstored());
    m.follow(m.one, m.two);
    ASSERT_EQ(m.sender.peer_name(), "two");
    EXPECT_TRUE(m.source->has_all_unstored());
    m.follow(m.two, {});
    EXPECT_TRUE(m.source->has_all_unstored());
    FS_CHECK(m.source->resume(stored.next(), stored));
    EXPECT_TRUE(m.asked.empty()) << "nothing is missing";
}

// Broken if a connection to the one before, which was on its way when the item changed to another,
// was used all the same.
TEST(ItemMove, ADialToTheOneBeforeIsNotWaitedFor) {
    Moving m;
    m.source->set_stored(m.last);
    m.answers.wait = true;
    m.sender.reconnect();
    m.steps.run();
    ASSERT_EQ(m.answers.waiting.size(), 1u);
    ASSERT_EQ(m.sender.peer_name(), "");
    m.answers.wait = false;
    m.follow(m.one, m.two);
    EXPECT_EQ(m.sender.peer_name(), "two");
    m.answers.waiting.front()();
    m.steps.run();
    EXPECT_EQ(m.sender.peer_name(), "two");
    m.follow(m.one, m.two);
    EXPECT_EQ(m.sender.peer_name(), "two");
}

// Broken if an item whose appliance is lost waited for it.
TEST(ItemMove, ALostOneIsLeftAtOnce) {
    Moving m;
    ASSERT_FALSE(m.source->has_all_unstored());
    m.follow(m.two, {});
    EXPECT_EQ(m.sender.peer_name(), "two");
}

}  // namespace
}  // namespace farshore
