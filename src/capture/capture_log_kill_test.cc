// The log in shared memory after a kill -9 behind every single store: each word that a tap or an
// agent changes there is trapped, and from what the memory is then another tap and another agent go
// on. (A crash of the host takes the memory with it; the dirty map is for that.)
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)

#include <fmt/core.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <functional>
#include <iostream>
#include <map>

#include "capture/capture_log.h"
#include "capture/capture_test_reader.h"
#include "capture/capture_test_world.h"
#include "codec/crc32c.h"

namespace farshore {
namespace {

using namespace capture_test;

// Memory whose stores are trapped one by one between protect() and unprotect(): the page is made
// writable for one instruction, and noted behind it. For one thread, on x86-64.
class TrappedMemory {
  public:
    struct Store {
        size_t page;
        Bytes after;
    };
    explicit TrappedMemory(size_t bytes) : bytes_(bytes) {
        void* at =
            ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        FS_CHECK(at != MAP_FAILED);
        data_ = static_cast<uint8_t*>(at);
        self_ = this;
        struct sigaction action {};
        action.sa_flags = SA_SIGINFO | SA_NODEFER;
        action.sa_sigaction = &TrappedMemory::on_fault;
        ::sigaction(SIGSEGV, &action, &segv_before_);
        action.sa_sigaction = &TrappedMemory::on_step;
        ::sigaction(SIGTRAP, &action, &trap_before_);
    }
    ~TrappedMemory() {
        ::sigaction(SIGSEGV, &segv_before_, nullptr);
        ::sigaction(SIGTRAP, &trap_before_, nullptr);
        ::munmap(data_, bytes_);
        self_ = nullptr;
    }
    uint8_t* data() const { return data_; }
    size_t size() const { return bytes_; }
    ByteView view() const { return {data_, bytes_}; }
    void protect() { FS_CHECK(::mprotect(data_, bytes_, PROT_READ) == 0); }
    void unprotect() { FS_CHECK(::mprotect(data_, bytes_, PROT_READ | PROT_WRITE) == 0); }
    std::vector<Store>& stores() { return stores_; }

  private:
    static constexpr greg_t kTrapFlag = 0x100;

    static void on_fault(int, siginfo_t* info, void* context) {
        const auto at = static_cast<uint8_t*>(info->si_addr);
        if (self_ == nullptr || at < self_->data_ || at >= self_->data_ + self_->bytes_)
            ::abort();  // a fault of another kind
        const auto page = static_cast<size_t>(at - self_->data_) / kPageBytes;
        ::mprotect(self_->data_ + page * kPageBytes, kPageBytes, PROT_READ | PROT_WRITE);
        self_->open_.push_back(page);
        static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] |= kTrapFlag;
    }
    static void on_step(int, siginfo_t*, void* context) {
        static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] &= ~kTrapFlag;
        // Not while memory is being allocated: nobody allocates in the middle of a store to it.
        for (const size_t page : self_->open_) {
            uint8_t* at = self_->data_ + page * kPageBytes;
            ::mprotect(at, kPageBytes, PROT_READ);
            self_->stores_.push_back({page, Bytes(at, at + kPageBytes)});
        }
        self_->open_.clear();
    }

    static TrappedMemory* self_;
    uint8_t* data_ = nullptr;
    size_t bytes_;
    std::vector<size_t> open_;
    std::vector<Store> stores_;
    struct sigaction segv_before_ {
    }, trap_before_{};
};
TrappedMemory* TrappedMemory::self_ = nullptr;

// What is known of a record: by its number, from the moment that it was begun.
struct Sent {
    DiskIndex disk = 0;
    uint64_t offset = 0;
    Bytes payload;
};

class KilledLog : public ::testing::Test {
  protected:
    static LogGeometry geometry() {
        LogGeometry g;
        g.ring_bytes = kMinRingBytes;
        g.spill_bytes = 64u << 10;
        g.disk_bytes = {8u << 20};
        return g;
    }
    static LogMemory split(uint8_t* data) {
        const size_t control = control_bytes(geometry());
        return {{data, control}, {data + control, geometry().ring_bytes}, false};
    }
    KilledLog() : memory_(control_bytes(geometry()) + geometry().ring_bytes) {
        spill_ = std::move(*files_.open("spill", OpenMode::kCreate));
        header_ = *LogHeader::format(split(memory_.data()), geometry(), {1});
        open(header_, *spill_, producer_, consumer_);
        // New logs owe a gap.
        EXPECT_TRUE(producer_->settle_gap());
        EXPECT_TRUE(producer_->try_resynced());
        known_last_ = producer_->state().next_sequence - 1;
    }
    void open(const LogHeader& header, File& spill, std::unique_ptr<CaptureProducer>& producer,
              std::unique_ptr<CaptureConsumer>& consumer) {
        producer = std::make_unique<CaptureProducer>(
            header, CaptureProducer::Options{&clock_, &spill, nullptr, {}, nullptr});
        consumer = std::make_unique<CaptureConsumer>(header, &spill, nullptr);
    }
    static AppendRequest request_of(const Sent& sent) {
        AppendRequest request;
        request.disk = sent.disk;
        request.offset_bytes = sent.offset;
        request.length_bytes = static_cast<uint32_t>(sent.payload.size());
        request.payload = sent.payload;
        request.payload_crc = crc32c(sent.payload);
        return request;
    }
    Sent next_write(size_t bytes) const {
        const uint64_t number = producer_->state().next_sequence;
        return {0, number * 70'000 % (7u << 20), Bytes(bytes, static_cast<uint8_t>(number))};
    }
    Appended write(size_t bytes) {
        const Sent sent = next_write(bytes);
        const uint64_t number = producer_->state().next_sequence;
        sent_[number] = sent;
        const Appended appended = producer_->append(request_of(sent));
        EXPECT_EQ(appended.sequence.v, number);
        if (appended.dropped) dropped_.push_back(number);
        return appended;
    }

    // Runs the steps with every store trapped, then looks at the memory after each of them. What a
    // step did counts from its end on, and may be there, whole, from its beginning on.
    void killed_everywhere(const std::vector<std::function<void()>>& steps) {
        const Bytes before = to_bytes(memory_.view());
        struct Fact {
            size_t stores;
            uint64_t last, released;
            size_t dropped;
        };
        std::vector<Fact> facts;
        const auto fact = [&] {
            facts.push_back({memory_.stores().size(), producer_->state().next_sequence - 1,
                             consumer_->released().v, dropped_.size()});
        };
        memory_.stores().clear();
        fact();
        for (const auto& step : steps) {
            memory_.protect();
            step();
            memory_.unprotect();
            fact();
        }
        std::vector<uint64_t> scratch(memory_.size() / 8);
        auto* bytes = reinterpret_cast<uint8_t*>(scratch.data());
        Bytes now = before;
        for (size_t store = 0; store < memory_.stores().size(); ++store) {
            const TrappedMemory::Store& at = memory_.stores()[store];
            std::copy(at.after.begin(), at.after.end(),
                      now.begin() + static_cast<ptrdiff_t>(at.page * kPageBytes));
            std::copy(now.begin(), now.end(), bytes);
            // The step that this store is of.
            size_t step = 1;
            while (facts[step].stores <= store) ++step;
            const std::string broken =
                look({split(bytes)}, facts[step - 1].last, facts[step].last,
                     facts[step - 1].released, facts[step].released, facts[step - 1].dropped);
            ASSERT_EQ(broken, "") << "killed behind store " << store << " of "
                                  << memory_.stores().size() << ", in step " << step;
        }
        states_ += memory_.stores().size();
    }

    // Goes on from killed memory as another tap and another agent do.
    std::string look(LogMemory memory, uint64_t least, uint64_t most, uint64_t released_least,
                     uint64_t released_most, size_t dropped) {
        auto header = LogHeader::open(memory);
        if (!header) return "does not open: " + header.error().to_string();
        std::unique_ptr<CaptureProducer> producer;
        std::unique_ptr<CaptureConsumer> consumer;
        // Of the spill a copy: what was written behind the kill is there and does no harm.
        Bytes spilled(geometry().spill_bytes);
        spilled.resize(*spill_->read_at(0, spilled));
        files_.set("copy", spilled);
        const auto spill = std::move(*files_.open("copy", OpenMode::kReadWrite));
        open(*header, *spill, producer, consumer);
        const uint64_t next = producer->state().next_sequence;
        if (next - 1 < least || next - 1 > most)
            return fmt::format("{} is the last, not {} to {}", next - 1, least, most);
        const uint64_t released = consumer->released().v;
        if (released < released_least || released > released_most)
            return fmt::format("{} is released, not {} to {}", released, released_least,
                               released_most);
        for (size_t i = 0; i < dropped; ++i)
            if (!producer->todo(0).test(sent_[dropped_[i]].offset))
                return fmt::format("{} was dropped and forgotten", dropped_[i]);
        const bool in_gap = producer->state().gap == GapState::kDropping;
        const bool owes_size = header->word(LogWord::kGeometryOwed).load() != 0;
        const Sent sent{0, 0, Bytes(50, 'n')};
        const Appended appended = producer->append(request_of(sent));
        const uint64_t number = appended.sequence.v;
        // A gap that is owed comes first when there is room, and the size of the disk behind it.
        const uint64_t first = appended.dropped ? 0 : in_gap ? 2 : owes_size ? 1 : 0;
        if (number != next + first) return fmt::format("{} is the next, not {}", number, next);
        std::string broken;
        uint64_t last = released;
        const auto each = [&](const RecordView& record) {
            const uint64_t here = record.header.sequence.v;
            const bool gap = record.header.kind == RecordKind::kGap;
            if (here != last + 1 && !(gap && here > last))
                broken = fmt::format("{} follows {}", here, last);
            last = here;
            if (record.header.kind != RecordKind::kWrite) return;
            const Bytes& payload = here == number ? sent.payload : sent_[here].payload;
            if (!std::ranges::equal(record.payload, payload))
                broken = fmt::format("{} is not what was written", here);
        };
        for (;;) {
            const auto taken = take_records(*consumer, 1u << 20, each);
            if (!taken) return "cannot be read: " + taken.error().to_string();
            if (taken->v == 0) break;
        }
        if (!broken.empty()) return broken;
        // What was dropped has a number and no record.
        uint64_t due = appended.dropped ? next - 1 : number;
        while (appended.dropped && due > released &&
               std::ranges::find(dropped_, due) != dropped_.end())
            --due;
        if (last != due) return fmt::format("{} is the last to be read, not {}", last, due);
        return {};
    }
    void read_all() {
        for (;;) {
            const auto taken = take_records(*consumer_, 1u << 20, [](const RecordView&) {});
            ASSERT_TRUE(taken);
            if (taken->v == 0) return;
        }
    }

    TestFiles files_;
    StillClock clock_;
    TrappedMemory memory_;
    std::unique_ptr<File> spill_;
    LogHeader header_;
    std::unique_ptr<CaptureProducer> producer_;
    std::unique_ptr<CaptureConsumer> consumer_;
    std::map<uint64_t, Sent> sent_;
    std::vector<uint64_t> dropped_;
    uint64_t known_last_ = 0;
    size_t states_ = 0;
};

// Broken: a kill between two stores loses, repeats or reorders a record, or a number.
TEST_F(KilledLog, AppendsAndReleases) {
    killed_everywhere({[&] { write(100); }, [&] { write(1); }, [&] { write(700); },
                       [&] { read_all(); }, [&] { consumer_->release({known_last_ + 2}); },
                       [&] { write(90); }, [&] { consumer_->release({known_last_ + 3}); }});
    killed_everywhere({[&] {
        const size_t slot = producer_->begin(0, 5, 10);
        write(60);
        producer_->end(slot);
    }});
    std::cout << states_ << " states of the memory\n";
    EXPECT_GT(states_, 100u);
}

// Broken: the same where the ring is full, the spill begins and ends, records are dropped, and the
// gap for them is appended.
TEST_F(KilledLog, RingSpillAndGap) {
    while (!producer_->usage().spill_bytes && producer_->usage().ring_bytes < kMinRingBytes - 5'000)
        write(4'000);
    killed_everywhere(
        {[&] { write(3'000); }, [&] { write(1'500); }, [&] { write(200); }, [&] { write(300); }});
    EXPECT_GT(producer_->usage().spill_bytes, 0u);
    while (producer_->usage().spill_bytes < (64u << 10) - 5'000) write(4'000);
    killed_everywhere({[&] { write(4'500); }, [&] { write(2'000); }, [&] { write(2'000); }});
    ASSERT_FALSE(dropped_.empty());
    const uint64_t half = producer_->state().next_sequence / 2;
    killed_everywhere({[&] { read_all(); }, [&] { consumer_->release({half}); },
                       [&] { consumer_->release({dropped_.front() - 1}); },
                       [&] { EXPECT_TRUE(producer_->settle_gap()); }, [&] { write(100); },
                       [&] { read_all(); }, [&] { consumer_->release({dropped_.back() + 1}); }});
    std::cout << states_ << " states of the memory\n";
    EXPECT_GT(states_, 100u);
}

}  // namespace
}  // namespace farshore

#endif
