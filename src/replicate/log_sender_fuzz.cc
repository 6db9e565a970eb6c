// The agent's side of conversations with an appliance: one that answers, says anything in any
// order, repeats, closes, or is silent. The sender never crashes, sends nothing before it is
// welcomed, and releases only what the other side can have received.
#include <algorithm>

#include "record/record.h"
#include "replicate/frames.h"
#include "replicate/fuzz_time.h"
#include "replicate/log_sender.h"

using namespace farshore;

namespace {

// A log of so many records, of which the older ones go when they are released.
class Log final : public RecordSource {
  public:
    Sequence first_unstored() override { return {released_.v + 1}; }
    Status resume(Sequence next, Sequence) override {
        if (next.v > last_ + 1) return fail(Code::kInvalidArgument, "ahead of the log");
        next_ = std::max(next.v, released_.v + 1);
        return {};
    }
    Result<ByteView> next(size_t max_bytes) override {
        buffer_.clear();
        while (next_ <= last_ && buffer_.size() < std::max<size_t>(max_bytes, 1)) {
            RecordHeader header;
            header.kind = RecordKind::kWrite;
            header.sequence = {next_};
            header.length_bytes = 512;
            append_record(buffer_, header, Bytes(512, static_cast<uint8_t>(next_)));
            ++next_;
        }
        return ByteView(buffer_);
    }
    void release(Sequence received) override {
        FS_CHECK(received.v <= last_);
        released_ = std::max(released_, received);
    }
    void set_stored(Sequence) override {}
    void grow(uint64_t records) { last_ = std::min<uint64_t>(last_ + records, 1000); }

  private:
    Sequence released_;
    uint64_t next_ = 1, last_ = 5;
    Bytes buffer_;
};

struct Wire {
    Connection::Handlers handlers;
    bool open = true, said_hello = false, welcomed = false;
};

class WireConnection final : public Connection {
  public:
    explicit WireConnection(std::shared_ptr<Wire> wire) : wire_(std::move(wire)) {}
    ~WireConnection() override { wire_->open = false; }
    void start(Handlers handlers) override { wire_->handlers = std::move(handlers); }
    void send(Bytes frame) override {
        const auto view = decode_frame(frame);
        FS_CHECK(view);
        if (view->type == FrameType::kHello) {
            FS_CHECK(decode_hello(view->body));
            wire_->said_hello = true;
        }
        if (view->type == FrameType::kData) FS_CHECK(wire_->said_hello && wire_->welcomed);
    }
    size_t queued_bytes() const override { return 0; }
    void close() override { wire_->open = false; }
    const std::string& peer_name() const override { return peer_; }

  private:
    std::shared_ptr<Wire> wire_;
    const std::string peer_ = "appliance";
};

class Dials final : public Dialer {
  public:
    void dial(Executor& executor, const std::string&,
              std::function<void(Result<std::unique_ptr<Connection>>)> done) override {
        if (refuse) {
            executor.post([done] { done(fail(Code::kUnavailable, "nobody there")); });
            return;
        }
        wire = std::make_shared<Wire>();
        executor.post([done, wire = wire] { done(std::make_unique<WireConnection>(wire)); });
    }
    std::shared_ptr<Wire> wire;
    bool refuse = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size > 4096) return 0;
    ManualTime time;
    Log log;
    Dials dialer;
    ItemId item;
    PartyId instance;
    LogSender sender(time, time, dialer, "appliance:9443", item, instance, log);
    sender.start();
    time.advance(0);
    const uint8_t* const end = data + size;
    const auto byte = [&]() -> uint8_t { return data < end ? *data++ : uint8_t{0}; };
    while (data < end) {
        const std::shared_ptr<Wire> wire = dialer.wire;
        const auto say = [&](ByteView frame) {
            if (wire && wire->open && wire->handlers.on_frame) wire->handlers.on_frame(frame);
            time.advance(0);
        };
        switch (byte() % 8) {
            case 0: {
                WelcomeFrame welcome;
                welcome.next = {uint64_t{byte()}};
                welcome.stored = {uint64_t{byte()}};
                welcome.window_bytes = uint64_t{byte()} * 512;
                if (wire) wire->welcomed = true;
                say(encode(welcome));
                break;
            }
            case 1:
            case 2: {
                AckFrame ack;
                ack.received = {uint64_t{byte()}};
                ack.stored = {uint64_t{byte()}};
                ack.window_bytes = uint64_t{byte()} * 512;
                say(encode(ack));
                break;
            }
            case 3: {
                // Any frame: what it is taken for is the sender's to say.
                const size_t n = std::min<size_t>(byte() % 64, static_cast<size_t>(end - data));
                const auto view = decode_frame({data, n});
                if (wire && view && view->type == FrameType::kWelcome) wire->welcomed = true;
                say({data, n});
                data += n;
                break;
            }
            case 4:
                if (wire && wire->open && wire->handlers.on_closed) {
                    const auto closed = wire->handlers.on_closed;
                    wire->open = false;
                    closed(Error(Code::kConnectionLost, "gone"));
                }
                time.advance(0);
                break;
            case 5:
                dialer.refuse = byte() % 2 == 0;
                break;
            case 6:
                log.grow(byte() % 16);
                sender.wake();
                time.advance(0);
                break;
            default:
                time.advance(int64_t{byte()} * 50'000);
        }
    }
    sender.stop();
    time.advance(1'000'000);
    return 0;
}
