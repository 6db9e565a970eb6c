// A process server between agents that are frames, a vault that only counts, and a store in memory;
// time and every executor stand still until a test runs them. Only for tests.
#pragma once

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "os/real.h"
#include "os/test_directory.h"
#include "record/record.h"
#include "replica/segment.h"
#include "replicate/frames.h"
#include "replicate/process_server.h"
#include "store/memory_store.h"

namespace farshore::process_server_test {

// Time stands still until run_until_idle() has nothing else to do.
class ManualTime final : public Executor, public Clock {
  public:
    TimePoint now() const override { return {1'700'000'000'000'000 + now_us_}; }
    int64_t steady_us() const override { return now_us_; }
    void post(Task task) override { tasks_.push_back(std::move(task)); }
    TimerId post_after_us(int64_t delay_us, Task task) override {
        timers_.emplace(std::pair(now_us_ + std::max<int64_t>(delay_us, 0), ++last_),
                        std::move(task));
        return last_;
    }
    void cancel(TimerId timer) override {
        std::erase_if(timers_, [&](const auto& entry) { return entry.first.second == timer; });
    }
    bool busy() const { return !tasks_.empty(); }
    void run() {
        while (!tasks_.empty()) {
            Task task = std::move(tasks_.front());
            tasks_.pop_front();
            task();
        }
    }
    void advance(int64_t by_us) {
        const int64_t end_us = now_us_ + by_us;
        run();
        while (!timers_.empty() && timers_.begin()->first.first <= end_us) {
            auto timer = timers_.extract(timers_.begin());
            now_us_ = std::max(now_us_, timer.key().first);
            timer.mapped()();
            run();
        }
        now_us_ = end_us;
    }

  private:
    int64_t now_us_ = 1;
    uint64_t last_ = 0;
    std::deque<Task> tasks_;
    std::map<std::pair<int64_t, uint64_t>, Task> timers_;
};

struct Wire {
    Connection::Handlers handlers;
    std::vector<Bytes> to_agent;
    bool closed = false;
};

class WireConnection final : public Connection {
  public:
    WireConnection(std::shared_ptr<Wire> wire, std::string peer)
        : wire_(std::move(wire)), peer_(std::move(peer)) {}
    void start(Handlers handlers) override { wire_->handlers = std::move(handlers); }
    void send(Bytes frame) override { wire_->to_agent.push_back(std::move(frame)); }
    size_t queued_bytes() const override { return 0; }
    void close() override { wire_->closed = true; }
    const std::string& peer_name() const override { return peer_; }

  private:
    std::shared_ptr<Wire> wire_;
    std::string peer_;
};

class FakeVault : public VaultLink {
  public:
    Result<LogLease> acquire_log(const ItemId&, const std::string&) override {
        LogLease lease;
        lease.epoch = {++epoch};
        lease.next_segment = {segments.size() + 1};
        if (!segments.empty()) {
            lease.previous_header = segments.back().header_hash;
            lease.stored = segments.back().last;
        }
        lease.item_key = Secret(Bytes(32, 7));
        lease.agent = owner;
        lease.bandwidth = bandwidth;
        lease.time_zone = "UTC";
        return lease;
    }
    Status register_segment(const SegmentRegistration& registration) override {
        if (failing > 0) {
            --failing;
            return fail(Code::kUnavailable, "planned");
        }
        if (registration.epoch.v != epoch) return fail(Code::kFenced, "older epoch");
        if (registration.number.v <= segments.size()) return {};
        EXPECT_EQ(registration.number.v, segments.size() + 1);
        segments.push_back(registration);
        return {};
    }
    Status mark_idle(const ItemId&, Epoch, Sequence sequence, TimePoint) override {
        ++marks;
        marked = sequence;
        return {};
    }
    Result<std::string> sync_agent(const std::string& agent, const std::string& status) override {
        return agent + ":" + status;
    }
    Result<std::string> renew(const std::string& party, const std::string&) override {
        return "chain of " + party;
    }
    Result<std::string> enrol(const std::string& token, const std::string&) override {
        if (token != "good") return fail(Code::kUnauthenticated, "unknown token");
        return "chain";
    }
    Result<CompareAnswer> compare(const std::string& agent, const ItemId& item,
                                  const CompareQuestion& question) override {
        compared.push_back(agent);
        EXPECT_EQ(item.raw[0], 1);
        if (compare_error) return fail(*compare_error);
        CompareAnswer answer;
        answer.verdict = CompareVerdict::kSums;
        answer.sums.assign(question.blocks(), BlockSum{uint8_t(question.disk)});
        return answer;
    }
    Result<ReturnGrant> open_return(const std::string& appliance, const std::string& agent,
                                    const ItemId&, Sequence to) override {
        returned.push_back(appliance + " " + agent + " " + std::to_string(to.v));
        return fail(Code::kForbidden, "the item returns to nobody");
    }
    std::vector<std::string> returned;
    std::string owner;
    std::string bandwidth;
    std::vector<std::string> compared;
    std::optional<Error> compare_error;
    uint64_t epoch = 0;
    int failing = 0;
    int marks = 0;
    Sequence marked;
    std::vector<SegmentRegistration> segments;
};

// Asks before each put.
class AskingStore final : public ObjectStore {
  public:
    Status put(const std::string& name, ByteView data) override {
        if (ask) FS_TRY(ask(name, data));
        return inner_.put(name, data);
    }
    Result<Bytes> get(const std::string& name) override { return inner_.get(name); }
    Result<Bytes> get_range(const std::string& name, uint64_t offset, uint64_t length) override {
        return inner_.get_range(name, offset, length);
    }
    Result<ObjectInfo> head(const std::string& name) override { return inner_.head(name); }
    Result<std::vector<ObjectInfo>> list(const std::string& prefix, const std::string& after,
                                         size_t limit) override {
        return inner_.list(prefix, after, limit);
    }
    Status remove(const std::string& name) override { return inner_.remove(name); }
    std::function<Status(const std::string& name, ByteView data)> ask;

  private:
    MemoryStore inner_;
};

class ProcessServerTest : public ::testing::Test {
  protected:
    void SetUp() override { boot(); }
    void TearDown() override { server_.reset(); }

    void boot() {
        server_.reset();
        ProcessServerOptions options;
        options.name = "appliance-1";
        options.spool_directory = directory_.path() + "/spool";
        options.spool_file_bytes = 64 << 10;
        options.segment_payload_bytes = 256 << 10;
        tune_(options);
        ProcessServerExecutors executors{&time_, &time_, &time_, &time_, &time_};
        executors.compare = &comparing_;
        for (auto& putting : putting_) executors.puts.push_back(putting.get());
        server_ = std::make_unique<ProcessServer>(files_, store_, vault_, time_, random_, executors,
                                                  options);
        ASSERT_TRUE(server_->start());
        time_.run();
    }

    std::shared_ptr<Wire> connect(const std::string& peer, uint8_t instance = 1,
                                  uint64_t first_unstored = 1) {
        auto wire = std::make_shared<Wire>();
        server_->accept(std::make_unique<WireConnection>(wire, peer));
        HelloFrame hello;
        hello.item = item_;
        hello.instance.raw[0] = instance;
        hello.first_unstored = {first_unstored};
        wire->handlers.on_frame(encode(hello));
        time_.run();
        return wire;
    }

    std::shared_ptr<Wire> open(const std::string& peer) {
        auto wire = std::make_shared<Wire>();
        server_->accept(std::make_unique<WireConnection>(wire, peer));
        return wire;
    }
    Bytes question(uint64_t request) const {
        CompareFrame frame;
        frame.request = request;
        frame.item = item_;
        frame.question.disk = static_cast<DiskIndex>(request);
        frame.question.length_bytes = 2 * kSumBlockBytes;
        return encode(frame);
    }
    void compare() {
        time_.run();
        comparing_.run();
        time_.run();
    }

    // Records [first, first+count) of 4 KiB each.
    static Bytes records(uint64_t first, uint64_t count, RecordKind kind = RecordKind::kWrite) {
        Bytes out;
        for (uint64_t s = first; s < first + count; ++s) {
            RecordHeader header;
            header.kind = kind;
            header.sequence = {s};
            header.time = {static_cast<int64_t>(1'000'000 * s)};
            header.offset_bytes = kind == RecordKind::kWrite ? s * 4096 : 0;
            append_record(out, header,
                          kind == RecordKind::kWrite ? Bytes(4096, uint8_t(s)) : Bytes{});
        }
        return out;
    }

    // Records that do not compress.
    Bytes noise(uint64_t first, uint64_t count) {
        Bytes out;
        for (uint64_t s = first; s < first + count; ++s) {
            RecordHeader header;
            header.kind = RecordKind::kWrite;
            header.sequence = {s};
            header.time = time_.now();
            header.offset_bytes = s * 4096;
            Bytes payload(4096);
            random_.fill(payload);
            append_record(out, header, payload);
        }
        return out;
    }

    template <typename Frame>
    static std::optional<Frame> last_frame(const Wire& wire, FrameType type,
                                           Result<Frame> (*decode)(ByteView)) {
        for (auto f = wire.to_agent.rbegin(); f != wire.to_agent.rend(); ++f)
            if ((*f)[0] == static_cast<uint8_t>(type)) return *decode(ByteView(*f).subspan(1));
        return std::nullopt;
    }
    static AckFrame last_ack(const Wire& wire) {
        return last_frame<AckFrame>(wire, FrameType::kAck, decode_ack).value_or(AckFrame{});
    }
    static WelcomeFrame welcome(const Wire& wire) {
        return last_frame<WelcomeFrame>(wire, FrameType::kWelcome, decode_welcome)
            .value_or(WelcomeFrame{});
    }
    static std::optional<Error> error(const Wire& wire) {
        for (const Bytes& frame : wire.to_agent)
            if (frame[0] == static_cast<uint8_t>(FrameType::kError))
                return decode_error(ByteView(frame).subspan(1));
        return std::nullopt;
    }
    // Every sequence of the registered segments, in order.
    std::vector<uint64_t> stored_sequences() {
        std::vector<uint64_t> all;
        for (const auto& segment : vault_.segments) {
            auto reader =
                SegmentReader::open(store_, segment.object_name, item_, Secret(Bytes(32, 7)));
            EXPECT_TRUE(reader) << reader.error().to_string();
            if (!reader) return all;
            for (const IndexEntry& entry : (*reader)->index()) all.push_back(entry.sequence.v);
        }
        return all;
    }

    std::function<void(ProcessServerOptions&)> tune_ = [](ProcessServerOptions&) {};
    TestDirectory directory_;
    PosixFileSystem files_;
    RealRandom random_;
    AskingStore store_;
    FakeVault vault_;
    ManualTime time_;
    ManualTime comparing_;  // its tasks alone
    // Those of puts; empty: they happen at once.
    std::vector<std::unique_ptr<ManualTime>> putting_;
    ItemId item_{{1, 2, 3}};
    std::unique_ptr<ProcessServer> server_;
};

}  // namespace farshore::process_server_test
