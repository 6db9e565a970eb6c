// M11: one appliance and many machines. A child process speaks for the agents: so many disks that
// are idle (an idle mark a second each), then beside them some that write. What is measured is the
// appliance's process: TLS, spool, segments, a directory store, a vault that only counts. Prints
// one JSON object.
//
//   appliance_bench DIRECTORY [IDLE] [BUSY] [MB_PER_SECOND] [SECONDS]
//
// MB_PER_SECOND is of all busy disks together, in writes of 4 KiB that cannot be made smaller;
// SECONDS is how long each of the two halves lasts. An item has one disk.
#include <fmt/core.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "appliance/appliance.h"
#include "codec/crc32c.h"
#include "counting_vault.h"
#include "os/load_meter.h"
#include "os/process.h"
#include "os/real.h"
#include "os/tls_connection.h"
#include "os/waiting.h"
#include "record/record.h"
#include "replicate/log_sender.h"
#include "store/directory_store.h"

namespace farshore {
namespace {

constexpr uint32_t kWriteBytes = 4096;
constexpr int64_t kIdleMarkUs = 1'000'000;
constexpr int64_t kBusyTickUs = 10'000;
constexpr char kBegin = 'b', kEnd = 'e';

ItemId item_of(size_t i) {
    ItemId id;
    id.raw[0] = static_cast<uint8_t>(i >> 8);
    id.raw[1] = static_cast<uint8_t>(i);
    id.raw[2] = 1;
    return id;
}

// Records as they become due; one that the appliance asks for again is made again.
class MadeUp final : public RecordSource {
  public:
    MadeUp(Clock& clock, const Bytes& payload) : clock_(clock), payload_(payload) {}
    Sequence first_unstored() override { return {1}; }
    Status resume(Sequence next, Sequence) override {
        next_ = next.v;
        return {};
    }
    Result<ByteView> next(size_t max_bytes) override {
        out_.clear();
        while (next_ <= due_ && out_.size() + kRecordHeaderBytes + kWriteBytes <= max_bytes)
            add(next_++);
        return ByteView(out_);
    }
    void release(Sequence) override {}
    void set_stored(Sequence) override {}

    void make_due(uint64_t records, RecordKind kind) {
        due_ += records;
        kind_ = kind;
    }

  private:
    void add(uint64_t sequence) {
        RecordHeader header;
        // A log begins with the gap that says that nothing before it is known.
        header.kind = sequence == 1   ? RecordKind::kGap
                      : sequence == 2 ? RecordKind::kResynced
                                      : kind_;
        header.sequence = {sequence};
        header.time = clock_.now();
        if (header.kind == RecordKind::kWrite) {
            header.offset_bytes = sequence * 7919 * kWriteBytes % (16ull << 30);
            header.length_bytes = kWriteBytes;
            header.payload_crc = crc32c(payload_);
        }
        const size_t at = out_.size();
        out_.resize(at + kRecordHeaderBytes);
        encode_record_header(header, out_.data() + at);
        if (header.kind == RecordKind::kWrite)
            out_.insert(out_.end(), payload_.begin(), payload_.end());
    }

    Clock& clock_;
    const Bytes& payload_;
    Bytes out_;
    uint64_t next_ = 1, due_ = 2;
    RecordKind kind_ = RecordKind::kTime;
};

// ---- the agents --------------------------------------------------------------------------------

struct Agents {
    Agents(std::shared_ptr<TlsContext> tls, std::string address, size_t items, size_t busy_in)
        : network(1), dialer(network, std::move(tls)), home("agents"), busy(busy_in) {
        RealRandom random;
        payload.resize(kWriteBytes);
        random.fill(payload);
        for (size_t i = 0; i < items; ++i) {
            sources.push_back(std::make_unique<MadeUp>(clock, payload));
            senders.push_back(std::make_unique<LogSender>(home, clock, dialer, address, item_of(i),
                                                          PartyId{{1}}, *sources.back()));
        }
    }
    ~Agents() {
        (void)home.run_sync([&] { senders.clear(); });
        home.stop();
    }
    // The appliance is not to have a thousand handshakes at once.
    void connect() {
        for (const auto& sender : senders) {
            (void)home.run_sync([&] { sender->start(); });
            pause_ms(5);
        }
        home.post([this] { mark(0); });
    }
    // A tenth of them each tenth of a second, as many machines do it.
    void mark(size_t part) {
        constexpr size_t kParts = 10;
        for (size_t i = busy_now ? busy : 0; i < senders.size(); ++i)
            if (i % kParts == part) {
                sources[i]->make_due(1, RecordKind::kTime);
                senders[i]->wake();
            }
        home.post_after_us(kIdleMarkUs / kParts, [this, part] { mark((part + 1) % kParts); });
    }
    void write(double bytes_per_s) {
        busy_now = true;
        begun_us = clock.steady_us();
        rate = bytes_per_s / kWriteBytes;
        tick();
    }
    void tick() {
        const auto due =
            static_cast<uint64_t>(static_cast<double>(clock.steady_us() - begun_us) / 1e6 * rate);
        for (; written < due; ++written) {
            const size_t i = written % busy;
            sources[i]->make_due(1, RecordKind::kWrite);
            senders[i]->wake();
        }
        home.post_after_us(kBusyTickUs, [this] { tick(); });
    }

    RealClock clock;
    TlsNetwork network;
    TlsDialer dialer;
    ThreadExecutor home;
    Bytes payload;
    const size_t busy;
    std::vector<std::unique_ptr<MadeUp>> sources;
    std::vector<std::unique_ptr<LogSender>> senders;
    bool busy_now = false;
    int64_t begun_us = 0;
    double rate = 0;
    uint64_t written = 0;
};

// Until the parent says so, or is gone.
Status speak(int line, const std::string& authority, const Credentials& identity, size_t items,
             size_t busy, double bytes_per_s) {
    char address[128] = {};
    if (::read(line, address, sizeof(address) - 1) <= 0) return {};
    FS_ASSIGN(auto tls, TlsContext::make(authority, identity));
    Agents agents(tls, address, items, busy);
    agents.connect();
    char order = 0;
    while (::read(line, &order, 1) == 1 && order != kEnd)
        if (order == kBegin) agents.home.post([&] { agents.write(bytes_per_s); });
    return {};
}

// ---- the appliance -----------------------------------------------------------------------------

struct Sample {
    double seconds = 0, cpu_seconds = 0, memory_mib = 0;
};

Sample sample(Clock& clock) {
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& time) {
        return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
    };
    return {static_cast<double>(clock.steady_us()) / 1e6,
            seconds(usage.ru_utime) + seconds(usage.ru_stime),
            static_cast<double>(LoadMeter().look().process_bytes) / (1 << 20)};
}

double core_percent(const Sample& from, const Sample& to) {
    return (to.cpu_seconds - from.cpu_seconds) / (to.seconds - from.seconds) * 100;
}

Status run(const std::string& directory, size_t idle, size_t busy, double mb_per_s,
           double seconds) {
    RealClock clock;
    PosixFileSystem files;
    FS_TRY(files.make_directories(directory));
    FS_ASSIGN(auto authority, CertificateAuthority::create("bench", clock.now()));
    const auto identity = [&](const std::string& name) {
        return authority.issue_with_key({name, {"127.0.0.1"}, clock.now(), 1});
    };
    FS_ASSIGN(const Credentials appliance_identity, identity("appliance"));
    FS_ASSIGN(const Credentials agent_identity, identity("agent"));
    const size_t items = idle + busy;
    int line[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM, 0, line) != 0)
        return fail_errno(errno, "a pair of sockets");
    // Before there is any thread here.
    const pid_t child = ::fork();
    if (child < 0) return fail_errno(errno, "a child");
    if (child == 0) {
        ::close(line[0]);
        const Status spoken = speak(line[1], authority.certificate_pem(), agent_identity, items,
                                    busy, mb_per_s * 1e6);
        if (!spoken) fmt::print(stderr, "{}\n", spoken.error().to_string());
        ::_exit(spoken ? 0 : 1);
    }
    ::close(line[1]);

    FS_ASSIGN(auto tls, TlsContext::make(authority.certificate_pem(), appliance_identity));
    RealRandom random;
    FS_ASSIGN(auto store, DirectoryStore::open(files, random, {directory + "/store", true}));
    CountingVault vault(clock);
    ApplianceOptions options;
    options.name = "appliance";
    options.directory = directory + "/appliance";
    options.listen = "127.0.0.1:0";
    FS_ASSIGN(auto appliance, Appliance::start(options, tls, *store, vault));
    const Sample empty = sample(clock);
    const std::string address = appliance->address();
    if (::write(line[0], address.data(), address.size()) < 0) return fail_errno(errno, "the child");

    // All of them, and what they began with is stored.
    const auto settled = [&](const auto& is) {
        const auto status = appliance->status();
        return status.size() == items && std::ranges::all_of(status, is);
    };
    if (!wait_until(300'000, 200, [&] {
            return settled([](const IntakeStatus& s) { return s.connected && s.stored.v >= 2; });
        }))
        return fail(Code::kTimeout, "not every disk was taken within five minutes");
    pause_ms(3000);
    const Sample quiet = sample(clock);
    pause_ms(static_cast<int64_t>(seconds * 1000));
    const Sample idled = sample(clock);

    if (::write(line[0], &kBegin, 1) != 1) return fail_errno(errno, "the child");
    pause_ms(static_cast<int64_t>(seconds * 250));
    const Sample wrote = sample(clock);
    vault.forget_lags();
    pause_ms(static_cast<int64_t>(seconds * 750));
    const Sample last = sample(clock);
    uint64_t received = 0, waiting = 0;
    for (const IntakeStatus& status : appliance->status()) {
        received += status.received_bytes;
        waiting += status.queued_bytes;
    }
    (void)::write(line[0], &kEnd, 1);
    int ended = 0;
    ::waitpid(child, &ended, 0);
    ::close(line[0]);
    appliance.reset();
    fmt::print(
        "{{\"idle\": {}, \"busy\": {}, \"empty_mib\": {:.1f}, \"quiet_mib\": {:.1f}, "
        "\"idled_mib\": {:.1f}, \"wrote_mib\": {:.1f}, \"last_mib\": {:.1f}, "
        "\"kib_per_idle_disk\": {:.1f}, \"idle_core_percent\": {:.2f}, "
        "\"busy_core_percent\": {:.1f}, \"received_mb_per_s\": {:.2f}, \"waiting_bytes\": {}, "
        "\"segments\": {}, \"lag_p50_ms\": {:.0f}, \"lag_p99_ms\": {:.0f}, \"lag_most_ms\": "
        "{:.0f}}}\n",
        idle, busy, empty.memory_mib, quiet.memory_mib, idled.memory_mib, wrote.memory_mib,
        last.memory_mib, (idled.memory_mib - empty.memory_mib) * 1024 / static_cast<double>(items),
        core_percent(quiet, idled), core_percent(wrote, last),
        static_cast<double>(received) / seconds / 1e6, waiting, vault.segments(),
        static_cast<double>(vault.lag_us(0.5)) / 1e3, static_cast<double>(vault.lag_us(0.99)) / 1e3,
        static_cast<double>(vault.lag_us(1)) / 1e3);
    return {};
}

}  // namespace
}  // namespace farshore

int main(int argc, char** argv) {
    const auto number = [&](int i, double otherwise) {
        return argc > i ? std::atof(argv[i]) : otherwise;
    };
    if (argc < 2 || number(3, 1) < 1 || number(5, 1) < 1) {
        fmt::print(stderr, "usage: {} DIRECTORY [IDLE] [BUSY] [MB_PER_SECOND] [SECONDS]\n",
                   argv[0]);
        return 64;
    }
    farshore::raise_descriptor_limit();
    const farshore::Status status =
        farshore::run(argv[1], static_cast<size_t>(number(2, 1000)),
                      static_cast<size_t>(number(3, 100)), number(4, 10), number(5, 60));
    if (!status) {
        fmt::print(stderr, "{}\n", status.error().to_string());
        return 1;
    }
    return 0;
}
