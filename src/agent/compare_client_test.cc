#include "agent/compare_client.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>

#include "capture/capture_test_world.h"
#include "replicate/frames.h"
#include "replicate/limits.h"

namespace farshore {
namespace {

using namespace capture_test;

// Stands still unless it is moved.
class ManualTime final : public Executor, public Clock {
  public:
    TimePoint now() const override { return {1'700'000'000'000'000 + now_us_}; }
    int64_t steady_us() const override { return now_us_; }
    void post(Task task) override { tasks_.push_back(std::move(task)); }
    TimerId post_after_us(int64_t delay_us, Task task) override {
        timers_.emplace(std::pair(now_us_ + delay_us, ++last_), std::move(task));
        return last_;
    }
    void cancel(TimerId timer) override {
        std::erase_if(timers_, [&](const auto& entry) { return entry.first.second == timer; });
    }
    void run() {
        while (!tasks_.empty()) {
            const Task task = std::move(tasks_.front());
            tasks_.pop_front();
            task();
        }
    }
    void advance(int64_t by_us) {
        const int64_t end_us = now_us_ + by_us;
        for (run(); !timers_.empty() && timers_.begin()->first.first <= end_us; run()) {
            auto timer = timers_.extract(timers_.begin());
            now_us_ = timer.key().first;
            timer.mapped()();
        }
        now_us_ = end_us;
    }

  private:
    int64_t now_us_ = 1;
    uint64_t last_ = 0;
    std::deque<Task> tasks_;
    std::map<std::pair<int64_t, uint64_t>, Task> timers_;
};

// One connection, as the recovery site sees it.
struct Line {
    Connection::Handlers handlers;
    std::vector<CompareFrame> asked;
    bool open = true;
};

class LineConnection final : public Connection {
  public:
    explicit LineConnection(std::shared_ptr<Line> line) : line_(std::move(line)) {}
    ~LineConnection() override { line_->open = false; }
    void start(Handlers handlers) override { line_->handlers = std::move(handlers); }
    void send(Bytes frame) override {
        auto view = decode_frame(frame);
        ASSERT_TRUE(view);
        auto asked = decode_compare(view->body);
        ASSERT_TRUE(asked);
        line_->asked.push_back(*asked);
    }
    size_t queued_bytes() const override { return 0; }
    void close() override { line_->open = false; }
    const std::string& peer_name() const override { return name_; }

  private:
    std::shared_ptr<Line> line_;
    std::string name_ = "appliance";
};

class LineDialer final : public Dialer {
  public:
    void dial(Executor& executor, const std::string& address,
              std::function<void(Result<std::unique_ptr<Connection>>)> done) override {
        EXPECT_EQ(address, "site:7");
        ++dials;
        executor.post([this, done = std::move(done)] {
            if (away) return done(fail(Code::kConnectionLost, "nobody listens"));
            lines.push_back(std::make_shared<Line>());
            done(std::make_unique<LineConnection>(lines.back()));
        });
    }
    std::vector<std::shared_ptr<Line>> lines;
    size_t dials = 0;
    bool away = false;
};

class CompareClientTest : public ::testing::Test {
  protected:
    CompareClientTest()
        : memory_(LogGeometry{.item = {},
                              .boot_id = {},
                              .ring_bytes = kMinRingBytes,
                              .spill_bytes = 0,
                              .disk_bytes = {16 << 20}}),
          header_(*LogHeader::format(memory_.memory(), memory_.geometry(), {1})),
          asker_(header_) {
        item_.raw[2] = 9;
        client_.emplace(time_, time_, dialer_, "site:7", item_, header_, [this] { ++rings_; });
    }

    void ask(size_t slot) {
        CompareQuestion question;
        question.offset_bytes = slot * kSumBlockBytes;
        question.length_bytes = 2 * kSumBlockBytes;
        question.at_least = {slot + 10};
        asker_.ask(slot, question);
        wake();
    }
    void wake() {
        client_->wake();
        time_.run();
    }
    Line& line() { return *dialer_.lines.back(); }
    void say(const Bytes& frame) {
        line().handlers.on_frame(frame);
        time_.run();
    }
    void answer(uint64_t request, CompareVerdict verdict, size_t sums = 0) {
        say(encode(ComparedFrame{request, {verdict, std::vector<BlockSum>(sums), 0}}));
    }
    std::optional<CompareVerdict> taken(size_t slot) {
        const auto answer = asker_.take(slot);
        if (!answer) return std::nullopt;
        return answer->verdict;
    }

    ManualTime time_;
    LineDialer dialer_;
    TestMemory memory_;
    LogHeader header_;
    CompareAsker asker_;
    ItemId item_;
    int rings_ = 0;
    std::optional<CompareClient> client_;
};

// Broken if what the tap asks did not reach the recovery site, or an answer not the slot that asked
// for it; or if a connection stayed open for nothing.
TEST_F(CompareClientTest, CarriesQuestionsAndAnswers) {
    wake();
    EXPECT_EQ(dialer_.dials, 0u) << "nothing is asked";
    ask(0);
    ask(2);
    wake();
    ASSERT_EQ(dialer_.lines.size(), 1u);
    ASSERT_EQ(line().asked.size(), 2u) << "each once";
    EXPECT_EQ(line().asked[0].item, item_);
    EXPECT_EQ(line().asked[1].question.offset_bytes, 2 * kSumBlockBytes);
    EXPECT_EQ(line().asked[1].question.at_least.v, 12u);
    answer(line().asked[1].request, CompareVerdict::kSums, 2);
    EXPECT_EQ(taken(2), CompareVerdict::kSums);
    EXPECT_FALSE(taken(0));
    answer(line().asked[0].request, CompareVerdict::kEqual);
    EXPECT_EQ(taken(0), CompareVerdict::kEqual);
    EXPECT_EQ(rings_, 2);
    time_.advance(5'000'000);
    EXPECT_TRUE(line().open);
    time_.advance(25'000'000);
    EXPECT_FALSE(line().open);
    time_.advance(600'000'000);
    EXPECT_EQ(dialer_.dials, 1u);
    ask(0);
    EXPECT_EQ(line().asked.size(), 1u);
    EXPECT_EQ(dialer_.dials, 2u);
}

// Broken if what is not stored yet were never asked again, or asked without a pause.
TEST_F(CompareClientTest, AsksAgainWhatIsNotStoredYet) {
    ask(1);
    for (size_t round = 1; round < 2000; ++round) {
        ASSERT_EQ(line().asked.size(), round);
        answer(line().asked.back().request, CompareVerdict::kNotYet);
        wake();
        ASSERT_EQ(line().asked.size(), round) << "not at once";
        time_.advance(250'000);
    }
    EXPECT_EQ(rings_, 0);
    EXPECT_EQ(dialer_.dials, 1u) << "a peer that answers is alive, however often";
    answer(line().asked.back().request, CompareVerdict::kEqual);
    EXPECT_EQ(taken(1), CompareVerdict::kEqual);
}

// Broken if a question were lost with its connection, or a site that is away were dialled without a
// pause.
TEST_F(CompareClientTest, AsksAgainAfterABrokenConnection) {
    ask(0);
    ask(1);
    answer(line().asked[0].request, CompareVerdict::kNotYet);
    line().handlers.on_closed(Error(Code::kConnectionLost, "reset"));
    dialer_.away = true;
    time_.advance(60'000'000);
    EXPECT_GT(dialer_.dials, 10u);
    EXPECT_LT(dialer_.dials, 25u);
    wake();
    wake();
    EXPECT_LT(dialer_.dials, 25u) << "a wake is no reason to hurry";
    ASSERT_EQ(dialer_.lines.size(), 1u);
    dialer_.away = false;
    time_.advance(kRetryMaxUs);
    ASSERT_EQ(dialer_.lines.size(), 2u);
    EXPECT_FALSE(dialer_.lines[0]->open);
    ASSERT_EQ(line().asked.size(), 2u);
    answer(line().asked[0].request, CompareVerdict::kEqual);
    answer(line().asked[1].request, CompareVerdict::kEqual);
    EXPECT_TRUE(taken(0) && taken(1));
}

// Broken if a source waited for ever for a site that will never compare.
TEST_F(CompareClientTest, APermanentErrorIsNothingToCompareWith) {
    for (const Code code : {Code::kForbidden, Code::kNotFound, Code::kUnsupported,
                            Code::kNewerVersion, Code::kUnauthenticated}) {
        ask(0);
        ask(3);
        time_.advance(kRetryMaxUs);
        say(encode_error(Error(code, "planned")));
        EXPECT_EQ(taken(0), CompareVerdict::kNothing);
        EXPECT_EQ(taken(3), CompareVerdict::kNothing);
        EXPECT_FALSE(line().open);
    }
    EXPECT_EQ(rings_, 5);
}

// Broken if a site that is busy or restarts made the source copy everything.
TEST_F(CompareClientTest, AnErrorThatPassesIsWaitedFor) {
    ask(0);
    for (const Code code : {Code::kUnavailable, Code::kLimitReached, Code::kTimeout}) {
        ASSERT_EQ(line().asked.size(), 1u);
        say(encode_error(Error(code, "planned")));
        EXPECT_FALSE(taken(0));
        EXPECT_FALSE(line().open);
        time_.advance(kRetryMaxUs);
    }
    EXPECT_EQ(dialer_.dials, 4u);
    answer(line().asked[0].request, CompareVerdict::kEqual);
    EXPECT_EQ(taken(0), CompareVerdict::kEqual);
}

// Broken if what a tap asked before it was killed were asked for ever, or its answer were given to
// its successor.
TEST_F(CompareClientTest, DropsWhatIsNotAskedAnyMore) {
    ask(0);
    ask(1);
    const uint64_t forgotten = line().asked[0].request;
    const uint64_t kept = line().asked[1].request;
    asker_.forget(0);
    wake();
    line().handlers.on_closed(Error(Code::kConnectionLost, "reset"));
    time_.advance(kRetryMaxUs);
    ASSERT_EQ(line().asked.size(), 1u);
    EXPECT_EQ(line().asked[0].request, kept);
    // The same slot again: another question with another number.
    ask(0);
    ASSERT_EQ(line().asked.size(), 2u);
    EXPECT_NE(line().asked[1].request, forgotten);
    answer(forgotten, CompareVerdict::kEqual);
    EXPECT_FALSE(taken(0));
    // Forgotten after it was sent, before anybody looked.
    asker_.forget(1);
    answer(kept, CompareVerdict::kEqual);
    EXPECT_FALSE(taken(1));
    answer(line().asked[1].request, CompareVerdict::kEqual);
    EXPECT_EQ(taken(0), CompareVerdict::kEqual);
}

// Broken if a peer that says nothing held up a resynchronisation for ever.
TEST_F(CompareClientTest, ASilentPeerIsLeft) {
    ask(0);
    time_.advance(14'000'000);
    EXPECT_EQ(dialer_.dials, 1u);
    time_.advance(10'000'000);
    ASSERT_EQ(dialer_.lines.size(), 2u);
    EXPECT_FALSE(dialer_.lines[0]->open);
    EXPECT_EQ(line().asked.size(), 1u);
    // It may only be slow: the next time is longer.
    time_.advance(25'000'000);
    EXPECT_EQ(dialer_.dials, 2u);
    time_.advance(20'000'000);
    EXPECT_EQ(dialer_.dials, 3u);
}

// Broken if a peer that repeats itself, makes answers up or talks nonsense did more than waste
// time.
TEST_F(CompareClientTest, APeerThatLies) {
    ask(0);
    const uint64_t request = line().asked[0].request;
    answer(request + 100, CompareVerdict::kEqual);
    EXPECT_FALSE(taken(0));
    answer(request, CompareVerdict::kSums, 1);
    EXPECT_EQ(taken(0), CompareVerdict::kNothing) << "two blocks, one sum";
    answer(request, CompareVerdict::kEqual);
    ask(0);
    answer(request, CompareVerdict::kEqual);
    EXPECT_FALSE(taken(0)) << "said again to the next question";
    const uint64_t second = line().asked[1].request;
    size_t dials = dialer_.dials;
    for (const Bytes& nonsense :
         {Bytes{}, Bytes{99}, encode(WelcomeFrame{}), Bytes{uint8_t(FrameType::kCompared), 1}}) {
        say(nonsense);
        EXPECT_FALSE(line().open);
        time_.advance(kRetryMaxUs);
        EXPECT_EQ(dialer_.dials, ++dials);
        ASSERT_EQ(line().asked.size(), 1u);
        EXPECT_EQ(line().asked[0].request, second);
    }
    answer(second, CompareVerdict::kEqual);
    EXPECT_EQ(taken(0), CompareVerdict::kEqual);
}

// Broken if a peer that never makes sense held up a resynchronisation for ever: all is copied then.
TEST_F(CompareClientTest, APeerThatNeverMakesSenseIsNothingToCompareWith) {
    for (const bool theirs : {true, false}) {
        ask(0);
        int rounds = 0;
        while (!taken(0)) {
            ASSERT_LT(++rounds, 10);
            time_.advance(kRetryMaxUs);
            say(theirs ? encode_error(Error(Code::kMalformed, "planned")) : encode(WelcomeFrame{}));
        }
        EXPECT_GT(rounds, 2) << "once may be an accident";
    }
}

// Broken if an agent that stops while something is under way fell over what comes later.
TEST_F(CompareClientTest, NothingComesAfterItsEnd) {
    ask(0);
    const auto before = dialer_.lines.back();
    before->handlers.on_closed(Error(Code::kConnectionLost, "reset"));
    client_.reset();
    time_.advance(600'000'000);
    EXPECT_EQ(dialer_.dials, 1u);
    client_.emplace(time_, time_, dialer_, "site:7", item_, header_, [this] { ++rings_; });
    client_->wake();
    client_.reset();
    time_.run();
    EXPECT_FALSE(dialer_.lines.back()->open) << "dialled for nobody";
    before->handlers.on_frame(encode(ComparedFrame{1, {CompareVerdict::kEqual, {}, 0}}));
    EXPECT_FALSE(taken(0));
}

}  // namespace
}  // namespace farshore
