// How fast one item's log goes into an object store, beside plain puts of 8 MiB side by side into
// the same store, in turn. Prints one JSON object; bench/upload.py starts the stores.
//
//   upload_bench LOCATION SETTINGS_FILE DIRECTORY [ROUNDS] [MB] [text|noise] [PUTS]
//
// PUTS: of the item at once; 1 is what it would be without puts side by side.
//
// Of the product: process server (spool with its fsync, compression, sealing), store client, and
// the vault's replica engine that opens each segment before it registers it, over a ledger in
// memory. The agent is elsewhere: its frames are made before the clock starts, and come through a
// connection within the process. The peer puts objects that are in memory already with as many
// threads, the same store client and nothing else.
#include <fmt/core.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <random>
#include <thread>

#include "os/real.h"
#include "os/waiting.h"
#include "os/worker_pool.h"
#include "record/record.h"
#include "replica/item_replica.h"
#include "replica/memory_ledger.h"
#include "replicate/frames.h"
#include "replicate/process_server.h"
#include "store/open_store.h"

namespace farshore {
namespace {

constexpr uint32_t kRecordBytes = 64u << 10;
constexpr size_t kPlainBytes = 8u << 20;
// An appliance's workers give way to what else runs on its machine. Here that is the store itself,
// which is elsewhere otherwise.
constexpr int kWorkerNice = 0;

// The vault of one item: what the real one does of the store, without its database.
class ReplicaVault final : public VaultLink {
  public:
    ReplicaVault(ObjectStore& store, Clock& clock, Random& random, const ItemId& item)
        : key_(Bytes(32, 1)) {
        replica_ = std::move(*ItemReplica::open(store, ledger_, clock, random, item, key_));
    }
    Result<LogLease> acquire_log(const ItemId&, const std::string& appliance) override {
        return replica_->acquire_log(appliance);
    }
    Status register_segment(const SegmentRegistration& registration) override {
        FS_TRY(replica_->register_segment(registration));
        stored_ = registration.last.v;
        object_bytes_ += registration.object_bytes;
        return {};
    }
    Status mark_idle(const ItemId&, Epoch, Sequence, TimePoint) override { return {}; }
    Result<std::string> sync_agent(const std::string&, const std::string&) override { return "{}"; }
    Result<std::string> enrol(const std::string&, const std::string&) override {
        return fail(Code::kUnsupported, "a bench");
    }
    uint64_t stored() const { return stored_; }
    uint64_t object_bytes() const { return object_bytes_; }

  private:
    Secret key_;
    MemoryLedger ledger_;
    std::unique_ptr<ItemReplica> replica_;
    std::atomic<uint64_t> stored_{0}, object_bytes_{0};
};

// What the agent's end of a connection shows.
struct Line {
    Connection::Handlers handlers;
    std::atomic<uint64_t> received{0}, window{0}, welcomed{0};
    std::mutex mutex;
    std::string ended;
};

class LineConnection final : public Connection {
  public:
    explicit LineConnection(std::shared_ptr<Line> line) : line_(std::move(line)) {}
    void start(Handlers handlers) override { line_->handlers = std::move(handlers); }
    void send(Bytes frame) override {
        const auto view = decode_frame(frame);
        if (!view) return;
        if (view->type == FrameType::kWelcome) {
            if (const auto welcome = decode_welcome(view->body)) {
                line_->window = welcome->window_bytes;
                line_->welcomed = 1;
            }
        } else if (view->type == FrameType::kAck) {
            if (const auto ack = decode_ack(view->body)) {
                line_->received = ack->received.v;
                line_->window = ack->window_bytes;
            }
        } else if (view->type == FrameType::kError) {
            const std::lock_guard lock(line_->mutex);
            line_->ended = decode_error(view->body).to_string();
        }
    }
    size_t queued_bytes() const override { return 0; }
    void close() override {}
    const std::string& peer_name() const override { return name_; }

  private:
    std::shared_ptr<Line> line_;
    std::string name_ = "agent";
};

Bytes noise(size_t bytes) {
    Bytes out(bytes);
    std::mt19937_64 engine(2);
    for (size_t i = 0; i + 8 <= bytes; i += 8) store_u64(out.data() + i, engine());
    return out;
}

// Rows, half of each noise in hexadecimal: zstd -1 makes it about 2.5 times smaller.
Bytes text(size_t bytes) {
    Bytes out;
    std::mt19937_64 engine(3);
    while (out.size() < bytes) {
        const std::string row = fmt::format("order\t{:016x}{:08x}\tcustomer\tnorth\tEUR\t{}\n",
                                            engine(), engine() >> 32, engine() % 100'000);
        out.insert(out.end(), row.begin(), row.end());
    }
    out.resize(bytes);
    return out;
}

double cpu_s() {
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

struct Measured {
    double mb_per_s = 0;         // of what the machine wrote
    double object_mb_per_s = 0;  // of what went into the store
    double cpu_ns_per_byte = 0;
};

class Bench {
  public:
    Bench(ObjectStore& store, std::string directory, bool as_text, size_t puts)
        : store_(store),
          puts_(puts),
          directory_(std::move(directory)),
          data_(as_text ? text(64u << 20) : noise(64u << 20)) {}

    Result<Measured> item(int round, uint64_t bytes) {
        ItemId item;
        random_.fill(item.raw);
        std::vector<Bytes> frames;
        uint64_t sequence = 0;
        while (sequence * kRecordBytes < bytes) {
            Bytes records;
            while (records.size() + kRecordBytes + kRecordHeaderBytes <= kDataFrameBytes) {
                RecordHeader header;
                header.sequence = {++sequence};
                header.time = clock_.now();
                header.offset_bytes = sequence * kRecordBytes;
                const size_t at = sequence * kRecordBytes % data_.size();
                append_record(records, header, ByteView(data_).subspan(at, kRecordBytes));
            }
            frames.push_back(encode_data(records));
        }
        ReplicaVault vault(store_, clock_, random_, item);
        ThreadExecutor home("appliance"), spool("spool"), build("build", kWorkerNice),
            upload("register"), control("control");
        std::vector<std::unique_ptr<ThreadExecutor>> puts;
        ProcessServerExecutors executors{&home, &spool, &build, &upload, &control, nullptr, {}};
        for (size_t i = 0; i < puts_; ++i) {
            puts.push_back(std::make_unique<ThreadExecutor>("upload"));
            executors.puts.push_back(puts.back().get());
        }
        WorkerPool workers(1, kWorkerNice);
        ProcessServerOptions options;
        options.name = "bench";
        options.spool_directory = fmt::format("{}/spool-{}", directory_, round);
        options.parallel_for = [&](size_t n, const std::function<void(size_t)>& job) {
            workers.run(n, job);
        };
        auto server = std::make_unique<ProcessServer>(files_, store_, vault, clock_, random_,
                                                      executors, options);
        auto line = std::make_shared<Line>();
        Status started;
        FS_TRY(home.run_sync([&] {
            started = server->start();
            server->accept(std::make_unique<LineConnection>(line));
            HelloFrame hello;
            hello.item = item;
            line->handlers.on_frame(encode(hello));
        }));
        FS_TRY(started);
        Status done;
        if (!wait_until(30'000, 1, [&] { return line->welcomed != 0; }))
            done = fail(Code::kTimeout, "the process server did not answer");
        const int64_t begin_us = clock_.steady_us();
        const double begin_cpu_s = cpu_s();
        uint64_t sent = 0;
        const uint64_t a_frame = kRecordBytes * (sequence / frames.size());
        for (const Bytes& frame : frames) {
            if (!done) break;
            const auto room = [&] {
                return sent * a_frame < line->received.load() * kRecordBytes + line->window.load();
            };
            if (!wait_until(60'000, 1, room))
                done = fail(Code::kTimeout, "the window did not open");
            home.post([&frame, line] { line->handlers.on_frame(frame); });
            ++sent;
        }
        if (done && !wait_until(300'000, 1, [&] { return vault.stored() >= sequence; }))
            done = fail(Code::kTimeout, "the last record was not stored");
        const double seconds = static_cast<double>(clock_.steady_us() - begin_us) / 1e6;
        const double cpu = cpu_s() - begin_cpu_s;
        for (ThreadExecutor* executor : {&control, &upload, &build, &spool, &home})
            executor->stop();
        for (auto& put : puts) put->stop();
        server.reset();
        if (!done) return fail(done.error());
        const double written = static_cast<double>(sequence * kRecordBytes);
        FS_TRY(remove_all("items/" + item.to_string() + "/"));
        return Measured{written / seconds / 1e6,
                        static_cast<double>(vault.object_bytes()) / seconds / 1e6,
                        cpu * 1e9 / written};
    }

    Result<Measured> plain(int round, uint64_t bytes, size_t threads) {
        const Bytes data = noise(kPlainBytes);
        const size_t count = bytes / kPlainBytes;
        std::atomic<size_t> next{0};
        std::mutex mutex;
        Status failed;
        const std::string prefix = fmt::format("items/plain-{}/", round);
        const int64_t begin_us = clock_.steady_us();
        const double begin_cpu_s = cpu_s();
        std::vector<std::thread> running;
        for (size_t i = 0; i < threads; ++i)
            running.emplace_back([&] {
                for (size_t n = next++; n < count; n = next++) {
                    const Status put = store_.put(fmt::format("{}{:04x}", prefix, n), data);
                    const std::lock_guard lock(mutex);
                    if (!put) failed = put;
                }
            });
        for (std::thread& thread : running) thread.join();
        const double seconds = static_cast<double>(clock_.steady_us() - begin_us) / 1e6;
        const double cpu = cpu_s() - begin_cpu_s;
        FS_TRY(failed);
        const double put_bytes = static_cast<double>(count * kPlainBytes);
        FS_TRY(remove_all(prefix));
        return Measured{put_bytes / seconds / 1e6, put_bytes / seconds / 1e6,
                        cpu * 1e9 / put_bytes};
    }

  private:
    Status remove_all(const std::string& prefix) {
        while (true) {
            FS_ASSIGN(const auto page, store_.list(prefix, "", 1000));
            if (page.empty()) return {};
            for (const ObjectInfo& info : page) FS_TRY(store_.remove(info.name));
        }
    }
    ObjectStore& store_;
    const size_t puts_;
    const std::string directory_;
    const Bytes data_;
    RealClock clock_;
    RealRandom random_;
    PosixFileSystem files_;
};

Status run(const std::string& location, const std::string& settings_file,
           const std::string& directory, int rounds, uint64_t bytes, bool as_text, size_t puts) {
    PosixFileSystem files;
    RealClock clock;
    RealRandom random;
    FS_TRY(files.make_directories(directory));
    FS_ASSIGN(const StoreSettings settings,
              load_store_settings(files, location, settings_file, real_environment));
    FS_ASSIGN(auto store,
              open_retrying_store(files, clock, random, settings, true, sleep_for_retry));
    Bench bench(*store, directory, as_text, puts);
    // Nobody's: connections, the server's own first steps.
    FS_TRY(bench.plain(-1, 64u << 20, 4));
    std::string out;
    for (int round = 0; round < rounds; ++round) {
        FS_ASSIGN(const Measured plain4, bench.plain(round, bytes, 4));
        FS_ASSIGN(const Measured item, bench.item(round, bytes));
        FS_ASSIGN(const Measured plain8, bench.plain(round, bytes, 8));
        out += fmt::format(
            "{}{{\"item_mb_per_s\": {:.1f}, \"item_object_mb_per_s\": {:.1f}, "
            "\"item_cpu_ns_per_byte\": {:.2f}, \"plain4_mb_per_s\": {:.1f}, "
            "\"plain8_mb_per_s\": {:.1f}, \"plain_cpu_ns_per_byte\": {:.2f}, \"ratio\": {:.2f}}}",
            out.empty() ? "" : ", ", item.mb_per_s, item.object_mb_per_s, item.cpu_ns_per_byte,
            plain4.mb_per_s, plain8.mb_per_s, plain4.cpu_ns_per_byte,
            item.object_mb_per_s / std::max(plain4.mb_per_s, plain8.mb_per_s));
    }
    fmt::print("{{\"rounds\": [{}], \"bytes\": {}, \"data\": \"{}\"}}\n", out, bytes,
               as_text ? "text" : "noise");
    return {};
}

}  // namespace
}  // namespace farshore

int main(int argc, char** argv) {
    if (argc < 4) {
        fmt::print(stderr,
                   "usage: {} LOCATION SETTINGS_FILE DIRECTORY [ROUNDS] [MB] [text|noise] [PUTS]\n",
                   argv[0]);
        return 64;
    }
    const int rounds = argc > 4 ? std::atoi(argv[4]) : 3;
    const uint64_t mb = argc > 5 ? std::strtoull(argv[5], nullptr, 10) : 512;
    const bool as_text = argc > 6 && std::string(argv[6]) == "text";
    const size_t puts = argc > 7 ? std::strtoull(argv[7], nullptr, 10) : farshore::kUploadThreads;
    const farshore::Status status =
        farshore::run(argv[1], argv[2], argv[3], rounds, mb * 1'000'000, as_text, puts);
    if (!status) {
        fmt::print(stderr, "{}\n", status.error().to_string());
        return 1;
    }
    return 0;
}
