// Whole conversations with the process server: connections that come, say anything in any order and
// go, frames that are right and frames that are not, and time that passes. It never crashes, says
// "stored" only of what it said "received" of, and registers segments in order.
#include <algorithm>

#include "record/record.h"
#include "replicate/frames.h"
#include "replicate/fuzz_time.h"
#include "replicate/process_server.h"
#include "sim/crash_images.h"
#include "sim/rng.h"
#include "store/memory_store.h"

using namespace farshore;

namespace {

class SeededRandom final : public Random {
  public:
    void fill(MutableByteView out) override { rng_.fill(out); }

  private:
    Rng rng_{1};
};

struct Wire {
    Connection::Handlers handlers;
    bool closed = false;
};

class WireConnection final : public Connection {
  public:
    WireConnection(std::shared_ptr<Wire> wire, std::string peer)
        : wire_(std::move(wire)), peer_(std::move(peer)) {}
    ~WireConnection() override { wire_->closed = true; }
    void start(Handlers handlers) override { wire_->handlers = std::move(handlers); }
    void send(Bytes frame) override {
        const auto view = decode_frame(frame);
        FS_CHECK(view);
        if (view->type == FrameType::kAck) {
            const auto ack = decode_ack(view->body);
            FS_CHECK(ack && ack->stored <= ack->received);
        }
    }
    size_t queued_bytes() const override { return 0; }
    void close() override { wire_->closed = true; }
    const std::string& peer_name() const override { return peer_; }

  private:
    std::shared_ptr<Wire> wire_;
    std::string peer_;
};

class Vault final : public VaultLink {
  public:
    Result<LogLease> acquire_log(const ItemId&, const std::string&) override {
        LogLease lease;
        lease.epoch = {++epoch_};
        lease.next_segment = {segments_ + 1};
        lease.previous_header = previous_;
        lease.stored = stored_;
        lease.item_key = Secret(Bytes(32, 7));
        lease.agent = "a";
        return lease;
    }
    Status register_segment(const SegmentRegistration& registration) override {
        if (registration.epoch.v != epoch_) return fail(Code::kFenced, "older epoch");
        if (registration.number.v <= segments_) return {};
        FS_CHECK(registration.number.v == segments_ + 1);
        FS_CHECK(registration.last > stored_);
        segments_ = registration.number.v;
        stored_ = registration.last;
        previous_ = registration.header_hash;
        return {};
    }
    Status mark_idle(const ItemId&, Epoch, Sequence, TimePoint) override { return {}; }
    Result<std::string> sync_agent(const std::string&, const std::string& status) override {
        return status;
    }
    Result<std::string> enrol(const std::string&, const std::string&) override { return "chain"; }
    Result<CompareAnswer> compare(const std::string&, const ItemId&,
                                  const CompareQuestion& question) override {
        return CompareAnswer{CompareVerdict::kSums, std::vector<BlockSum>(question.blocks()), 0};
    }

  private:
    uint64_t epoch_ = 0, segments_ = 0;
    Sequence stored_;
    decltype(SegmentRegistration::header_hash) previous_{};
};

class Input {
  public:
    explicit Input(ByteView data) : data_(data) {}
    bool empty() const { return at_ >= data_.size(); }
    uint8_t byte() { return empty() ? uint8_t{0} : data_[at_++]; }
    ByteView bytes(size_t count) {
        count = std::min(count, data_.size() - std::min(at_, data_.size()));
        const ByteView out = data_.subspan(at_, count);
        at_ += count;
        return out;
    }

  private:
    ByteView data_;
    size_t at_ = 0;
};

Bytes records(Input& input, Sequence& next) {
    static constexpr RecordKind kKinds[] = {RecordKind::kWrite, RecordKind::kZero,
                                            RecordKind::kTime,  RecordKind::kFlush,
                                            RecordKind::kGap,   RecordKind::kResynced};
    Bytes out;
    for (unsigned count = 1 + input.byte() % 4; count > 0; --count) {
        RecordHeader header;
        header.kind = kKinds[input.byte() % std::size(kKinds)];
        header.sequence = next;
        header.time = {static_cast<int64_t>(next.v * 1'000'000)};
        const bool write = header.kind == RecordKind::kWrite;
        if (write || header.kind == RecordKind::kZero) header.offset_bytes = input.byte() * 4096;
        if (header.kind == RecordKind::kZero) header.length_bytes = 4096;
        append_record(out, header, write ? Bytes(512, input.byte()) : Bytes{});
        ++next.v;
    }
    return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size > 4096) return 0;
    CrashFiles files;
    FS_CHECK(files.make_directories("spool"));
    MemoryStore store;
    Vault vault;
    ManualTime time;
    SeededRandom random;
    ProcessServerOptions options;
    options.name = "appliance";
    options.spool_directory = "spool";
    options.spool_file_bytes = 4096;
    options.segment_payload_bytes = 2048;
    const ProcessServerExecutors executors{&time, &time, &time, &time, &time};
    std::unique_ptr<ProcessServer> server;
    const auto boot = [&] {
        server =
            std::make_unique<ProcessServer>(files, store, vault, time, random, executors, options);
        FS_CHECK(server->start());
        time.advance(0);
    };
    boot();
    Input input({data, size});
    std::vector<std::shared_ptr<Wire>> wires;
    Sequence next{1};
    while (!input.empty()) {
        const uint8_t what = input.byte();
        if (what % 16 == 0 || wires.empty()) {
            if (wires.size() >= 16) break;
            wires.push_back(std::make_shared<Wire>());
            const std::string peer = (what & 16) != 0 ? "" : (what & 32) != 0 ? "b" : "a";
            server->accept(std::make_unique<WireConnection>(wires.back(), peer));
            time.advance(0);
            continue;
        }
        Wire& wire = *wires[(what >> 4) % wires.size()];
        const auto say = [&](ByteView frame) {
            if (!wire.closed && wire.handlers.on_frame) wire.handlers.on_frame(frame);
            time.advance(0);
        };
        switch (what % 16) {
            case 1:
            case 2: {
                HelloFrame hello;
                hello.item.raw[0] = 1;
                hello.instance.raw[0] = input.byte() % 2;
                say(encode(hello));
                break;
            }
            case 3:
            case 4:
            case 5: {
                Bytes frame = {static_cast<uint8_t>(FrameType::kData)};
                const Bytes some = records(input, next);
                frame.insert(frame.end(), some.begin(), some.end());
                say(frame);
                break;
            }
            case 6: {
                // Sent again, or with a hole.
                next.v = std::max<uint64_t>(1, next.v + input.byte() % 8 - 4);
                break;
            }
            case 7: {
                CompareFrame frame;
                frame.request = input.byte();
                frame.item.raw[0] = 1;
                frame.question.length_bytes = kSumBlockBytes * (1 + input.byte() % 3);
                say(encode(frame));
                break;
            }
            case 8:
            case 9: {
                // A right kind of frame with any body.
                Bytes frame = {static_cast<uint8_t>(input.byte() % 16)};
                const ByteView body = input.bytes(input.byte());
                frame.insert(frame.end(), body.begin(), body.end());
                say(frame);
                break;
            }
            case 10:
                if (!wire.closed && wire.handlers.on_closed) {
                    const auto closed = wire.handlers.on_closed;
                    wire.closed = true;
                    closed(Error(Code::kUnavailable, "gone"));
                }
                time.advance(0);
                break;
            case 11:
                time.advance(int64_t{input.byte()} * 20'000);
                break;
            case 12:
                if (wires.size() < 16 && input.byte() % 8 == 0) {
                    server.reset();
                    wires.clear();
                    boot();
                }
                break;
            default:
                say(input.bytes(input.byte() % 64));
        }
    }
    time.advance(60'000'000);
    server.reset();
    return 0;
}
